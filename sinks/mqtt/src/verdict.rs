//! What became of records: confirmations and refusals of the broker, told to the host in ranges.

use std::time::Duration;

use busbar_driver_api::contract::binary::Ack;
use busbar_driver_api::{Verdict, time};
use busbar_mqtt::{Event, PublishError};
use busbar_sink_kit::verdicts;

/// Records that one message stands for; a message of the sink's own has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: u64,
    pub count: u32,
}

impl Span {
    /// Of a message that stands for no record.
    pub(crate) const OWN: Self = Self { first: 0, count: 0 };
}

/// Texts of the reasons for a rejected record; [`Reject`] are their numbers.
pub(crate) const REASONS: &[&str] = &[
    "message too large for the broker or for max_packet",
    "the broker does not allow this client to publish on the topic",
    "the broker refused the message",
    "the point is no longer routed to this sink",
    "the broker is over its quota",
];

/// Numbers of [`REASONS`].
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(crate) enum Reject {
    TooLarge = 1,
    NotAuthorized = 2,
    Refused = 3,
    NotRouted = 4,
    Quota = 5,
}

/// What an event of the session says about records.
pub(crate) fn verdict(event: &Event<Span>) -> Option<(Span, Verdict, u16)> {
    Some(match event {
        Event::Delivered(span) => (*span, Verdict::Delivered, 0),
        Event::Refused(span, error) => match error {
            PublishError::QuotaExceeded => (*span, Verdict::Retry, Reject::Quota as u16),
            PublishError::NotAuthorized => (*span, Verdict::Rejected, Reject::NotAuthorized as u16),
            PublishError::TopicNameInvalid | PublishError::Other => {
                (*span, Verdict::Rejected, Reject::Refused as u16)
            }
        },
        Event::Received { .. } => return None,
    })
}

/// Verdicts to be told to the host, neighbours merged.
///
/// Telling costs a message and wakes the host, and acknowledgements of a burst arrive in many small pieces. So verdicts
/// are kept until nothing of the burst is open any more, until they are many, or for [`HOLD`].
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub acks: Vec<Ack>,
    /// Records in `acks`.
    records: u32,
    /// When the oldest must be told, monotonic.
    pub due: Option<Duration>,
}

/// Longest time a verdict is kept.
const HOLD: Duration = Duration::from_millis(5);
/// So many records are told at once.
const MANY: u32 = 1000;
/// So many separate ranges are told at once.
const RANGES: usize = 64;

/// The lane of a sink that names none.
pub(crate) const LANE: u32 = 0;

impl Verdicts {
    pub(crate) fn add(&mut self, span: Span, verdict: Verdict, reason: u16) {
        if span.count == 0 {
            return;
        }
        self.records = self.records.saturating_add(span.count);
        self.due.get_or_insert_with(|| time::monotonic() + HOLD);
        verdicts::push(&mut self.acks, Ack { first: span.first, count: span.count, verdict, reason });
    }

    /// They should be told now; `open`: messages that are not confirmed yet.
    pub(crate) fn ripe(&self, open: usize) -> bool {
        self.due.is_some_and(|due| {
            open == 0 || self.records >= MANY || self.acks.len() >= RANGES || time::monotonic() >= due
        })
    }

    /// They are told.
    pub(crate) fn clear(&mut self) {
        self.acks.clear();
        self.records = 0;
        self.due = None;
    }
}
