//! Builders of transactions and a directory with one queue.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use busbar_contract::Sample;
use busbar_core::{
    journal::{Committed, End, Entry, Kept, Loaded, Name, Recovered, Row, Settled, Transaction},
    model::Sync,
};
use busbar_queue::{File, Limits, NotOpened, Now, Options};

/// One second, nanoseconds.
pub(crate) const S: u64 = 1_000_000_000;

/// A directory that goes with the test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) options: Options,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), options: options() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("queue/ems.db")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn open(&self) -> (File, Recovered) {
        let (file, recovered) = self.try_open().unwrap();
        assert!(recovered.ledger.is_balanced(), "{recovered:?}");
        (file, recovered)
    }

    pub(crate) fn try_open(&self) -> Result<(File, Recovered), NotOpened> {
        File::open(&self.path(), &self.options)
    }

    /// Names of the files beside the queue.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path().parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn options() -> Options {
    Options {
        limits: Limits { max_bytes: 1 << 30, max_age: Duration::from_secs(7 * 86_400) },
        sync: Sync::Checkpoint,
        now: Now { mono_ns: 0, wall_ns: 1_767_225_600 * S as i64, synchronised: true },
    }
}

pub(crate) fn name(point: u32) -> Name {
    Name { device: format!("meter-{}", point / 50), point: format!("p{point}"), unit: "V".to_owned() }
}

/// A record whose content tells its number.
pub(crate) fn entry(number: u64, point: u32) -> Entry {
    let blob: Option<Arc<[u8]>> =
        number.is_multiple_of(7).then(|| Arc::from(format!("text {number}").as_bytes()));
    let bits = blob.as_ref().map_or(number * 3, |blob| blob.len() as u64);
    let kind = if blob.is_some() { 9 } else { 3 };
    let ts_ns = number as i64 * 1_000;
    let sample = Sample { ts_ns, bits, point, quality: (number % 3) as u16, kind, flags: (number % 5) as u8 };
    let kept = if number.is_multiple_of(2) { Kept::State } else { Kept::Event };
    Entry { number, sample, value_ts_ns: ts_ns - (number % 2) as i64, blob, kept, flags: (number % 4) as u8 }
}

/// A row with the numbers given; points count from 0 within it.
pub(crate) fn row(numbers: impl IntoIterator<Item = u64>, accepted_ns: u64) -> Row {
    let entries = numbers.into_iter().enumerate().map(|(point, number)| entry(number, point as u32));
    Row { accepted_ns, entries: entries.collect() }
}

/// A transaction with rows; introduces every point that [`row`] can name.
pub(crate) fn rows(rows: Vec<Row>, now_ns: u64) -> Transaction {
    let points = rows.iter().map(|row| row.entries.len() as u32).max().unwrap_or(0);
    let next = rows.iter().flat_map(|row| &row.entries).map(|entry| entry.number + 1).max().unwrap_or(0);
    let names = (0..points).map(|point| (point, name(point))).collect();
    Transaction { names, rows, next, now_ns, ..Transaction::default() }
}

pub(crate) fn settled(first: u64, count: u64, end: End) -> Settled {
    Settled { first, count, end }
}

pub(crate) fn ends(settled: Vec<Settled>) -> Transaction {
    Transaction { settled, ..Transaction::default() }
}

/// Commits and checks what must always hold.
pub(crate) fn commit(file: &mut File, transaction: &Transaction) -> Committed {
    let committed = file.commit(transaction).unwrap();
    assert!(committed.ledger.is_balanced(), "{committed:?}");
    committed
}

/// Numbers of everything that waits, read in pieces, with its content checked.
pub(crate) fn waiting(file: &mut File, records: usize) -> Vec<u64> {
    let (mut from, mut numbers) = (0, Vec::new());
    let mut names = std::collections::HashMap::new();
    loop {
        let loaded: Loaded = file.load(from, records, usize::MAX).unwrap();
        for (id, name) in &loaded.names {
            assert!(names.insert(*id, name.clone()).is_none(), "told twice");
        }
        if loaded.rows.is_empty() {
            return numbers;
        }
        for row in &loaded.rows {
            assert!(!row.entries.is_empty());
            for found in &row.entries {
                assert!(found.number >= from && found.number < loaded.next);
                assert_eq!(
                    *found,
                    Entry {
                        sample: Sample { point: found.sample.point, ..entry(found.number, 0).sample },
                        ..entry(found.number, 0)
                    }
                );
                numbers.push(found.number);
            }
        }
        assert!(loaded.next > from);
        from = loaded.next;
    }
}

/// Random cases: few in the suite, many in `cargo task soak queue`.
pub(crate) fn cases(few: u32) -> u32 {
    std::env::var("BUSBAR_QUEUE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}
