//! Reads how many tests ran from what the runners print.

/// Passed and failed of one runner.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// A line without terminal colours.
pub(crate) fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

/// nextest: `Summary [  1.2s] 27 tests run: 25 passed (1 slow), 1 failed, 1 timed out, 3 skipped`.
pub(crate) fn nextest(line: &str) -> Option<Counts> {
    let line = plain(line);
    let rest = line.trim_start().strip_prefix("Summary [")?;
    let (_, parts) = rest.split_once("run:")?;
    let mut counts = Counts::default();
    for (number, word) in numbers(parts) {
        match word.as_str() {
            "passed" => counts.passed += number,
            "failed" | "timed" | "exec" => counts.failed += number,
            _ => {}
        }
    }
    Some(counts)
}

/// cargo test: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
pub(crate) fn libtest(line: &str) -> Option<Counts> {
    let line = plain(line);
    let parts = line.trim_start().strip_prefix("test result: ")?;
    let mut counts = Counts::default();
    for (number, word) in numbers(parts) {
        match word.as_str() {
            "passed" => counts.passed += number,
            "failed" => counts.failed += number,
            _ => {}
        }
    }
    Some(counts)
}

/// Pairs of a number and the word after it; what stands in brackets is a remark on the word before.
fn numbers(text: &str) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut last = None;
    let mut depth = 0_u32;
    for word in text.split(|c: char| c.is_whitespace() || c == ',' || c == ';') {
        let opens = word.starts_with('(');
        depth += u32::from(opens);
        if depth == 0 {
            match (word.parse::<u64>(), last.take()) {
                (Ok(number), _) => last = Some(number),
                (Err(_), Some(number)) => found.push((number, word.to_owned())),
                (Err(_), None) => {}
            }
        }
        depth = depth.saturating_sub(u32::from(word.ends_with(')')));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries() {
        let counts = |line| nextest(line).unwrap();
        assert_eq!(
            counts("     Summary [   0.005s] 2 tests run: 2 passed, 0 skipped"),
            Counts { passed: 2, failed: 0 }
        );
        assert_eq!(
            counts(
                "     Summary [  62.1s] 27 tests run: 24 passed (2 slow, 1 leaky), 2 failed, 1 timed out, 3 skipped"
            ),
            Counts { passed: 24, failed: 3 }
        );
        assert_eq!(
            counts(
                "\u{1b}[31;1m     Summary\u{1b}[0m [   0.005s] \u{1b}[1m1\u{1b}[0m tests run: \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped"
            ),
            Counts { passed: 1, failed: 0 }
        );
        assert_eq!(nextest("        PASS [   0.005s] busbar-core passed"), None);
    }

    #[test]
    fn libtest_summaries() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(libtest(line), Some(Counts { passed: 3, failed: 1 }));
        assert_eq!(libtest("test a::b ... ok"), None);
    }
}
