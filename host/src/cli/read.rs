//! `busbar read DEVICE[/POINT]`: fresh values, for commissioning.

use busbar_contract::value::rfc3339;
use clap::Args;
use serde_json::{Value as Json, json};

use super::{
    Context, EXIT_DEVICE, Failure, Limit, Outcome,
    access::Access,
    adhoc,
    out::{Cell, Out, Tone},
};
use crate::control::protocol::{Call, Line};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The device, or one of its points
    #[arg(value_name = "DEVICE[/POINT]", required_unless_present = "driver")]
    what: Option<String>,
    #[command(flatten)]
    adhoc: adhoc::Arguments,
    #[command(flatten)]
    limit: Limit,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    if arguments.adhoc.driver().is_none() {
        let what = arguments.what.as_deref().unwrap_or_default();
        return read(context, what, arguments.limit);
    }
    let made = adhoc::Temporary::new(context, &arguments.adhoc)?;
    if !arguments.adhoc.is_test() {
        return read(&made.context, adhoc::DEVICE, arguments.limit);
    }
    Access::open(&made.context, &[adhoc::DEVICE], arguments.limit.duration())?.close()?;
    match context.out.json {
        true => context.out.document(&json!({ "online": true })),
        false => context.out.line("online"),
    }
    Ok(())
}

fn read(context: &Context, what: &str, limit: Limit) -> Outcome {
    let (device, point) = match what.split_once('/') {
        Some((device, point)) => (device, Some(point)),
        None => (what, None),
    };
    let mut access = Access::open(context, &[device], limit.duration())?;
    let call = Call::Read {
        device: device.to_owned(),
        points: point.map(str::to_owned).into_iter().collect(),
        deadline_ms: limit.millis(),
    };
    let answer = access.call(call, |_| {});
    access.close()?;
    let Line::Readings { rows } = answer? else {
        return Err(Failure::Device(format!("{device}: the answer was no reading")));
    };
    show(&context.out, &rows);
    // Scripts that commission a device must notice a point that it does not serve.
    let invalid = rows.iter().any(|row| text(row, "quality").starts_with("invalid"));
    if invalid { Err(Failure::Told(EXIT_DEVICE)) } else { Ok(()) }
}

/// A table, or the rows as they are.
pub(super) fn show(out: &Out, rows: &[Json]) {
    if out.json {
        return out.document(&json!(rows));
    }
    let cells: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    out.table(&["point", "value", "unit", "quality", "time"], &cells);
}

fn cells(row: &Json) -> Vec<Cell> {
    let quality = text(row, "quality");
    let tone = Tone::of_quality(&quality);
    vec![
        text(row, "point").into(),
        plain(row.get("value")).into(),
        text(row, "unit").into(),
        Cell(quality, tone),
        row.get("ts")
            .and_then(Json::as_i64)
            .map(|ms| rfc3339(ms.saturating_mul(1_000_000)))
            .unwrap_or_default()
            .into(),
    ]
}

/// A text field of a row; empty when it is missing.
pub(super) fn text(row: &Json, field: &str) -> String {
    row.get(field).and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// A value as people write it: texts without quotes, nothing for null.
pub(super) fn plain(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => "-".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
