//! Patterns over `device/point` and over the points of one device.
//!
//! `*` and `?` stay within one part, so `meter-*/voltage_*` means what it looks like. A pattern without `/` names
//! devices: `"*"` is everything, `"meter-01"` all points of that device. System points (`@..`) are matched only by a
//! pattern that itself has an `@` there.

use globset::{GlobBuilder, GlobMatcher};

/// Longest pattern.
const MAX_PATTERN: usize = 512;

/// One pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    device: Part,
    point: Part,
}

#[derive(Debug, Clone)]
enum Part {
    Any,
    Exact(String),
    Glob(GlobMatcher),
}

impl Part {
    fn new(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if !text.contains(['*', '?', '[', '{', '\\']) {
            return Ok(Self::Exact(text.to_owned()));
        }
        let glob =
            GlobBuilder::new(text).literal_separator(true).build().map_err(|e| e.kind().to_string())?;
        Ok(Self::Glob(glob.compile_matcher()))
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == text,
            Self::Glob(glob) => glob.is_match(text),
        }
    }

    /// A pattern that names system points on purpose.
    fn starts_with_at(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Exact(exact) => exact.starts_with('@'),
            Self::Glob(glob) => glob.glob().glob().starts_with('@'),
        }
    }
}

impl Pattern {
    /// The error says what is wrong with the pattern.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("a pattern of {} bytes", text.len()));
        }
        // @sink/NAME/pending: the point is what follows the last slash.
        let split = if text.starts_with('@') { text.rsplit_once('/') } else { text.split_once('/') };
        let (device, point) = split.unwrap_or((text, "*"));
        Ok(Self { device: Part::new(device)?, point: Part::new(point)? })
    }

    pub(crate) fn matches_device(&self, device: &str) -> bool {
        self.device.matches(device)
    }

    pub(crate) fn matches_point(&self, point: &str) -> bool {
        self.point.matches(point)
    }

    /// Matches a system point such as `@host/clock_synced` or `meter-01/@gap`.
    pub(crate) fn matches_system(&self, owner: &str, point: &str) -> bool {
        (self.device.starts_with_at() || self.point.starts_with_at())
            && self.device.matches(owner)
            && self.point.matches(point)
    }

    /// The pattern names system points on purpose.
    pub(crate) fn is_system(&self) -> bool {
        self.device.starts_with_at() || self.point.starts_with_at()
    }

    /// Device and point where the pattern names exactly one.
    pub(crate) fn exact(&self) -> Option<(&str, &str)> {
        match (&self.device, &self.point) {
            (Part::Exact(device), Part::Exact(point)) => Some((device, point)),
            _ => None,
        }
    }

    /// The device where the pattern names exactly one.
    pub(crate) fn exact_device(&self) -> Option<&str> {
        match &self.device {
            Part::Exact(device) => Some(device),
            _ => None,
        }
    }
}

/// A pattern over the points of one device.
pub(crate) fn of_points(text: &str) -> Result<impl Fn(&str) -> bool, String> {
    let part = Part::new(text)?;
    Ok(move |name: &str| part.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, device: &str, point: &str) -> bool {
        let pattern = Pattern::new(pattern).unwrap();
        pattern.matches_device(device) && pattern.matches_point(point)
    }

    #[test]
    fn patterns_stay_within_their_part() {
        assert!(matches("*", "meter-01", "u"));
        assert!(matches("meter-01", "meter-01", "u"));
        assert!(matches("meter-*/u_{l1,l2}", "meter-01", "u_l2"));
        assert!(matches("meter-??/*", "meter-01", "u"));
        assert!(!matches("meter-01/u", "meter-010", "u"));
        assert!(!matches("*/u", "meter-01", "uu"));
        assert!(!matches("Meter-01/*", "meter-01", "u"));
        assert!(Pattern::new("a/[").is_err() && Pattern::new("").is_err());
    }

    #[test]
    fn system_points_are_named_on_purpose() {
        assert!(!Pattern::new("*").unwrap().matches_system("@host", "clock_synced"));
        assert!(Pattern::new("@host/*").unwrap().matches_system("@host", "clock_synced"));
        assert!(Pattern::new("@sink/broker/pending").unwrap().matches_system("@sink/broker", "pending"));
        assert!(Pattern::new("*/@gap").unwrap().matches_system("meter-01", "@gap"));
        assert!(!Pattern::new("*/*").unwrap().matches_system("meter-01", "@gap"));
    }
}
