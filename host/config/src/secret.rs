//! References to values kept elsewhere: `${env:NAME}`, `${env:NAME:-default}`, `${file:/path}`, `${cred:NAME}` (a systemd
//! credential, read from `$CREDENTIALS_DIRECTORY`). A reference may be a part of a text (`"${env:SECONDS:-60}s"`); `$${`
//! stands for a plain `${`.
//!
//! The environment. `${env:NAME}` is the variable `NAME`, or the content of the file that `NAME_FILE` names (one line
//! break at its end is not part of it); both at once is an error, because nobody can tell which one was meant. With a
//! default a variable that is empty counts as not set, as in a shell, and so does an empty `NAME` beside `NAME_FILE`. The
//! default reaches to the first `}` and may be empty. Precedence: environment, then what the file says (the default).
//!
//! References are followed only when a value is handed to whoever needs it, and whatever contains one is never
//! printed. Names of devices, points and sinks are shown everywhere, so a reference there hides nothing. A relative
//! path in `file:` or `NAME_FILE` starts at the folder of the main file. Numbers and switches: see `settle`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{redact, source};

/// Largest secret that is read from a file.
const MAX_SECRET: usize = 64 * 1024;
/// A variable with this at its end names a file that holds the value.
const FILE_SUFFIX: &str = "_FILE";

/// Where references lead to.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    /// Replaces the environment in tests.
    pub(crate) env: Option<BTreeMap<String, String>>,
    /// Folder of the main file.
    pub(crate) base: PathBuf,
}

/// Why a reference leads nowhere: expected, found, what to do.
pub(crate) type Lost = (String, String, String);

/// The text contains a reference, or an escaped one: its value differs from its text.
pub(crate) fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// The text contains a reference that leads to a secret.
pub(crate) fn is_secret(text: &str) -> bool {
    text.match_indices("${").any(|(at, _)| !text.get(..at).is_some_and(|before| before.ends_with('$')))
}

/// The text is nothing but one reference.
pub(crate) fn is_whole(text: &str) -> bool {
    text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

/// All references in the text lead to the environment, to variables whose names do not speak of secrets: the text as it is
/// written gives nothing away. A default in it is no more secret than a text that stands there without a variable.
pub(crate) fn is_telling_nothing(text: &str) -> bool {
    text.match_indices("${")
        .filter(|(at, _)| !text.get(..*at).is_some_and(|before| before.ends_with('$')))
        .all(|(at, mark)| {
            let inner = text.get(at + mark.len()..).and_then(|inner| inner.split_once('}'));
            let name = inner.and_then(|(inner, _)| inner.strip_prefix("env:"));
            name.is_some_and(|name| !redact::telling(name.split_once(":-").map_or(name, |(name, _)| name)))
        })
}

/// Where the value of a reference to the environment came from, for print-config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The variable.
    Variable(String),
    /// The file named by the variable with `_FILE`.
    File(String),
    /// The default; the variable is not set.
    Default(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "from {name}"),
            Self::File(name) => write!(f, "from the file in {name}{FILE_SUFFIX}"),
            Self::Default(name) => write!(f, "default, {name} is not set"),
        }
    }
}

/// A text with its references followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resolved {
    pub(crate) text: String,
    /// Of each reference to the environment, in order.
    pub(crate) origins: Vec<Origin>,
}

