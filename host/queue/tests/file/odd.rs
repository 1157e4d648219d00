//! What else can lie at the path.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
};

use busbar_core::journal::End;
use rusqlite::Connection;

use crate::support::*;

fn prepared(content: &[u8]) -> Place {
    let place = Place::new();
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    fs::write(place.path(), content).unwrap();
    place
}

#[test]
fn not_a_database() {
    for content in [&b"[[sink]] name = \"ems\""[..], &[0; 8192], &[0xff; 100_000]] {
        let place = prepared(content);
        let (mut file, recovered) = place.open();
        assert!(recovered.notes[0].contains("damaged"), "{:?}", recovered.notes);
        assert_eq!(recovered.ledger.accepted, 0);
        assert!(recovered.next >= 1_767_225_600_000_000, "numbers go on where none can have been");
        assert_eq!(fs::read(place.path().with_extension("db.damaged-1")).unwrap(), content);
        let next = recovered.next;
        commit(&mut file, &rows(vec![row(next..next + 3, 0)], 0));
        assert_eq!(waiting(&mut file, 9).len(), 3);
    }
}

#[test]
fn an_empty_file_is_a_new_queue() {
    let place = prepared(b"");
    let (_, recovered) = place.open();
    assert!(recovered.notes.is_empty());
    assert_eq!((recovered.next, recovered.ledger.accepted), (1, 0));
}

#[test]
fn another_database() {
    let place = prepared(b"");
    Connection::open(place.path())
        .unwrap()
        .execute_batch("CREATE TABLE bills(id); INSERT INTO bills VALUES (1)")
        .unwrap();
    let (_, recovered) = place.open();
    assert!(recovered.notes[0].contains("found another SQLite file"), "{:?}", recovered.notes);
    let kept = Connection::open(place.path().with_extension("db.damaged-1")).unwrap();
    assert_eq!(kept.query_row("SELECT count(*) FROM bills", [], |row| row.get::<_, i64>(0)), Ok(1));
}

#[test]
fn a_newer_version() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=3, 0)], 0));
    file.close().unwrap();
    Connection::open(place.path()).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let (file, recovered) = place.open();
    assert!(
        recovered.notes[0].contains("newer version of Busbar (schema 2, this one reads 1)"),
        "{:?}",
        recovered.notes
    );
    assert_eq!(recovered.ledger.accepted, 0);
    assert!(place.files().contains(&"ems.db.newer-1".to_owned()));
    drop(file);
    // Put back under its old name and version nothing is missing.
    let kept = place.path().with_extension("db.newer-1");
    Connection::open(&kept).unwrap().pragma_update(None, "user_version", 1).unwrap();
    fs::rename(kept, place.path()).unwrap();
    let wal = format!("{}-wal", place.path().display());
    let _ = fs::remove_file(wal);
    assert_eq!(waiting(&mut place.open().0, 9), [1, 2, 3]);
}

#[test]
fn a_directory_in_its_place() {
    let place = Place::new();
    fs::create_dir_all(place.path()).unwrap();
    let refused = place.try_open().unwrap_err();
    assert!(!refused.full && refused.text.contains("cannot be opened"), "{refused:?}");
}

#[test]
fn a_directory_that_cannot_be_made() {
    let place = Place::new();
    fs::write(place.dir().join("queue"), "a file").unwrap();
    let refused = place.try_open().unwrap_err();
    assert!(refused.text.contains("expected a directory this user can write"), "{refused:?}");
}

#[test]
fn another_owner() {
    let place = Place::new();
    let (_file, _) = place.open();
    let refused = place.try_open().unwrap_err();
    assert!(refused.text.contains("locked"), "{refused:?}");
}

/// A file that no sink owns is looked at, and is afterwards what it was.
#[test]
fn a_look_changes_nothing() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=30, 0)], 0));
    let before = commit(&mut file, &ends(vec![settled(1, 10, End::Delivered)]));
    assert!(busbar_queue::look(&place.path()).unwrap_err().contains("locked"), "somebody works with it");
    drop(file);
    for _ in 0..2 {
        assert_eq!(busbar_queue::look(&place.path()), Ok((before.ledger.clone(), before.bytes)));
    }
    let (file, recovered) = place.open();
    assert!(recovered.notes.is_empty() && recovered.ledger == before.ledger, "{recovered:?}");
    file.close().unwrap();
    assert_eq!(busbar_queue::look(&place.path()).unwrap().0, before.ledger);
    assert!(place.open().1.notes.is_empty());
    let other = prepared(b"no database");
    assert!(busbar_queue::look(&other.path()).is_err());
    assert_eq!(fs::read(other.path()).unwrap(), b"no database");
}

