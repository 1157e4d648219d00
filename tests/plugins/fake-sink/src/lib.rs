//! Fake sink: records what it is given, acknowledges as told, and does what JSON delivered to a point named `script` says.
//!
//! Everything it sees becomes one JSON line: appended to the file `record` (where set), and sent to the host as a fault with
//! code `record`, so that a test can wait for it in-process and isolated alike.

#[path = "../../fake-driver/src/act.rs"]
mod act;

use std::{collections::HashMap, io::Write, path::PathBuf, time::Duration};

use busbar_driver_api::{
    Action, AnswerTo, Delivery, Error, Link, Origin, PointValue, PointsChange, Problem, Result, Secret, Sink,
    SinkCheck, SinkCommand, SinkContext, SinkTraits, Value, WriteBlock,
    contract::{binary::Ack, event::Fetch},
    export_sink, schemars,
    serde_json::{self, Value as Json, json},
    tracing,
};

use crate::act::Act;

/// What becomes of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Acking {
    /// Confirmed at once.
    #[default]
    Deliver,
    /// Never taken, reason 1.
    Reject,
    /// Asked for again, reason 2.
    Retry,
    /// Every second record rejected, the others confirmed, in one message.
    Mixed,
    /// Nothing is said.
    Withhold,
}

/// The `settings` table.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// File that gets one JSON line per thing seen.
    #[serde(default)]
    record: Option<PathBuf>,
    /// What becomes of records.
    #[serde(default)]
    ack: Acking,
    /// Never shown.
    #[serde(default)]
    token: Option<Secret>,
    /// Behaviour per operation: `open, points, deliver, next, answered, probe, close`.
    #[serde(default)]
    acts: HashMap<String, Act>,
}

/// One entry of `map`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Map {
    /// `device/point`.
    point: String,
    /// Name at the far side.
    #[serde(default)]
    key: String,
}

/// One step of a script.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Ack(Acking),
    Command { point: u32, action: Action, value: Json },
    CommandAnswers { point: u32, value: Json },
    Fetch { points: Vec<u32>, block: Option<String> },
    WriteBlock { block: String, values: Vec<(u32, Value)> },
    State { up: bool, reason: String },
    Fault { code: String, text: String },
    Metric { name: String, value: f64 },
    Put { key: String, value: String },
    Get(String),
    Delete(String),
    Act { operation: String, act: Act },
}

/// The connection.
struct Fake {
    ack: Acking,
    acts: HashMap<String, Act>,
    deliveries: u64,
}

impl Fake {
    async fn act(&self, operation: &str) -> Result<()> {
        self.acts.get(operation).copied().unwrap_or_default().play(operation).await
    }

    async fn acknowledge(&self, ctx: &SinkContext, delivery: &Delivery) -> Result<()> {
        let count = u32::try_from(delivery.len()).map_err(|error| Error::bug(error.to_string()))?;
        let (lane, first) = (delivery.lane, delivery.first);
        match self.ack {
            Acking::Deliver => ctx.delivered(lane, first, count).await,
            Acking::Reject => ctx.rejected(lane, first, count, 1).await,
            Acking::Retry => ctx.retry(lane, first, count, 2).await,
            Acking::Mixed => {
                ctx.ack(lane, delivery.records().map(|record| mixed(record.number)).collect()).await
            }
            Acking::Withhold => Ok(()),
        }
    }

    async fn perform(&mut self, link: &Link<Self>, step: Step) -> Result<()> {
        let ctx = &link.ctx;
        match step {
            Step::Ack(ack) => self.ack = ack,
            Step::Act { operation, act } => drop(self.acts.insert(operation, act)),
            Step::Command { point, action, value } => {
                let number = ctx.command(command(point, action, value)).await?;
                record(link, json!({ "seen": "command", "request": number })).await?;
            }
            Step::CommandAnswers { point, value } => {
                let mut answers = ctx.command_answers(command(point, Action::Operate, value)).await?;
                let answer = answers.next().await?;
                record(link, json!({ "seen": "answers", "first": answer })).await?;
            }
            Step::Fetch { points, block } => {
                let fetched = ctx.fetch(Fetch { points, block, deadline_ms: DEADLINE_MS }).await;
                let seen = match fetched {
                    Ok(fetched) => {
                        json!({ "seen": "fetched", "ts": fetched.ts_ns, "values": fetched.values })
                    }
                    Err(error) => json!({ "seen": "fetched", "error": error.to_string() }),
                };
                record(link, seen).await?;
            }
            Step::WriteBlock { block, values } => {
                let values = values.into_iter().map(PointValue::from).collect();
                let write = WriteBlock { block, values, origin: origin(), deadline_ms: DEADLINE_MS };
                let answer = ctx.write_block(write).await?;
                record(link, json!({ "seen": "written", "answer": answer })).await?;
            }
            Step::State { up, reason } => ctx.state(up, reason).await?,
            Step::Fault { code, text } => ctx.fault(code, text).await?,
            Step::Metric { name, value } => ctx.metric(vec![(name, value)]).await?,
            Step::Put { key, value } => ctx.state_put(&key, value.as_bytes()).await?,
            Step::Delete(key) => ctx.state_delete(&key).await?,
            Step::Get(key) => {
                let value =
                    ctx.state_get(&key).await?.map(|value| String::from_utf8_lossy(&value).into_owned());
                record(link, json!({ "seen": "state", "key": key, "value": value })).await?;
            }
        }
        Ok(())
    }
}

