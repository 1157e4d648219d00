//! What must never be printed.
//!
//! Three nets, because one of them may have a hole: values behind a reference (`${env:..}`) and values that a plugin's
//! schema marks as secret are known by place; keys with a telling name are secret whatever a schema says; and a source
//! line shown with a problem is searched for telling names once more, because a file with a syntax error has no places.

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
pub(crate) fn telling(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    TELLING.iter().any(|word| key.contains(word))
}

/// The value, with its quotes, is nothing but one reference: its name is no secret and helps to find the mistake.
pub(crate) fn is_reference(value: &str) -> bool {
    let inner = value.trim_matches(['"', '\'']);
    inner.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'/' | b'-'))
    })
}

/// `text` with the byte ranges `hidden`, and every value behind a telling key, replaced by stars.
pub(crate) fn line(text: &str, hidden: &[(usize, usize)]) -> String {
    let mut ranges = hidden.to_vec();
    ranges.extend(values_of_telling_keys(text));
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(line("user = \"me\"", &[(7, 11)]), "user = ****");
        assert!(telling("mqtt-Password") && telling("encryption_key") && !telling("key"));
    }
}
