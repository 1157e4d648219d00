//! Counters of the plugin, for `control(STATS)`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value as Json, json};

pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        pub(crate) struct Stats { $(pub(crate) $name: Counter,)* }

        /// One set per plugin file; not reset by `shutdown`.
        pub(crate) static STATS: Stats = Stats { $($name: Counter::new(),)* };

        /// The counters as a JSON object.
        pub(crate) fn json() -> Json {
            json!({ $(stringify!($name): STATS.$name.get(),)* })
        }
    };
}

counters! {
    submitted,
    refused_submits,
    completions,
    samples,
    deadlines,
    panics,
    refused_by_host,
    unsupported_by_host,
    dropped_samples,
    dropped_deliveries,
    unknown_answers,
}
