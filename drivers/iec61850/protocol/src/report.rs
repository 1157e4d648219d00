//! One report (IEC 61850-8-1 17.2.2, tables 38 to 40): a header whose fields depend on `OptFlds`, an inclusion
//! bit string, then references, values and reasons of the included members.
//!
//! Nothing on the wire separates the fields, so a report in which a promised field is missing or has the wrong
//! type is refused as a whole: guessing would move every value to another point. A member that the device could
//! not read is an entry with its error, not the end of the report.

use iec61850_rs::common::EntryTime;
pub use iec61850_rs::common::{OptFlds, ReasonCode, TrgOps};
use iec61850_rs::proto::data::Value;

use crate::data;
use crate::error::AccessError;
use crate::limits::MAX_MEMBERS;

/// One included member of the data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Place in the data set, from 0.
    pub index: usize,
    /// Reference of the member, where `OptFlds` asks for it.
    pub reference: Option<String>,
    /// Its value, or why there is none.
    pub value: Result<Value, AccessError>,
    /// Why it is included, where `OptFlds` asks for it.
    pub reason: Option<ReasonCode>,
}

/// One report, or one segment of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Name the control block gives its reports.
    pub id: String,
    /// What the header holds.
    pub options: OptFlds,
    /// Number of the report; the same in all segments.
    pub sequence: Option<u32>,
    /// When the entry was made, in ms since 1970 UTC.
    pub time_of_entry_ms: Option<u64>,
    /// Reference of the data set.
    pub data_set: Option<String>,
    /// Entries were lost in the device before this one.
    pub overflow: bool,
    /// Identifier of the entry in the device's buffer.
    pub entry_id: Option<Vec<u8>>,
    /// Revision of control block and data set.
    pub revision: Option<u32>,
    /// Number of the segment, where segmented.
    pub segment: Option<u32>,
    /// Further segments follow.
    pub more: bool,
    /// Members of the data set, by the inclusion bit string.
    pub members: usize,
    /// The included ones, in order of their place.
    pub entries: Vec<Entry>,
}

/// Values of an information report, taken in order.
struct Fields {
    values: std::vec::IntoIter<Result<Value, AccessError>>,
}

impl Fields {
    fn any(&mut self, what: &str) -> Result<Result<Value, AccessError>, String> {
        self.values.next().ok_or_else(|| format!("report: expected {what}, got the end"))
    }

    fn take<T>(&mut self, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, String> {
        let value = self.any(what)?.map_err(|error| format!("report: expected {what}, got {error}"))?;
        read(&value).ok_or_else(|| format!("report: expected {what}, got another type"))
    }

    fn take_if<T>(
        &mut self,
        present: bool,
        what: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        if present { self.take(what, read).map(Some) } else { Ok(None) }
    }
}

impl Report {
    /// Reads the values of an information report.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn read(values: Vec<Result<Value, AccessError>>) -> Result<Self, String> {
        let mut fields = Fields { values: values.into_iter() };
        let id = fields.take("RptID", |v| data::text(v).map(str::to_owned))?;
        let options = fields.take("OptFlds", OptFlds::from_value)?;
        let sequence = fields.take_if(options.sequence_number(), "SqNum", data::unsigned32)?;
        let time_of_entry_ms = fields.take_if(options.report_time_stamp(), "TimeOfEntry", entry_time)?;
        let data_set =
            fields.take_if(options.data_set_name(), "DatSet", |v| data::text(v).map(str::to_owned))?;
        let overflow = fields.take_if(options.buffer_overflow(), "BufOvfl", data::boolean)?.unwrap_or(false);
        let entry_id =
            fields.take_if(options.entry_id(), "EntryID", |v| data::octets(v).map(<[u8]>::to_vec))?;
        let revision = fields.take_if(options.conf_revision(), "ConfRev", data::unsigned32)?;
        let segment = fields.take_if(options.segmentation(), "SubSqNum", data::unsigned32)?;
        let more =
            fields.take_if(options.segmentation(), "MoreSegmentsFollow", data::boolean)?.unwrap_or(false);
        let inclusion =
            fields.take("the inclusion bit string", |v| data::bits(v).map(Iterator::collect::<Vec<_>>))?;
        if inclusion.len() > MAX_MEMBERS {
            return Err(format!("report: expected at most {MAX_MEMBERS} members, got {}", inclusion.len()));
        }
        let entries = entries(&mut fields, options, &inclusion)?;
        Ok(Self {
            id,
            options,
            sequence,
            time_of_entry_ms,
            data_set,
            overflow,
            entry_id,
            revision,
            segment,
            more,
            members: inclusion.len(),
            entries,
        })
    }
}

