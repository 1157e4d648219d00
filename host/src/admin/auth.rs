//! The bearer token of the API: made at the first start, kept in `data_dir/admin.token` with mode 0600.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Name of the token file within `data_dir`.
pub const TOKEN_FILE: &str = "admin.token";
/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
/// A token put there by hand must not be shorter than this.
const MIN_TOKEN: usize = 16;
/// Longer files are no token.
const MAX_TOKEN: usize = 1024;

/// The token. Never printed, compared in constant time.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Token {
    /// Reads the token of `data_dir`, making one at the first start.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, String> {
        let path = data_dir.join(TOKEN_FILE);
        match read(&path)? {
            Some(token) => Ok(token),
            None => create(data_dir, &path),
        }
    }

    /// The text, for a client of this host.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares with what a client sent, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, sent: &str) -> bool {
        let (own, sent) = (self.0.as_bytes(), sent.as_bytes());
        let length = usize::from(own.len() != sent.len());
        let difference =
            own.iter().zip(sent.iter().cycle()).fold(0u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
        length == 0 && difference == 0
    }

    /// Checks an `Authorization` header.
    #[must_use]
    pub fn allows(&self, authorization: Option<&str>) -> bool {
        authorization
            .and_then(|header| header.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .is_some_and(|(_, sent)| self.matches(sent.trim()))
    }
}

fn read(path: &Path) -> Result<Option<Token>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: the admin token could not be read: {error}", path.display())),
    };
    let token = String::from_utf8(text).unwrap_or_default().trim().to_owned();
    if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{}: expected one line of {MIN_TOKEN} to {MAX_TOKEN} printable characters, found something else: \
             remove the file and a new token is made at the next start",
            path.display()
        ));
    }
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!("{}: others can read the admin token: chmod 600 it", path.display());
    }
    Ok(Some(Token(token)))
}

fn create(data_dir: &Path, path: &Path) -> Result<Token, String> {
    let failed =
        |error: &dyn fmt::Display| format!("{}: the admin token could not be made: {error}", path.display());
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| failed(&error))?;
    let token = busbar_contract::value::hex(&random);
    let temporary: PathBuf = data_dir.join(format!(".{TOKEN_FILE}.tmp"));
    let write = || {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error: io::Error| failed(&error))?;
    Ok(Token(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_private_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Token::load_or_create(dir.path()).unwrap();
        let again = Token::load_or_create(dir.path()).unwrap();
        assert!(again.matches(first.reveal()));
        assert_eq!(first.reveal().len(), 2 * TOKEN_BYTES);
        let mode = fs::metadata(dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(first.reveal()));
        let other = tempfile::tempdir().unwrap();
        assert!(!Token::load_or_create(other.path()).unwrap().matches(first.reveal()));
    }

    #[test]
    fn only_the_exact_token_passes() {
        let token = Token("0123456789abcdef".into());
        assert!(token.allows(Some("Bearer 0123456789abcdef")));
        assert!(token.allows(Some("bearer  0123456789abcdef ")));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0123456789abcdef",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!token.allows(Some(bad)), "{bad}");
        }
        assert!(!token.allows(None));
    }

    #[test]
    fn a_file_that_is_no_token_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "secret", "two words that are long enough", "\u{e9}".repeat(20).as_str()] {
            fs::write(dir.path().join(TOKEN_FILE), bad).unwrap();
            let error = Token::load_or_create(dir.path()).unwrap_err();
            assert!(
                error.contains("expected one line") && (bad.is_empty() || !error.contains(bad)),
                "{error}"
            );
        }
    }
}
