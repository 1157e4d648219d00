//! Refused records.

use std::collections::BTreeMap;

use busbar_core::journal::End;
use busbar_queue::DISCARDED;

use crate::support::*;

fn no(reason: &str) -> End {
    End::Parked(reason.to_owned())
}

#[test]
fn they_keep_content_name_and_reason() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=10, 0), row([11, 14], S)], S));
    let ledger =
        commit(&mut file, &ends(vec![settled(3, 2, no("bad value")), settled(14, 1, no("too late"))])).ledger;
    assert_eq!(ledger.parked, BTreeMap::from([("bad value".to_owned(), 2), ("too late".to_owned(), 1)]));
    assert_eq!(ledger.pending, 9);
    assert_eq!(waiting(&mut file, 100), [1, 2, 5, 6, 7, 8, 9, 10, 11]);
    drop(file);
    let (mut file, recovered) = place.open();
    assert_eq!(recovered.ledger, ledger);
    let parked = file.parked(0, 10).unwrap();
    assert_eq!(parked.iter().map(|record| record.number).collect::<Vec<_>>(), [3, 4, 14]);
    assert_eq!(parked[1].name, Some(name(3)));
    assert_eq!(parked[1].entry.as_ref().unwrap().sample.bits, entry(4, 0).sample.bits);
    assert_eq!((parked[2].reason.as_str(), parked[2].age_ms), ("too late", 0));
    assert_eq!(file.parked(4, 1).unwrap()[0].number, 4);
}

#[test]
fn they_can_be_tried_again_in_their_place_or_given_up() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=5, 0), row(6..=10, 0)], 0));
    commit(&mut file, &ends(vec![settled(4, 4, no("no")), settled(8, 3, End::Delivered)]));
    assert_eq!(waiting(&mut file, 100), [1, 2, 3]);
    let (again, committed) = file.retry_parked(&[4, 6, 99]).unwrap();
    let numbers: Vec<Vec<u64>> =
        again.rows.iter().map(|row| row.entries.iter().map(|entry| entry.number).collect()).collect();
    assert_eq!(numbers, [[4], [6]]);
    assert_eq!((again.names.len(), again.from), (1, 4), "the others were told when they were read");
    assert_eq!((again.rows.len(), committed.ledger.pending, committed.ledger.parked["no"]), (2, 5, 2));
    assert!(committed.ledger.is_balanced());
    // 4 went back into its row; the row of 6 has gone, it has one of its own.
    assert_eq!(waiting(&mut file, 100), [1, 2, 3, 4, 6]);
    let (count, committed) = file.discard_parked(&[5, 7, 5]).unwrap();
    assert_eq!((count, committed.ledger.dropped[DISCARDED]), (2, 2));
    assert!(committed.ledger.parked.is_empty() && committed.ledger.is_balanced());
    drop(file);
    let (mut file, recovered) = place.open();
    assert_eq!((recovered.oldest, recovered.ledger.pending), (1, 5));
    let committed = commit(&mut file, &ends(vec![settled(1, 10, End::Delivered)]));
    assert_eq!((committed.ledger.pending, committed.bytes), (0, 0));
}

#[test]
fn reasons_without_end_are_counted_together() {
    let place = Place::new();
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=200, 0)], 0));
    let all = (1..=200).map(|number| settled(number, 1, no(&format!("refused: {number}")))).collect();
    let ledger = commit(&mut file, &ends(all)).ledger;
    assert_eq!(ledger.parked.values().sum::<u64>(), 200);
    assert!(ledger.parked.len() < 100 && ledger.parked["other"] > 100);
    let parked = file.parked(150, 1).unwrap();
    assert_eq!((parked[0].reason.as_str(), parked[0].detail.as_str()), ("other", "refused: 150"));
    let numbers: Vec<u64> = (1..=200).collect();
    let (again, committed) = file.retry_parked(&numbers).unwrap();
    assert_eq!((again.rows.len(), again.names.len(), committed.ledger.pending), (200, 200, 200));
    assert!(committed.ledger.parked.is_empty());
    assert_eq!(waiting(&mut file, 100), numbers);
}
