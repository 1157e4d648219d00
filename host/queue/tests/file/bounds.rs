//! Size and age.

use std::time::Duration;

use busbar_core::journal::{End, Transaction};
use busbar_queue::{EXPIRED, Limits, Now, OVERFLOW};

use crate::support::*;

#[test]
fn the_oldest_leave_when_the_size_is_reached() {
    let mut place = Place::new();
    place.options.limits.max_bytes = 20_000;
    let (mut file, _) = place.open();
    let mut accepted = 0;
    for number in 0..500_u64 {
        let committed = commit(&mut file, &rows(vec![row(number * 10 + 1..=number * 10 + 10, 0)], 0));
        accepted += 10;
        assert_eq!(committed.ledger.accepted, accepted);
        assert!(committed.bytes <= 20_000);
        assert_eq!(committed.oldest, committed.ledger.dropped.get(OVERFLOW).copied().unwrap_or(0) + 1);
    }
    let pending = file.ledger().pending;
    assert!(pending > 500, "{pending} kept");
    assert_eq!(waiting(&mut file, 100), (5_000 - pending + 1..=5_000).collect::<Vec<_>>());
    // Smaller bounds hold from the next transaction on.
    file.set_limits(Limits { max_bytes: 2_000, max_age: Duration::MAX });
    assert!(commit(&mut file, &Transaction::default()).bytes <= 2_000);
    drop(file);
    let size = std::fs::metadata(place.path()).unwrap().len();
    assert!(size < 400_000, "the file has {size} bytes");
}

#[test]
fn parked_records_count_and_leave_in_order_of_age() {
    let mut place = Place::new();
    place.options.limits.max_bytes = 4_000;
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=10, 0)], 0));
    commit(&mut file, &rows(vec![row(11..=20, 0)], 0));
    let no = || End::Parked("no".to_owned());
    commit(&mut file, &ends(vec![settled(15, 3, no())]));
    let mut number = 20;
    while file.ledger().dropped.is_empty() {
        commit(&mut file, &rows(vec![row(number + 1..=number + 10, 0)], 0));
        number += 10;
    }
    assert_eq!(file.ledger().dropped[OVERFLOW], 10, "first the oldest row");
    assert_eq!(file.ledger().parked["no"], 3);
    while !file.ledger().parked.is_empty() {
        commit(&mut file, &rows(vec![row(number + 1..=number + 10, 0)], 0));
        number += 10;
    }
    assert!(file.parked(0, 10).unwrap().is_empty());
    assert!(waiting(&mut file, 10)[0] > 17);
}

#[test]
fn the_too_old_leave_whatever_the_wall_clock_does() {
    let mut place = Place::new();
    place.options.limits.max_age = Duration::from_secs(100);
    let (mut file, _) = place.open();
    commit(&mut file, &rows(vec![row(1..=10, 0)], 0));
    commit(&mut file, &ends(vec![settled(1, 2, End::Parked("no".to_owned()))]));
    commit(&mut file, &rows(vec![row(11..=20, 60 * S)], 60 * S));
    // The wall clock jumps ten years ahead, and far back.
    for wall_ns in [2_082_758_400 * S as i64, -5] {
        file.set_wall(wall_ns, true);
        let committed = commit(&mut file, &Transaction { now_ns: 100 * S, ..Transaction::default() });
        assert_eq!((committed.ledger.pending, committed.oldest_age_ns), (18, 100 * S));
    }
    let committed = commit(&mut file, &Transaction { now_ns: 101 * S, ..Transaction::default() });
    assert_eq!(committed.ledger.dropped[EXPIRED], 10);
    assert!(committed.ledger.parked.is_empty());
    assert_eq!((committed.oldest, committed.oldest_age_ns), (11, 41 * S));
}

