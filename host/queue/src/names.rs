//! The dictionary: which number stands for which point, unit and device.
//!
//! A number of the dictionary means one name for the whole life of the file, also over a salvage. Numbers that the core
//! uses live as long as the process; what the core introduced is remembered here, so that it can be written again into a
//! salvaged file.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use busbar_core::journal::Name;
use rusqlite::{Connection, OptionalExtension};

use crate::{bytes::crc32, fault::Fault};

/// Numbers are the host's own and looked up for every record: one multiplication spreads them.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio (Knuth, multiplicative hashing); the map looks at both ends.
        let mixed = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }
}

type ByNumber<T> = HashMap<u32, T, BuildHasherDefault<Spread>>;

/// What this run knows about names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Core's number -> dictionary's number.
    points: ByNumber<u32>,
    /// What the core introduced, by the dictionary's number: device, point, unit, ended by NUL each.
    introduced: ByNumber<Box<str>>,
    /// What the core was told.
    told: HashSet<u32, BuildHasherDefault<Spread>>,
    /// Next free number.
    next: u32,
}

/// Names of one transaction, not on disk yet.
#[derive(Debug, Default)]
pub(crate) struct NewNames {
    points: ByNumber<(u32, Box<str>)>,
    next: u32,
}

impl Names {
    /// Numbers go on above those of the file.
    pub(crate) fn opened(&mut self, connection: &Connection) -> Result<(), Fault> {
        let last: Option<i64> = connection.query_row("SELECT max(id) FROM names", [], |row| row.get(0))?;
        let next =
            u32::try_from(last.unwrap_or(0)).map_err(|_| Fault::Damaged("a name's number".to_owned()))?;
        self.next = self.next.max(next.saturating_add(1));
        Ok(())
    }

    /// Writes again what the core introduced: the file is a salvaged one.
    pub(crate) fn rewrite(&self, connection: &Connection) -> Result<(), Fault> {
        for (id, name) in &self.introduced {
            insert(connection, *id, &unpack(name))?;
        }
        Ok(())
    }

    /// Entries that can be written again.
    pub(crate) fn introduced_ids(&self) -> impl Iterator<Item = u32> {
        self.introduced.keys().copied()
    }

    /// Writes what a transaction introduces.
    pub(crate) fn introduce(
        &self,
        connection: &Connection,
        names: &[(u32, Name)],
    ) -> Result<NewNames, Fault> {
        let mut new = NewNames { points: ByNumber::default(), next: self.next };
        for (point, name) in names {
            let id = match find(connection, name)? {
                Some(id) => id,
                None => {
                    let id = new.next;
                    new.next =
                        id.checked_add(1).ok_or_else(|| Fault::Other("the dictionary is full".to_owned()))?;
                    insert(connection, id, name)?;
                    id
                }
            };
            new.points.insert(*point, (id, pack(name)));
        }
        Ok(new)
    }

    /// The transaction is on disk.
    pub(crate) fn adopt(&mut self, new: NewNames) {
        self.next = self.next.max(new.next);
        for (point, (id, name)) in new.points {
            self.points.insert(point, id);
            self.introduced.insert(id, name);
        }
    }

    /// The dictionary's number of the core's `point`.
    pub(crate) fn id(&self, new: &NewNames, point: u32) -> Option<u32> {
        let introduced = if new.points.is_empty() { None } else { new.points.get(&point).map(|(id, _)| *id) };
        introduced.or_else(|| self.points.get(&point).copied())
    }

    /// The core has not been told about `id` yet.
    pub(crate) fn is_new(&self, id: u32) -> bool {
        !self.told.contains(&id)
    }

    /// The core is told now.
    pub(crate) fn note_told(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.told.extend(ids);
    }
}

/// Reads one name; `None` when it is missing or damaged.
pub(crate) fn read(connection: &Connection, id: u32) -> Result<Option<Name>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT device, point, unit, crc FROM names WHERE id = ?1")?;
    let found = statement
        .query_row([id], |row| {
            let name = Name { device: row.get(0)?, point: row.get(1)?, unit: row.get(2)? };
            Ok((name, row.get::<_, i64>(3)?))
        })
        .optional();
    match found {
        Ok(found) => Ok(found.filter(|(name, crc)| checksum(id, name) == *crc).map(|(name, _)| name)),
        // Not text, not a number: damaged content.
        Err(error) if error.sqlite_error().is_none() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A damaged entry is never found again: its number stays with the records that were written under it.
fn find(connection: &Connection, name: &Name) -> Result<Option<u32>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT id, crc FROM names WHERE device = ?1 AND point = ?2 AND unit = ?3")?;
    let found = statement
        .query_row([&name.device, &name.point, &name.unit], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    match found {
        Some((id, crc)) if checksum(id, name) != crc => {
            Err(Fault::Damaged(format!("entry {id} of the dictionary has a wrong checksum")))
        }
        found => Ok(found.map(|(id, _)| id)),
    }
}

/// Writes one name; an entry with the same number or the same words is replaced.
pub(crate) fn insert(connection: &Connection, id: u32, name: &Name) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO names(id, device, point, unit, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    statement.execute((id, &name.device, &name.point, &name.unit, checksum(id, name)))?;
    Ok(())
}

fn checksum(id: u32, name: &Name) -> i64 {
    let Name { device, point, unit } = name;
    let parts = [device, "\0", point, "\0", unit].map(str::as_bytes);
    let [device, nul, point, _, unit] = parts;
    i64::from(crc32(&[&id.to_le_bytes(), device, nul, point, nul, unit]))
}

/// Three texts in one allocation: a site may have tens of thousands of points.
fn pack(name: &Name) -> Box<str> {
    format!("{}\0{}\0{}", name.device, name.point, name.unit).into()
}

fn unpack(packed: &str) -> Name {
    let mut parts = packed.splitn(3, '\0').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Name { device: part(), point: part(), unit: part() }
}
