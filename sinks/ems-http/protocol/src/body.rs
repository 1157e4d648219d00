//! Records and batches in the making.
//!
//! A record is what one device said at one time; its samples have consecutive numbers in the host's queue, so that it is
//! settled as one range. Records are rendered as their samples arrive; a batch only puts them between its head and tail.

use std::sync::Arc;

use busbar_kit::json::{Value, write_number, write_text};
use busbar_kit::time::rfc3339_ms;
use serde_json::{Value as Json, json};

use crate::template::{Fill, Level, Slot, Template, TemplateError, without_value};

/// The three skeletons.
#[derive(Debug, Clone, PartialEq)]
pub struct Skeleton {
    /// The whole body.
    pub batch: Json,
    /// One record.
    pub record: Json,
    /// One measurement.
    pub measurement: Json,
    /// Measurements are a list instead of an object by key.
    pub list: bool,
}

impl Default for Skeleton {
    fn default() -> Self {
        Self {
            batch: json!({ "gateway_id": "{gateway_id}", "batch_id": "{batch_id}", "records": "{records}" }),
            record: json!({
                "device_id": "{device}",
                "timestamp": "{timestamp}",
                "seq": "{seq}",
                "measurements": "{measurements}",
            }),
            measurement: json!({ "value": "{value}", "unit": "{unit}", "quality": "{quality}" }),
            list: false,
        }
    }
}

/// The checked skeletons.
#[derive(Debug, Clone)]
pub struct Body {
    batch: (Template, Template),
    record: (Template, Template),
    measurement: Template,
    /// A measurement whose value is left out; `None`: the whole measurement is.
    bare: Option<Template>,
    list: bool,
}

/// One record, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number of its first sample.
    pub first: u64,
    /// Number of its samples.
    pub count: u32,
    /// Name of the device.
    pub device: Arc<str>,
    /// Time of the first sample, nanoseconds UTC.
    pub ts_ns: i64,
    /// JSON.
    pub body: Vec<u8>,
}

/// What a record begins with.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The gateway's id at the EMS.
    pub gateway: &'a str,
    /// Name of the device.
    pub device: &'a Arc<str>,
    /// Labels of the device.
    pub labels: &'a [(String, String)],
    /// Time, nanoseconds UTC.
    pub ts_ns: i64,
    /// Number of the first sample.
    pub first: u64,
    /// From the device's own memory.
    pub history: bool,
}

/// What is shown of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The value.
    Value,
    /// `null`.
    Null,
    /// Nothing: no member with the value.
    Omitted,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Measurement<'a> {
    /// Its name at the EMS.
    pub key: &'a str,
    /// Name of the point.
    pub point: &'a str,
    /// The value.
    pub value: Value<'a>,
    /// What is shown of it.
    pub shown: Shown,
    /// Unit, may be empty.
    pub unit: &'a str,
    /// The EMS's word, JSON.
    pub quality: &'a [u8],
    /// Busbar's text.
    pub quality_text: &'a str,
}

/// A record in the making.
#[derive(Debug)]
pub struct OpenRecord {
    record: Record,
    tail: Vec<u8>,
    members: u32,
}

impl OpenRecord {
    /// Number of its first sample.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.record.first
    }

    /// Number of the sample that would follow.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.record.first.saturating_add(self.record.count as u64)
    }

    /// Name of the device.
    #[must_use]
    pub const fn device(&self) -> &Arc<str> {
        &self.record.device
    }

    /// Time of the first sample.
    #[must_use]
    pub const fn ts_ns(&self) -> i64 {
        self.record.ts_ns
    }

    /// Bytes so far.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.record.body.len()
    }

    /// A sample that shows nothing but ends with the record.
    pub const fn skip(&mut self) {
        self.record.count = self.record.count.saturating_add(1);
    }
}

impl Body {
    /// Checks the skeletons; every problem with the pointer `/batch...`, `/record...`, `/measurement...`.
    pub fn new(skeleton: &Skeleton) -> Result<Self, Vec<TemplateError>> {
        let mut problems = Vec::new();
        let mut compile = |name: &str, json: &Json, level| {
            Template::compile(json, level)
                .map_err(|found| {
                    problems.extend(found.into_iter().map(|mut problem| {
                        problem.pointer = format!("/{name}{}", problem.pointer);
                        problem
                    }));
                })
                .ok()
        };
        let batch = compile("batch", &skeleton.batch, Level::Batch);
        let record = compile("record", &skeleton.record, Level::Record);
        let measurement = compile("measurement", &skeleton.measurement, Level::Measurement);
        let bare = without_value(&skeleton.measurement);
        let bare = bare.and_then(|bare| Template::compile(&bare, Level::Measurement).ok());
        if skeleton.list
            && let Some(measurement) = &measurement
            && !measurement.has(&Slot::Key)
            && !measurement.has(&Slot::Point)
        {
            problems.push(TemplateError {
                pointer: "/measurement".into(),
                expected: "{key} in it, because measurements are a list".into(),
                found: "none".into(),
            });
        }
        match (batch, record, measurement, problems.is_empty()) {
            (Some(batch), Some(record), Some(measurement), true) => Ok(Self {
                batch: batch.split(&Slot::Records),
                record: record.split(&Slot::Measurements),
                measurement,
                bare,
                list: skeleton.list,
            }),
            _ => Err(problems),
        }
    }

