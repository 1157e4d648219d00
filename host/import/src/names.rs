//! Names of devices, points and templates by Busbar's rule, from texts of any kind.
//!
//! Letters with accents lose them, other characters become `_`, and what collides gets a number; so the same file gives
//! the same names every time. The text itself is kept beside the name wherever it is shown or sent.

use std::collections::{HashMap, HashSet};

use busbar_config::MAX_NAME;

/// Letters of western languages with the letters that stand for them.
const PLAIN: [(&str, &str); 17] = [
    ("áàâäãåÁÀÂÄÃÅ", "a"),
    ("éèêëÉÈÊË", "e"),
    ("íìîïÍÌÎÏ", "i"),
    ("óòôöõøÓÒÔÖÕØ", "o"),
    ("úùûüÚÙÛÜ", "u"),
    ("ñÑ", "n"),
    ("çÇ", "c"),
    ("ýÿÝ", "y"),
    ("ß", "ss"),
    ("æÆ", "ae"),
    ("œŒ", "oe"),
    ("µμ", "u"),
    ("°º", "deg"),
    ("²", "2"),
    ("³", "3"),
    ("%", "percent"),
    ("Ωω", "ohm"),
];

/// Names given so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    taken: HashSet<String>,
    /// Name -> the number that its next twin is tried with, so that a thousand twins need no million tries.
    next: HashMap<String, u32>,
}

impl Names {
    /// A free name for a text; `fallback` where nothing of the text can be kept.
    pub(crate) fn give(&mut self, text: &str, fallback: &str) -> String {
        let escaped = escape(text);
        let name = if escaped.is_empty() { cut(fallback, MAX_NAME).to_owned() } else { escaped };
        if self.taken.insert(name.clone()) {
            return name;
        }
        let next = self.next.entry(name.clone()).or_insert(2);
        loop {
            let suffix = format!("_{next}");
            *next += 1;
            let numbered = format!("{}{suffix}", cut(&name, MAX_NAME - suffix.len()));
            if self.taken.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}

/// The text with every character that no name may have replaced; empty where nothing is left.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for symbol in text.trim().chars() {
        if symbol.is_ascii_alphanumeric() || matches!(symbol, '_' | '.' | '-') {
            out.push(symbol);
            continue;
        }
        match PLAIN.iter().find(|(letters, _)| letters.contains(symbol)) {
            Some((_, plain)) if symbol.is_uppercase() => out.push_str(&plain.to_ascii_uppercase()),
            Some((_, plain)) => out.push_str(plain),
            None if out.ends_with('_') => {}
            None => out.push('_'),
        }
    }
    let out = cut(out.trim_matches('_'), MAX_NAME);
    // A name that is nothing but dots and dashes reads like a path or an option.
    if out.bytes().any(|byte| byte.is_ascii_alphanumeric()) { out.to_owned() } else { String::new() }
}

/// At most `length` bytes of a text of ASCII.
fn cut(text: &str, length: usize) -> &str {
    text.get(..length).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_names() {
        for (text, name) in [
            ("Voltage_L1", "Voltage_L1"),
            ("Tensión fase A (V)", "Tension_fase_A_V"),
            ("cos φ", "cos"),
            ("Größe %", "Grosse_percent"),
            ("ÑANDÚ", "NANDU"),
            ("a / b", "a_b"),
            ("@x", "x"),
            ("温度", ""),
            ("..", ""),
            ("  ", ""),
        ] {
            assert_eq!(escape(text), name, "{text}");
        }
    }

    #[test]
    fn many_twins() {
        let mut names = Names::default();
        let given: std::collections::HashSet<String> = (0..50_000).map(|_| names.give("a", "x")).collect();
        assert!(given.len() == 50_000 && given.contains("a_50000"));
    }

    #[test]
    fn collisions_are_numbered_and_long_names_cut() {
        let mut names = Names::default();
        assert_eq!(names.give("a b", "x"), "a_b");
        assert_eq!(names.give("a_b", "x"), "a_b_2");
        assert_eq!(names.give("a-b", "x"), "a-b");
        assert_eq!(names.give("温度", "value_3"), "value_3");
        let long = "n".repeat(100);
        assert_eq!(names.give(&long, "x"), "n".repeat(64));
        assert_eq!(names.give(&long, "x"), format!("{}_2", "n".repeat(62)));
    }
}
