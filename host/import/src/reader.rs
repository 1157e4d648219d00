//! Reading one section: what must be there, numbers within limits, words, switches, and keys that nobody knows.
//!
//! Every function reports what is wrong and gives nothing, so that the caller goes on and finds the rest.

use std::{cell::RefCell, collections::HashSet};

use crate::{
    findings::{At, Findings, Span, did_you_mean, show},
    ini::{DEFAULT, Ini, Item, Section},
};

/// One section with `[DEFAULT]` behind it.
pub(crate) struct Reader<'i> {
    ini: &'i Ini,
    pub(crate) section: &'i Section,
    asked: RefCell<HashSet<&'static str>>,
}

impl<'i> Reader<'i> {
    pub(crate) fn new(ini: &'i Ini, section: &'i Section) -> Self {
        Self { ini, section, asked: RefCell::default() }
    }

    /// For messages about a key.
    pub(crate) fn at<'a>(&'a self, key: &'a str, span: Span) -> At<'a> {
        At { span: Some(span), section: &self.section.name, key, index: None }
    }

    /// For messages about the section.
    pub(crate) fn here(&self) -> At<'_> {
        self.at("", self.section.span)
    }

    /// A value that is not empty.
    pub(crate) fn text(&self, key: &'static str) -> Option<Item> {
        let item = self.entry(key)?.value.whole();
        (!item.text.is_empty()).then_some(item)
    }

    /// The value of a key that the section itself has.
    pub(crate) fn own(&self, key: &'static str) -> Option<Item> {
        self.section.get(key)?;
        self.text(key)
    }

    /// The elements of a list; `None` where the key is not there or empty.
    pub(crate) fn list(&self, key: &'static str) -> Option<Vec<Item>> {
        Some(self.entry(key)?.value.items()).filter(|items| !items.is_empty())
    }

    fn entry(&self, key: &'static str) -> Option<&'i crate::ini::Entry> {
        self.asked.borrow_mut().insert(key);
        self.ini.get(self.section, key)
    }

    /// A value that must be there.
    pub(crate) fn required(&self, findings: &mut Findings, key: &'static str) -> Option<Item> {
        let found = self.text(key);
        if found.is_none() {
            let span = self.ini.get(self.section, key).map_or(self.section.span, |entry| entry.key_span);
            findings.error(self.at(key, span), format!("the key {key} with a value"), "none", "");
        }
        found
    }

    /// A whole number within limits.
    pub(crate) fn number(
        &self,
        findings: &mut Findings,
        key: &'static str,
        limits: (u64, u64),
    ) -> Option<u64> {
        let item = self.text(key)?;
        let (min, max) = limits;
        let number = item.text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let at = self.at(key, item.span);
            findings.error(at, format!("a whole number from {min} to {max}"), show(&item.text), "");
        }
        number
    }

    /// Seconds as they were written, above 0 and at most a day.
    pub(crate) fn seconds(&self, findings: &mut Findings, key: &'static str) -> Option<String> {
        const DAY: f64 = 86_400.0;
        let item = self.text(key)?;
        let digits = item.text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = item.text.parse::<f64>().ok().filter(|number| digits && *number > 0.0 && *number <= DAY);
        if number.is_none() || item.text.starts_with('.') || item.text.ends_with('.') {
            let at = self.at(key, item.span);
            findings.error(at, "seconds, above 0 and at most 86400", show(&item.text), "");
            return None;
        }
        Some(item.text)
    }

    /// One of some words, without regard to case; gives the word as listed.
    pub(crate) fn word(
        &self,
        findings: &mut Findings,
        key: &'static str,
        words: &[&'static str],
    ) -> Option<&'static str> {
        let item = self.text(key)?;
        let word = words.iter().copied().find(|word| word.eq_ignore_ascii_case(&item.text));
        if word.is_none() {
            let help = did_you_mean(&item.text, words.iter().copied());
            findings.error(self.at(key, item.span), words.join(", "), show(&item.text), &help);
        }
        word
    }

    /// A switch in the words of `configparser`.
    pub(crate) fn switch(&self, findings: &mut Findings, key: &'static str) -> Option<bool> {
        const WORDS: [&str; 8] = ["1", "yes", "true", "on", "0", "no", "false", "off"];
        let word = self.word(findings, key, &WORDS)?;
        WORDS.iter().position(|known| *known == word).map(|at| at < WORDS.len() / 2)
    }

    /// Keys that may stand here although nobody asked for them.
    pub(crate) fn know(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend(keys);
    }

    /// Reports the section's own keys that were never asked for.
    pub(crate) fn unknown_keys(&self, findings: &mut Findings) {
        self.unknown_keys_except(findings, |_| false);
    }

    /// The same, without keys that are told elsewhere.
    pub(crate) fn unknown_keys_except(&self, findings: &mut Findings, except: impl Fn(&str) -> bool) {
        let asked = self.asked.borrow();
        let unknown = |key: &str| !asked.contains(key) && !except(key);
        for entry in self.section.entries.iter().filter(|entry| unknown(&entry.key)) {
            let help = match findings.is_full() {
                true => String::new(),
                false => did_you_mean(&entry.key, asked.iter().copied()),
            };
            findings.error(self.at(&entry.key, entry.key_span), "a known key", show(&entry.key), &help);
        }
    }

    /// `[section] of file, line n`, for comments.
    pub(crate) fn origin(&self, findings: &Findings) -> String {
        let (file, line, ..) = findings.place(Some(self.section.span));
        format!("[{}] of {file}, line {line}", self.section.name)
    }
}

/// `[DEFAULT]`, or nothing in its place.
pub(crate) fn defaults<'i>(ini: &'i Ini, empty: &'i Section) -> Reader<'i> {
    Reader::new(ini, ini.section(DEFAULT).unwrap_or(empty))
}
