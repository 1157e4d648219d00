//! What must never be printed.
//!
//! Four nets, because one of them may have a hole: values behind a reference (`${env:..}`) and values that a plugin's
//! schema marks as secret are known by place; keys with a telling name are secret whatever a schema says; and a source
//! line shown with a problem is searched for telling names once more, because a file with a syntax error has no places;
//! and the password of a URL (`mqtt://user:password@host`) is masked in every text that leaves this crate.

use std::{borrow::Cow, ops::Range};

/// What stands for a secret in printed configuration.
pub const MASK: &str = "***";

/// Parts of key names whose values are secret by their name alone.
const TELLING: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "psk",
    "encryption_key",
    "authentication_key",
    "private_key",
];

/// The value of this key is secret because of the key's name.
#[must_use]
pub fn telling(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    TELLING.iter().any(|word| key.contains(word))
}

/// The value, with its quotes, is nothing but one reference: its name is no secret and helps to find the mistake. A
/// default in it may be the secret itself.
pub(crate) fn is_reference(value: &str) -> bool {
    let inner = value.trim_matches(['"', '\'']);
    inner.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| {
        let name = name.strip_suffix(":-").unwrap_or(name);
        !name.contains(":-")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'/' | b'-'))
    })
}

/// `text` with the byte ranges `hidden`, and every value behind a telling key, replaced by stars.
pub(crate) fn line(text: &str, hidden: &[(usize, usize)]) -> String {
    let mut ranges = hidden.to_vec();
    ranges.extend(values_of_telling_keys(text));
    ranges.extend(url_secrets(text).into_iter().map(|range| (range.start, range.end)));
    text.char_indices()
        .map(
            |(at, symbol)| {
                if ranges.iter().any(|(from, to)| (*from..*to).contains(&at)) { '*' } else { symbol }
            },
        )
        .collect()
}

/// Byte ranges of `value` in every `key = value` whose key is telling.
fn values_of_telling_keys(text: &str) -> Vec<(usize, usize)> {
    text.match_indices('=')
        .filter(|(equals, _)| {
            let before = text.get(..*equals).unwrap_or_default().trim_end();
            let key = before.rsplit([' ', '\t', ',', '{', '.']).next().unwrap_or_default();
            telling(key.trim_matches(['"', '\'']))
        })
        .map(|(equals, _)| {
            let tail = text.get(equals + 1..).unwrap_or_default();
            let value = tail.trim_start();
            let from = text.len() - value.len();
            (from, from + value_length(value))
        })
        .filter(|(from, to)| !text.get(*from..*to).is_some_and(is_reference))
        .collect()
}

/// Length of the TOML value at the start of `text`, to its closing quote, or to the end where there is none.
fn value_length(text: &str) -> usize {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        return text.find([',', '}']).unwrap_or(text.len());
    };
    let mut escaped = false;
    for (at, symbol) in text.char_indices().skip(1) {
        match symbol {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if symbol == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `text` with the passwords of all URLs in it as [`MASK`]: `mqtt://user:***@host`.
#[must_use]
pub fn urls(text: &str) -> Cow<'_, str> {
    let ranges = url_secrets(text);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = text.to_owned();
    for range in ranges.into_iter().rev() {
        out.replace_range(range, MASK);
    }
    Cow::Owned(out)
}

/// Byte ranges, in order, of what is secret in the user part of every URL: the password, or all of it where there is no
/// colon (some brokers take a token as the user name). A password may hold any character, also those that should have
/// been escaped, so it ends at the last `@`; a reference alone is no secret.
fn url_secrets(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        if ranges.last().is_some_and(|last| start < last.end) {
            continue;
        }
        let Some(token) = text.get(start..start + url_length(text, at)) else { continue };
        let Some(end) = token.rfind('@') else { continue };
        let user = token.get(..end).unwrap_or_default();
        let from = match user.find(':') {
            Some(colon) => colon + 1,
            None if user.contains(['/', '?', '#']) => continue,
            None => 0,
        };
        let secret = user.get(from..).unwrap_or_default();
        if !secret.is_empty() && !is_reference(secret) {
            ranges.push(start + from..start + end);
        }
    }
    ranges
}

/// Length of a URL behind the `://` at `at`: to the quote that closes it, else to a blank or any quote.
fn url_length(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    let scheme = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '+' | '-' | '.');
    let opening = before.trim_end_matches(scheme).chars().next_back();
    let quote = opening.filter(|symbol| matches!(symbol, '"' | '\''));
    let rest = text.get(at + 3..).unwrap_or_default();
    let mut escaped = false;
    for (length, symbol) in rest.char_indices() {
        let ends = match quote {
            Some(quote) => symbol == quote,
            None => symbol.is_whitespace() || matches!(symbol, '"' | '\''),
        };
        match symbol {
            '\n' => return length,
            _ if escaped => escaped = false,
            '\\' if quote != Some('\'') => escaped = true,
            _ if ends => return length,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        for (text, shown) in [
            ("mqtt://user:hunter2@host:1883", "mqtt://user:***@host:1883"),
            ("found \"mqtt://u:h@unt/er 2@host/x\", y", "found \"mqtt://u:***@host/x\", y"),
            ("[\"mqtt://a:b@h\", 'mqtts://c:d@h']", "[\"mqtt://a:***@h\", 'mqtts://c:***@h']"),
            (r#""mqtt://u:a\"b@h""#, r#""mqtt://u:***@h""#),
            ("https://token@host/x", "https://***@host/x"),
            ("mqtt://u:${env:WORD}@h", "mqtt://u:${env:WORD}@h"),
            ("http://host:80/path", "http://host:80/path"),
            ("http://host/a@b", "http://host/a@b"),
            ("mqtt://host", "mqtt://host"),
        ] {
            assert_eq!(urls(text), shown);
        }
        assert_eq!(line("u = \"mqtt://me:hunter2@h\"", &[]), "u = \"mqtt://me:*******@h\"");
    }

    #[test]
    fn values_of_telling_keys_become_stars() {
        assert_eq!(
            line(r#"a = { host = "x", password = "hun\"ter2", prt = 1 }"#, &[]),
            r#"a = { host = "x", password = ***********, prt = 1 }"#
        );
        assert_eq!(line("token=abc, x = 1", &[]), "token=***, x = 1");
        assert_eq!(line("password = \"open end", &[]), "password = *********");
        assert_eq!(line("password = \"${env:X}\"", &[]), "password = \"${env:X}\"");
        assert_eq!(line("password = \"x${env:X}\"", &[]), "password = ***********");
        assert_eq!(line("password = \"${env:X:-}\"", &[]), "password = \"${env:X:-}\"");
        assert_eq!(line("password = \"${env:X:-hunter2}\"", &[]), "password = *******************");
        assert_eq!(line("user = \"me\"", &[(7, 11)]), "user = ****");
        assert!(telling("mqtt-Password") && telling("encryption_key") && !telling("key"));
    }
}