#[test]
fn time_between_runs_counts_only_when_it_is_known() {
    for (then, now, passed, left) in [
        (true, true, 200, 0),
        (false, true, 200, 10),
        (true, false, 200, 10),
        (true, true, -200, 10),
        (true, true, 50, 10),
    ] {
        let mut place = Place::new();
        place.options.limits.max_age = Duration::from_secs(100);
        place.options.now.synchronised = then;
        let (mut file, _) = place.open();
        let wall_ns = place.options.now.wall_ns;
        commit(&mut file, &rows(vec![row(1..=10, 0)], 0));
        drop(file);
        place.options.now = Now { mono_ns: 0, wall_ns: wall_ns + passed * S as i64, synchronised: now };
        let (mut file, recovered) = place.open();
        assert_eq!(recovered.ledger.pending, left, "{then} {now} {passed}");
        let counted = if then && now && passed == 50 { 50 * S } else { 0 };
        assert_eq!(recovered.oldest_age_ns, counted);
        if left > 0 {
            // Accepted before this run began.
            assert_eq!(file.load(0, 10, 10).unwrap().rows[0].accepted_ns, 0);
        }
    }
}

/// The wall clock is set by years, while the file is open and while it is closed: age goes on as time passed.
#[test]
fn a_clock_that_is_set_expires_nothing() {
    const YEAR: i64 = 365 * 86_400 * S as i64;
    for years in [-50, -1, 1, 10] {
        let mut place = Place::new();
        place.options.limits.max_age = Duration::from_secs(100);
        let wall = place.options.now.wall_ns;
        let (mut file, _) = place.open();
        commit(&mut file, &rows(vec![row(1..=10, 0)], 0));
        // Set while it runs, and the kernel believes the new time.
        file.set_wall(wall + years * YEAR, true);
        let at = |now_ns| Transaction { now_ns, ..Transaction::default() };
        let committed = commit(&mut file, &at(50 * S));
        assert_eq!((committed.ledger.pending, committed.oldest_age_ns), (10, 50 * S), "{years}");
        file.close().unwrap();
        // Closed for a moment by the new clock.
        place.options.now =
            Now { mono_ns: 0, wall_ns: wall + years * YEAR + 20 * S as i64, synchronised: true };
        let (mut file, recovered) = place.open();
        assert_eq!((recovered.ledger.pending, recovered.oldest_age_ns), (10, 70 * S), "{years}");
        // Set while it was closed: back, by more than a year, or by a clock that nobody vouches for.
        for (jump, synchronised) in [(-years.abs() * YEAR, true), (2 * YEAR, true), (YEAR / 2, false)] {
            file.close().unwrap();
            place.options.now.wall_ns += jump;
            place.options.now.synchronised = synchronised;
            let recovered;
            (file, recovered) = place.open();
            assert_eq!((recovered.ledger.pending, recovered.oldest_age_ns), (10, 70 * S), "{years} {jump}");
        }
        // It expires by the time that passes.
        let committed = commit(&mut file, &at(31 * S));
        assert_eq!(committed.ledger.dropped[EXPIRED], 10, "{years}");
    }
}

#[test]
fn a_drained_file_gives_its_room_back() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let size = || std::fs::metadata(place.path()).unwrap().len();
    for number in 0..100_u64 {
        let first = number * 40_000 + 1;
        commit(&mut file, &rows((0..800).map(|n| row(first + n * 50..first + n * 50 + 50, 0)).collect(), 0));
    }
    let full = size();
    assert!(full > 20 << 20, "{full}");
    commit(&mut file, &ends(vec![settled(1, 4_000_000, End::Delivered)]));
    assert!(size() < 1 << 20, "{} of {full} bytes left", size());
    commit(&mut file, &rows(vec![row(5_000_000..5_000_050, 0)], 0));
    drop(file);
    assert_eq!(waiting(&mut place.open().0, 100).len(), 50);
}

#[test]
fn the_log_does_not_grow_without_end() {
    let mut place = Place::new();
    place.options.sync = busbar_core::model::Sync::Commit;
    let (mut file, _) = place.open();
    let log = || std::fs::metadata(format!("{}-wal", place.path().display())).unwrap().len();
    for number in 0..500_u64 {
        let first = number * 100 + 1;
        let mut transaction = rows(vec![row(first..first + 50, 0), row(first + 50..first + 100, 0)], 0);
        transaction.settled = vec![settled(first.saturating_sub(150), 100, End::Delivered)];
        commit(&mut file, &transaction);
    }
    assert!(log() <= 2 << 20, "{}", log());
    assert!(file.ledger().pending <= 300, "{:?}", file.ledger());
}
