//! Measures the queue file beside a bare SQLite insert loop in the same run: one JSON document on stdout.
//!
//! Both write the same payload (the bytes that the queue stores per row), the same rows per transaction, the same sync
//! mode, on the same disk, in turns; the medians and their ratio count. `cargo task bench -- queue` shows the result.
//!
//! Arguments: a directory on the disk that is to be measured, and optionally the number of rounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a measuring program: whatever goes wrong must end it at once, and it talks on its terminal"
)]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use busbar_contract::Sample;
use busbar_core::{
    journal::{End, Entry, Kept, Name, Row, Settled, Transaction},
    model::Sync,
};
use busbar_queue::{File, Limits, Now, Options};
use rusqlite::Connection;

/// 50 float32 of one device, 20 devices per transaction: 1000 records, one flush.
const POINTS: u64 = 50;
const ROWS: u64 = 20;
const RECORDS: u64 = POINTS * ROWS;
/// Records for the size on disk and for the replay.
const BACKLOG: u64 = 1_000_000;
/// As the core asks for them.
const LOAD: usize = 5_000;

fn main() {
    let mut words = std::env::args().skip(1);
    let dir = PathBuf::from(words.next().expect("a directory"));
    let rounds: usize = words.next().map_or(5, |word| word.parse().expect("a number of rounds"));
    let payload = payload(&dir);
    let modes: Vec<String> = [(Sync::Commit, "commit", 200), (Sync::Checkpoint, "checkpoint", 1_500)]
        .into_iter()
        .map(|(sync, name, transactions)| mode(&dir, sync, name, transactions, rounds, payload))
        .collect();
    let backlog = backlog(&dir);
    println!(
        "{{\"records_per_transaction\":{RECORDS},\"rows_per_transaction\":{ROWS},\"payload_bytes_per_row\":{payload},\
         \"rounds\":{rounds},\"modes\":[{}],{backlog}}}",
        modes.join(",")
    );
}

/// One sync mode: transactions per second of the bare loop and of the queue, in turns.
fn mode(dir: &Path, sync: Sync, name: &str, transactions: u64, rounds: usize, payload: u64) -> String {
    let (mut bare, mut append, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.push(rate(transactions, bare_loop(&fresh(dir, "bare"), sync, transactions, payload)));
        append.push(rate(transactions, queue_loop(&fresh(dir, "append"), sync, transactions, false)));
        both.push(rate(transactions, queue_loop(&fresh(dir, "both"), sync, transactions, true)));
    }
    let (bare, append, both) = (median(bare), median(append), median(both));
    format!(
        "{{\"sync\":\"{name}\",\"bare\":{bare:.0},\"append\":{append:.0},\"append_confirm\":{both:.0},\
         \"ratio_append\":{:.3},\"ratio\":{:.3}}}",
        append / bare,
        both / bare
    )
}

