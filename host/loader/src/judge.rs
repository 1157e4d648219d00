//! Whether a description is acceptable to this host. Pure; used on the probe's answer and again after loading.

use busbar_contract::{Describe, PROTOCOL, describe::PluginKind};

/// What was asked for; `None` accepts anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expect<'a> {
    /// Driver or sink.
    pub kind: Option<PluginKind>,
    /// Name in the configuration.
    pub name: Option<&'a str>,
}

/// Longest description, bytes.
pub const MAX_DESCRIBE: usize = 8 * 1024 * 1024;

/// Reads the text of `describe`.
///
/// # Errors
/// A sentence without the file name.
pub fn parse(text: &[u8]) -> Result<Describe, String> {
    if text.len() > MAX_DESCRIBE {
        return Err(format!("its description is too large: expected at most {MAX_DESCRIBE} bytes"));
    }
    serde_json::from_slice(text)
        .map_err(|error| format!("its description cannot be read ({error}); rebuild it with the Busbar SDK"))
}

/// Accepts what this host can run.
///
/// # Errors
/// A sentence without the file name.
pub fn judge(describe: &Describe, expect: Expect<'_>) -> Result<(), String> {
    if !crate::stage::is_plugin_name(&describe.name) {
        let found = &describe.name;
        return Err(format!("its name: expected 1 to 64 of a-z A-Z 0-9 _ -, found {found:?}"));
    }
    if !describe.unwind {
        return Err("built with panic = \"abort\", so any panic would stop the host; rebuild it with \
                    panic = \"unwind\""
            .into());
    }
    let (theirs, ours) = (describe.protocol, PROTOCOL);
    if theirs.major != ours.major {
        let (found, expected) = (theirs.major, ours.major);
        let advice = if found > expected { "upgrade Busbar" } else { "install a newer build of the plugin" };
        return Err(format!("protocol: expected major {expected}, found {found}; {advice}"));
    }
    if describe.needs > ours.minor {
        let (major, needs, minor) = (ours.major, describe.needs, ours.minor);
        return Err(format!(
            "protocol: it needs a host of {major}.{needs} or newer, found {major}.{minor}; upgrade Busbar"
        ));
    }
    if let Some(kind) = expect.kind.filter(|kind| *kind != describe.kind) {
        let (expected, found) = (kind.as_str(), describe.kind.as_str());
        return Err(format!("expected a {expected}, found the {found} \"{}\"", describe.name));
    }
    if let Some(name) = expect.name.filter(|name| *name != describe.name) {
        let found = &describe.name;
        return Err(format!("expected the plugin \"{name}\", found \"{found}\"; check path and name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(change: impl FnOnce(&mut serde_json::Value)) -> Describe {
        let mut json = serde_json::json!({
            "name": "x", "kind": "driver", "version": "1.0.0", "sdk": "1.0.0", "unwind": true,
            "protocol": { "major": PROTOCOL.major, "minor": PROTOCOL.minor },
            "a_key_of_a_later_release": 1,
        });
        change(&mut json);
        parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn newer_and_older_minors_are_served() {
        let any = Expect::default();
        assert_eq!(judge(&describe(|_| {}), any), Ok(()));
        assert_eq!(judge(&describe(|d| d["protocol"]["minor"] = 99.into()), any), Ok(()));
        let text = judge(&describe(|d| d["needs"] = 99.into()), any).unwrap_err();
        assert!(text.contains("1.99") && text.contains("upgrade Busbar"), "{text}");
        let text = judge(&describe(|d| d["protocol"]["major"] = 2.into()), any).unwrap_err();
        assert!(text.contains("expected major 1, found 2"), "{text}");
        let text = judge(&describe(|d| d["protocol"]["major"] = 0.into()), any).unwrap_err();
        assert!(text.contains("newer build of the plugin"), "{text}");
    }

    #[test]
    fn other_plugins_are_refused() {
        let driver = describe(|_| {});
        let expect = Expect { kind: Some(PluginKind::Sink), name: None };
        assert!(judge(&driver, expect).unwrap_err().contains("expected a sink, found the driver \"x\""));
        let expect = Expect { kind: None, name: Some("y") };
        assert!(judge(&driver, expect).unwrap_err().contains("expected the plugin \"y\", found \"x\""));
        assert!(judge(&describe(|d| d["unwind"] = false.into()), Expect::default()).is_err());
        assert!(judge(&describe(|d| d["name"] = "../x".into()), Expect::default()).is_err());
    }

    #[test]
    fn unreadable_descriptions_are_refused() {
        for text in [&b""[..], b"{}", b"[1]", b"\xff"] {
            assert!(parse(text).is_err());
        }
    }
}
