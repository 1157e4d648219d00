//! Plugins as the configuration sees them, without any plugin: schemas in the shapes that derives produce, and a CHECK
//! that knows a few things schemas cannot say.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test binaries, none of which uses everything"
)]

use std::collections::BTreeMap;

use busbar_config::{Options, PluginInfo};
use busbar_contract::{
    CheckInput, Describe, Endpoint, Problem,
    describe::{PluginKind, Protocol, Schemas, SinkTraits},
};
use serde_json::{Value as Json, json};

/// A driver `modbus`, the sinks `mqtt` and `iec104`.
pub struct Plugins {
    all: Vec<Describe>,
    /// CHECK cannot be asked.
    pub silent: bool,
}

fn describe(kind: PluginKind, name: &str, schemas: Schemas, sink: SinkTraits) -> Describe {
    Describe {
        name: name.into(),
        kind,
        version: "1.0.0".into(),
        description: String::new(),
        protocol: Protocol { major: 1, minor: 0 },
        needs: 0,
        sdk: "1.0.0".into(),
        rustc: String::new(),
        build: String::new(),
        unwind: true,
        ops: Vec::new(),
        schemas,
        reasons: Vec::new(),
        sink,
    }
}

fn over_tcp(transport: &str) -> Json {
    json!({
        "type": "object",
        "properties": {
            "transport": { "type": "string", "const": transport },
            "host": { "$ref": "#/$defs/Hosts", "description": "Address or name of the device." },
            "port": { "type": "integer", "format": "uint16", "minimum": 1, "maximum": 65535, "default": 502 },
            "unit_id": { "type": "integer", "minimum": 0, "maximum": 255, "description": "Unit id." }
        },
        "required": ["transport", "host", "unit_id"],
        "additionalProperties": false
    })
}

fn modbus() -> Schemas {
    Schemas {
        connection: json!({
            "title": "Connection",
            "oneOf": [
                over_tcp("tcp"),
                over_tcp("rtu-over-tcp"),
                {
                    "type": "object",
                    "properties": {
                        "transport": { "type": "string", "const": "rtu" },
                        "path": { "type": "string" },
                        "baud_rate": { "type": "integer", "minimum": 300 },
                        "parity": { "oneOf": [
                            { "type": "string", "const": "none", "description": "No parity." },
                            { "type": "string", "const": "even", "description": "Even parity." },
                        ] },
                        "unit_id": { "type": "integer", "minimum": 0, "maximum": 255 }
                    },
                    "required": ["transport", "path", "unit_id"],
                    "additionalProperties": false
                }
            ],
            "$defs": { "Hosts": { "anyOf": [
                { "type": "string" }, { "type": "array", "items": { "type": "string" } }
            ] } }
        }),
        point: json!({
            "type": "object",
            "properties": {
                "address": {
                    "type": "string",
                    "description": "Table and offset, or entity number.",
                    "pattern": "^((coil|discrete|input|holding):(0x[0-9A-Fa-f]+|[0-9]+)|[0-9]{5,6})$",
                    "examples": ["holding:0x2006", "30001"]
                },
                "type": { "anyOf": [{ "$ref": "#/$defs/Type" }, { "type": "null" }] },
                "order": { "type": "string", "enum": ["ABCD", "CDAB", "BADC", "DCBA"] },
                "bit": { "type": ["integer", "null"], "minimum": 0, "maximum": 15 },
                "length": { "type": "integer", "minimum": 1 }
            },
            "required": ["address"],
            "$defs": { "Type": { "type": "string", "enum":
                ["bool", "int16", "uint16", "int32", "uint32", "float32", "float64", "string"] } }
        }),
        ..Schemas::default()
    }
}

fn mqtt() -> Schemas {
    Schemas {
        settings: json!({
            "type": "object",
            "properties": {
                "url": { "type": "string", "pattern": "^mqtts?://", "examples": ["mqtt://127.0.0.1:1883"] },
                "format": { "enum": ["json", "thingsboard-device", "thingsboard-gateway", "ems"], "default": "json" },
                "topic": { "type": "string" },
                "qos": { "type": "integer", "minimum": 0, "maximum": 2 },
                "retain": { "type": "boolean" },
                "username": { "type": "string" },
                "password": { "type": "string", "writeOnly": true },
                "pin": { "type": "string", "writeOnly": true, "maxLength": 4 },
                "commands": { "type": "boolean" },
                "tls": { "type": "object", "properties": {
                    "ca": { "anyOf": [{ "$ref": "#/$defs/File" }, { "type": "null" }] },
                    "cert": { "$ref": "#/$defs/File" },
                    "key": { "$ref": "#/$defs/File" }
                }, "additionalProperties": false }
            },
            "required": ["url"],
            "additionalProperties": false,
            "$defs": { "File": { "type": "string", "format": "path" } }
        }),
        map: json!({
            "type": "object",
            "properties": {
                "point": { "type": "string" }, "key": { "type": "string" }, "device": { "type": "string" },
                "token": { "type": "string", "writeOnly": true }, "name": { "type": "string" }
            },
            "additionalProperties": false
        }),
        ..Schemas::default()
    }
}

