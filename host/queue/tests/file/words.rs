//! The conversation with the core.

use std::collections::BTreeMap;

use busbar_core::journal::{End, Transaction};

use crate::support::*;

#[test]
fn what_is_committed_is_read_back_in_this_run_and_the_next() {
    let place = Place::new();
    let (mut file, recovered) = place.open();
    assert_eq!((recovered.next, recovered.oldest), (1, 1));
    let committed = commit(&mut file, &rows(vec![row(1..=50, 0), row(51..=80, 0), row([81, 83, 90], S)], S));
    assert_eq!((committed.ledger.accepted, committed.ledger.pending, committed.oldest), (83, 83, 1));
    let all: Vec<u64> = (1..=81).chain([83, 90]).collect();
    assert_eq!(waiting(&mut file, 10), all);
    file.close().unwrap();
    let (mut file, recovered) = place.open();
    assert_eq!((recovered.next, recovered.oldest, recovered.ledger), (91, 1, committed.ledger));
    assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
    assert_eq!(recovered.bytes, committed.bytes);
    assert_eq!(waiting(&mut file, 1), all);
}

#[test]
fn names_are_told_once_and_stay_what_they_were() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=3, 0)], 0));
    // The unit of point 1 changes: from here on its number means another name.
    let mut renamed = name(1);
    renamed.unit = "kV".to_owned();
    let mut transaction = rows(vec![row(4..=6, 0)], 0);
    transaction.names = vec![(1, renamed.clone())];
    commit(&mut file, &transaction);
    let loaded = file.load(1, 100, usize::MAX).unwrap();
    let names: BTreeMap<u32, _> = loaded.names.iter().cloned().collect();
    let found = |row: usize, entry: usize| &names[&loaded.rows[row].entries[entry].sample.point];
    assert_eq!((found(0, 1), found(1, 1)), (&name(1), &renamed));
    assert_eq!((found(0, 2), found(1, 2)), (&name(2), &name(2)));
    assert!(file.load(1, 100, usize::MAX).unwrap().names.is_empty());
    file.close().unwrap();
    let (mut file, _) = place.open();
    // Another run, other numbers: point 9 is what point 1 was.
    let mut transaction = rows(vec![], 0);
    transaction.names = vec![(9, name(1))];
    transaction.rows = vec![row([7], 0)];
    transaction.rows[0].entries[0].sample.point = 9;
    commit(&mut file, &transaction);
    let loaded = file.load(1, 100, usize::MAX).unwrap();
    assert_eq!(loaded.names.len(), 4);
    assert_eq!(loaded.rows[2].entries[0].sample.point, loaded.rows[0].entries[1].sample.point);
}

#[test]
fn ends_are_counted_once() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=10, 0), row(11..=20, 0), row([21, 25, 29], 0)], 0));
    let committed =
        commit(&mut file, &ends(vec![settled(4, 10, End::Delivered), settled(25, 1, End::Delivered)]));
    assert_eq!((committed.ledger.delivered, committed.ledger.pending, committed.oldest), (11, 12, 1));
    // Again, and numbers that never were.
    let committed =
        commit(&mut file, &ends(vec![settled(1, 13, End::Delivered), settled(22, 5, End::Delivered)]));
    assert_eq!((committed.ledger.delivered, committed.ledger.pending, committed.oldest), (14, 9, 14));
    assert_eq!(file.late(), 10 + 5);
    assert_eq!(waiting(&mut file, 100), [14, 15, 16, 17, 18, 19, 20, 21, 29]);
    let committed = commit(&mut file, &ends(vec![settled(15, 1_000, End::Dropped("far side".to_owned()))]));
    assert_eq!(committed.ledger.dropped, BTreeMap::from([("far side".to_owned(), 8)]));
    let committed = commit(&mut file, &ends(vec![settled(0, u64::MAX, End::Delivered)]));
    assert_eq!((committed.ledger.pending, committed.bytes), (0, 0));
    assert_eq!(committed.oldest, 30, "the file's next");
    assert!(file.load(0, 10, 10).unwrap().rows.is_empty());
}

