//! Quality -> the EMS's word, first match (SEMANTICS.md section 4):
//! comm_lost, failure -> BAD_COMM; bad_reference -> BAD_CONFIG; out_of_range, overflow -> BAD_RANGE; old_data -> STALE;
//! invalid -> BAD_COMM; questionable -> UNCERTAIN; else GOOD.

use busbar_driver_api::{Quality, Validity};

use crate::settings::Names;

/// The six qualities of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grade {
    Good,
    BadRange,
    BadComm,
    BadConfig,
    Stale,
    Uncertain,
}

impl Grade {
    pub(crate) fn of(quality: Quality) -> Self {
        let has = |bits: &[Quality]| bits.iter().any(|bit| quality.contains(*bit));
        if has(&[Quality::COMM_LOST, Quality::FAILURE]) {
            Self::BadComm
        } else if has(&[Quality::BAD_REFERENCE]) {
            Self::BadConfig
        } else if has(&[Quality::OUT_OF_RANGE, Quality::OVERFLOW]) {
            Self::BadRange
        } else if has(&[Quality::OLD_DATA]) {
            Self::Stale
        } else {
            match quality.validity() {
                Validity::Invalid => Self::BadComm,
                Validity::Questionable => Self::Uncertain,
                _ => Self::Good,
            }
        }
    }

    /// Its value is shown as it is.
    pub(crate) const fn shows_value(self) -> bool {
        matches!(self, Self::Good | Self::Uncertain)
    }
}

/// The configured words as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Words([Vec<u8>; 6]);

impl Words {
    pub(crate) fn new(names: &Names) -> Self {
        let Names { good, bad_range, bad_comm, bad_config, stale, uncertain } = names;
        Self([good, bad_range, bad_comm, bad_config, stale, uncertain].map(|word| word.json()))
    }

    pub(crate) fn of(&self, grade: Grade) -> &[u8] {
        let Self([good, bad_range, bad_comm, bad_config, stale, uncertain]) = self;
        match grade {
            Grade::Good => good,
            Grade::BadRange => bad_range,
            Grade::BadComm => bad_comm,
            Grade::BadConfig => bad_config,
            Grade::Stale => stale,
            Grade::Uncertain => uncertain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_match() {
        let good = Quality::GOOD;
        let (invalid, questionable) = (Quality::INVALID, good.with_validity(Validity::Questionable));
        for (quality, grade) in [
            (good, Grade::Good),
            (good.with(Quality::CLOCK_UNSYNCED), Grade::Good),
            (good.with(Quality::SUBSTITUTED), Grade::Good),
            (invalid, Grade::BadComm),
            (questionable, Grade::Uncertain),
            (questionable.with(Quality::INACCURATE), Grade::Uncertain),
            (invalid.with(Quality::COMM_LOST).with(Quality::OUT_OF_RANGE), Grade::BadComm),
            (invalid.with(Quality::FAILURE), Grade::BadComm),
            (invalid.with(Quality::BAD_REFERENCE).with(Quality::OLD_DATA), Grade::BadConfig),
            (questionable.with(Quality::OUT_OF_RANGE).with(Quality::OLD_DATA), Grade::BadRange),
            (questionable.with(Quality::OVERFLOW), Grade::BadRange),
            (questionable.with(Quality::OLD_DATA), Grade::Stale),
            (invalid.with(Quality::OLD_DATA), Grade::Stale),
            (invalid.with(Quality::OPERATOR_BLOCKED), Grade::BadComm),
            (invalid.with(Quality::TEST), Grade::BadComm),
        ] {
            assert_eq!(Grade::of(quality), grade, "{quality:?}");
        }
    }

    #[test]
    fn words_may_be_numbers() {
        let names: Names =
            serde_json::from_value(serde_json::json!({ "good": 192, "stale": "a\"b" })).unwrap();
        let words = Words::new(&names);
        assert_eq!(words.of(Grade::Good), b"192");
        assert_eq!(words.of(Grade::Stale), br#""a\"b""#);
        assert_eq!(words.of(Grade::BadComm), b"\"BAD_COMM\"");
    }
}
