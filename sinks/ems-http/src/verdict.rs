//! What an answer says -> verdicts, logs and alarms for the host.

use std::time::Duration;

use busbar_driver_api::contract::binary::Ack;
use busbar_driver_api::{Secret, Verdict, time, tracing};
use busbar_ems_http::answer::classify;
use busbar_ems_http::{Answer, End, Endpoint, Lane, Settled, Why, backoff};
use busbar_sink_kit::verdicts;

use crate::exchange::Outcome;
use crate::memory::{Memory, Remembered};
use crate::setup::Setup;

/// Texts of the reasons for a rejected record; [`Reject`] are their numbers.
pub(crate) const REASONS: &[&str] = &[
    "the EMS refused the record; its words are in the log",
    "the EMS says that the record is invalid; its words are in the log",
    "the record alone is too large for the EMS",
    "the point is no longer routed to this sink",
];

/// Numbers of [`REASONS`].
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(crate) enum Reject {
    Refused = 1,
    Invalid = 2,
    TooLarge = 3,
    NotRouted = 4,
}

/// So many records refused one after another are an alarm: then it is the body that is wrong, not the data.
const ALARM: u32 = 10;
/// So many refused records are logged each; then every power of two.
const LOGGED: u64 = 20;

/// Verdicts to be told to the host, neighbours merged.
#[derive(Debug, Default)]
pub(crate) struct Acks(pub Vec<Ack>);

impl Acks {
    pub(crate) fn add(&mut self, first: u64, count: u32, verdict: Verdict, reason: u16) {
        verdicts::push(&mut self.0, Ack { first, count, verdict, reason });
    }

    pub(crate) fn delivered(&mut self, first: u64, count: u32) {
        self.add(first, count, Verdict::Delivered, 0);
    }
}

/// What follows from an attempt.
#[derive(Debug)]
pub(crate) enum Next {
    /// The EMS decided about the batch.
    GoOn,
    /// The EMS asks to wait this long.
    Wait(Duration),
    /// There is no connection to speak of.
    Down(Down),
}

/// Why an attempt failed.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    /// For the operator.
    pub text: String,
    /// The token is refused or missing: another pause, an alarm.
    pub token: Option<Option<Secret>>,
    /// Nobody answered within this time.
    pub timed_out: Option<Duration>,
}

impl Down {
    fn plain(text: String) -> Self {
        Self { text, token: None, timed_out: None }
    }
}

