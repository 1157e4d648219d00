//! Durable key-value state of devices, sinks and the host: `data_dir/state.db` ([`busbar_queue::State`]).
//!
//! The file is opened at the first use that needs it: a command that only looks leaves no file behind. What earlier
//! versions kept as one file per entry in `data_dir/state/` is taken over at the first opening, and the directory is
//! renamed to `state.imported`, so that it happens once and nothing is deleted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use busbar_queue::{Found, Mended, State};

/// First bytes of an entry of earlier versions.
const MAGIC: &str = "busbar-state-1";
/// Longest file of earlier versions: a value and its heads.
const MAX_OLD_FILE: u64 = busbar_queue::MAX_VALUE as u64 + 1024;

/// The durable state. A put that returned Ok survives a power loss.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    old: PathBuf,
    state: Option<State>,
    /// Damaged entries of an earlier version were not taken over. (What the file itself lost it remembers by itself.)
    lost: bool,
}

impl Store {
    /// The store of `data_dir`. Nothing is touched before the first use.
    #[must_use]
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("state.db"), old: data_dir.join("state"), state: None, lost: false }
    }

    /// Stores `value` under `owner` and `key`.
    pub(crate) fn put(&mut self, owner: &str, key: &str, value: &[u8]) -> Result<(), String> {
        let put = self.open()?.put(owner, key, value);
        self.tell();
        put
    }

    /// Reads an entry. One that is not there although it may have been is an error: only what was never stored is `None`.
    pub(crate) fn get(&mut self, owner: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        if self.is_absent() {
            return Ok(None);
        }
        let found = self.open()?.get(owner, key);
        self.tell();
        match found? {
            Found::Value(value) => Ok(Some(value)),
            Found::Never if self.lost => {
                Err("may have been lost with damaged entries of an earlier version".to_owned())
            }
            Found::Never => Ok(None),
            Found::Lost(why) => Err(format!("may have been lost with an earlier damage: {why}")),
        }
    }

    /// Removes an entry; a missing one is no error.
    pub(crate) fn delete(&mut self, owner: &str, key: &str) -> Result<(), String> {
        if self.is_absent() {
            return Ok(());
        }
        let deleted = self.open()?.delete(owner, key);
        self.tell();
        deleted
    }

    /// Removes everything of `owner`; gives back how many entries there were.
    pub(crate) fn clear(&mut self, owner: &str) -> Result<usize, String> {
        if self.is_absent() {
            return Ok(0);
        }
        let cleared = self.open()?.clear(owner);
        self.tell();
        cleared
    }

    /// What a salvage while the file was in use has to say.
    fn tell(&mut self) {
        for mended in self.state.iter_mut().flat_map(State::take_mended) {
            tracing::error!("{}", mended.note);
        }
    }

    /// Damage was found: an entry that is not there may be lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost || self.state.as_ref().is_some_and(|state| state.lost().is_some())
    }

    /// Closes the file in order.
    pub(crate) fn close(self) {
        if let Some(state) = self.state {
            state.close();
        }
    }

    /// Nothing was ever stored.
    fn is_absent(&self) -> bool {
        self.state.is_none() && !self.path.exists() && !self.old.exists()
    }

    fn open(&mut self) -> Result<&mut State, String> {
        let state = match self.state.take() {
            Some(state) => state,
            None => {
                let (mut state, mended) = State::open(&self.path)?;
                for Mended { note, .. } in mended {
                    tracing::error!("{note}");
                }
                self.import(&mut state)?;
                state
            }
        };
        Ok(self.state.insert(state))
    }

    /// Takes over what an earlier version stored. An entry that is there already is newer.
    fn import(&mut self, state: &mut State) -> Result<(), String> {
        let failed = |error: io::Error| {
            format!("{}: state of an earlier version cannot be taken over: {error}", self.old.display())
        };
        let entries = match fs::read_dir(&self.old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        let (mut taken, mut damaged) = (0, 0);
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            // What a put that was interrupted left behind.
            if path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.')) {
                continue;
            }
            match read_old(&path).map_err(failed)? {
                Some((owner, key, value)) => {
                    if !matches!(state.get(&owner, &key)?, Found::Value(_)) {
                        state.put(&owner, &key, &value)?;
                    }
                    taken += 1;
                }
                None => damaged += 1,
            }
        }
        let kept = self.old.with_file_name("state.imported");
        fs::rename(&self.old, &kept).map_err(failed)?;
        tracing::info!("{taken} entries of an earlier version were taken over into {}", self.path.display());
        if damaged > 0 {
            self.lost = true;
            tracing::error!(
                "{damaged} damaged entries were not taken over; they are kept in {}",
                kept.display()
            );
        }
        Ok(())
    }
}

