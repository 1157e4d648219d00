//! `busbar queue`: the ledger of every sink, and the records that a far side refused.

use clap::Args;
use serde_json::Value as Json;

use super::{
    Context, Failure, Outcome,
    operate::{confirm, say},
    out::{Cell, Tone},
    prepare,
    read::plain,
};
use crate::control::{
    client::Client,
    protocol::{Call, Line},
};

/// Parked records asked for at once.
const PAGE: usize = 1_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this sink
    #[arg(value_name = "SINK", required_if_eq_any([("parked", "true"), ("retry_parked", "true"), ("discard_parked", "true")]))]
    sink: Option<String>,
    /// List the records that the far side refused
    #[arg(long)]
    parked: bool,
    /// Try all refused records again
    #[arg(long, conflicts_with = "parked")]
    retry_parked: bool,
    /// Give up all refused records; they are counted as discarded
    #[arg(long, conflicts_with_all = ["parked", "retry_parked"])]
    discard_parked: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    match &arguments.sink {
        Some(sink) if arguments.parked => parked(context, sink),
        Some(sink) if arguments.retry_parked || arguments.discard_parked => {
            decide(context, sink, arguments.retry_parked, arguments.yes)
        }
        sink => ledgers(context, sink.as_deref()),
    }
}

fn ledgers(context: &Context, sink: Option<&str>) -> Outcome {
    let mut rows = ask(&mut connect(context)?, &Call::Sinks {})?;
    if let Some(name) = sink {
        rows.retain(|row| row["name"] == name);
        if rows.is_empty() {
            return Err(Failure::Config(format!("expected the name of a configured sink, found {name}")));
        }
    }
    if context.out.json {
        context.out.document(&Json::Array(rows));
        return Ok(());
    }
    let head = [
        "sink",
        "far side",
        "queue",
        "accepted",
        "delivered",
        "pending",
        "parked",
        "dropped",
        "bytes",
        "oldest",
        "reason",
    ];
    let rows: Vec<Vec<Cell>> = rows.iter().map(ledger).collect();
    context.out.table(&head, &rows);
    Ok(())
}

fn ledger(row: &Json) -> Vec<Cell> {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| row[key].as_u64().unwrap_or_default();
    let up = row["connected"] == true;
    let on_disk = row.pointer("/queue_settings/on_disk") == Some(&Json::Bool(true));
    let trouble = text("queue");
    let reasons: Vec<String> =
        [trouble.clone(), text("reason")].into_iter().filter(|text| !text.is_empty()).collect();
    let queue = match (on_disk, trouble.is_empty()) {
        (false, _) => Cell::from("memory"),
        (true, true) => Cell::from("disk"),
        (true, false) => Cell("disk!".to_owned(), Tone::Bad),
    };
    let count = |key: &str, tone: Tone| {
        let (total, text) = by_reason(&row[key]);
        Cell(text, if total > 0 { tone } else { Tone::Plain })
    };
    let age = row["oldest_age_seconds"].as_f64().unwrap_or_default();
    vec![
        text("name").into(),
        if up { Cell("up".into(), Tone::Good) } else { Cell("down".into(), Tone::Bad) },
        queue,
        number("accepted").to_string().into(),
        number("delivered").to_string().into(),
        number("pending").to_string().into(),
        count("parked", Tone::Doubtful),
        count("dropped", Tone::Bad),
        number("pending_bytes").to_string().into(),
        if number("pending") == 0 { String::new() } else { span(age) }.into(),
        reasons.join("; ").into(),
    ]
}

/// `12 (overflow 10, expired 2)`.
fn by_reason(counts: &Json) -> (u64, String) {
    let counts: Vec<(&String, u64)> = counts
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(reason, count)| count.as_u64().filter(|count| *count > 0).map(|count| (reason, count)))
        .collect();
    let total = counts.iter().map(|(_, count)| count).sum();
    let listed: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    (total, if listed.is_empty() { "0".to_owned() } else { format!("{total} ({})", listed.join(", ")) })
}