#[test]
fn modes() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=3, 0)], 0));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(place.path().parent().unwrap()), 0o750);
    for name in place.files() {
        assert_eq!(mode(&place.path().with_file_name(&name)), 0o600, "{name}");
    }
    assert_eq!(place.files(), ["ems.db", "ems.db-wal", "ems.db.reserve"]);
}

#[test]
fn a_cut_log_costs_its_end_only() {
    let place = Place::new();
    let (mut file, _) = place.open();
    for number in 0..10 {
        commit(&mut file, &rows(vec![row(number * 10 + 1..=number * 10 + 10, 0)], 0));
    }
    let copy = crate::crash::copy(&place);
    drop(file);
    let log = format!("{}-wal", copy.path().display());
    let size = fs::metadata(&log).unwrap().len();
    let mut last = 100;
    for cut in [10, size / 3, size / 2] {
        fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(size - cut).unwrap();
        let again = crate::crash::copy(&copy);
        let (mut file, recovered) = again.open();
        let pending = recovered.ledger.pending;
        assert!(pending < last || cut == 10, "{pending} after a cut of {cut}");
        assert_eq!(waiting(&mut file, 9), (1..=pending).collect::<Vec<_>>());
        last = pending;
    }
}

#[test]
fn a_missing_log_is_told_and_numbers_do_not_come_back() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=10, 0)], 0));
    let copy = crate::crash::copy(&place);
    fs::remove_file(format!("{}-wal", copy.path().display())).unwrap();
    let (_, recovered) = copy.open();
    assert!(recovered.notes[0].contains("-wal file is missing"), "{:?}", recovered.notes);
    assert!(recovered.next >= 1_767_225_600_000_000);
    // After an orderly end no log is there, and none is missed.
    file.close().unwrap();
    assert!(!place.files().contains(&"ems.db-wal".to_owned()));
    assert!(place.open().1.notes.is_empty());
}

#[test]
fn a_damaged_log_is_told() {
    let place = Place::new();
    let (mut file, _) = place.open();
    for number in 0..20 {
        commit(&mut file, &rows(vec![row(number * 10 + 1..=number * 10 + 10, 0)], 0));
    }
    let crashed = crate::crash::copy(&place);
    for at in [5, 40_000] {
        let place = crate::crash::copy(&crashed);
        let log = format!("{}-wal", place.path().display());
        let mut bytes = fs::read(&log).unwrap();
        bytes[at] ^= 0x10;
        fs::write(&log, bytes).unwrap();
        let (mut file, recovered) = place.open();
        assert!(
            recovered.notes[0].contains("damaged") && recovered.notes[0].contains("lost"),
            "{recovered:?}"
        );
        assert!(recovered.next >= 1_767_225_600_000_000 && recovered.ledger.pending < 200);
        assert_eq!(waiting(&mut file, 9).len() as u64, recovered.ledger.pending);
    }
}

/// The ledger stands behind the damage too: what the lost transactions brought is counted, once.
#[test]
fn records_lost_with_a_damaged_log_are_counted() {
    let place = Place::new();
    let (mut file, _) = place.open();
    for number in 0..20 {
        commit(&mut file, &rows(vec![row(number * 10 + 1..=number * 10 + 10, 0)], 0));
    }
    let before = commit(&mut file, &ends(vec![settled(1, 5, End::Delivered)])).ledger;
    let place = crate::crash::copy(&place);
    drop(file);
    let log = format!("{}-wal", place.path().display());
    let mut bytes = fs::read(&log).unwrap();
    bytes[40_000] ^= 0x10;
    fs::write(&log, bytes).unwrap();
    // Opened, and before anything else happens the power goes.
    for _ in 0..3 {
        let (file, recovered) = place.open();
        let ledger = &recovered.ledger;
        assert_eq!(ledger.accepted, before.accepted, "{recovered:?}");
        assert_eq!(ledger.dropped[busbar_queue::DAMAGED], 200 - ledger.pending, "{recovered:?}");
        assert!(ledger.pending < 200 && ledger.delivered == 0);
        let place = crate::crash::copy(&place);
        assert_eq!(place.open().1.ledger, *ledger, "once");
        drop(file);
    }
}

#[test]
fn a_foreign_log_is_not_believed() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=10, 0)], 0));
    file.close().unwrap();
    let log = format!("{}-wal", place.path().display());
    fs::write(&log, vec![0x37; 50_000]).unwrap();
    let mut edit = fs::OpenOptions::new().write(true).open(&log).unwrap();
    edit.seek(SeekFrom::Start(0)).unwrap();
    edit.write_all(&[0x37, 0x7f, 0x06, 0x82]).unwrap();
    let (mut file, _) = place.open();
    assert_eq!(waiting(&mut file, 9).len(), 10);
    commit(&mut file, &ends(vec![settled(1, 10, End::Delivered)]));
}