/// Time limit of fetches and block writes.
const DEADLINE_MS: u64 = 5000;

fn mixed(number: u64) -> Ack {
    use busbar_driver_api::Verdict;
    let odd = number % 2 == 1;
    let verdict = if odd { Verdict::Rejected } else { Verdict::Delivered };
    Ack { first: number, count: 1, verdict, reason: u16::from(odd) }
}

fn origin() -> Origin {
    Origin { client: "fake-client".to_owned(), ..Origin::default() }
}

fn command(point: u32, action: Action, value: Json) -> SinkCommand {
    SinkCommand {
        point,
        action,
        value,
        origin: origin(),
        select_required: false,
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: busbar_driver_api::time::now(),
        expires_ns: 0,
        refused: None,
    }
}

/// One line for the test.
async fn record(link: &Link<Fake>, line: Json) -> Result<()> {
    if let Some(path) = &link.settings.record {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{line}")?;
    }
    link.ctx.fault("record", line.to_string()).await
}

impl Sink for Fake {
    const NAME: &'static str = "fake";
    const DESCRIPTION: &'static str = "Recorder for tests";
    const REASONS: &'static [&'static str] = &["refused by script", "busy by script"];
    type Settings = Settings;
    type Map = Map;

    fn traits() -> SinkTraits {
        SinkTraits { history: true, durable: true, ..SinkTraits::default() }
    }

    fn check(input: &SinkCheck<'_, Self>) -> Vec<Problem> {
        let unknown = input.map.iter().filter(|(_, entry)| !input.routed.contains(&entry.point));
        unknown
            .map(|(pointer, entry)| {
                Problem::error(format!("{pointer}/point"), "a routed point", entry.point.clone())
            })
            .collect()
    }

    async fn open(link: &Link<Self>) -> Result<Self> {
        let fake = Self { ack: link.settings.ack, acts: link.settings.acts.clone(), deliveries: 0 };
        tracing::info!(token = ?link.settings.token, points = link.points.len(), "connecting");
        fake.act("open").await?;
        let mut names: Vec<String> =
            link.points.iter().map(|point| format!("{}/{}", point.device, point.name)).collect();
        names.sort();
        record(link, json!({ "seen": "open", "sink": link.name, "host": link.host, "points": names }))
            .await?;
        Ok(fake)
    }

    async fn points(&mut self, link: &Link<Self>, change: &PointsChange) -> Result<()> {
        self.act("points").await?;
        let keys: Vec<&str> = change
            .changed
            .iter()
            .filter_map(|number| link.points.get(*number))
            .flat_map(|point| point.map.iter().map(|entry| entry.key.as_str()))
            .collect();
        let line = json!({
            "seen": "points", "replaced": change.replaced, "changed": change.changed, "removed": change.removed,
            "keys": keys, "count": link.points.len(),
        });
        record(link, line).await
    }

    async fn deliver(&mut self, link: &Link<Self>, delivery: &Delivery) -> Result<()> {
        self.act("deliver").await?;
        self.deliveries += 1;
        let records: Vec<Json> = delivery
            .records()
            .map(|record| {
                json!({
                    "number": record.number,
                    "point": link.points.get(record.point()).map(|point| format!("{}/{}", point.device, point.name)),
                    "value": record.value().map_or(Json::Null, |value| value.to_json()),
                    "quality": record.quality(),
                    "ts": record.time(),
                    "value_ts": record.value_time(),
                    "cause": record.cause() as u8,
                })
            })
            .collect();
        let line = json!({
            "seen": "delivery", "lane": delivery.lane, "first": delivery.first, "snapshot": delivery.is_snapshot(),
            "replay": delivery.is_replay(), "block": delivery.is_block(), "resync": delivery.is_resync(),
            "records": records,
        });
        record(link, line).await?;
        self.acknowledge(&link.ctx, delivery).await?;
        let scripts = delivery
            .records()
            .filter(|record| link.points.get(record.point()).is_some_and(|point| point.name == "script"));
        let mut steps = Vec::new();
        for script in scripts {
            if let Value::Json(step) = script.value()? {
                steps.push(serde_json::from_value(step).map_err(|error| Error::refused(error.to_string()))?);
            }
        }
        for step in steps {
            self.perform(link, step).await?;
        }
        Ok(())
    }

    async fn next(&mut self, _: &Link<Self>) -> Result<()> {
        match self.acts.get("next") {
            None | Some(Act::Ok) => std::future::pending().await,
            Some(act) => act.play("next").await,
        }
    }

    async fn answered(&mut self, link: &Link<Self>, request: u64, answer: &AnswerTo) -> Result<()> {
        self.act("answered").await?;
        record(link, json!({ "seen": "answered", "request": request, "answer": answer })).await
    }

    async fn probe(&mut self, _: &Link<Self>) -> Result<()> {
        self.act("probe").await
    }

    async fn close(self, link: &Link<Self>) {
        // How it ends is all the same to a caller that wants it gone.
        let _ = self.act("close").await;
        let _ = busbar_driver_api::time::timeout(
            Duration::from_secs(1),
            record(link, json!({ "seen": "close" })),
        )
        .await;
    }
}

export_sink!(Fake);
