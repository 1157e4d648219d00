//! Samples -> records: consecutive samples of one device with one time (to the millisecond) are one record, in which each
//! point comes once. What a record holds is a function of the samples alone, not of how they were delivered, so that a
//! batch that is built again after a restart is the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use busbar_driver_api::{Cause, Delivery, Quality, Record as Sample, Value};
use busbar_ems_http::{Body, Head, Measurement, Record, Shown, body::OpenRecord};
use busbar_sink_kit::shown::{BadValue, QualityText, Test, borrowed, read};

use crate::memory::Told;
use crate::points::Point;
use crate::quality::{Grade, Words};

/// A record that is longer is ended and another begun, bytes.
const MAX_RECORD: usize = 1024 * 1024;

/// How records look.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub body: Body,
    pub gateway: String,
    pub words: Words,
    pub bad_value: BadValue,
    pub test: Test,
}

/// What became of a sample.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in a record, or will end with one.
    Kept,
    /// There is nothing to send: it is as good as delivered.
    Nothing,
    /// Nobody knows its point.
    NotRouted,
}

/// A finished record.
#[derive(Debug)]
pub(crate) enum Ready {
    /// To be sent.
    Send(Record),
    /// It shows nothing: its samples are as good as delivered.
    Empty { first: u64, count: u32 },
}

/// Makes records.
#[derive(Debug)]
pub(crate) struct Collector {
    open: Option<Open>,
    serial: u64,
    quality_text: QualityText,
}

#[derive(Debug)]
struct Open {
    record: OpenRecord,
    history: bool,
    serial: u64,
}

impl Collector {
    pub(crate) fn new() -> Self {
        Self { open: None, serial: 0, quality_text: QualityText::default() }
    }

    /// Takes one sample; a record that it ended goes to `ready`.
    pub(crate) fn take(
        &mut self,
        style: &Style,
        sample: &Sample<'_>,
        delivery: &Delivery,
        points: &mut HashMap<u32, Point>,
        told: &mut HashMap<u32, Told>,
        ready: &mut Vec<Ready>,
    ) -> Taken {
        let Some(point) = points.get_mut(&sample.point()) else {
            ready.extend(self.end(style));
            return Taken::NotRouted;
        };
        let (value, quality) = read(sample);
        let state = Told {
            number: sample.number,
            ts_ns: sample.time(),
            kind: sample.sample().kind,
            bits: fingerprint(&value, sample.sample().bits),
            quality: quality.0,
        };
        let Some(quality) = style.test.judge(quality) else { return self.skip(style, sample, point, ready) };
        // After each connect the host shows the whole image, and after a replay the latest states: what the EMS has
        // confirmed already is no news.
        let shown_again = delivery.is_snapshot() || sample.cause() == Cause::Integrity;
        let known =
            told.get(&sample.point()).is_some_and(|before| Told { number: state.number, ..*before } == state);
        if point.silent || (shown_again && known) {
            return self.skip(style, sample, point, ready);
        }
        let history = sample.cause() == Cause::History;
        if !history {
            told.insert(sample.point(), state);
        }
        if self.must_end(sample, point, history) {
            ready.extend(self.end(style));
        }
        self.add(style, sample, point, &value, quality, history);
        Taken::Kept
    }

    /// A sample that is not shown ends with the record it stands in, or at once.
    fn skip(&mut self, style: &Style, sample: &Sample<'_>, point: &Point, ready: &mut Vec<Ready>) -> Taken {
        match &mut self.open {
            Some(open) if open.record.next() == sample.number && *open.record.device() == point.device => {
                open.record.skip();
                Taken::Kept
            }
            _ => {
                ready.extend(self.end(style));
                Taken::Nothing
            }
        }
    }

    fn must_end(&self, sample: &Sample<'_>, point: &Point, history: bool) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.record.next() != sample.number
                || *open.record.device() != point.device
                || ms(open.record.ts_ns()) != ms(sample.time())
                || open.history != history
                || open.serial == point.record
                || open.record.size() > MAX_RECORD
        })
    }

    fn add(
        &mut self,
        style: &Style,
        sample: &Sample<'_>,
        point: &mut Point,
        value: &Value,
        quality: Quality,
        history: bool,
    ) {
        self.quality_text.set(quality);
        let serial = &mut self.serial;
        let open = self.open.get_or_insert_with(|| {
            *serial += 1;
            let head = Head {
                gateway: &style.gateway,
                device: &point.device,
                labels: &point.labels,
                ts_ns: sample.time(),
                first: sample.number,
                history,
            };
            Open { record: style.body.begin(&head), history, serial: *serial }
        });
        point.record = open.serial;
        let grade = Grade::of(quality);
        let measurement = Measurement {
            key: &point.key,
            point: &point.name,
            value: borrowed(value),
            shown: match (grade.shows_value(), style.bad_value) {
                (true, _) | (false, BadValue::Last) => Shown::Value,
                (false, BadValue::Null) => Shown::Null,
                (false, BadValue::Omit) => Shown::Omitted,
            },
            unit: &point.unit,
            quality: style.words.of(grade),
            quality_text: self.quality_text.as_str(),
        };
        style.body.add(&mut open.record, &measurement);
    }

    /// Ends the open record.
    pub(crate) fn end(&mut self, style: &Style) -> Option<Ready> {
        let (record, shows) = style.body.end(self.open.take()?.record);
        Some(match shows {
            true => Ready::Send(record),
            false => Ready::Empty { first: record.first, count: record.count },
        })
    }

    /// First number of the open record.
    pub(crate) fn first(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.record.first())
    }
}

const fn ms(ns: i64) -> i64 {
    ns.div_euclid(1_000_000)
}

fn fingerprint(value: &Value, bits: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Text(text) => text.hash(&mut hasher),
        Value::Bytes(bytes) => bytes.hash(&mut hasher),
        Value::Json(json) => json.to_string().hash(&mut hasher),
        _ => return bits,
    }
    hasher.finish()
}
