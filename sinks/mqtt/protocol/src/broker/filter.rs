//! Topic filters: MQTT 3.1.1 and 5.0, section 4.7.

/// True for a legal filter: `#` only as the last level, `+` and `#` only as whole levels.
pub(super) fn is_legal(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_some() => return false,
            "#" | "+" => {}
            _ if level.contains(['#', '+']) => return false,
            _ => {}
        }
    }
    true
}

/// True when a topic name matches a legal filter. Wildcards at the first level do not reach topics beginning with `$`.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+')) {
        return false;
    }
    let (mut filters, mut topics) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), topics.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter), Some(topic)) if filter == topic => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("+/+", "/a", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn legal_filters() {
        for (filter, expected) in [
            ("a", true),
            ("#", true),
            ("a/+/c", true),
            ("", false),
            ("a/#/b", false),
            ("a+", false),
            ("a#", false),
        ] {
            assert_eq!(is_legal(filter), expected, "{filter}");
        }
    }
}
