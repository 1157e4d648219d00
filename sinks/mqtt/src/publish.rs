//! Records -> messages. The hot path: topics, names and units are prepared, one buffer is reused.

use std::sync::Arc;

use busbar_driver_api::{Cause, Delivery, Quality, Record, Validity, Value, Verdict};
use busbar_mqtt::ems::{self, Frame};
use busbar_mqtt::payload::{self, Group, Marks, Stamp};
use busbar_mqtt::{Message, OFFLINE, ONLINE, Qos, SendError, Session};
use busbar_sink_kit::shown::{self, BadValue, QualityText, Test, borrowed};

use crate::points::Points;
use crate::verdict::{Reject, Span, Verdicts};

/// How messages look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub qos: Qos,
    pub retain: bool,
    pub bad_value: BadValue,
    pub test: Test,
    /// A grouped message that is longer is ended and another begun, bytes.
    pub split: usize,
}

/// What one record asks for.
pub(crate) enum Step {
    /// Nothing, or everything is in the open group.
    Done,
    /// This message must go out; call again with the same record when `again`.
    Send { again: bool },
}

/// Turns records into messages, one at a time.
pub(crate) struct Publisher {
    pub style: Style,
    /// The payload of the message that must go out.
    pub payload: Vec<u8>,
    group: Option<Open>,
    groups: u64,
    /// The message that must go out.
    pub out: Option<OutMessage>,
    quality: QualityText,
}

/// A grouped message in the making.
struct Open {
    making: Making,
    device: usize,
    /// Time of the first record.
    stamp: Stamp,
    span: Span,
    marks: Marks,
    /// Differs in every group.
    serial: u64,
}

/// The two forms of a grouped message.
enum Making {
    Json(Group),
    Ems(ems::Message, Arc<Frame>),
}

/// Where a message goes and what it stands for; its payload is in the publisher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutMessage {
    pub target: Target,
    pub span: Span,
    pub retain: bool,
    /// `format = "ems"`: the record of a device that has values, or has none.
    pub success: Option<bool>,
}

/// The topic of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// A point's own.
    Point(u32),
    /// A device's, for grouped values.
    Device(usize),
    /// A device's status.
    Status(usize),
    /// There is nothing to say: as good as delivered.
    Nowhere,
}

/// A record, read once.
pub(crate) struct Read {
    span: Span,
    pub(crate) point: u32,
    stamp: Stamp,
    value_ts_ns: Option<i64>,
    value: Value,
    pub(crate) quality: Quality,
    pub(crate) marks: Marks,
}

impl Read {
    pub(crate) fn new(record: &Record<'_>, delivery: &Delivery) -> Self {
        let flags = record.flags();
        let (value, quality) = shown::read(record);
        Self {
            span: Span { first: record.number, count: 1 },
            point: record.point(),
            stamp: Stamp { ts_ns: record.time(), gateway: flags.gateway_time() },
            // A value that never was has no time.
            value_ts_ns: (record.value_time() != record.time() && value != Value::None)
                .then(|| record.value_time()),
            value,
            quality,
            marks: Marks { history: record.cause() == Cause::History, replayed: delivery.is_replay() },
        }
    }
}

impl Publisher {
    pub(crate) fn new(style: Style) -> Self {
        Self {
            style,
            payload: Vec::with_capacity(4096),
            group: None,
            groups: 0,
            out: None,
            quality: QualityText::default(),
        }
    }

    /// Takes one record. The caller sends `out` when the step says so.
    pub(crate) fn take(&mut self, read: &Read, points: &mut Points, verdicts: &mut Verdicts) -> Step {
        let Some(point) = points.by_number.get_mut(&read.point) else {
            verdicts.add(read.span, Verdict::Rejected, Reject::NotRouted as u16);
            return Step::Done;
        };
        if point.is_online {
            if self.end_group() {
                return Step::Send { again: true };
            }
            let online =
                matches!(read.value, Value::Bool(true)) && read.quality.validity() != Validity::Invalid;
            self.status(point.device, online, read.span);
            return Step::Send { again: false };
        }
        let Some(quality) = self.judge(read.quality) else {
            verdicts.add(read.span, Verdict::Delivered, 0);
            return Step::Done;
        };
        let frame = points.devices.get(point.device).and_then(|device| device.frame.as_ref());
        if points.ems && frame.is_none() {
            // A system point: not for the consumers of records.
            if let (true, Value::Int(version)) = (points.version.0 == Some(read.point), &read.value) {
                points.version.1 = Some(*version);
            }
            verdicts.add(read.span, Verdict::Delivered, 0);
            return Step::Done;
        }
        if points.grouped {
            if self.must_end(point.device, point.group, read) {
                self.end_group();
                return Step::Send { again: true };
            }
            if self.group.is_none() {
                self.begin_group(point.device, frame, read);
            }
        } else {
            self.payload.clear();
        }
        let value = borrowed(&read.value);
        let out = payload::Point {
            stamp: read.stamp,
            value_ts_ns: read.value_ts_ns,
            value,
            quality: self.quality.as_str(),
            good: quality.is_good(),
            unit: &point.unit,
        };
        if let Some(open) = &mut self.group {
            match &mut open.making {
                Making::Json(group) => group.add(&mut self.payload, &point.name, &out, self.style.bad_value),
                Making::Ems(message, _) => {
                    let lost = quality.contains(Quality::COMM_LOST);
                    message.add(&mut self.payload, &point.name, value, out.good, lost);
                }
            }
            open.span.count += 1;
            point.group = open.serial;
            return Step::Done;
        }
        payload::write_point(&mut self.payload, &out, read.marks, self.style.bad_value);
        let retain = self.style.retain && read.marks == Marks::default();
        self.out =
            Some(OutMessage { target: Target::Point(read.point), span: read.span, retain, success: None });
        Step::Send { again: false }
    }

