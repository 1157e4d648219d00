//! Types of settings.

use std::path::PathBuf;
use std::time::Duration;

use busbar_kit::tls::TlsFiles;
use schemars::JsonSchema;
use serde::Deserialize;

/// One URL or a list.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Urls {
    /// One far side.
    One(String),
    /// Several, tried in order.
    Many(Vec<String>),
}

impl Urls {
    /// The URLs with their JSON pointers.
    #[must_use]
    pub fn list(&self) -> Vec<(String, &str)> {
        match self {
            Self::One(url) => vec![("/settings/url".to_owned(), url.as_str())],
            Self::Many(urls) => urls
                .iter()
                .enumerate()
                .map(|(at, url)| (format!("/settings/url/{at}"), url.as_str()))
                .collect(),
        }
    }
}

/// Which one of a list is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Prefer {
    /// Always the first.
    #[default]
    First,
    /// The one that worked last.
    LastGood,
}

/// PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Authority that signed the far side's certificate. Default: those of the operating system.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub ca: Option<PathBuf>,
    /// Our certificate.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub cert: Option<PathBuf>,
    /// Our private key.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub key: Option<PathBuf>,
}

impl From<Tls> for TlsFiles {
    fn from(Tls { ca, cert, key }: Tls) -> Self {
        Self { ca, cert, key }
    }
}

/// Reads `"1500ms"`, `"20s"`, `"5m"`, `"1h"`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(ms))
}

/// Reads `"1000B"`, `"64KiB"`, `"1MiB"`.
#[must_use]
pub fn size(text: &str) -> Option<usize> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    usize::try_from(number.checked_mul(factor)?).ok()
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("1500 ms"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(size("256KiB"), Some(262_144));
        for bad in ["", "s", "30", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h", "1 day"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(size("18446744073709551615MiB"), None);
    }

    #[test]
    fn files_are_marked_so_that_the_host_looks_at_them() {
        let schema = serde_json::to_value(schemars::schema_for!(Tls)).unwrap();
        for key in ["ca", "cert", "key"] {
            assert_eq!(schema["properties"][key]["format"], "path", "{key}");
        }
    }
}