/// Owner, key and value of an entry of earlier versions: `MAGIC hash`, lengths, owner, key, value. `None`: damaged.
fn read_old(path: &Path) -> io::Result<Option<(String, String, Vec<u8>)>> {
    if fs::metadata(path)?.len() > MAX_OLD_FILE {
        return Ok(None);
    }
    Ok(decode_old(&fs::read(path)?))
}

fn decode_old(file: &[u8]) -> Option<(String, String, Vec<u8>)> {
    let (head, body) = split_line(file)?;
    let hash = std::str::from_utf8(head).ok()?.strip_prefix(MAGIC)?.trim();
    if u64::from_str_radix(hash, 16).ok()? != fnv(body) {
        return None;
    }
    let (lengths, rest) = split_line(body)?;
    let (owner, key) = std::str::from_utf8(lengths).ok()?.split_once(' ')?;
    let (owner, rest) = rest.split_at_checked(owner.parse().ok()?)?;
    let (key, value) = rest.split_at_checked(key.parse().ok()?)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some((text(owner)?, text(key)?, value.to_vec()))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// FNV-1a, 64 bit, the checksum of earlier versions.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As earlier versions wrote it.
    fn old_entry(owner: &str, key: &str, value: &[u8]) -> Vec<u8> {
        let body = [format!("{} {}\n{owner}{key}", owner.len(), key.len()).as_bytes(), value].concat();
        [format!("{MAGIC} {:016x}\n", fnv(&body)).as_bytes(), &body].concat()
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path());
        assert_eq!(store.get("host", "switches"), Ok(None));
        assert_eq!((store.delete("host", "switches"), store.clear("device/m")), (Ok(()), Ok(0)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        store.put("host", "switches", b"x").unwrap();
        store.close();
        assert_eq!(Store::new(dir.path()).get("host", "switches"), Ok(Some(b"x".to_vec())));
    }

    #[test]
    fn state_of_earlier_versions_is_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("state");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("host%2fswitches"), old_entry("host", "switches", b"locked\n\0")).unwrap();
        fs::write(old.join("device%2fm%2fa b"), old_entry("device/m", "a b", b"")).unwrap();
        fs::write(old.join(".host%2fswitches.tmp"), b"half").unwrap();
        let mut store = Store::new(dir.path());
        assert_eq!(store.get("host", "switches"), Ok(Some(b"locked\n\0".to_vec())));
        assert_eq!(store.get("device/m", "a b"), Ok(Some(Vec::new())));
        assert!(!store.has_lost());
        store.put("host", "switches", b"new").unwrap();
        drop(store);
        assert!(!old.exists() && dir.path().join("state.imported").exists());
        assert_eq!(Store::new(dir.path()).get("host", "switches"), Ok(Some(b"new".to_vec())));
    }

    #[test]
    fn damage_in_either_form_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("state");
        fs::create_dir(&old).unwrap();
        let good = old_entry("host", "switches", b"locked");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert_eq!(decode_old(&bad), None, "byte {at}");
            assert_eq!(decode_old(&good[..at]), None, "cut at {at}");
        }
        fs::write(old.join("host%2fswitches"), &good[..20]).unwrap();
        let mut store = Store::new(dir.path());
        assert!(store.get("host", "switches").unwrap_err().contains("may have been lost"));
        assert!(store.has_lost());
        store.close();
        fs::write(dir.path().join("state.db"), vec![7; 9000]).unwrap();
        // In this run and the next.
        for _ in 0..2 {
            let mut store = Store::new(dir.path());
            assert!(store.get("device/m", "watermark").unwrap_err().contains("may have been lost"));
            assert!(store.has_lost());
            store.close();
        }
    }
}