    /// Begins a record.
    #[must_use]
    pub fn begin(&self, head: &Head<'_>) -> OpenRecord {
        let mut body = Vec::with_capacity(256);
        let mut tail = Vec::new();
        let parts = HeadTexts::new(head);
        self.record.0.render(&mut body, |slot| parts.fill(slot));
        self.record.1.render(&mut tail, |slot| parts.fill(slot));
        body.push(if self.list { b'[' } else { b'{' });
        let device = Arc::clone(head.device);
        OpenRecord {
            record: Record { first: head.first, count: 0, device, ts_ns: head.ts_ns, body },
            tail,
            members: 0,
        }
    }

    /// Adds one sample.
    pub fn add(&self, open: &mut OpenRecord, measurement: &Measurement<'_>) {
        open.skip();
        let template = match measurement.shown {
            Shown::Value | Shown::Null => &self.measurement,
            Shown::Omitted => match &self.bare {
                Some(bare) => bare,
                None => return,
            },
        };
        let out = &mut open.record.body;
        if open.members > 0 {
            out.push(b',');
        }
        open.members = open.members.saturating_add(1);
        if !self.list {
            write_text(out, measurement.key);
            out.push(b':');
        }
        let mut value = Vec::new();
        match measurement.shown {
            Shown::Value => measurement.value.write(&mut value),
            Shown::Null | Shown::Omitted => value.extend_from_slice(b"null"),
        }
        template.render(out, |slot| match slot {
            Slot::Key => Fill::Text(measurement.key),
            Slot::Point => Fill::Text(measurement.point),
            Slot::Value => Fill::Json(&value),
            Slot::Unit => Fill::Text(measurement.unit),
            Slot::Quality => Fill::Json(measurement.quality),
            Slot::QualityText => Fill::Text(measurement.quality_text),
            _ => Fill::Json(b"null"),
        });
    }

    /// Ends a record; the flag says whether it shows anything.
    #[must_use]
    pub fn end(&self, open: OpenRecord) -> (Record, bool) {
        let OpenRecord { mut record, tail, members } = open;
        record.body.push(if self.list { b']' } else { b'}' });
        record.body.extend_from_slice(&tail);
        (record, members > 0)
    }

    /// The body of a batch.
    #[must_use]
    pub fn batch(&self, gateway: &str, batch_id: &str, records: &[Record]) -> Vec<u8> {
        let mut count = Vec::new();
        write_number(&mut count, records.len());
        let mut out =
            Vec::with_capacity(256 + records.iter().map(|record| record.body.len() + 1).sum::<usize>());
        let fill = |slot: &Slot| match slot {
            Slot::GatewayId => Fill::Text(gateway),
            Slot::BatchId => Fill::Text(batch_id),
            Slot::Count => Fill::Json(&count),
            _ => Fill::Json(b"null"),
        };
        self.batch.0.render(&mut out, fill);
        out.push(b'[');
        for (at, record) in records.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&record.body);
        }
        out.push(b']');
        self.batch.1.render(&mut out, fill);
        out
    }
}

/// The texts of a record's head, made once for both sides of its measurements.
struct HeadTexts<'a> {
    head: &'a Head<'a>,
    timestamp: String,
    ms: Vec<u8>,
    seconds: Vec<u8>,
    seq: Vec<u8>,
}

impl<'a> HeadTexts<'a> {
    fn new(head: &'a Head<'a>) -> Self {
        let number = |number: i64| {
            let mut out = Vec::new();
            write_number(&mut out, number);
            out
        };
        let mut seq = Vec::new();
        Value::Uint(head.first).write(&mut seq);
        Self {
            head,
            timestamp: rfc3339_ms(head.ts_ns),
            ms: number(head.ts_ns.div_euclid(1_000_000)),
            seconds: number(head.ts_ns.div_euclid(1_000_000_000)),
            seq,
        }
    }

    fn fill(&self, slot: &Slot) -> Fill<'_> {
        match slot {
            Slot::GatewayId => Fill::Text(self.head.gateway),
            Slot::Device => Fill::Text(self.head.device),
            Slot::Timestamp => Fill::Text(&self.timestamp),
            Slot::TimestampMs => Fill::Json(&self.ms),
            Slot::TimestampS => Fill::Json(&self.seconds),
            Slot::Seq => Fill::Json(&self.seq),
            Slot::History => Fill::Json(if self.head.history { b"true" } else { b"false" }),
            Slot::Label(name) => {
                let label = self.head.labels.iter().find(|(known, _)| known == name);
                label.map_or(Fill::Json(b"null"), |(_, text)| Fill::Text(text))
            }
            _ => Fill::Json(b"null"),
        }
    }
}