impl Vault {
    /// Replaces all references in `text`.
    pub(crate) fn resolve(&self, text: &str) -> Result<Resolved, Lost> {
        let mut origins = Vec::new();
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, tail) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = tail.strip_prefix("${").unwrap_or_default();
                continue;
            }
            out.push_str(before);
            let inner = tail.strip_prefix("${").unwrap_or_default();
            let Some((reference, after)) = inner.split_once('}') else {
                return Err((
                    "a closing } behind ${".into(),
                    "none".into(),
                    "write $${ for a plain ${".into(),
                ));
            };
            out.push_str(&self.follow(reference, &mut origins)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(Resolved { text: out, origins })
    }

    fn follow(&self, reference: &str, origins: &mut Vec<Origin>) -> Result<String, Lost> {
        match reference.split_once(':') {
            Some(("env", rest)) => {
                let (name, default) = match rest.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (rest, None),
                };
                let (value, origin) = self.environment(name, default)?;
                origins.push(origin);
                Ok(value)
            }
            Some(("file", path)) => self.file(&self.base.join(path)),
            Some(("cred", name)) => self.credential(name),
            _ => Err((
                "a reference ${env:NAME}, ${env:NAME:-default}, ${file:/path} or ${cred:NAME}".into(),
                format!("${{{reference}}}"),
                "write $${ for a plain ${".into(),
            )),
        }
    }

    /// The variable, the file that its `_FILE` twin names, or the default.
    fn environment(&self, name: &str, default: Option<&str>) -> Result<(String, Origin), Lost> {
        let twin = format!("{name}{FILE_SUFFIX}");
        let value = self.env(name)?;
        let path = self.env(&twin)?.filter(|path| !path.is_empty());
        let counts = |value: &String| !(value.is_empty() && (default.is_some() || path.is_some()));
        match (value.filter(counts), &path, default) {
            (Some(_), Some(_), _) => Err((
                format!("either {name} or {twin} in the environment"),
                "both".into(),
                "unset one of them".into(),
            )),
            (Some(value), None, _) => Ok((value, Origin::Variable(name.to_owned()))),
            (None, Some(path), _) => match self.file(&self.base.join(path)) {
                Ok(text) => Ok((text, Origin::File(name.to_owned()))),
                Err((expected, found, _)) => Err((expected, found, format!("{twin} names this file"))),
            },
            (None, None, Some(default)) => Ok((default.to_owned(), Origin::Default(name.to_owned()))),
            (None, None, None) => Err((
                format!("the environment variable {name} to be set"),
                "it is not set".into(),
                format!("set {name}, or {twin} with the name of a file, for the process that runs busbar"),
            )),
        }
    }

    fn env(&self, name: &str) -> Result<Option<String>, Lost> {
        match &self.env {
            Some(env) => Ok(env.get(name).cloned()),
            None => match std::env::var(name) {
                Ok(value) => Ok(Some(value)),
                Err(std::env::VarError::NotPresent) => Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => Err((
                    format!("UTF-8 in the environment variable {name}"),
                    "other bytes".into(),
                    String::new(),
                )),
            },
        }
    }

    fn credential(&self, name: &str) -> Result<String, Lost> {
        if name.is_empty() || name.contains('/') || name == ".." {
            return Err(("the name of a credential".into(), format!("{name:?}"), String::new()));
        }
        let directory = self.env("CREDENTIALS_DIRECTORY")?.ok_or_else(|| {
            (
                format!("a systemd credential {name}"),
                "CREDENTIALS_DIRECTORY is not set: not started by systemd".into(),
                format!("LoadCredential={name}:/path in the unit"),
            )
        })?;
        self.file(&Path::new(&directory).join(name))
    }

    fn file(&self, path: &Path) -> Result<String, Lost> {
        let text = source::read_text(path).map_err(|(expected, found)| (expected, found, String::new()))?;
        if text.len() > MAX_SECRET {
            return Err((
                format!("a secret of at most {} KiB", MAX_SECRET / 1024),
                format!("{} bytes in {}", text.len(), path.display()),
                String::new(),
            ));
        }
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(dir: &Path, env: &[(&str, &str)]) -> Vault {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Vault { env: Some(env), base: dir.into() }
    }

    #[test]
    fn references() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "abc\n").unwrap();
        let folder = dir.path().display().to_string();
        let vault = vault(dir.path(), &[("USER", "me"), ("CREDENTIALS_DIRECTORY", &folder)]);
        let text = |raw: &str| vault.resolve(raw).map(|resolved| resolved.text);
        assert_eq!(text("a ${env:USER} b").as_deref(), Ok("a me b"));
        assert_eq!(text("${file:token}${cred:token}").as_deref(), Ok("abcabc"));
        assert_eq!(text("$${env:USER}").as_deref(), Ok("${env:USER}"));
        assert_eq!(text("plain $ text }").as_deref(), Ok("plain $ text }"));
        for (bad, expected) in [
            ("${env:NOPE}", "the environment variable NOPE to be set"),
            ("${file:nope}", "a readable file"),
            ("${cred:../x}", "the name of a credential"),
            ("${vault:x}", "a reference ${env:NAME}, ${env:NAME:-default}, ${file:/path} or ${cred:NAME}"),
            ("${env:USER", "a closing } behind ${"),
            ("${env:USER:-x", "a closing } behind ${"),
        ] {
            assert_eq!(text(bad).unwrap_err().0, expected, "{bad}");
        }
    }

    #[test]
    fn the_environment_is_before_the_default() {
        let vault = vault(Path::new(""), &[("SET", "5"), ("EMPTY", "")]);
        for (raw, text, origin) in [
            ("${env:SET:-60}s", "5s", Origin::Variable("SET".into())),
            ("${env:NOT:-60}s", "60s", Origin::Default("NOT".into())),
            ("${env:EMPTY:-60}s", "60s", Origin::Default("EMPTY".into())),
            ("${env:NOT:-}", "", Origin::Default("NOT".into())),
            ("${env:NOT:-http://h:8000/x:-y}", "http://h:8000/x:-y", Origin::Default("NOT".into())),
            ("[${env:EMPTY}]", "[]", Origin::Variable("EMPTY".into())),
        ] {
            let resolved = vault.resolve(raw).unwrap();
            assert_eq!((resolved.text.as_str(), resolved.origins.as_slice()), (text, &[origin][..]), "{raw}");
        }
    }

    #[test]
    fn a_file_may_hold_the_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "two lines\n\n").unwrap();
        let env =
            [("T_FILE", "token"), ("T", ""), ("BOTH", "x"), ("BOTH_FILE", "token"), ("GONE_FILE", "no")];
        let vault = vault(dir.path(), &env);
        for raw in ["${env:T}", "${env:T:-default}"] {
            let resolved = vault.resolve(raw).unwrap();
            assert_eq!(resolved.text, "two lines\n", "one line break is taken away");
            assert_eq!(resolved.origins, [Origin::File("T".into())]);
        }
        let (expected, found, _) = vault.resolve("${env:BOTH:-x}").unwrap_err();
        assert_eq!(
            (expected.as_str(), found.as_str()),
            ("either BOTH or BOTH_FILE in the environment", "both")
        );
        let (expected, _, help) = vault.resolve("${env:GONE:-default}").unwrap_err();
        assert_eq!((expected.as_str(), help.as_str()), ("a readable file", "GONE_FILE names this file"));
    }

    #[test]
    fn what_may_be_quoted() {
        for text in ["${env:URL:-http://h}", "${env:SECONDS}s", "a${env:A}b${env:B:-c}", "$${file:x}${env:A}"]
        {
            assert!(is_telling_nothing(text), "{text}");
        }
        for text in [
            "${env:EMS_TOKEN}",
            "${file:x}",
            "${cred:x}",
            "${env:A}${cred:x}",
            "${env:A",
            "${env:DB_PASSWORD:-x}",
        ] {
            assert!(!is_telling_nothing(text), "{text}");
        }
    }

    #[test]
    fn whole_references() {
        assert!(is_whole("${env:A}") && is_whole("${env:A:-1}"));
        assert!(
            !is_whole("${env:A}s")
                && !is_whole("$${env:A}")
                && !is_whole("${env:A}${env:B}")
                && !is_whole("")
        );
    }
}
