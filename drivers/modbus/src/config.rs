//! What a device's `connection` and its points may say. Names, defaults and limits appear in the JSON Schema that the
//! plugin exports; rules between keys are in [`crate::check`].

use std::time::Duration;

use busbar_driver_api::schemars::{self, JsonSchema, Schema, json_schema};
use busbar_modbus::{self as modbus, Carrier, Limits, SerialSettings};
use serde::Deserialize;

use crate::text::{AddressText, Hosts};

/// How frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Modbus TCP.
    #[default]
    Tcp,
    /// RTU on a serial port.
    Rtu,
    /// RTU frames in a TCP connection, as transparent serial servers do.
    RtuOverTcp,
}

impl Transport {
    pub(crate) const fn carrier(self) -> Carrier {
        match self {
            Self::Tcp => Carrier::Tcp,
            Self::Rtu => Carrier::Serial,
            Self::RtuOverTcp => Carrier::RtuOverTcp,
        }
    }
}

/// Parity of a serial line. A derived schema would not name the aliases, and what it does not name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(transform = name_all_parities)]
pub(crate) enum Parity {
    /// No parity.
    #[default]
    #[serde(rename = "N", alias = "none", alias = "n")]
    None,
    /// Even.
    #[serde(rename = "E", alias = "even", alias = "e")]
    Even,
    /// Odd.
    #[serde(rename = "O", alias = "odd", alias = "o")]
    Odd,
}

/// Every word that [`Parity`] is read from.
const PARITIES: [&str; 9] = ["N", "E", "O", "none", "even", "odd", "n", "e", "o"];

fn name_all_parities(schema: &mut Schema) {
    *schema = json_schema!({ "type": "string", "enum": PARITIES });
}

/// Which host of a list is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Prefer {
    /// The first of the list.
    #[default]
    First,
    /// The one that worked last.
    LastGood,
}

/// How decimal numbers in addresses are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AddressMode {
    /// By their form; a doubtful one is a warning.
    #[default]
    Auto,
    /// As entity numbers, counted from 1.
    Entity,
    /// As offsets, counted from 0.
    Offset,
}

impl AddressMode {
    pub(crate) const fn of_protocol(self) -> modbus::AddressMode {
        match self {
            Self::Auto => modbus::AddressMode::Auto,
            Self::Entity => modbus::AddressMode::Entity,
            Self::Offset => modbus::AddressMode::Offset,
        }
    }
}

/// The connection of a Modbus device.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connection {
    /// tcp, rtu, or rtu-over-tcp.
    #[serde(default)]
    pub(crate) transport: Transport,
    /// Host name or address, or a list tried in order. tcp and rtu-over-tcp only.
    #[serde(default)]
    pub(crate) host: Option<Hosts>,
    /// TCP port.
    #[serde(default = "port")]
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
    /// Which host of a list is tried first.
    #[serde(default)]
    pub(crate) prefer: Prefer,
    /// Unit id (slave address): 1 to 247; on tcp also 0 and 255.
    #[serde(default = "unit_id")]
    pub(crate) unit_id: u8,
    /// Serial port, such as /dev/ttyUSB0. rtu only, as are the next four keys.
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// Bits per second; default 9600.
    #[serde(default)]
    pub(crate) baud_rate: Option<u32>,
    /// N (default), E or O; also none, even, odd.
    #[serde(default)]
    pub(crate) parity: Option<Parity>,
    /// 7 or 8 (default).
    #[serde(default)]
    #[schemars(range(min = 7, max = 8))]
    pub(crate) data_bits: Option<u8>,
    /// 1 (default) or 2.
    #[serde(default)]
    #[schemars(range(min = 1, max = 2))]
    pub(crate) stop_bits: Option<u8>,
    /// How decimal numbers in addresses are read where both readings are possible.
    #[serde(default)]
    pub(crate) address_mode: AddressMode,
    /// Unasked registers that may be read between two points to save a request (bits: eight times as many). 0 reads
    /// only what is configured.
    #[serde(default = "max_gap")]
    #[schemars(range(max = 123))]
    pub(crate) max_gap: u16,
    /// Registers in one request, for devices that take fewer than 125.
    #[serde(default = "max_registers")]
    #[schemars(range(min = 1, max = 125))]
    pub(crate) max_registers: u16,
    /// Bits in one request, for devices that take fewer than 2000.
    #[serde(default = "max_bits")]
    #[schemars(range(min = 1, max = 2000))]
    pub(crate) max_bits: u16,
    /// Write single values with functions 15 and 16 too, for devices without 5 and 6.
    #[serde(default)]
    pub(crate) write_multiple: bool,
}

