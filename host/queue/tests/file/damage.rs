//! Damaged pages: nothing panics, the ledger balances, numbers do not go back, what is readable goes on.

use std::{collections::BTreeSet, fs};

use busbar_core::journal::End;
use busbar_queue::DAMAGED;
use proptest::prelude::*;

use crate::{crash::copy, support::*};

const PAGE: usize = 4096;
const ROWS: u64 = 300;
const RECORDS: u64 = ROWS * 20;

/// A closed file with 6000 records of which 100 were delivered and 50 are parked.
fn filled() -> Place {
    let place = Place::new();
    let (mut file, _) = place.open();
    let all = (0..ROWS).map(|n| row(n * 20 + 1..=n * 20 + 20, 0)).collect();
    commit(&mut file, &rows(all, 0));
    commit(&mut file, &ends(vec![settled(1, 70, End::Delivered), settled(3_000, 30, End::Delivered)]));
    commit(&mut file, &ends(vec![settled(4_001, 50, End::Parked("no".to_owned()))]));
    file.close().unwrap();
    place
}

fn edit(place: &Place, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(place.path()).unwrap();
    change(&mut bytes);
    fs::write(place.path(), bytes).unwrap();
}

/// Everything that may be said of a damaged file after it was opened: gives back how many records wait.
fn check(place: &Place) -> u64 {
    let (mut file, recovered) = place.open();
    let numbers = waiting(&mut file, 50);
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "a record twice");
    assert!(numbers.is_sorted() && recovered.next > *numbers.last().unwrap_or(&0));
    let ledger = file.ledger().clone();
    assert!(ledger.is_balanced());
    assert_eq!(ledger.pending, numbers.len() as u64);
    // It works on.
    let next = recovered.next;
    commit(&mut file, &rows(vec![row(next..next + 20, 0)], 0));
    let committed = commit(&mut file, &ends(vec![settled(0, u64::MAX, End::Delivered)]));
    assert_eq!(committed.ledger.pending, 0);
    file.close().unwrap();
    let (_, again) = place.open();
    assert!(again.notes.is_empty() && again.ledger == committed.ledger, "{again:?}");
    ledger.pending
}

#[test]
fn every_page_can_be_lost() {
    let place = filled();
    let pages = fs::metadata(place.path()).unwrap().len() as usize / PAGE;
    assert!(pages > 12, "{pages}");
    let mut worst = u64::MAX;
    for page in 0..pages {
        let place = copy(&place);
        edit(&place, |bytes| bytes[page * PAGE..(page + 1) * PAGE].fill(0xa5));
        let (mut file, recovered) = place.open();
        assert!(recovered.ledger.is_balanced());
        let accepted = recovered.ledger.accepted;
        assert!(
            accepted == RECORDS || recovered.notes[0].contains("begins anew"),
            "page {page}: {recovered:?}"
        );
        if accepted == RECORDS && recovered.ledger.pending < RECORDS - 150 {
            assert!(recovered.ledger.dropped[DAMAGED] > 0, "page {page}");
            worst = worst.min(waiting(&mut file, 100).len() as u64);
        }
        drop(file);
        check(&place);
    }
    // Losing one page of rows costs the rows on it, not the others. (The root of a table costs the table.)
    assert!(worst < RECORDS - 150, "no page held rows");
}

#[test]
fn one_leaf_costs_its_rows_only() {
    let place = filled();
    let bytes = fs::read(place.path()).unwrap();
    // A leaf of the table of rows: type 13 and many cells whose content begins with our version byte.
    let leaf = (1..bytes.len() / PAGE)
        .filter(|page| {
            bytes[page * PAGE] == 13
                && u16::from_be_bytes([bytes[page * PAGE + 3], bytes[page * PAGE + 4]]) > 5
        })
        .nth(3)
        .unwrap();
    edit(&place, |bytes| bytes[leaf * PAGE..(leaf + 1) * PAGE].fill(0));
    let (_, recovered) = place.open();
    let lost = recovered.ledger.dropped[DAMAGED];
    assert!((20..=2_000).contains(&lost), "{lost} lost: {:?}", recovered.notes);
    assert_eq!(recovered.ledger.accepted, RECORDS);
    assert_eq!(recovered.ledger.delivered, 100);
}

#[test]
fn the_names_are_there_twice() {
    let place = filled();
    let connection = rusqlite::Connection::open(place.path()).unwrap();
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, usize>(0)).unwrap();
    let roots = ["names", "sqlite_autoindex_names_1"]
        .map(|name| ask(&format!("SELECT rootpage FROM sqlite_master WHERE name = '{name}'")));
    drop(connection);
    for root in roots {
        let place = copy(&place);
        edit(&place, |bytes| bytes[(root - 1) * PAGE..root * PAGE].fill(0xa5));
        let (mut file, recovered) = place.open();
        assert_eq!(recovered.ledger.pending, RECORDS - 150, "{:?}", recovered.notes);
        assert_eq!(recovered.ledger.dropped.get(DAMAGED), None);
        assert_eq!(waiting(&mut file, 100).len() as u64, RECORDS - 150);
    }
}

