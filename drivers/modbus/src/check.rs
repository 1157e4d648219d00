//! Everything that is wrong with a device, at once, and the endpoint that its `connection` names. Pure.

use busbar_driver_api::{Check, Endpoint, Problem, contract::Severity};
use busbar_modbus::serial;

use crate::config::{AddressMode, Connection, Transport};
use crate::driver::Modbus;
use crate::point;

/// The shared channel: host and port, or the serial port. Unit ids share it.
pub(crate) fn endpoint(connection: &Connection) -> Endpoint {
    match connection.transport {
        Transport::Tcp | Transport::RtuOverTcp => {
            let hosts = connection.hosts().join(",").to_ascii_lowercase();
            Endpoint {
                key: format!("tcp:{hosts}:{}", connection.port),
                exclusive: true,
                parallel: 1,
                lock_path: None,
            }
        }
        Transport::Rtu => {
            let path = serial::canonical_path(connection.path.as_deref().unwrap_or_default());
            Endpoint {
                key: format!("serial:{path}"),
                exclusive: true,
                parallel: 1,
                lock_path: Some(serial::lock_path(&path)),
            }
        }
    }
}

/// Problems beyond types and names.
pub(crate) fn check(input: &Check<'_, Modbus>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(connection) = input.connection {
        check_connection(connection, &mut problems);
    }
    let mode = input.connection.map_or(AddressMode::Auto, |connection| connection.address_mode);
    for point in &input.points {
        let mut warnings = Vec::new();
        match point::field(&point.pointer, point.spec, mode, &mut warnings) {
            Ok(field) => {
                let table = field.address.table;
                if point.writable && !table.is_writable() {
                    let pointer = format!("{}/writable", point.pointer);
                    let problem =
                        Problem::error(pointer, format!("no `writable`: table {table} is read only"), "true");
                    problems.push(problem.hint("only coil and holding can be written"));
                }
            }
            Err(wrong) => problems.extend(wrong),
        }
        problems.append(&mut warnings);
    }
    problems
}

fn check_connection(connection: &Connection, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, expected: &str, found: String, hint: &str| {
        problems.push(Problem::error(format!("/connection/{key}"), expected, found).hint(hint));
    };
    let hosts = connection.hosts();
    let serial = connection.transport == Transport::Rtu;
    if serial && connection.host.is_some() {
        wrong(
            "host",
            "no host with transport rtu",
            hosts.join(", "),
            "transport = \"rtu-over-tcp\" takes a host",
        );
    }
    if !serial && hosts.iter().all(|host| host.trim().is_empty()) {
        wrong("host", "the host name or address of the device", "nothing".into(), "");
    } else if let Some(host) = hosts.iter().find(|host| !serial && !is_host(host)) {
        wrong(
            "host",
            "a host name or address without port",
            format!("`{host}`"),
            "the port has a key of its own",
        );
    }
    if !serial && connection.port == 0 {
        wrong("port", "a port from 1 to 65535", "0".into(), "");
    }
    let (low, broadcast) = (1..=247, [0, 255]);
    let unit = connection.unit_id;
    if !low.contains(&unit) && (serial || !broadcast.contains(&unit)) {
        let expected =
            if serial { "a unit id from 1 to 247" } else { "a unit id from 1 to 247, or 0 or 255" };
        wrong("unit_id", expected, unit.to_string(), "");
    }
    for (key, value, limits) in [
        ("max_gap", connection.max_gap, 0..=123),
        ("max_registers", connection.max_registers, 1..=125),
        ("max_bits", connection.max_bits, 1..=2000),
    ] {
        if !limits.contains(&value) {
            wrong(key, &format!("{} to {}", limits.start(), limits.end()), value.to_string(), "");
        }
    }
    if serial {
        for (key, found) in connection.serial().problems() {
            problems.push(point::problem("/connection", key, &found, Severity::Error));
        }
    } else {
        check_no_serial_keys(connection, problems);
    }
}

fn check_no_serial_keys(connection: &Connection, problems: &mut Vec<Problem>) {
    let keys = [
        ("path", connection.path.is_some()),
        ("baud_rate", connection.baud_rate.is_some()),
        ("parity", connection.parity.is_some()),
        ("data_bits", connection.data_bits.is_some()),
        ("stop_bits", connection.stop_bits.is_some()),
    ];
    for (key, there) in keys {
        if there {
            let pointer = format!("/connection/{key}");
            let problem = Problem::error(pointer, format!("no `{key}` without transport rtu"), "a value");
            problems.push(problem.hint("remove it, or set transport = \"rtu\""));
        }
    }
}

/// Not a check of existence, only of form: a port or a URL in `host` is the usual mistake.
fn is_host(host: &str) -> bool {
    let v6 = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::Ipv6Addr>().is_ok();
    v6 || (!host.trim().is_empty() && !host.contains(['/', ':', ' ', '@']))
}

#[cfg(test)]
mod tests {
    use busbar_driver_api::CheckPoint;
    use busbar_driver_api::serde_json::{Value as Json, from_value, json};

    use super::*;
    use crate::config::Point;

