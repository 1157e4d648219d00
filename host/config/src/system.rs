//! The names of system points (SEMANTICS.md, section 9).

use crate::problem::did_you_mean;

/// Of the gateway.
pub(crate) const HOST: [&str; 3] = ["clock_synced", "config_version", "commands_locked"];
/// Of every sink.
pub(crate) const SINK: [&str; 5] = ["connected", "pending", "oldest_age", "overflow", "parked"];
/// Of every device.
pub(crate) const DEVICE: [&str; 3] = ["@online", "@gap", "@latency"];

/// Whether `text` names a system point; the error is advice.
pub(crate) fn check(text: &str, is_device: impl Fn(&str) -> bool, sinks: &[String]) -> Result<(), String> {
    let (owner, point) =
        text.rsplit_once('/').ok_or_else(|| "write it as @host/NAME or DEVICE/@online".to_owned())?;
    let (known, exists): (&[&str], bool) = match owner {
        "@host" => (&HOST, true),
        _ => match owner.strip_prefix("@sink/") {
            Some(sink) => (&SINK, sinks.iter().any(|name| name == sink)),
            None => (&DEVICE, is_device(owner)),
        },
    };
    if !exists {
        return Err(format!("there is no {owner:?}"));
    }
    if known.contains(&point) { Ok(()) } else { Err(did_you_mean(point, known.iter().copied())) }
}

/// Every system point as (owner, point).
pub(crate) fn all<'s>(
    devices: impl Iterator<Item = &'s str>,
    sinks: &'s [String],
) -> impl Iterator<Item = (String, &'static str)> {
    let host = HOST.iter().map(|point| ("@host".to_owned(), *point));
    let sinks = sinks.iter().flat_map(|sink| SINK.iter().map(move |point| (format!("@sink/{sink}"), *point)));
    host.chain(sinks)
        .chain(devices.flat_map(|device| DEVICE.iter().map(move |point| (device.to_owned(), *point))))
}
