//! A sample as it is shown at the far side: what its form says about its quality, what the sink keys `test` and `bad_value`
//! make of it, its value as a protocol crate takes it.

use busbar_driver_api::{Quality, Record, Validity, Value};
use busbar_kit::json;

pub use busbar_kit::json::BadValue;

/// Sink key `test`: what becomes of a value with the mark `test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// It is not shown.
    Suppress,
    /// It is shown as invalid.
    Invalid,
    /// It is shown as it is.
    Pass,
}

impl Test {
    /// Reads the sink key; the host has refused unknown words.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "suppress" => Self::Suppress,
            "pass" => Self::Pass,
            _ => Self::Invalid,
        }
    }

    /// The quality that is shown; `None`: a test value that is not shown.
    #[must_use]
    pub fn judge(self, quality: Quality) -> Option<Quality> {
        match (quality.contains(Quality::TEST), self) {
            (true, Self::Suppress) => None,
            (true, Self::Invalid) => Some(quality.with_validity(Validity::Invalid)),
            _ => Some(quality),
        }
    }
}

/// Value and quality of a sample. A value that cannot be read and a number that is none are a failure, whatever the sample
/// says: they must never look good.
#[must_use]
pub fn read(sample: &Record<'_>) -> (Value, Quality) {
    judged(sample.value().ok(), sample.quality())
}

fn judged(value: Option<Value>, quality: Quality) -> (Value, Quality) {
    let failed = || quality.with(Quality::FAILURE).with_validity(Validity::Invalid);
    match value {
        Some(Value::Float32(number)) if !number.is_finite() => (Value::Float32(number), failed()),
        Some(Value::Float64(number)) if !number.is_finite() => (Value::Float64(number), failed()),
        Some(value) => (value, quality),
        // An unknown kind is never a number.
        None => (Value::None, failed()),
    }
}

/// The value for a protocol crate. The host shows steps as their number and bit strings as an unsigned one.
#[must_use]
pub fn borrowed(value: &Value) -> json::Value<'_> {
    use json::Value as Out;
    match value {
        Value::None => Out::None,
        Value::Bool(value) => Out::Bool(*value),
        Value::Int(value) => Out::Int(*value),
        Value::Uint(value) => Out::Uint(*value),
        Value::Float32(value) => Out::Float32(*value),
        Value::Float64(value) => Out::Float64(*value),
        Value::DoublePoint(value) => Out::DoublePoint(*value),
        Value::Step(value, _) => Out::Int(i64::from(*value)),
        Value::Bits32(value) => Out::Uint(u64::from(*value)),
        Value::Text(text) => Out::Text(text),
        Value::Bytes(bytes) => Out::Bytes(bytes),
        Value::Time(ns) => Out::Time(*ns),
        Value::Json(value) => Out::Json(value),
    }
}

/// The text form of a quality (`good`, `invalid|comm_lost`), made anew only when it differs from the last.
#[derive(Debug)]
pub struct QualityText {
    of: u16,
    text: String,
}

impl Default for QualityText {
    fn default() -> Self {
        let mut text = String::new();
        Quality::GOOD.write_text(&mut text);
        Self { of: Quality::GOOD.0, text }
    }
}

impl QualityText {
    /// Makes the text of `quality`, which [`Self::as_str`] then gives.
    pub fn set(&mut self, quality: Quality) {
        if self.of != quality.0 {
            self.of = quality.0;
            self.text.clear();
            quality.write_text(&mut self.text);
        }
    }

    /// The text that was made last.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_never_good() {
        for value in [None, Some(Value::Float32(f32::NAN)), Some(Value::Float64(f64::NEG_INFINITY))] {
            let (_, quality) = judged(value, Quality::GOOD);
            assert_eq!(quality.validity(), Validity::Invalid);
            assert!(quality.contains(Quality::FAILURE));
        }
        assert_eq!(judged(Some(Value::Float32(0.5)), Quality::GOOD), (Value::Float32(0.5), Quality::GOOD));
    }

    #[test]
    fn test_values() {
        let test = Quality::GOOD.with(Quality::TEST);
        assert_eq!(Test::parse("suppress").judge(test), None);
        assert_eq!(Test::parse("pass").judge(test), Some(test));
        assert_eq!(Test::parse("invalid").judge(test).map(|q| q.validity()), Some(Validity::Invalid));
        for word in ["suppress", "pass", "invalid"] {
            assert_eq!(Test::parse(word).judge(Quality::GOOD), Some(Quality::GOOD), "{word}");
        }
    }

    #[test]
    fn texts_of_qualities() {
        let mut text = QualityText::default();
        assert_eq!(text.as_str(), "good");
        text.set(Quality::INVALID.with(Quality::COMM_LOST));
        assert_eq!(text.as_str(), "invalid|comm_lost");
        text.set(Quality::GOOD);
        assert_eq!(text.as_str(), "good");
    }
}
