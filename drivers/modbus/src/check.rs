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
