//! Writing TOML values.

use std::fmt::Write;

/// A text in quotes, every reference in it escaped.
pub(crate) fn text(value: &str) -> String {
    quoted(&value.replace("${", "$${"))
}

/// A text of a point, where `{name}` would be a variable.
pub(crate) fn point_text(value: &str) -> String {
    quoted(&value.replace("${", "$${").replace('{', "{{").replace('}', "}}"))
}

/// A text in quotes as it is, references and all.
pub(crate) fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for symbol in value.chars() {
        match symbol {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            control if control.is_control() => drop(write!(out, "\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A comment of one line, nothing in it that would end it.
pub(crate) fn comment(text: &str) -> String {
    let text: String = text.chars().map(|symbol| if symbol.is_control() { ' ' } else { symbol }).collect();
    format!("# {}", text.trim())
}

/// `{ a = 1, b = 2 }`; keys are bare.
pub(crate) fn table(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for value in ["", "q\"\\\n\t\u{1}\u{7f}ü", "'''", "# no comment"] {
            let read: toml::Table = format!("v = {} {}", text(value), comment("x\ny = 1")).parse().unwrap();
            assert_eq!(read["v"].as_str(), Some(value));
        }
        assert_eq!(text("${env:X}"), "\"$${env:X}\"");
        assert_eq!(point_text("{x} ${y}"), "\"{{x}} $${{y}}\"");
        assert_eq!(table(&[("a", "1".into()), ("b", text("x"))]), "{ a = 1, b = \"x\" }");
    }
}