const fn port() -> u16 {
    502
}

const fn unit_id() -> u8 {
    1
}

const fn max_gap() -> u16 {
    Limits::DEFAULT_GAP_REGISTERS
}

const fn max_registers() -> u16 {
    modbus::value::MAX_READ_REGISTERS
}

const fn max_bits() -> u16 {
    modbus::value::MAX_READ_BITS
}

impl Connection {
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.host.clone().unwrap_or_default().0
    }

    pub(crate) fn serial(&self) -> SerialSettings {
        SerialSettings {
            path: self.path.clone().unwrap_or_default(),
            baud_rate: self.baud_rate.unwrap_or(9600),
            parity: match self.parity.unwrap_or_default() {
                Parity::None => modbus::Parity::None,
                Parity::Even => modbus::Parity::Even,
                Parity::Odd => modbus::Parity::Odd,
            },
            data_bits: self.data_bits.unwrap_or(8),
            stop_bits: self.stop_bits.unwrap_or(1),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_registers: self.max_registers,
            max_bits: self.max_bits,
            gap_registers: self.max_gap,
            gap_bits: self.max_gap.saturating_mul(8),
        }
    }

    /// Silence before a frame.
    pub(crate) fn frame_gap(&self) -> Duration {
        if self.transport == Transport::Rtu { self.serial().frame_gap() } else { Duration::ZERO }
    }
}

/// Type of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Type {
    /// A coil, a discrete input, or bit `bit` of a register.
    Bool,
    /// One register, signed.
    Int16,
    /// One register, unsigned.
    Uint16,
    /// Two registers, signed.
    Int32,
    /// Two registers, unsigned.
    Uint32,
    /// Four registers, signed.
    Int64,
    /// Four registers, unsigned.
    Uint64,
    /// Two registers, IEEE 754.
    Float32,
    /// Four registers, IEEE 754.
    Float64,
    /// Text in `length` registers.
    String,
}

impl Type {
    pub(crate) const fn of_protocol(self) -> modbus::Type {
        match self {
            Self::Bool => modbus::Type::Bool,
            Self::Int16 => modbus::Type::Int16,
            Self::Uint16 => modbus::Type::UInt16,
            Self::Int32 => modbus::Type::Int32,
            Self::Uint32 => modbus::Type::UInt32,
            Self::Int64 => modbus::Type::Int64,
            Self::Uint64 => modbus::Type::UInt64,
            Self::Float32 => modbus::Type::Float32,
            Self::Float64 => modbus::Type::Float64,
            Self::String => modbus::Type::Text,
        }
    }
}

/// Order of the bytes of a value in its registers, A the most significant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Order {
    /// Most significant word first, high byte first.
    Abcd,
    /// Words swapped.
    Cdab,
    /// Bytes swapped within each register.
    Badc,
    /// Both swapped.
    Dcba,
}

impl Order {
    pub(crate) const fn of_protocol(self) -> modbus::Order {
        match self {
            Self::Abcd => modbus::Order::Abcd,
            Self::Cdab => modbus::Order::Cdab,
            Self::Badc => modbus::Order::Badc,
            Self::Dcba => modbus::Order::Dcba,
        }
    }
}

