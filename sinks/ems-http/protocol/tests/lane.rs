//! The lane against a model of the far side: for any set of bad records exactly those are rejected, and each good one is
//! accepted once, whatever the far side's manner of refusing is and whichever answers get lost.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use busbar_ems_http::key::batch_id;
use busbar_ems_http::{Answer, End, Lane, Limits, Record, Rejections, Settled, Why};
use proptest::prelude::*;

const LIMITS: Limits = Limits { records: 100, samples: 1_000_000, bytes: 1 << 20 };

fn record(number: u64) -> Record {
    Record {
        first: number * 10,
        count: 10,
        device: format!("m{}", number % 3).into(),
        ts_ns: 1,
        body: number.to_string().into(),
    }
}

fn number(record: &Record) -> u64 {
    record.first / 10
}

/// How the far side refuses.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// 202 with a list.
    Partly,
    /// 422 with a list.
    WholeNamed,
    /// 400 without a list.
    Whole,
    /// 202 with something that nobody can read; nothing of it is taken.
    Unclear,
}

/// A far side with a memory of keys.
struct Server {
    bad: BTreeSet<u64>,
    manner: Manner,
    /// Larger batches are too large.
    most: usize,
    taken: BTreeMap<u64, u32>,
    order: Vec<u64>,
    keys: HashMap<String, Answer>,
    requests: usize,
}

impl Server {
    fn new(bad: BTreeSet<u64>, manner: Manner, most: usize) -> Self {
        let (taken, order, keys) = (BTreeMap::new(), Vec::new(), HashMap::new());
        Self { bad, manner, most, taken, order, keys, requests: 0 }
    }

    fn post(&mut self, records: &[Record]) -> Answer {
        self.requests += 1;
        let key = batch_id("g", "s", records);
        if let Some(Answer::Accepted(rejections)) = self.keys.get(&key) {
            return Answer::Seen(rejections.clone());
        }
        if records.len() > self.most {
            return Answer::TooLarge;
        }
        let bad: Vec<usize> =
            (0..records.len()).filter(|at| self.bad.contains(&number(&records[*at]))).collect();
        let named = Rejections::of(bad.iter().map(|at| (*at, "bad".to_owned())).collect());
        let refused = |rejections| Answer::Bad { rejections, text: "400".into() };
        match self.manner {
            Manner::WholeNamed if !bad.is_empty() => return refused(named),
            Manner::Whole if !bad.is_empty() => return refused(Rejections::default()),
            Manner::Unclear if !bad.is_empty() => return Answer::Accepted(Rejections::unclear()),
            _ => {}
        }
        for record in records.iter().filter(|record| !self.bad.contains(&number(record))) {
            *self.taken.entry(number(record)).or_default() += 1;
            self.order.push(number(record));
        }
        let answer = Answer::Accepted(named);
        self.keys.insert(key, answer.clone());
        answer
    }
}

/// Sends everything; `lost`: which requests get no answer, by their number.
fn run(server: &mut Server, total: u64, lost: &BTreeSet<usize>, arrive: usize) -> Vec<Settled> {
    let mut lane = Lane::new(LIMITS);
    let mut settled = Vec::new();
    let mut coming = (0..total).map(record);
    loop {
        coming.by_ref().take(arrive).for_each(|record| lane.push(record));
        if lane.is_empty() {
            return settled;
        }
        assert!(server.requests < 100_000, "it does not end");
        let batch = lane.begin().to_vec();
        let answer = server.post(&batch);
        if lost.contains(&server.requests) {
            assert!(lane.is_begun());
            let again = lane.begin();
            assert_eq!(again, batch, "what is sent again is the same batch");
            assert!(lane.answered(&Answer::Failed(String::new())).is_empty());
            continue;
        }
        settled.extend(lane.answered(&answer));
    }
}

fn check(settled: &[Settled], server: &Server, total: u64) {
    let rejected: BTreeSet<u64> =
        settled.iter().filter(|s| s.end != End::Accepted).map(|s| number(&s.record)).collect();
    assert_eq!(rejected, server.bad, "exactly the bad ones are parked");
    let all: Vec<u64> = settled.iter().map(|s| number(&s.record)).collect();
    assert_eq!(all.len() as u64, total, "each is settled once");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len() as u64, total);
    let good: BTreeSet<u64> = (0..total).filter(|n| !server.bad.contains(n)).collect();
    assert_eq!(server.taken.keys().copied().collect::<BTreeSet<_>>(), good, "nothing is lost");
    assert!(server.taken.values().all(|times| *times == 1), "each good one is accepted once");
    assert!(server.order.is_sorted(), "in order");
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![Just(Manner::Partly), Just(Manner::WholeNamed), Just(Manner::Whole), Just(Manner::Unclear)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn exactly_the_bad_records_are_parked(
        total in 1_u64..300,
        bad in proptest::collection::btree_set(0_u64..300, 0..40),
        manner in manner(),
        most in 1_usize..200,
        lost in proptest::collection::btree_set(1_usize..200, 0..20),
        arrive in 1_usize..250,
    ) {
        let bad: BTreeSet<u64> = bad.into_iter().filter(|n| *n < total).collect();
        let mut server = Server::new(bad, manner, most);
        let settled = run(&mut server, total, &lost, arrive);
        check(&settled, &server, total);
    }

    /// Any answer at all, wrong indexes included: the lane settles each record once and ends.
    #[test]
    fn any_sequence_of_answers_ends(answers in proptest::collection::vec((0_u8..7, 0_usize..120, any::<bool>()), 1..50)) {
        let mut lane = Lane::new(LIMITS);
        (0..250).map(record).for_each(|record| lane.push(record));
        let mut settled = Vec::new();
        let mut turns = 0;
        while !lane.is_empty() {
            turns += 1;
            prop_assert!(turns < 5000);
            let (kind, at, named) = answers[turns % answers.len()];
            let rejections =
                if named { Rejections::of(vec![(at, "x".into()), (at * 2, "y".into())]) } else { Rejections::unclear() };
            let answer = match kind {
                0 => Answer::Accepted(rejections),
                1 => Answer::Seen(rejections),
                2 => Answer::Bad { rejections, text: String::new() },
                3 => Answer::TooLarge,
                // Now and then progress, so that waiting for ever is not the far side's only word.
                4 if turns % 7 != 0 => Answer::Wait { after: None },
                5 if turns % 7 != 0 => Answer::Unauthorized,
                _ => Answer::Accepted(Rejections::default()),
            };
            prop_assert!(!lane.begin().is_empty());
            settled.extend(lane.answered(&answer));
        }
        let numbers: BTreeSet<u64> = settled.iter().map(|s| number(&s.record)).collect();
        prop_assert_eq!((numbers.len(), settled.len()), (250, 250));
    }
}

