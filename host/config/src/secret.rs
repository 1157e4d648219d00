//! References to values kept elsewhere: `${env:NAME}`, `${file:/path}`, `${cred:NAME}` (a systemd credential, read
//! from `$CREDENTIALS_DIRECTORY`). A reference may be a part of a text; `$${` stands for a plain `${`.
//!
//! References are followed only when a value is handed to whoever needs it, and whatever contains one is never
//! printed. Names of devices, points and sinks are shown everywhere, so a reference there hides nothing. A relative `file:` path starts at the folder of the main file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::source;

/// Largest secret that is read from a file.
const MAX_SECRET: usize = 64 * 1024;

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

impl Vault {
    /// Replaces all references in `text`.
    pub(crate) fn resolve(&self, text: &str) -> Result<String, Lost> {
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
            out.push_str(&self.follow(reference)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn follow(&self, reference: &str) -> Result<String, Lost> {
        match reference.split_once(':') {
            Some(("env", name)) => self.env(name).ok_or_else(|| {
                (
                    format!("the environment variable {name} to be set"),
                    "it is not set".into(),
                    "set it for the process that runs busbar".into(),
                )
            }),
            Some(("file", path)) => self.file(&self.base.join(path)),
            Some(("cred", name)) => self.credential(name),
            _ => Err((
                "a reference ${env:NAME}, ${file:/path} or ${cred:NAME}".into(),
                format!("${{{reference}}}"),
                "write $${ for a plain ${".into(),
            )),
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        match &self.env {
            Some(env) => env.get(name).cloned(),
            None => std::env::var(name).ok(),
        }
    }

    fn credential(&self, name: &str) -> Result<String, Lost> {
        if name.is_empty() || name.contains('/') || name == ".." {
            return Err(("the name of a credential".into(), format!("{name:?}"), String::new()));
        }
        let directory = self.env("CREDENTIALS_DIRECTORY").ok_or_else(|| {
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

    #[test]
    fn references() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "abc\n").unwrap();
        let env = BTreeMap::from([
            ("USER".to_owned(), "me".to_owned()),
            ("CREDENTIALS_DIRECTORY".to_owned(), dir.path().display().to_string()),
        ]);
        let vault = Vault { env: Some(env), base: dir.path().into() };
        assert_eq!(vault.resolve("a ${env:USER} b").as_deref(), Ok("a me b"));
        assert_eq!(vault.resolve("${file:token}${cred:token}").as_deref(), Ok("abcabc"));
        assert_eq!(vault.resolve("$${env:USER}").as_deref(), Ok("${env:USER}"));
        assert_eq!(vault.resolve("plain $ text }").as_deref(), Ok("plain $ text }"));
        for (bad, expected) in [
            ("${env:NOPE}", "the environment variable NOPE to be set"),
            ("${file:nope}", "a readable file"),
            ("${cred:../x}", "the name of a credential"),
            ("${vault:x}", "a reference ${env:NAME}, ${file:/path} or ${cred:NAME}"),
            ("${env:USER", "a closing } behind ${"),
        ] {
            assert_eq!(vault.resolve(bad).unwrap_err().0, expected, "{bad}");
        }
    }
}
