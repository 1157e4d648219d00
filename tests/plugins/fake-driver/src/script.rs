//! What a test may make the driver do by writing JSON to a point with address `script`.

use busbar_driver_api::{
    Cause, Context, Error, Flags, Quality, Reading, Result, Update, Value, schemars, serde_json, tracing,
};
use serde_json::Value as Json;

/// One step; exactly one key.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    /// Publishes through the context.
    Publish(Samples),
    /// Hands over through `Driver::next`.
    Next(Samples),
    /// `Driver::next` fails with this text.
    NextError(String),
    /// `Driver::next` panics.
    NextPanic,
    /// Publishes so many samples of a point from a task of its own, values 0, 1, 2, ..., `batch` in one update.
    Flood {
        point: u32,
        count: u32,
        #[serde(default = "single")]
        batch: u32,
    },
    /// The device's session went up or down.
    State { up: bool, reason: String },
    /// The whole endpoint went down.
    EndpointDown(String),
    /// Samples were lost.
    Gap { reason: String, points: Vec<u32> },
    /// Something for the operator.
    Fault { code: String, text: String },
    /// What is known of a point.
    Metadata { point: u32, facts: Json },
    /// A counter.
    Metric { name: String, value: f64 },
    /// Durable state, hex-free text.
    Put { key: String, value: String },
    /// Durable state; the answer's text is the value.
    Get(String),
    /// Durable state.
    Delete(String),
    /// Logs at this level.
    Log { level: String, text: String },
    /// Time of the plugin's wall clock as the answer's text.
    Now,
    /// Blocks the runtime for so many milliseconds.
    Block(u64),
}

/// Samples as a test writes them.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Samples {
    /// `[point, value]`, JSON numbers as float64, texts as text, bool as bool.
    pub(crate) values: Vec<(u32, Json)>,
    /// `data_change`, `quality_change`, `data_update`, `integrity`, `history`.
    #[serde(default)]
    pub(crate) cause: String,
    #[serde(default)]
    pub(crate) source_time: Option<i64>,
    #[serde(default)]
    pub(crate) transient: bool,
    #[serde(default)]
    pub(crate) token: u32,
    #[serde(default)]
    pub(crate) block: bool,
}

impl Samples {
    pub(crate) fn update(&self, ctx: &Context) -> Update {
        let cause = match self.cause.as_str() {
            "quality_change" => Cause::QualityChange,
            "data_update" => Cause::DataUpdate,
            "integrity" => Cause::Integrity,
            "history" => Cause::History,
            _ => Cause::DataChange,
        };
        let mut update = ctx.update(cause).token(self.token);
        if self.block {
            update = update.block();
        }
        for (point, value) in &self.values {
            let mut reading = Reading::new(plain(value)).quality(Quality::GOOD);
            reading.source_time = self.source_time;
            if self.transient {
                reading = reading.marks(Flags::TRANSIENT);
            }
            update.push(*point, reading);
        }
        update
    }
}

fn plain(value: &Json) -> Value {
    match value {
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(value) => Value::Float64(value.as_f64().unwrap_or_default()),
        Json::String(text) => Value::Text(text.clone()),
        other => Value::Json(other.clone()),
    }
}

/// What `Driver::next` gives next.
#[derive(Debug)]
pub(crate) enum Coming {
    Update(Update),
    Error(String),
    Panic,
}

/// Performs a step; the text is the answer's.
pub(crate) async fn perform(
    step: Step,
    ctx: &Context,
    coming: &mut std::collections::VecDeque<Coming>,
) -> Result<String> {
    match step {
        Step::Publish(samples) => ctx.publish(samples.update(ctx)).await?,
        Step::Next(samples) => coming.push_back(Coming::Update(samples.update(ctx))),
        Step::NextError(text) => coming.push_back(Coming::Error(text)),
        Step::NextPanic => coming.push_back(Coming::Panic),
        Step::Flood { point, count, batch } => flood(ctx, point, count, batch.max(1)),
        Step::State { up, reason } => ctx.state(up, reason).await?,
        Step::EndpointDown(reason) => ctx.endpoint().state(false, reason).await?,
        Step::Gap { reason, points } => ctx.gap(reason, points).await?,
        Step::Fault { code, text } => ctx.fault(code, text).await?,
        Step::Metadata { point, facts } => ctx.metadata(vec![(point, facts)]).await?,
        Step::Metric { name, value } => ctx.metric(vec![(name, value)]).await?,
        Step::Put { key, value } => ctx.state_put(&key, value.as_bytes()).await?,
        Step::Get(key) => {
            let value = ctx.state_get(&key).await?;
            return Ok(
                value.map_or_else(|| "none".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
            );
        }
        Step::Delete(key) => ctx.state_delete(&key).await?,
        Step::Log { level, text } => log(&level, &text),
        Step::Now => return Ok(busbar_driver_api::time::now().to_string()),
        Step::Block(ms) => block(ms),
    }
    Ok(String::new())
}

const fn single() -> u32 {
    1
}

fn flood(ctx: &Context, point: u32, count: u32, batch: u32) {
    let inner = ctx.clone();
    ctx.spawn(async move {
        let mut next = 0;
        while next < count {
            let mut update = inner.update(Cause::DataChange);
            let end = next.saturating_add(batch).min(count);
            for value in next..end {
                update.push(point, Reading::new(f64::from(value)).at(1));
            }
            next = end;
            if inner.publish(update).await.is_err() {
                return;
            }
        }
    });
}

fn log(level: &str, text: &str) {
    match level {
        "error" => tracing::error!(answer = 42_i64, ratio = 0.5, exact = true, word = "w", "{text}"),
        "warn" => tracing::warn!("{text}"),
        "info" => tracing::info!("{text}"),
        "debug" => tracing::debug!("{text}"),
        _ => tracing::trace!("{text}"),
    }
}

/// Holds the only worker thread, as a careless driver does.
fn block(ms: u64) {
    tracing::info!(ms, "blocking");
    let until = std::time::Instant::now() + std::time::Duration::from_millis(ms);
    while std::time::Instant::now() < until {
        std::thread::yield_now();
    }
}

/// Reads a script.
pub(crate) fn read(value: &Value) -> Result<Step> {
    let json = match value {
        Value::Json(json) => json.clone(),
        Value::Text(text) => serde_json::from_str(text).map_err(|error| Error::refused(error.to_string()))?,
        other => return Err(Error::refused(format!("script: expected JSON, found {other:?}"))),
    };
    serde_json::from_value(json).map_err(|error| Error::refused(format!("script: {error}")))
}