#[test]
fn bisecting_is_cheap() {
    let mut server = Server::new(BTreeSet::from([37]), Manner::Whole, 1000);
    let settled = run(&mut server, 100, &BTreeSet::new(), 100);
    check(&settled, &server, 100);
    assert!(server.requests <= 1 + 2 * 7 + 2, "{}", server.requests);
    let why = settled.iter().find_map(|s| match &s.end {
        End::Rejected(why, text) => Some((*why, text.clone())),
        End::Accepted => None,
    });
    assert_eq!(why, Some((Why::Invalid, "400".to_owned())));
}

#[test]
fn too_large_is_remembered_until_the_reconnect() {
    let mut server = Server::new(BTreeSet::new(), Manner::Partly, 30);
    let mut lane = Lane::new(LIMITS);
    (0..300).map(record).for_each(|record| lane.push(record));
    let mut sizes = Vec::new();
    while !lane.is_empty() {
        let batch = lane.begin().to_vec();
        sizes.push(batch.len());
        let answer = server.post(&batch);
        lane.answered(&answer);
    }
    assert_eq!(sizes[..5], [100, 50, 25, 25, 25]);
    lane.reconnected();
    (0..200).map(record).for_each(|record| lane.push(record));
    assert_eq!(lane.begin().len(), 100);
}

#[test]
fn one_record_that_is_too_large_is_parked() {
    let mut server = Server::new(BTreeSet::new(), Manner::Partly, 0);
    let settled = run(&mut server, 3, &BTreeSet::new(), 3);
    assert!(settled.iter().all(|s| matches!(s.end, End::Rejected(Why::TooLarge, _))), "{settled:?}");
}

#[test]
fn a_batch_is_full_by_records_samples_or_bytes() {
    let limits = Limits { records: 3, samples: 25, bytes: 1000 };
    let mut lane = Lane::new(limits);
    assert!(!lane.is_full());
    assert_eq!(lane.begin().len(), 0);
    lane.push(record(1));
    lane.push(record(2));
    assert!(!lane.is_full());
    lane.push(record(3));
    assert!(lane.is_full(), "a third would have 30 samples");
    assert_eq!(lane.begin().len(), 2);
    lane.push(record(4));
    assert_eq!(lane.begin().len(), 2, "what was begun does not grow");
    let settled = lane.answered(&Answer::Accepted(Rejections::default()));
    assert_eq!(settled.len(), 2);

    let mut lane = Lane::new(Limits { records: 100, samples: 5, bytes: 1 });
    lane.push(record(1));
    assert_eq!(lane.begin().len(), 1, "a single record is never too much");
}

/// After a restart the first batch ends where the batch ended that may have been taken.
#[test]
fn the_first_batch_ends_where_an_earlier_process_ended_it() {
    let mut lane = Lane::new(LIMITS);
    lane.cut_at(record(5).first);
    (0..5).map(record).for_each(|record| lane.push(record));
    assert!(lane.is_full(), "nothing more belongs to it");
    (5..20).map(record).for_each(|record| lane.push(record));
    let first: Vec<Record> = (0..5).map(record).collect();
    assert_eq!(lane.begin(), first);
    lane.answered(&Answer::Seen(Rejections::default()));
    assert_eq!(lane.begin().len(), 15);

    // Numbers that began again (a queue in memory): a cut far away changes nothing.
    let mut lane = Lane::new(LIMITS);
    lane.cut_at(1_000_000);
    (0..120).map(record).for_each(|record| lane.push(record));
    assert_eq!(lane.begin().len(), 100);
    let mut lane = Lane::new(LIMITS);
    lane.cut_at(3);
    (50..170).map(record).for_each(|record| lane.push(record));
    assert_eq!(lane.begin().len(), 100, "a cut in the past says nothing");
}

#[test]
fn what_is_forgotten_comes_again() {
    let mut lane = Lane::new(LIMITS);
    (0..150).map(record).for_each(|record| lane.push(record));
    lane.begin();
    lane.keep_begun();
    assert_eq!(lane.len(), 100);
    lane.forget();
    assert!(lane.is_empty() && !lane.is_begun());
}
