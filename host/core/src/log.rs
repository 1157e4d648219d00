//! Log lines for operators, rate-limited: a line about the same thing comes once per [`PERIOD_NS`], the next one says
//! how many were left out.

use std::collections::BTreeMap;

use crate::{
    Output,
    output::{LogLevel, LogLine},
    state_machine::Core,
    time::SECOND,
};

/// Shortest time between two lines about the same thing.
const PERIOD_NS: u64 = 10 * SECOND;
/// Most things remembered (G9); beyond it the memory starts anew.
const MAX_THINGS: usize = 4096;

/// Remembers what was said.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    said: BTreeMap<(&'static str, u64), (u64, u64)>,
}

impl Limiter {
    /// `None`: keep quiet; otherwise how many lines were left out before this one.
    fn pass(&mut self, code: &'static str, about: u64, now_ns: u64) -> Option<u64> {
        if self.said.len() >= MAX_THINGS {
            self.said.clear();
        }
        let entry = self.said.entry((code, about)).or_insert((0, 0));
        if entry.0 > now_ns {
            entry.1 += 1;
            return None;
        }
        let left_out = entry.1;
        *entry = (now_ns + PERIOD_NS, 0);
        Some(left_out)
    }
}

impl Core {
    /// Logs unless the same `code` was logged about the same thing a moment ago.
    pub(crate) fn log(
        &mut self,
        level: LogLevel,
        (code, about): (&'static str, u64),
        fields: Vec<(&'static str, String)>,
        message: impl Into<String>,
    ) {
        let Some(left_out) = self.limiter.pass(code, about, self.now.mono_ns) else { return };
        let mut message = message.into();
        if left_out > 0 {
            message.push_str(&format!(" ({left_out} like this were left out)"));
        }
        self.out.push(Output::Log(LogLine { level, fields, message }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_are_limited_with_a_count() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.pass("lost", 1, 0), Some(0));
        assert_eq!(limiter.pass("lost", 1, 5), None);
        assert_eq!(limiter.pass("lost", 2, 5), Some(0));
        assert_eq!(limiter.pass("lost", 1, PERIOD_NS), Some(1));
        for about in 0..10_000 {
            limiter.pass("x", about, 0);
        }
        assert!(limiter.said.len() <= MAX_THINGS);
    }
}