#[test]
fn rows_that_end_in_their_own_transaction_and_records_never_written_are_counted() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let mut transaction = rows(vec![row(1..=4, 0)], 0);
    transaction.settled = vec![settled(2, 2, End::Delivered), settled(1, 1, End::Parked("no".to_owned()))];
    transaction.delivered_unwritten = 100;
    transaction.dropped_unwritten = BTreeMap::from([("disk_full".to_owned(), 7)]);
    transaction.next = 5_000;
    let ledger = commit(&mut file, &transaction).ledger;
    assert_eq!((ledger.accepted, ledger.delivered, ledger.pending), (111, 102, 1));
    assert_eq!(ledger.dropped["disk_full"], 7);
    assert_eq!(ledger.parked["no"], 1);
    file.close().unwrap();
    assert_eq!(place.open().1.next, 5_000);
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let before = commit(&mut file, &rows(vec![row(1..=4, 0)], 0));
    // The second row names a point that nobody introduced.
    let mut wrong = rows(vec![row(5..=6, 0), row(7..=8, 0)], 0);
    wrong.names = vec![(70, name(70))];
    wrong.rows[1].entries[0].sample.point = 99;
    wrong.delivered_unwritten = 5;
    let refused = file.commit(&wrong).unwrap_err();
    assert!(!refused.full && refused.text.contains("record 7"), "{refused:?}");
    wrong.rows[1].entries[0].sample.point = 70;
    // And numbers that go back.
    wrong.rows.swap(0, 1);
    assert!(file.commit(&wrong).is_err());
    assert_eq!(file.ledger(), &before.ledger);
    wrong.rows.swap(0, 1);
    assert_eq!(commit(&mut file, &wrong).ledger.accepted, 13);
    assert_eq!(waiting(&mut file, 100), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn rows_that_reach_into_each_other_keep_every_record() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row([1, 2, 9, 12], 0), row([5, 6, 10], 0), row([13], 0)], 0));
    assert_eq!(waiting(&mut file, 1), [1, 2, 5, 6, 9, 10, 12, 13]);
    commit(&mut file, &ends(vec![settled(6, 5, End::Delivered)]));
    assert_eq!(waiting(&mut file, 1), [1, 2, 5, 12, 13]);
}

#[test]
fn loads_are_bounded_and_rows_are_not_torn() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows((0..100).map(|n| row(n * 10 + 1..=n * 10 + 10, n * S)).collect(), 100 * S));
    let loaded = file.load(5, 25, usize::MAX).unwrap();
    let counts: Vec<usize> = loaded.rows.iter().map(|row| row.entries.len()).collect();
    assert_eq!((counts, loaded.next), (vec![6, 10, 10], 31));
    assert_eq!(loaded.rows[2].accepted_ns, 2 * S);
    let loaded = file.load(31, usize::MAX, 1).unwrap();
    assert_eq!((loaded.rows.len(), loaded.next), (1, 41));
    let loaded = file.load(995, 1_000, usize::MAX).unwrap();
    assert_eq!((loaded.rows.len(), loaded.next), (1, 1_001));
    let loaded = file.load(7_777, 1_000, usize::MAX).unwrap();
    assert_eq!((loaded.rows.len(), loaded.next), (0, 7_777));
}

#[test]
fn a_transaction_offered_again_after_it_was_on_disk_all_the_same_is_not_kept_twice() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let transaction = rows(vec![row(1..=4, 0)], 0);
    commit(&mut file, &transaction);
    let again = commit(&mut file, &transaction);
    assert_eq!((again.ledger.accepted, again.ledger.pending), (4, 4));
    assert_eq!(waiting(&mut file, 9), [1, 2, 3, 4]);
}

#[test]
fn an_empty_transaction_is_fine() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let committed = commit(&mut file, &Transaction { next: 7, ..Transaction::default() });
    assert_eq!((committed.oldest, committed.oldest_age_ns), (7, 0));
}
