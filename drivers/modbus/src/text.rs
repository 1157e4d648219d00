//! Keys that take more than one form: an address as text or number, a host or a list of hosts. Written by hand, because
//! serde's untagged enums say only "data did not match any variant".

use std::borrow::Cow;
use std::fmt;

use busbar_driver_api::schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `address = "holding:0x2006"` or `address = 40003`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressText(pub(crate) String);

impl<'de> Deserialize<'de> for AddressText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = AddressText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"holding:0x2006\", \"coil:3\" or 40003")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AddressText, E> {
                Ok(AddressText(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<AddressText, E> {
                Ok(AddressText(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<AddressText, E> {
                Ok(AddressText(number.to_string()))
            }
        }
        input.deserialize_any(Read)
    }
}

impl JsonSchema for AddressText {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "examples": ["holding:0x2006", "input:0", "coil:3", "40003", "400123"],
        })
    }
}

/// Hosts in one key are at most this many; more are a mistake.
pub(crate) const MAX_HOSTS: usize = 16;

/// `host = "10.0.0.5"` or `host = ["10.0.0.5", "10.0.1.5"]`, tried in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hosts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Hosts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host name or address, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Hosts, E> {
                Ok(Hosts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Hosts, A::Error> {
                let mut hosts = Vec::new();
                while let Some(host) = items.next_element::<String>()? {
                    if hosts.len() >= MAX_HOSTS {
                        return Err(A::Error::invalid_length(hosts.len() + 1, &"at most 16 hosts"));
                    }
                    hosts.push(host);
                }
                Ok(Hosts(hosts))
            }
        }
        input.deserialize_any(Read)
    }
}

impl JsonSchema for Hosts {
    fn schema_name() -> Cow<'static, str> {
        "Hosts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MAX_HOSTS },
            ],
            "examples": ["10.0.0.5"],
        })
    }
}