/// Records per second.
fn rate(transactions: u64, took: Duration) -> f64 {
    (transactions * RECORDS) as f64 / took.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn bare_loop(dir: &Path, sync: Sync, transactions: u64, payload: u64) -> Duration {
    let mut connection = Connection::open(dir.join("bare.db")).unwrap();
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
    let level = if sync == Sync::Commit { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", level).unwrap();
    connection.execute_batch("CREATE TABLE q(id INTEGER PRIMARY KEY, data BLOB)").unwrap();
    let data = vec![0x5a_u8; payload as usize];
    let begun = Instant::now();
    for _ in 0..transactions {
        let transaction = connection.transaction().unwrap();
        {
            let mut insert = transaction.prepare_cached("INSERT INTO q(data) VALUES (?1)").unwrap();
            for _ in 0..ROWS {
                insert.execute([&data]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    begun.elapsed()
}

/// Appends; with `confirm` each transaction also ends what the one before appended.
fn queue_loop(dir: &Path, sync: Sync, transactions: u64, confirm: bool) -> Duration {
    let mut file = open(dir, sync);
    let mut took = Duration::ZERO;
    for number in 0..transactions {
        let mut transaction = transaction(number);
        if confirm {
            transaction.settled =
                vec![ended(number.saturating_sub(1) * RECORDS + 1, RECORDS * number.min(1))];
        }
        let begun = Instant::now();
        file.commit(&transaction).unwrap();
        took += begun.elapsed();
    }
    let pending = file.ledger().pending;
    assert_eq!(pending, if confirm { RECORDS } else { RECORDS * transactions });
    took
}

/// Bytes per record on disk, and how fast a backlog is read back and confirmed.
fn backlog(dir: &Path) -> String {
    let dir = fresh(dir, "backlog");
    let mut file = open(&dir, Sync::Commit);
    for number in 0..BACKLOG / RECORDS {
        file.commit(&transaction(number)).unwrap();
    }
    let held = file.commit(&Transaction::default()).unwrap().bytes;
    file.close().unwrap();
    let size = std::fs::metadata(dir.join("q.db")).unwrap().len();
    let mut file = open(&dir, Sync::Commit);
    let begun = Instant::now();
    let (mut from, mut count) = (0, 0);
    loop {
        let loaded = file.load(from, LOAD, usize::MAX).unwrap();
        let Some(last) = loaded.rows.last().and_then(|row| row.entries.last()) else { break };
        count += loaded.rows.iter().map(|row| row.entries.len() as u64).sum::<u64>();
        let settled = vec![ended(from, last.number + 1 - from)];
        file.commit(&Transaction { settled, ..Transaction::default() }).unwrap();
        from = loaded.next;
    }
    let took = begun.elapsed().as_secs_f64();
    assert_eq!((count, file.ledger().pending), (BACKLOG, 0));
    format!(
        "\"backlog_records\":{BACKLOG},\"bytes_per_record\":{:.2},\"file_bytes_per_record\":{:.2},\
         \"replay_records_per_second\":{:.0}",
        held as f64 / BACKLOG as f64,
        size as f64 / BACKLOG as f64,
        BACKLOG as f64 / took
    )
}

/// What the queue stores per row of [`POINTS`] records.
fn payload(dir: &Path) -> u64 {
    let mut file = open(&fresh(dir, "payload"), Sync::Checkpoint);
    file.commit(&transaction(0)).unwrap().bytes / ROWS - 24
}

fn fresh(dir: &Path, name: &str) -> PathBuf {
    let dir = dir.join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn open(dir: &Path, sync: Sync) -> File {
    let limits = Limits { max_bytes: 1 << 40, max_age: Duration::from_secs(7 * 86_400) };
    File::open(&dir.join("q.db"), &Options { limits, sync, now: Now::default() }).unwrap().0
}

fn ended(first: u64, count: u64) -> Settled {
    Settled { first, count, end: End::Delivered }
}

fn transaction(number: u64) -> Transaction {
    let first = number * RECORDS + 1;
    let names = if number == 0 { (0..RECORDS as u32).map(name).collect() } else { Vec::new() };
    let rows = (0..ROWS).map(|device| row(first + device * POINTS, device, number)).collect();
    Transaction { number, names, rows, next: first + RECORDS, ..Transaction::default() }
}

fn name(point: u32) -> (u32, Name) {
    let device = format!("meter-{:02}", u64::from(point) / POINTS);
    let point_name = format!("register_{:02}", u64::from(point) % POINTS);
    (point, Name { device, point: point_name, unit: "V".to_owned() })
}

fn row(first: u64, device: u64, poll: u64) -> Row {
    let ts_ns = 1_767_225_600_000_000_000 + (poll * 1_000_000_000 + device * 1_234_567) as i64;
    let entries = (0..POINTS).map(|point| {
        let value = 230.0 + ((first + point) % 1_000) as f32 / 37.0;
        let sample = Sample {
            ts_ns,
            bits: u64::from(value.to_bits()),
            point: (device * POINTS + point) as u32,
            quality: 0,
            kind: 4,
            flags: 8,
        };
        Entry { number: first + point, sample, value_ts_ns: ts_ns, blob: None, kept: Kept::State, flags: 0 }
    });
    Row { accepted_ns: 0, entries: entries.collect() }
}
