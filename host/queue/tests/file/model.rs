//! Random histories beside a model: what waits and every figure are the same after each step, also over reopening.

use std::collections::{BTreeMap, BTreeSet};

use busbar_core::journal::{End, Ledger, Transaction};
use proptest::prelude::*;

use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Rows(Vec<Vec<bool>>),
    Settle { back: u64, count: u64, end: u8 },
    Unwritten(u64),
    Retry(u64),
    Discard(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let present = proptest::collection::vec(proptest::bool::weighted(0.8), 1..12);
    prop_oneof![
        5 => proptest::collection::vec(present, 1..5).prop_map(Step::Rows),
        6 => (0_u64..80, 1_u64..30, 0_u8..4).prop_map(|(back, count, end)| Step::Settle { back, count, end }),
        1 => (0_u64..9).prop_map(Step::Unwritten),
        1 => (0_u64..80).prop_map(Step::Retry),
        1 => (0_u64..80).prop_map(Step::Discard),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    ledger: Ledger,
    waiting: BTreeSet<u64>,
    parked: BTreeMap<u64, String>,
}

impl Model {
    fn settle(&mut self, first: u64, count: u64, end: &End) {
        for number in first..first + count {
            if !self.waiting.remove(&number) {
                continue;
            }
            match end {
                End::Delivered => self.ledger.delivered += 1,
                End::Parked(reason) => {
                    self.parked.insert(number, reason.clone());
                }
                End::Dropped(reason) => *self.ledger.dropped.entry(reason.clone()).or_default() += 1,
            }
        }
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = self.ledger.clone();
        ledger.pending = self.waiting.len() as u64;
        for reason in self.parked.values() {
            *ledger.parked.entry(reason.clone()).or_default() += 1;
        }
        ledger
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(60)))]
    #[test]
    fn the_file_does_what_the_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        let place = Place::new();
        let mut file = place.open().0;
        let mut model = Model::default();
        let mut next = 1;
        for step in steps {
            match step {
                Step::Rows(parts) => {
                    let mut made = Vec::new();
                    for part in parts {
                        let numbers: Vec<u64> =
                            (next..).zip(&part).filter(|(_, present)| **present).map(|(number, _)| number).collect();
                        next += part.len() as u64;
                        model.waiting.extend(&numbers);
                        model.ledger.accepted += numbers.len() as u64;
                        if !numbers.is_empty() {
                            made.push(row(numbers, 0));
                        }
                    }
                    commit(&mut file, &rows(made, 0));
                }
                Step::Settle { back, count, end } => {
                    let end = match end {
                        0 | 1 => End::Delivered,
                        2 => End::Parked(format!("reason {}", back % 3)),
                        _ => End::Dropped("given up".to_owned()),
                    };
                    let first = next.saturating_sub(back);
                    model.settle(first, count, &end);
                    commit(&mut file, &ends(vec![settled(first, count, end)]));
                }
                Step::Unwritten(count) => {
                    model.ledger.accepted += count;
                    model.ledger.delivered += count;
                    commit(&mut file, &Transaction { delivered_unwritten: count, ..Transaction::default() });
                }
                Step::Retry(back) => {
                    let numbers: Vec<u64> = (next.saturating_sub(back)..next).collect();
                    for number in &numbers {
                        if model.parked.remove(number).is_some() {
                            model.waiting.insert(*number);
                        }
                    }
                    file.retry_parked(&numbers).unwrap();
                }
                Step::Discard(back) => {
                    let numbers: Vec<u64> = (next.saturating_sub(back)..next).step_by(2).collect();
                    let gone = numbers.iter().filter(|number| model.parked.remove(number).is_some()).count() as u64;
                    if gone > 0 {
                        *model.ledger.dropped.entry("discarded".to_owned()).or_default() += gone;
                    }
                    file.discard_parked(&numbers).unwrap();
                }
                Step::Reopen => {
                    file.close().unwrap();
                    file = place.open().0;
                }
            }
            let committed = commit(&mut file, &Transaction::default());
            prop_assert_eq!(&committed.ledger, &model.ledger());
            if let Some(oldest) = model.waiting.first() {
                prop_assert_eq!(committed.oldest, *oldest);
            }
        }
        drop(file);
        let mut file = place.open().0;
        prop_assert_eq!(waiting(&mut file, 7), model.waiting.iter().copied().collect::<Vec<_>>());
        let parked: Vec<u64> = file.parked(0, 10_000).unwrap().iter().map(|record| record.number).collect();
        prop_assert_eq!(parked, model.parked.keys().copied().collect::<Vec<_>>());
    }
}