fn iec104() -> Schemas {
    Schemas {
        settings: json!({
            "type": "object",
            "properties": {
                "listen": { "type": "string" },
                "common_address": { "type": "integer", "minimum": 1, "maximum": 65534 },
                "masters": { "type": "array" }
            },
            "required": ["listen"],
            "additionalProperties": false
        }),
        map: json!({
            "type": "object",
            "properties": {
                "point": { "type": "string" },
                "ioa": { "type": "integer", "minimum": 1, "maximum": 16777215 },
                "type": { "type": "string" },
                "group": { "type": "integer" },
                "common_address": { "type": "integer" }
            },
            "required": ["point", "ioa"],
            "additionalProperties": false,
            "x-busbar-unique": ["common_address", "ioa"]
        }),
        ..Schemas::default()
    }
}

impl Plugins {
    pub fn new() -> Self {
        let needs_map = SinkTraits { send: "changes".into(), needs_map: true, ..SinkTraits::default() };
        let all = vec![
            describe(PluginKind::Driver, "modbus", modbus(), SinkTraits::default()),
            describe(PluginKind::Driver, "twin", modbus(), SinkTraits::default()),
            describe(PluginKind::Sink, "twin", mqtt(), SinkTraits::default()),
            describe(PluginKind::Sink, "mqtt", mqtt(), SinkTraits { durable: true, ..SinkTraits::default() }),
            describe(PluginKind::Sink, "iec104", iec104(), needs_map),
        ];
        Self { all, silent: false }
    }
}

impl PluginInfo for Plugins {
    fn describe(&self, kind: PluginKind, name: &str) -> Option<&Describe> {
        self.all.iter().find(|plugin| plugin.kind == kind && plugin.name == name)
    }

    fn check(&self, _kind: PluginKind, _name: &str, input: &CheckInput) -> Result<Vec<Problem>, String> {
        if self.silent {
            return Err("the probe did not answer within 5s".into());
        }
        let mut problems = Vec::new();
        for (at, point) in input.points.iter().enumerate() {
            let address = point["address"].as_str().unwrap_or_default();
            if address == "holding:70000" {
                problems.push(
                    Problem::error(format!("/points/{at}/address"), "an offset from 0 to 65535", "70000")
                        .hint("offsets are 0-based"),
                );
            }
            if address.starts_with("input:") && point["writable"] == json!(true) {
                problems.push(Problem::error(
                    format!("/points/{at}"),
                    "a coil or holding register to write",
                    address,
                ));
            }
            if !address.contains(':') && address.starts_with('3') && point["type"] == json!("bool") {
                problems.push(Problem::warning(format!("/points/{at}/type"), "a register type", "bool"));
            }
        }
        if input.connection["unit_id"] == json!(0) {
            problems.push(Problem::warning("/connection/unit_id", "a unit id from 1", "0 (broadcast)"));
        }
        if input.settings["retain"] == json!(true) && input.settings["qos"] == json!(0) {
            problems.push(Problem::error("/settings/qos", "qos 1 or 2 with retain", "0"));
        }
        for (at, entry) in input.map.iter().enumerate() {
            if entry["type"] == json!("M_XX") {
                problems.push(Problem::error(
                    format!("/map/{at}/type"),
                    "a type such as \"M_SP_TB_1\"",
                    "\"M_XX\"",
                ));
            }
        }
        Ok(problems)
    }

    fn endpoint(&self, _driver: &str, connection: &Json) -> Option<Endpoint> {
        let key = match connection["transport"].as_str() {
            Some("rtu") => format!("serial:{}", connection["path"].as_str().unwrap_or_default()),
            _ => format!("tcp:{}:{}", connection["host"], connection["port"].as_i64().unwrap_or(502)),
        };
        Some(Endpoint { key, exclusive: false, parallel: 1, lock_path: None })
    }

    fn names(&self, kind: PluginKind) -> Vec<String> {
        self.all.iter().filter(|plugin| plugin.kind == kind).map(|plugin| plugin.name.clone()).collect()
    }
}

/// An environment with one variable.
pub fn options() -> Options {
    let env =
        BTreeMap::from([("SITE".to_owned(), "site-9".to_owned()), ("WORD".to_owned(), "hunter2".to_owned())]);
    Options { strict: false, env: Some(env) }
}