/// An alarm for the operator: code and text.
pub(crate) type Alarm = (&'static str, String);

/// Takes the outcome of an attempt: settles what is decided.
pub(crate) fn take(
    outcome: Outcome,
    to: &Endpoint,
    setup: &Setup,
    lane: &mut Lane,
    memory: &Memory,
    acks: &mut Acks,
) -> (Next, Option<Alarm>) {
    memory.lock().counters.requests += 1;
    let (reply, token) = match outcome {
        Outcome::Reply(reply, token) => (reply, token),
        Outcome::Failed(error) => return (Next::Down(Down::plain(error.to_string())), None),
        Outcome::NoToken(text) => {
            return (Next::Down(Down { token: Some(None), ..Down::plain(text) }), None);
        }
        Outcome::TimedOut(limit) => {
            let text = format!("{to} did not answer within {} ms", limit.as_millis());
            return (Next::Down(Down { timed_out: Some(limit), ..Down::plain(text) }), None);
        }
    };
    let status = reply.status;
    let answer = classify(&reply, &setup.form, time::now());
    let settled = lane.answered(&answer);
    let mut memory = memory.lock();
    memory.patient = false;
    let alarm = settle(&settled, lane, &mut memory, acks);
    let next = match answer {
        Answer::Unauthorized => {
            let text = format!("{to} refuses the token ({status})");
            Next::Down(Down { token: Some(token), ..Down::plain(text) })
        }
        Answer::Failed(text) => Next::Down(Down::plain(format!("{to}: {text}"))),
        Answer::Wait { after } => {
            memory.counters.waits += 1;
            let pause = after.unwrap_or_else(|| backoff::pause(setup.retry_delay, memory.failures, random()));
            memory.failures = memory.failures.saturating_add(u32::from(after.is_none()));
            tracing::warn!(ems = %to, status, seconds = pause.as_secs(), "the EMS asks to wait");
            Next::Wait(pause)
        }
        decided => {
            memory.counters.repeated += u64::from(matches!(decided, Answer::Seen(_)));
            memory.failures = 0;
            memory.refused = None;
            memory.not_before = Duration::ZERO;
            Next::GoOn
        }
    };
    (next, alarm)
}

/// Turns settled records into verdicts.
fn settle(settled: &[Settled], lane: &Lane, memory: &mut Remembered, acks: &mut Acks) -> Option<Alarm> {
    let mut alarm = None;
    for Settled { record, end } in settled {
        memory.settled_below = memory.settled_below.max(record.first + u64::from(record.count));
        match end {
            End::Accepted => {
                memory.counters.accepted += 1;
                memory.refused_in_a_row = 0;
                acks.delivered(record.first, record.count);
            }
            End::Rejected(why, text) => {
                memory.counters.rejected += 1;
                memory.refused_records += 1;
                memory.refused_in_a_row = memory.refused_in_a_row.saturating_add(1);
                let reason = match why {
                    Why::Refused => Reject::Refused,
                    Why::Invalid => Reject::Invalid,
                    Why::TooLarge => Reject::TooLarge,
                };
                acks.add(record.first, record.count, Verdict::Rejected, reason as u16);
                let number = memory.refused_records;
                if number <= LOGGED || number.is_power_of_two() {
                    let time = busbar_kit::time::rfc3339_ms(record.ts_ns);
                    tracing::warn!(
                        device = &*record.device,
                        time,
                        reason = text,
                        number,
                        "the EMS refused a record; it is parked"
                    );
                }
                if memory.refused_in_a_row == ALARM {
                    let text = format!(
                        "the EMS refused {ALARM} records in a row, the last with: {text}; look at body and names"
                    );
                    alarm = Some(("everything_refused", text));
                }
            }
        }
    }
    // Where a record behind was refused by its name, one before it may still wait.
    if let Some(front) = lane.front() {
        memory.settled_below = memory.settled_below.min(front.first);
    }
    alarm
}

/// Notes a failure; gives the text for the operator with the time of the next attempt, and an alarm where one begins.
pub(crate) fn failed(down: &Down, setup: &Setup, memory: &Memory, at_once: bool) -> (String, Option<Alarm>) {
    let mut memory = memory.lock();
    memory.counters.failures += 1;
    let pause = match (&down.token, at_once) {
        (Some(_), _) => setup.token_retry,
        (None, true) => Duration::ZERO,
        (None, false) => backoff::pause(setup.retry_delay, memory.failures, random()),
    };
    memory.failures = memory.failures.saturating_add(u32::from(down.token.is_none()));
    memory.not_before = time::monotonic() + pause;
    let alarm = (down.token.is_some() && memory.refused.is_none()).then(|| {
        ("unauthorized", format!("{}: nothing is sent until there is a token that it takes", down.text))
    });
    if let Some(token) = &down.token {
        memory.refused = Some(token.clone().unwrap_or_default());
    }
    memory.reason.clone_from(&down.text);
    (format!("{}; next attempt {}", down.text, when(pause)), alarm)
}

/// "now", "in 12 s".
pub(crate) fn when(pause: Duration) -> String {
    if pause.is_zero() { "now".to_owned() } else { format!("in {} s", pause.as_secs_f64().ceil()) }
}

fn random() -> u32 {
    // Without randomness all gateways come back together, which is bearable.
    getrandom::u32().unwrap_or(20)
}