    fn found(connection: Json, points: Json) -> Vec<(String, Severity, String)> {
        let connection: Connection = from_value(connection).unwrap();
        let points: Vec<Json> = from_value(points).unwrap();
        let specs: Vec<(bool, Point)> = points
            .into_iter()
            .map(|mut point| {
                let writable = point.as_object_mut().unwrap().remove("writable");
                (writable == Some(json!(true)), from_value(point).unwrap())
            })
            .collect();
        let input = Check {
            connection: Some(&connection),
            settings: None,
            points: specs
                .iter()
                .enumerate()
                .map(|(index, (writable, spec))| CheckPoint {
                    pointer: format!("/points/{index}"),
                    name: format!("p{index}"),
                    writable: *writable,
                    spec,
                })
                .collect(),
        };
        let text = |problem: &Problem| format!("{} | {} | {}", problem.expected, problem.found, problem.hint);
        check(&input)
            .iter()
            .map(|problem| (problem.pointer.clone(), problem.severity, text(problem)))
            .collect()
    }

    fn pointers(found: &[(String, Severity, String)]) -> Vec<&str> {
        found.iter().map(|(pointer, _, _)| pointer.as_str()).collect()
    }

    #[test]
    fn a_right_device_has_no_problem() {
        let tcp = json!({ "host": "10.0.0.5" });
        let rtu = json!({ "transport": "rtu", "path": "/dev/ttyUSB0", "parity": "E", "unit_id": 247 });
        let points = json!([
            { "address": "holding:0x2006", "type": "float32" },
            { "address": 40003 },
            { "address": "coil:3", "writable": true },
            { "address": "input:7", "bit": 15 },
            { "address": "holding:9", "type": "string", "length": 4, "order": "BADC" },
        ]);
        for connection in [tcp, rtu, json!({ "host": ["fe80::1", "[fe80::2]"], "unit_id": 255 })] {
            assert_eq!(found(connection, points.clone()), []);
        }
    }

    #[test]
    fn every_problem_at_once_where_it_stands() {
        let connection = json!({
            "host": "10.0.0.5:502", "port": 0, "unit_id": 250, "baud_rate": 9600, "path": "/dev/ttyS0", "max_gap": 200,
            "max_registers": 0, "max_bits": 3000,
        });
        let points = json!([
            { "address": "holding:70000" },
            { "address": "input:5", "type": "float32", "bit": 16, "writable": true },
            { "address": "discrete:5", "order": "CDAB", "writable": true },
            { "address": "voltage", "type": "string" },
            { "address": "holding:1", "type": "string" },
        ]);
        let found = found(connection, points);
        assert_eq!(
            pointers(&found),
            [
                "/connection/host",
                "/connection/port",
                "/connection/unit_id",
                "/connection/max_gap",
                "/connection/max_registers",
                "/connection/max_bits",
                "/connection/path",
                "/connection/baud_rate",
                "/points/0/address",
                "/points/1/bit",
                "/points/2/order",
                "/points/3/address",
                "/points/4/length",
            ],
            "{found:#?}"
        );
        assert!(found.iter().all(|(_, severity, _)| *severity == Severity::Error));
    }

    #[test]
    fn what_cannot_be_written_must_not_be_writable() {
        let found = found(json!({ "host": "a" }), json!([{ "address": "input:1", "writable": true }]));
        assert_eq!(pointers(&found), ["/points/0/writable"]);
    }

    #[test]
    fn serial_lines_have_their_own_rules() {
        let connection = json!({ "transport": "rtu", "host": "10.0.0.5", "unit_id": 0, "data_bits": 5 });
        let found = found(connection, json!([]));
        assert_eq!(
            pointers(&found),
            ["/connection/host", "/connection/unit_id", "/connection/path", "/connection/data_bits"]
        );
    }

    #[test]
    fn a_doubtful_address_is_a_warning_naming_both_readings() {
        let points = json!([{ "address": "holding:40003" }]);
        let doubt = found(json!({ "host": "a" }), points.clone());
        assert_eq!(pointers(&doubt), ["/points/0/address"]);
        let (_, severity, text) = &doubt[0];
        assert!(
            *severity == Severity::Warning && text.contains("holding:40003") && text.contains("holding:2"),
            "{text}"
        );
        assert_eq!(found(json!({ "host": "a", "address_mode": "offset" }), points), []);
    }

    #[test]
    fn an_endpoint_is_a_host_and_port_or_a_line() {
        let key = |connection: Json| endpoint(&from_value::<Connection>(connection).unwrap()).key;
        assert_eq!(key(json!({ "host": "Meter", "unit_id": 1 })), "tcp:meter:502");
        assert_eq!(key(json!({ "host": "meter", "unit_id": 2 })), "tcp:meter:502");
        assert_eq!(key(json!({ "host": "meter", "port": 503 })), "tcp:meter:503");
        assert_eq!(key(json!({ "host": ["a", "b"], "transport": "rtu-over-tcp" })), "tcp:a,b:502");
        let line = json!({ "transport": "rtu", "path": "/dev/ttyNOTHERE" });
        assert_eq!(key(line.clone()), "serial:/dev/ttyNOTHERE");
        let line = endpoint(&from_value::<Connection>(line).unwrap());
        assert_eq!(line.lock_path.as_deref(), Some("/run/lock/LCK..ttyNOTHERE"));
        assert_eq!(line.parallel, 1);
    }
}