/// The keys of a point that belong to this driver.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    /// coil:N, discrete:N, input:N, holding:N with offset N from 0 (decimal or 0x), or an entity number (40003).
    pub(crate) address: AddressText,
    /// Type; default bool for bits, uint16 for registers.
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<Type>,
    /// Word and byte order; default ABCD.
    #[serde(default)]
    pub(crate) order: Option<Order>,
    /// Bit of a register, 0 (least significant) to 15.
    #[serde(default)]
    #[schemars(range(max = 15))]
    pub(crate) bit: Option<u8>,
    /// Registers of a string.
    #[serde(default)]
    #[schemars(range(min = 1, max = 125))]
    pub(crate) length: Option<u16>,
}

#[cfg(test)]
mod tests {
    use busbar_driver_api::contract::describe::HOST_POINT_KEYS;
    use busbar_driver_api::schemars::schema_for;
    use busbar_driver_api::serde_json::{Value as Json, from_value, json};

    use super::*;

    const SAMPLE: &str = include_str!("../sample.toml");

    #[test]
    fn the_readme_shows_the_sample() {
        let readme = include_str!("../README.md");
        assert!(readme.contains(&format!("```toml\n{SAMPLE}```\n")), "README.md and sample.toml differ");
    }

    #[test]
    fn the_sample_is_valid() {
        let sample: Json = toml::from_str(SAMPLE).unwrap();
        let devices = sample["device"].as_array().unwrap();
        assert_eq!(devices.len(), 4);
        for device in devices {
            let connection: Connection = from_value(device["connection"].clone()).unwrap();
            for point in device["points"].as_array().unwrap() {
                let mut keys = point.as_object().unwrap().clone();
                keys.retain(|key, _| !HOST_POINT_KEYS.contains(&key.as_str()));
                let point: Point = from_value(Json::Object(keys)).unwrap();
                crate::point::checked_field(&point, connection.address_mode).unwrap();
            }
        }
    }

    #[test]
    fn hosts_and_addresses_take_their_forms_and_explain_themselves() {
        let hosts = |host: Json| from_value::<Connection>(json!({ "host": host })).map(|read| read.hosts());
        assert_eq!(hosts(json!("a")).unwrap(), ["a"]);
        assert_eq!(hosts(json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert!(
            hosts(json!(5)).unwrap_err().to_string().contains("a host name or address, or a list of them")
        );
        assert!(hosts(json!(vec!["a"; 17])).is_err());
        let address =
            |address: Json| from_value::<Point>(json!({ "address": address })).map(|point| point.address.0);
        assert_eq!(address(json!(40003)).unwrap(), "40003");
        assert!(address(json!(true)).unwrap_err().to_string().contains("holding:0x2006"));
    }

    #[test]
    fn the_schema_names_every_parity_that_is_read() {
        let schema = schema_for!(Connection).to_value();
        assert_eq!(schema["$defs"]["Parity"]["enum"], json!(PARITIES));
        let read = |word: &str| {
            from_value::<Connection>(json!({ "transport": "rtu", "path": "/dev/ttyS0", "parity": word }))
                .map(|read| read.serial().parity)
        };
        for word in PARITIES {
            let expected = match word.as_bytes()[0].to_ascii_uppercase() {
                b'E' => modbus::Parity::Even,
                b'O' => modbus::Parity::Odd,
                _ => modbus::Parity::None,
            };
            assert_eq!(read(word).unwrap(), expected, "{word}");
        }
        assert!(read("Even").is_err());
    }

    #[test]
    fn every_key_is_described_in_the_schema() {
        for schema in [schema_for!(Connection).to_value(), schema_for!(Point).to_value()] {
            assert_eq!(schema["additionalProperties"], json!(false));
            for (key, property) in schema["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{key}");
            }
        }
        let point = schema_for!(Point).to_value();
        assert_eq!(point["required"], json!(["address"]));
    }
}
