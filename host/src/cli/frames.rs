//! `busbar frames DEVICE`: what goes over the wire, while the gateway runs. Watching changes nothing but the driver's
//! switch for frames, which is put back at the end. Without a running gateway the device is connected by this command.

use std::time::Duration;

use busbar_contract::value::rfc3339;
use clap::Args;
use serde_json::json;

use super::{Context, Failure, Outcome, access::Access, operate::Switch, out::printable, prepare};
use crate::control::{
    client::Client,
    protocol::{Call, Line},
    service::MAX_DEADLINE,
};

/// Hex digits of one byte.
const DIGITS: usize = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The device
    device: String,
    /// How long: 30s, 5m; at most 10m
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = span)]
    span: Duration,
    /// Write them into the gateway's log from now on, or no longer; shows nothing
    #[arg(long, value_name = "STATE", conflicts_with = "span")]
    log: Option<Switch>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let device = arguments.device.as_str();
    if let Some(state) = arguments.log {
        return log(context, device, state == Switch::On);
    }
    let mut access = Access::open(context, &[device], Duration::ZERO)?;
    let for_ms = u64::try_from(arguments.span.as_millis()).unwrap_or(u64::MAX);
    let mut seen = 0;
    let out = context.out;
    let answer = access.call(Call::Frames { device: device.to_owned(), for_ms }, |line| {
        if let Line::Frame { ts, direction, frame, hint, lost } = line {
            seen += 1;
            if out.json {
                out.line(
                    &json!({ "ts": ts, "device": device, "direction": direction, "frame": frame,
                    "hint": hint, "lost": lost })
                    .to_string(),
                );
            } else {
                out.line(&shown(*ts, direction, frame, hint, *lost));
            }
        }
    });
    access.close()?;
    answer?;
    if seen == 0 {
        let text = format!(
            "{device}: no frame within {} s; `busbar read {device}` says how it is",
            arguments.span.as_secs()
        );
        return Err(Failure::Device(text));
    }
    Ok(())
}

/// Without a gateway there is no log to write into.
fn log(context: &Context, device: &str, on: bool) -> Outcome {
    let data_dir = prepare::first_look(context).host.data_dir;
    let broken = |error: std::io::Error| {
        Failure::Device(format!("{}: no gateway answers on its control socket: {error}", data_dir.display()))
    };
    let mut client = Client::connect(&data_dir).map_err(broken)?;
    client.send(&Call::FrameLog { device: device.to_owned(), on }).map_err(broken)?;
    match client.receive().map_err(broken)? {
        Line::Failed { text, usage: true } => return Err(Failure::Config(text)),
        Line::Failed { text, usage: false } => return Err(Failure::Device(text)),
        _ => {}
    }
    let done = format!("frames of {device} are {} the log", if on { "written into" } else { "kept out of" });
    if context.out.json {
        context.out.document(&json!({ "done": done }));
    } else {
        context.out.line(&done);
    }
    Ok(())
}

/// `2026-01-01T00:00:00.123Z TX   6  01 03 00 00 00 02  unit 1: read 2 of holding from 0`
fn shown(ts: i64, direction: &str, frame: &str, hint: &str, lost: u64) -> String {
    let time = rfc3339(ts.saturating_mul(1_000_000));
    let digits: Vec<char> = frame.chars().collect();
    let bytes: Vec<String> = digits.chunks(DIGITS).map(|byte| byte.iter().collect()).collect();
    let (direction, hex) = (direction.to_uppercase(), bytes.join(" "));
    let mut line = format!("{time} {direction:2} {:4}  {hex}", bytes.len());
    if !hint.is_empty() {
        line = format!("{line}  {hint}");
    }
    if lost > 0 {
        line = format!("({lost} frames before this one were not shown)\n{line}");
    }
    // The hint is made of what a device said.
    line.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// `30s`, `5m`, or a number of seconds.
fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        _ => 0,
    };
    let span =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs);
    span.filter(|span| !span.is_zero() && *span <= MAX_DEADLINE)
        .ok_or_else(|| format!("expected a time from 1s to {}m, found {text}", MAX_DEADLINE.as_secs() / 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_bounded() {
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(span("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "0s", "11m", "x", "5h", "-1s", "99999999999999999999s"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_frame_is_one_line() {
        assert_eq!(
            shown(1_767_225_600_123, "tx", "0103000a", "unit 1", 0),
            "2026-01-01T00:00:00.123Z TX    4  01 03 00 0a  unit 1"
        );
        assert!(shown(0, "rx", "00", "\u{1b}[2J", 3).starts_with("(3 frames before"));
        assert!(!shown(0, "rx", "00", "\u{1b}[2J", 0).contains('\u{1b}'));
    }
}