#[test]
fn content_that_changed_silently_is_found_when_it_is_read() {
    let place = filled();
    // "text 2800" is in the content of one row; its page stays well-formed.
    edit(&place, |bytes| {
        let at = bytes.windows(9).position(|window| window == b"text 2800").unwrap();
        bytes[at] = b'T';
    });
    let (mut file, recovered) = place.open();
    assert_eq!(recovered.ledger.pending, RECORDS - 150);
    let numbers = waiting(&mut file, 100);
    assert_eq!(numbers.len() as u64, RECORDS - 150 - 20);
    assert!(!numbers.contains(&2_800));
    assert_eq!(file.ledger().dropped[DAMAGED], 20);
    assert!(file.take_notes()[0].contains("wrong checksum"));
    assert!(place.files().contains(&"ems.db.damaged-1".to_owned()));
}

#[test]
fn damage_that_comes_while_running_is_survived() {
    let place = filled();
    let (mut file, _) = place.open();
    // Beyond the page cache: fresh reads meet the damage.
    let mut transaction = rows(vec![row(10_001..=10_020, 0)], 0);
    transaction.names = vec![(900, name(900))];
    for entry in &mut transaction.rows[0].entries {
        entry.sample.point = 900;
    }
    let before = commit(&mut file, &transaction);
    let damaged = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    let size = damaged.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&damaged, &vec![0x11; (size / 2) as usize], size / 4).unwrap();
    // Never closed: closing any descriptor would drop SQLite's lock.
    std::mem::forget(damaged);
    let committed = commit(&mut file, &ends(vec![settled(0, 10_001, End::Delivered)]));
    assert_eq!(committed.ledger.accepted, before.ledger.accepted);
    let loaded = file.load(0, 1_000, usize::MAX).unwrap();
    let names: Vec<_> = loaded.names.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!((loaded.rows.len(), names), (1, vec![name(900)]), "{:?}", file.take_notes());
    // What this run introduced is known without being introduced again.
    transaction.names.clear();
    transaction.rows[0] = row(10_021..=10_021, 0);
    transaction.rows[0].entries[0].sample.point = 900;
    commit(&mut file, &transaction);
    drop(file);
    check(&place);
}

#[test]
fn a_salvage_that_was_interrupted_begins_again() {
    let place = filled();
    edit(&place, |bytes| bytes[5 * PAGE..9 * PAGE].fill(0xff));
    let expected = check(&copy(&place));
    fs::write(place.path().with_extension("db.salvage-part"), b"half").unwrap();
    assert_eq!(check(&place), expected);
}

#[test]
fn a_file_damaged_again_and_again_keeps_the_first_and_the_newest_copy() {
    let place = filled();
    for _ in 0..5 {
        edit(&place, |bytes| bytes[..100].fill(0));
        let (mut file, recovered) = place.open();
        commit(&mut file, &rows(vec![row(recovered.next..recovered.next + 5, 0)], 0));
        file.close().unwrap();
    }
    let kept: Vec<String> = place.files().into_iter().filter(|name| name.contains("damaged")).collect();
    assert_eq!(kept, ["ems.db.damaged-1", "ems.db.damaged-2"]);
}

/// What README promises about room: see there.
#[test]
fn disk_use_stays_within_what_is_promised() {
    const MAX: u64 = 4 << 20;
    const BESIDE: u64 = 16 << 20;
    let mut place = Place::new();
    place.options.limits.max_bytes = MAX;
    let used = |place: &Place| {
        let size = |name: &String| fs::metadata(place.path().with_file_name(name)).unwrap().len();
        place.files().iter().map(size).sum::<u64>()
    };
    for life in 1..=4_u64 {
        let (mut file, recovered) = place.open();
        let mut next = recovered.next;
        let mut full = false;
        while !full || next % 64_000 != 0 {
            commit(&mut file, &rows(vec![row(next..next + 500, 0), row(next + 500..next + 1_000, 0)], 0));
            next = (next + 1_000) / 1_000 * 1_000;
            full = full || file.ledger().dropped.contains_key(busbar_queue::OVERFLOW);
            assert!(used(&place) <= MAX * 115 / 100 * life.min(3) + BESIDE, "life {life}: {}", used(&place));
        }
        file.close().unwrap();
        let page = fs::metadata(place.path()).unwrap().len() as usize / PAGE / 2;
        edit(&place, |bytes| bytes[page * PAGE..(page + 1) * PAGE].fill(0xa5));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..ProptestConfig::with_cases(cases(40)) })]
    #[test]
    fn whatever_is_damaged_the_ledger_balances(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1_usize..300), 1..12),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let place = template();
        edit(&place, |bytes| {
            for (at, value, length) in &edits {
                let at = at.index(bytes.len());
                let end = (at + length).min(bytes.len());
                for byte in &mut bytes[at..end] {
                    *byte = byte.wrapping_add(*value);
                }
            }
            if let Some(cut) = &cut {
                let length = cut.index(bytes.len());
                bytes.truncate(length);
            }
        });
        check(&place);
    }
}

/// A fresh copy of the filled file; it is made once.
fn template() -> Place {
    static MADE: std::sync::OnceLock<Place> = std::sync::OnceLock::new();
    copy(MADE.get_or_init(filled))
}