fn entries(fields: &mut Fields, options: OptFlds, inclusion: &[bool]) -> Result<Vec<Entry>, String> {
    let places: Vec<usize> = inclusion.iter().enumerate().filter(|(_, set)| **set).map(|(i, _)| i).collect();
    let mut entries = Vec::with_capacity(places.len());
    for index in &places {
        let reference = fields
            .take_if(options.data_reference(), "a data reference", |v| data::text(v).map(str::to_owned))?;
        entries.push(Entry { index: *index, reference, value: Err(AccessError(0)), reason: None });
    }
    for entry in &mut entries {
        entry.value = fields.any("a value")?;
    }
    for entry in &mut entries {
        entry.reason =
            fields.take_if(options.reason_for_inclusion(), "a reason code", ReasonCode::from_value)?;
    }
    match fields.values.len() {
        0 => Ok(entries),
        left => Err(format!("report: expected {} included members, got {left} fields more", places.len())),
    }
}

/// `TimeOfEntry`: binary time of six octets; some devices send the other time type.
fn entry_time(value: &Value) -> Option<u64> {
    match value {
        Value::BinaryTime(octets) => {
            let octets = <[u8; 6]>::try_from(octets.as_slice()).ok()?;
            Some(EntryTime::from_octets(octets).to_unix_millis())
        }
        Value::UtcTime(time) => Some(time.to_unix_nanos() / 1_000_000),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn full(sequence: u32, segment: u32, more: bool, included: &[usize]) -> Vec<Value> {
        let options = OptFlds::NONE
            .with_sequence_number(true)
            .with_report_time_stamp(true)
            .with_reason_for_inclusion(true)
            .with_data_set_name(true)
            .with_data_reference(true)
            .with_buffer_overflow(true)
            .with_entry_id(true)
            .with_conf_revision(true)
            .with_segmentation(true);
        let mut inclusion = 0_u16;
        for place in included {
            inclusion |= 0x8000 >> place;
        }
        let mut values = vec![
            Value::VisibleString("rpt".into()),
            options.to_value(),
            Value::Unsigned(sequence.into()),
            Value::BinaryTime(vec![0, 0, 0, 1, 0, 1]),
            Value::VisibleString("LD/LLN0$ds".into()),
            Value::Boolean(false),
            Value::OctetString(sequence.to_be_bytes().to_vec()),
            Value::Unsigned(7),
            Value::Unsigned(segment.into()),
            Value::Boolean(more),
            Value::BitString { unused: 6, bytes: inclusion.to_be_bytes().to_vec() },
        ];
        values.extend(included.iter().map(|i| Value::VisibleString(format!("LD/GGIO1$ST$Ind{i}"))));
        values.extend(included.iter().map(|i| Value::Integer(i64::try_from(*i).unwrap())));
        values.extend(included.iter().map(|_| ReasonCode::NONE.with_data_change(true).to_value()));
        values
    }

    pub(crate) fn read(values: Vec<Value>) -> Result<Report, String> {
        Report::read(values.into_iter().map(Ok).collect())
    }

    #[test]
    fn every_optional_field_is_read() {
        let report = read(full(3, 0, false, &[1, 9])).unwrap();
        assert_eq!(report.id, "rpt");
        assert_eq!(report.sequence, Some(3));
        assert_eq!(report.time_of_entry_ms, Some((5113 + 1) * 86_400_000 + 1));
        assert_eq!(report.data_set.as_deref(), Some("LD/LLN0$ds"));
        assert_eq!(report.entry_id, Some(vec![0, 0, 0, 3]));
        assert_eq!((report.revision, report.segment, report.more), (Some(7), Some(0), false));
        assert_eq!(report.members, 10);
        let places: Vec<_> = report.entries.iter().map(|e| e.index).collect();
        assert_eq!(places, [1, 9]);
        assert_eq!(report.entries[1].value, Ok(Value::Integer(9)));
        assert_eq!(report.entries[1].reference.as_deref(), Some("LD/GGIO1$ST$Ind9"));
        assert!(report.entries[0].reason.unwrap().data_change());
    }

    #[test]
    fn the_shortest_report_has_no_optional_field() {
        let values = vec![
            Value::VisibleString("r".into()),
            OptFlds::NONE.to_value(),
            Value::BitString { unused: 7, bytes: vec![0x80] },
            Value::Boolean(true),
        ];
        let report = read(values).unwrap();
        assert_eq!((report.sequence, report.members, report.entries.len()), (None, 1, 1));
    }

    #[test]
    fn a_report_out_of_step_is_refused_whole() {
        let mut missing = full(3, 0, false, &[1, 9]);
        missing.pop();
        assert_eq!(read(missing).unwrap_err(), "report: expected a reason code, got the end");
        let mut more = full(3, 0, false, &[1]);
        more.push(Value::Boolean(true));
        assert_eq!(read(more).unwrap_err(), "report: expected 1 included members, got 1 fields more");
        let mut wrong = full(3, 0, false, &[1]);
        wrong[5] = Value::Integer(0);
        assert_eq!(read(wrong).unwrap_err(), "report: expected BufOvfl, got another type");
    }

    #[test]
    fn a_member_the_device_cannot_read_keeps_its_place() {
        let mut values: Vec<_> = full(1, 0, false, &[0, 1]).into_iter().map(Ok).collect();
        values[13] = Err(AccessError(2));
        let report = Report::read(values).unwrap();
        assert_eq!(report.entries[0].value, Err(AccessError(2)));
        assert_eq!(report.entries[1].value, Ok(Value::Integer(1)));
    }
}
