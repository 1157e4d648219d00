//! Durable key-value state of devices, sinks and the host.
//!
//! [`StateStore`] is what the edge needs; [`FileStore`] keeps one file per entry in `data_dir/state/`. A put writes a
//! temporary file, syncs it, renames it over the old one and syncs the directory, so after a crash an entry is either
//! the old or the new one, never a mixture. Each file begins with its owner and key in clear and a checksum: a file
//! that does not carry the entry it is named for is reported, not believed.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Largest value, bytes.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;
/// Largest sum of all values, bytes.
pub(crate) const MAX_TOTAL: usize = 16 * 1024 * 1024;
/// Longest key, bytes.
pub(crate) const MAX_KEY: usize = 128;
/// First bytes of every entry.
const MAGIC: &str = "busbar-state-1";
/// Longest plain file name; longer ones are cut and told apart by a hash (most file systems allow 255 bytes).
const MAX_NAME: usize = 180;

/// Durable state. A put that returned Ok survives a power loss.
pub(crate) trait StateStore: Send {
    /// Stores `value` under `owner` and `key`.
    fn put(&mut self, owner: &str, key: &str, value: &[u8]) -> Result<(), String>;
    /// Reads an entry.
    fn get(&mut self, owner: &str, key: &str) -> Result<Option<Vec<u8>>, String>;
    /// Removes an entry; a missing one is no error.
    fn delete(&mut self, owner: &str, key: &str) -> Result<(), String>;
}

/// One file per entry.
#[derive(Debug)]
pub(crate) struct FileStore {
    dir: PathBuf,
    /// Size of each value by file name, for the bound on the sum; read at the first put.
    sizes: Option<HashMap<String, usize>>,
}

impl FileStore {
    /// The store of `data_dir`. Nothing is touched before the first use.
    #[must_use]
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("state"), sizes: None }
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> String {
        format!("{}: state could not be {what}: {error}", self.dir.display())
    }

    fn check_room(&mut self, name: &str, size: usize) -> Result<(), String> {
        if self.sizes.is_none() {
            self.sizes = Some(read_sizes(&self.dir).map_err(|error| self.failed("listed", &error))?);
        }
        let others: usize = self
            .sizes
            .iter()
            .flatten()
            .filter(|(other, _)| other.as_str() != name)
            .map(|(_, size)| *size)
            .sum();
        if others + size > MAX_TOTAL {
            return Err(format!("state: expected at most {MAX_TOTAL} bytes in all, found {}", others + size));
        }
        Ok(())
    }
}

