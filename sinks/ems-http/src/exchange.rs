//! One batch out, one answer in, with a time limit.

use std::sync::Arc;
use std::time::Duration;

use busbar_driver_api::{Secret, SinkContext, time, tracing};
use busbar_ems_http::key::batch_id;
use busbar_ems_http::{Endpoint, Error, Lane, Post, Reply};

use crate::memory::Memory;
use crate::setup::Setup;

/// Key of the sink's durable state: the number behind the last sample of the batch that was begun last.
const STATE_KEY: &str = "batch-end";
/// Longest wait for the host to store it. A host that is stopping does not answer.
const PLAN_LIMIT: Duration = Duration::from_secs(5);

/// A batch, ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    pub id: String,
    pub body: Vec<u8>,
    /// Number behind its last sample.
    pub end: u64,
    pub records: usize,
}

impl Batch {
    /// The next batch of the lane, or the one that was begun; `None` when nothing is waiting.
    pub(crate) fn begin(lane: &mut Lane, setup: &Setup) -> Option<Self> {
        let records = lane.begin();
        let last = records.last()?;
        let end = last.first + u64::from(last.count);
        let id = batch_id(&setup.style.gateway, &setup.sink, records);
        let body = setup.style.body.batch(&setup.style.gateway, &id, records);
        Some(Self { id, body, end, records: records.len() })
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The EMS answered.
    Reply(Reply, Option<Secret>),
    /// It did not.
    Failed(Error),
    /// It did not within this time.
    TimedOut(Duration),
    /// There is no token that could be sent.
    NoToken(String),
}

/// Sends a batch and waits for the answer, at most `limit`.
pub(crate) async fn exchange(setup: &Setup, to: &Endpoint, batch: &Batch, limit: Duration) -> Outcome {
    let token = match setup.token.read().await {
        Ok(token) => token,
        Err(text) => return Outcome::NoToken(text),
    };
    tracing::debug!(ems = %to, batch = batch.id, records = batch.records, bytes = batch.body.len(), "a batch goes out");
    let post = Post { body: &batch.body, batch_id: &batch.id, token: token.as_ref().map(Secret::expose) };
    match time::timeout(limit, setup.client.post(to, &post)).await {
        Ok(Ok(reply)) => Outcome::Reply(reply, token),
        Ok(Err(error)) => Outcome::Failed(error),
        Err(time::Elapsed(limit)) => Outcome::TimedOut(limit),
    }
}

/// Has the host remember where this batch ends, so that after a restart the same records make the same batch and have the
/// same key. A host that cannot store it stops nothing: then a batch whose answer was lost may get another key.
pub(crate) async fn plan(ctx: &SinkContext, memory: &Memory, end: u64) {
    if memory.lock().planned == Some(end) {
        return;
    }
    let stored = match time::timeout(PLAN_LIMIT, ctx.state_put(STATE_KEY, &end.to_le_bytes())).await {
        Ok(stored) => stored.map_err(|error| error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    };
    let mut memory = memory.lock();
    match stored {
        Ok(()) => memory.planned = Some(end),
        Err(error) if !std::mem::replace(&mut memory.not_stored, true) => tracing::warn!(
            %error,
            "the end of a batch could not be stored: after a restart a batch without answer may be sent under another key"
        ),
        Err(_) => {}
    }
}

/// Learns where the batch ended that an earlier process began last.
pub(crate) async fn recall(ctx: &SinkContext, memory: &Memory) {
    if memory.lock().recalled {
        return;
    }
    match ctx.state_get(STATE_KEY).await {
        Ok(value) => {
            let end = value.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
            let mut memory = memory.lock();
            memory.recalled = true;
            memory.planned = end;
            memory.begun = end;
        }
        Err(error) => tracing::debug!(%error, "the end of the last batch is not known"),
    }
}

/// An attempt in a task of its own: `next` is dropped whenever the host has something for the sink. `planned`: the end of
/// the batch is stored first.
pub(crate) fn launch(
    ctx: &SinkContext,
    setup: &Arc<Setup>,
    memory: &Memory,
    at: usize,
    batch: Batch,
    planned: bool,
) -> busbar_driver_api::tokio::sync::oneshot::Receiver<Outcome> {
    let (sender, receiver) = busbar_driver_api::tokio::sync::oneshot::channel();
    let (setup, memory, host) = (Arc::clone(setup), memory.clone(), ctx.clone());
    ctx.spawn(async move {
        if planned {
            plan(&host, &memory, batch.end).await;
        }
        let outcome = match setup.endpoints.get(at) {
            Some(to) => exchange(&setup, to, &batch, setup.timeout).await,
            None => Outcome::Failed(Error::Configuration("expected at least one url, found none".into())),
        };
        // Fails only when the session is over.
        let _ = sender.send(outcome);
    });
    receiver
}
