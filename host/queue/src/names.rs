//! The dictionary: which number stands for which point, unit and device.
//!
//! A number of the dictionary means one name for the whole life of the file, also over a salvage. Numbers that the core
//! uses live as long as the process; what the core introduced is remembered here, so that it can be written again into a
//! salvaged file.

use std::collections::{HashMap, HashSet};

use busbar_core::journal::Name;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{bytes::crc32, fault::Fault};

/// What this run knows about names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Core's number -> dictionary's number.
    points: Points,
    /// What the core introduced, by the dictionary's number: device, point, unit, ended by NUL each.
    introduced: HashMap<u32, Box<str>>,
    /// What the core was told.
    told: HashSet<u32>,
    /// Next free number.
    next: u32,
}

/// Numbers of the core begin at 1 and follow each other, and every record is looked up: a place in a list each.
#[derive(Debug, Default)]
struct Points {
    low: Vec<u32>,
    /// Numbers from [`LOW`] on, which no site reaches unless it is reloaded for years.
    high: HashMap<u32, u32>,
}

/// Numbers below have a place in the list.
const LOW: u32 = 1 << 20;

impl Points {
    fn get(&self, point: u32) -> Option<u32> {
        if point < LOW {
            // The dictionary's numbers begin at 1.
            return self.low.get(point as usize).copied().filter(|id| *id != 0);
        }
        self.high.get(&point).copied()
    }

    fn insert(&mut self, point: u32, id: u32) {
        if point >= LOW {
            self.high.insert(point, id);
            return;
        }
        let index = point as usize;
        if self.low.len() <= index {
            self.low.resize(index + 1, 0);
        }
        if let Some(place) = self.low.get_mut(index) {
            *place = id;
        }
    }
}

/// Names of one transaction, not on disk yet.
#[derive(Debug, Default)]
pub(crate) struct NewNames {
    points: HashMap<u32, (u32, Box<str>)>,
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
        let mut new = NewNames { points: HashMap::with_capacity(names.len()), next: self.next };
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
        introduced.or_else(|| self.points.get(point))
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

/// Columns for [`whole`].
pub(crate) const COLUMNS: &str = "id, device, point, unit, crc";

/// Number and name of a row with [`COLUMNS`]; `None` when it is damaged.
pub(crate) fn whole(row: &Row<'_>) -> Option<(u32, Name)> {
    let id: u32 = row.get(0).ok()?;
    let name = Name { device: row.get(1).ok()?, point: row.get(2).ok()?, unit: row.get(3).ok()? };
    (checksum(id, &name) == row.get::<_, i64>(4).ok()?).then_some((id, name))
}

/// Calls `each` for the entries as the index holds them, until it cannot be read any further.
pub(crate) fn each_in_index(
    connection: &Connection,
    order: &str,
    each: &mut impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM names INDEXED BY sqlite_autoindex_names_1 \
         ORDER BY device {order}, point {order}, unit {order}, crc {order}"
    );
    let mut walk = || -> Result<(), Fault> {
        let mut statement = connection.prepare(&sql).map_err(Fault::of_damaged)?;
        let mut rows = statement.query([]).map_err(Fault::of_damaged)?;
        while let Some(row) = rows.next().map_err(Fault::of_damaged)? {
            each(row)?;
        }
        Ok(())
    };
    match walk() {
        Err(Fault::Damaged(_)) => Ok(()),
        done => done,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_wherever_their_number_lies() {
        let mut points = Points::default();
        for (point, id) in [(0, 1), (7, 2), (LOW - 1, 3), (LOW, 4), (u32::MAX, 5), (7, 6)] {
            points.insert(point, id);
        }
        let found: Vec<_> = [0, 7, LOW - 1, LOW, u32::MAX, 8, LOW + 1].map(|point| points.get(point)).into();
        assert_eq!(found, [Some(1), Some(6), Some(3), Some(4), Some(5), None, None]);
    }
}