impl StateStore for FileStore {
    fn put(&mut self, owner: &str, key: &str, value: &[u8]) -> Result<(), String> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(format!("state key: expected 1 to {MAX_KEY} bytes, found {}", key.len()));
        }
        if value.len() > MAX_VALUE {
            return Err(format!("state value: expected at most {MAX_VALUE} bytes, found {}", value.len()));
        }
        fs::create_dir_all(&self.dir).map_err(|error| self.failed("written", &error))?;
        let name = file_name(owner, key);
        self.check_room(&name, value.len())?;
        replace(&self.dir, &name, &encode(owner, key, value))
            .map_err(|error| self.failed("written", &error))?;
        self.sizes.get_or_insert_default().insert(name, value.len());
        Ok(())
    }

    fn get(&mut self, owner: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.dir.join(file_name(owner, key));
        match fs::read(&path) {
            Ok(file) => decode(owner, key, &file).map(|value| Some(value.to_vec())).ok_or_else(|| {
                format!(
                    "{}: expected the state {key} of {owner}, found a damaged file: remove it",
                    path.display()
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    fn delete(&mut self, owner: &str, key: &str) -> Result<(), String> {
        let name = file_name(owner, key);
        match fs::remove_file(self.dir.join(&name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed("removed", &error)),
        }
        if let Some(sizes) = &mut self.sizes {
            sizes.remove(&name);
        }
        sync_dir(&self.dir).map_err(|error| self.failed("removed", &error))
    }
}

/// Writes `name` in `dir` so that after a crash it is either the old or the new content.
pub(crate) fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn read_sizes(dir: &Path) -> io::Result<HashMap<String, usize>> {
    let mut sizes = HashMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
            sizes.insert(name.to_owned(), usize::try_from(entry.metadata()?.len()).unwrap_or(usize::MAX));
        }
    }
    Ok(sizes)
}

/// `MAGIC hash owner key`, lengths of the last two first, then the value.
fn encode(owner: &str, key: &str, value: &[u8]) -> Vec<u8> {
    let body = [format!("{} {}\n{owner}{key}", owner.len(), key.len()).as_bytes(), value].concat();
    [format!("{MAGIC} {:016x}\n", fnv(&body)).as_bytes(), &body].concat()
}

fn decode<'a>(owner: &str, key: &str, file: &'a [u8]) -> Option<&'a [u8]> {
    let (head, body) = split_line(file)?;
    let hash = std::str::from_utf8(head).ok()?.strip_prefix(MAGIC)?.trim();
    if u64::from_str_radix(hash, 16).ok()? != fnv(body) {
        return None;
    }
    let (lengths, rest) = split_line(body)?;
    if lengths != format!("{} {}", owner.len(), key.len()).as_bytes() {
        return None;
    }
    rest.strip_prefix(owner.as_bytes())?.strip_prefix(key.as_bytes())
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Owner and key as one file name: letters, digits, `_ . -` stay, everything else is escaped.
fn file_name(owner: &str, key: &str) -> String {
    let mut name = String::new();
    for byte in owner.bytes().chain([b'/']).chain(key.bytes()) {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    if name.len() > MAX_NAME {
        let hash = fnv(name.as_bytes());
        name.truncate(MAX_NAME);
        let _ = write!(name, "~{hash:016x}");
    }
    name
}

/// FNV-1a, 64 bit: finds torn and mixed-up files; no protection against intent is needed here.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_and_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let long = "k".repeat(MAX_KEY - 1);
        let keys = ["a", "a/b", "a%2fb", "ü", &format!("{long}1"), &format!("{long}2")];
        let mut store = FileStore::new(dir.path());
        for owner in ["device/m", "device/m/a", "host"] {
            for key in keys {
                assert_eq!(store.get(owner, key), Ok(None));
                store.put(owner, key, format!("{owner} {key}").as_bytes()).unwrap();
            }
        }
        let mut again = FileStore::new(dir.path());
        for owner in ["device/m", "device/m/a", "host"] {
            for key in keys {
                assert_eq!(again.get(owner, key), Ok(Some(format!("{owner} {key}").into_bytes())));
            }
        }
        again.delete("host", "a").unwrap();
        again.delete("host", "a").unwrap();
        assert_eq!(store.get("host", "a"), Ok(None));
    }

    #[test]
    fn bounds_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(dir.path());
        assert!(store.put("host", "", b"x").unwrap_err().contains("1 to 128"));
        assert!(store.put("host", &"k".repeat(129), b"x").unwrap_err().contains("found 129"));
        let largest = vec![7; MAX_VALUE];
        assert!(store.put("host", "k", &[largest.as_slice(), b"x"].concat()).is_err());
        for number in 0..MAX_TOTAL / MAX_VALUE {
            store.put("host", &number.to_string(), &largest).unwrap();
        }
        assert!(store.put("host", "more", b"x").unwrap_err().contains("in all"));
        store.put("host", "0", b"smaller").unwrap();
        store.put("host", "more", b"x").unwrap();
        assert!(FileStore::new(dir.path()).put("host", "again", &largest).unwrap_err().contains("in all"));
    }

    #[test]
    fn every_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(dir.path());
        store.put("host", "switch", b"locked").unwrap();
        let path = dir.path().join("state").join(file_name("host", "switch"));
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            assert!(store.get("host", "switch").unwrap_err().contains("damaged"), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(store.get("host", "switch").is_err(), "cut at {at}");
        }
        // The temporary file of an interrupted put is not an entry.
        fs::write(&path, &good).unwrap();
        fs::write(dir.path().join("state/.host%2fswitch.tmp"), b"half").unwrap();
        assert_eq!(store.get("host", "switch"), Ok(Some(b"locked".to_vec())));
    }
}