/// Seconds as people say them.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7_200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.1}h", s / 3_600.0),
        s => format!("{:.1}d", s / 86_400.0),
    }
}

fn parked(context: &Context, sink: &str) -> Outcome {
    let mut client = connect(context)?;
    let (mut rows, mut from): (Vec<Json>, u64) = (Vec::new(), 0);
    loop {
        let call = Call::Parked { sink: sink.to_owned(), from, limit: PAGE };
        let page = ask(&mut client, &call)?;
        let last = page.last().and_then(|row| row["number"].as_u64());
        let end = page.len() < PAGE;
        rows.extend(page);
        match last {
            Some(last) if !end => from = last.saturating_add(1),
            _ => break,
        }
    }
    if context.out.json {
        context.out.document(&Json::Array(rows));
        return Ok(());
    }
    if rows.is_empty() {
        context.out.line(&format!("nothing is parked for {sink}"));
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = rows.iter().map(record).collect();
    context.out.table(&["number", "point", "value", "unit", "quality", "age", "reason", "detail"], &rows);
    Ok(())
}

fn record(row: &Json) -> Vec<Cell> {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let quality = text("quality");
    vec![
        row["number"].as_u64().unwrap_or_default().to_string().into(),
        text("point").into(),
        plain(row.get("value")).into(),
        text("unit").into(),
        Cell(quality.clone(), Tone::of_quality(&quality)),
        span(row["age_seconds"].as_f64().unwrap_or_default()).into(),
        text("reason").into(),
        text("detail").into(),
    ]
}

fn decide(context: &Context, sink: &str, retry: bool, yes: bool) -> Outcome {
    let question = if retry {
        format!("Try everything again that {sink} refused")
    } else {
        format!("Give up everything that {sink} refused")
    };
    confirm(yes, &question)?;
    let rows = ask(&mut connect(context)?, &Call::DecideParked { sink: sink.to_owned(), retry })?;
    let count = rows.first().and_then(|row| row["records"].as_u64()).unwrap_or_default();
    let done = if retry { "are tried again" } else { "are discarded" };
    say(context, &format!("{count} records {done}"));
    Ok(())
}

fn connect(context: &Context) -> Result<Client, Failure> {
    let data_dir = prepare::first_look(context).host.data_dir;
    Client::connect(&data_dir).map_err(|error| {
        Failure::Device(format!("{}: no gateway answers on its control socket: {error}", data_dir.display()))
    })
}

fn ask(client: &mut Client, call: &Call) -> Result<Vec<Json>, Failure> {
    let broken = |error: std::io::Error| Failure::Device(format!("the running host did not answer: {error}"));
    client.send(call).map_err(broken)?;
    match client.receive().map_err(broken)? {
        Line::Rows { rows } => Ok(rows),
        Line::Failed { text, usage: true } => Err(Failure::Config(text)),
        Line::Failed { text, usage: false } => Err(Failure::Device(text)),
        _ => Err(Failure::Device("the running host gave another answer: is it of another version?".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_ledger_reads_like_a_sentence() {
        let row = json!({
            "name": "ems", "connected": false, "reason": "refused", "queue": "", "queue_settings": { "on_disk": true },
            "accepted": 100, "delivered": 80, "pending": 5, "parked": { "bad value": 3 },
            "dropped": { "overflow": 10, "expired": 2, "superseded": 0 }, "pending_bytes": 720, "oldest_age_seconds": 4000.0,
        });
        let cells: Vec<String> = ledger(&row).into_iter().map(|cell| cell.0).collect();
        assert_eq!(
            cells,
            [
                "ems",
                "down",
                "disk",
                "100",
                "80",
                "5",
                "3 (bad value 3)",
                "12 (overflow 10, expired 2)",
                "720",
                "67m",
                "refused"
            ]
        );
    }

    #[test]
    fn spans_are_short() {
        let spans: Vec<String> = [0.4, 119.0, 600.0, 7_200.0, 200_000.0].map(span).into();
        assert_eq!(spans, ["0s", "119s", "10m", "2.0h", "2.3d"]);
    }
}
