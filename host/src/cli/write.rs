//! `busbar write DEVICE/POINT VALUE`: one command, with the same rules as every other command.

use std::io::{IsTerminal, Write, stdin};

use busbar_contract::{Action, Answer, Reason, Stage};
use clap::Args;
use serde_json::{Value as Json, json};

use super::{Context, Failure, Limit, Outcome, access::Access, out::printable, read::plain};
use crate::control::protocol::{Call, Line};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The point
    #[arg(value_name = "DEVICE/POINT")]
    point: String,
    /// In engineering units: true, 25.5, on, "text"
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    limit: Limit,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let point = arguments.point.as_str();
    let Some((device, name)) = point.split_once('/') else {
        return Err(Failure::Config(format!("expected DEVICE/POINT, found {point}")));
    };
    let asks = !arguments.yes;
    if asks && !stdin().is_terminal() {
        return Err(Failure::Config("nobody can be asked without a terminal: add --yes to write".into()));
    }
    let mut access = Access::open(context, &[device], arguments.limit.duration())?;
    let value = parse(&arguments.value);
    let agreed = !asks || ask(&mut access, device, name, &value, arguments.limit);
    let outcome = if agreed {
        write(context, &mut access, point, value, arguments.limit)
    } else {
        Err(Failure::Config("not written".into()))
    };
    access.close()?;
    outcome
}

/// Numbers, `true`, `false` and quoted texts as JSON reads them; anything else is a text.
pub(super) fn parse(value: &str) -> Json {
    serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()))
}

fn ask(access: &mut Access, device: &str, point: &str, value: &Json, limit: Limit) -> bool {
    let call =
        Call::Read { device: device.to_owned(), points: vec![point.to_owned()], deadline_ms: limit.millis() };
    let now = match access.call(call, |_| {}) {
        Ok(Line::Readings { rows }) => plain(rows.first().and_then(|row| row.get("value"))),
        _ => "not known".to_owned(),
    };
    let mut err = std::io::stderr().lock();
    let question = format!("Write {} to {device}/{point} (now {now})? [y/N] ", plain(Some(value)));
    let _ = write!(err, "{}", printable(&question)).and_then(|()| err.flush());
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn write(context: &Context, access: &mut Access, point: &str, value: Json, limit: Limit) -> Outcome {
    let call = Call::Command {
        point: point.to_owned(),
        action: Action::Operate,
        value: value.clone(),
        deadline_ms: limit.millis(),
    };
    let Line::Stage { answer } = access.call(call, |_| {})? else {
        return Err(Failure::Device(format!("{point}: the answer was no result of a command")));
    };
    if context.out.json {
        let mut row = json!({ "point": point, "value": value });
        if let (Some(row), Ok(Json::Object(answer))) = (row.as_object_mut(), serde_json::to_value(&answer)) {
            row.extend(answer);
        }
        context.out.document(&row);
    } else if answer.stage == Stage::Finished {
        context.out.line(&format!("{point} = {}: accepted by the device", plain(Some(&value))));
    }
    judge(point, &answer, context.out.json)
}

fn judge(point: &str, answer: &Answer, told: bool) -> Outcome {
    let reason = answer.reason.map_or("", Reason::as_str);
    let detail = if answer.text.is_empty() { String::new() } else { format!(": {}", answer.text) };
    let failure = match answer.stage {
        Stage::Selected | Stage::Accepted | Stage::Finished => return Ok(()),
        Stage::Refused if is_rule(answer.reason) => {
            Failure::Config(format!("{point}: refused ({reason}){detail}"))
        }
        Stage::Refused => Failure::Device(format!("{point}: refused ({reason}){detail}")),
        Stage::Unknown => Failure::Device(format!(
            "{point}: nobody knows whether it was executed ({reason}){detail}; read the point before writing again"
        )),
    };
    Err(if told { Failure::Told(failure.code()) } else { failure })
}

/// Refused by a rule of this gateway, not by the device.
const fn is_rule(reason: Option<Reason>) -> bool {
    matches!(
        reason,
        Some(
            Reason::NotWritable
                | Reason::OutOfRange
                | Reason::LockedOut
                | Reason::LocalMode
                | Reason::NotSelected
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(parse("25.5"), json!(25.5));
        assert_eq!(parse("-3"), json!(-3));
        assert_eq!(parse("true"), json!(true));
        assert_eq!(parse("on"), json!("on"));
        assert_eq!(parse("\"5\""), json!("5"));
    }

    #[test]
    fn exit_codes_tell_a_rule_from_a_device() {
        let code = |answer: &Answer| judge("m/p", answer, false).map_err(|failure| failure.code());
        assert_eq!(code(&Answer::stage(Stage::Finished)), Ok(()));
        assert_eq!(code(&Answer::refused(Reason::OutOfRange, "")), Err(1));
        assert_eq!(code(&Answer::refused(Reason::DeviceRefused, "illegal data value")), Err(2));
        assert_eq!(code(&Answer::unknown(Reason::Timeout, "")), Err(2));
        let text = judge("m/p", &Answer::refused(Reason::LockedOut, "by op"), false);
        assert_eq!(text, Err(Failure::Config("m/p: refused (locked_out): by op".into())));
    }
}