    /// The quality that is shown, its text ready in `self`; `None`: a test value that is not shown.
    fn judge(&mut self, quality: Quality) -> Option<Quality> {
        let quality = self.style.test.judge(quality)?;
        self.quality.set(quality);
        Some(quality)
    }

    /// A message ends when the device changes, a point repeats, a number is missing, the marks differ, or it is long.
    fn must_end(&self, device: usize, last_group: u64, read: &Read) -> bool {
        self.group.as_ref().is_some_and(|open| {
            open.device != device
                || open.serial == last_group
                || open.span.first + u64::from(open.span.count) != read.span.first
                || open.marks != read.marks
                || self.payload.len() > self.style.split
                || (matches!(open.making, Making::Ems(..)) && open.stamp.ms() != read.stamp.ms())
        })
    }

    fn begin_group(&mut self, device: usize, frame: Option<&Arc<Frame>>, read: &Read) {
        self.groups += 1;
        self.payload.clear();
        let making = match frame {
            None => Making::Json(Group::begin(&mut self.payload, read.stamp, read.marks)),
            Some(frame) => {
                let message = ems::Message::begin(&mut self.payload, frame, read.stamp.ts_ns);
                Making::Ems(message, Arc::clone(frame))
            }
        };
        self.group = Some(Open {
            making,
            device,
            stamp: read.stamp,
            span: Span { count: 0, ..read.span },
            marks: read.marks,
            serial: self.groups,
        });
    }

    /// Ends the open group; true when there was one: it must go out.
    pub(crate) fn end_group(&mut self) -> bool {
        let Some(open) = self.group.take() else { return false };
        let outcome = match open.making {
            Making::Json(group) => {
                group.end(&mut self.payload);
                None
            }
            Making::Ems(message, frame) => Some(message.end(&mut self.payload, &frame)),
        };
        let target = match outcome {
            Some(ems::Outcome::Nothing) => Target::Nowhere,
            _ => Target::Device(open.device),
        };
        let retain = self.style.retain && open.marks == Marks::default();
        let success = outcome.map(|outcome| outcome == ems::Outcome::Success);
        self.out = Some(OutMessage { target, span: open.span, retain, success });
        true
    }

    /// The status message of a device; no group may be open.
    pub(crate) fn status(&mut self, device: usize, online: bool, span: Span) {
        self.payload.clear();
        self.payload.extend_from_slice(if online { ONLINE } else { OFFLINE }.as_bytes());
        self.out = Some(OutMessage { target: Target::Status(device), span, retain: true, success: None });
    }

    /// Gives the message that must go out to the session. `Err`: no room, try again.
    pub(crate) fn send(
        &mut self,
        session: &mut Session<Span>,
        points: &Points,
        verdicts: &mut Verdicts,
    ) -> Result<(), ()> {
        let Some(out) = self.out else { return Ok(()) };
        let topic = match out.target {
            Target::Point(number) => points.by_number.get(&number).map(|point| &*point.topic),
            Target::Device(index) => points.devices.get(index).map(|device| &*device.topic),
            Target::Status(index) => points.devices.get(index).map(|device| &*device.status_topic),
            Target::Nowhere => {
                verdicts.add(out.span, Verdict::Delivered, 0);
                self.out = None;
                return Ok(());
            }
        };
        let Some(topic) = topic else {
            verdicts.add(out.span, Verdict::Rejected, Reject::NotRouted as u16);
            self.out = None;
            return Ok(());
        };
        let message = Message { topic, payload: &self.payload, qos: self.style.qos, retain: out.retain };
        match session.send(&message, out.span) {
            Ok(()) => {}
            Err(SendError::Full(_)) => return Err(()),
            Err(SendError::TooLarge { token, size, limit }) => {
                busbar_driver_api::tracing::warn!(
                    topic,
                    size,
                    limit,
                    "a message is too large and was parked: raise max_packet here and at the broker, or group less"
                );
                verdicts.add(token, Verdict::Rejected, Reject::TooLarge as u16);
            }
        }
        self.out = None;
        Ok(())
    }
}
