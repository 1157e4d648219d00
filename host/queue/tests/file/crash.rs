//! kill -9: a child commits as fast as it can and says what was committed; everything said is in the file.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use busbar_core::journal::{End, Transaction};

use crate::support::*;

/// Set in the child: where it works.
const CHILD: &str = "BUSBAR_QUEUE_CRASH_CHILD";
/// Kills of the short form; `cargo task soak queue` asks for more.
const KILLS: u64 = 20;
/// Asks for another number of kills.
const ROUNDS: &str = "BUSBAR_QUEUE_KILLS";

/// A copy of the queue directory in a place of its own.
pub(crate) fn copy(place: &Place) -> Place {
    let mut copy = Place::new();
    copy.options = place.options;
    std::fs::create_dir_all(copy.path().parent().unwrap()).unwrap();
    for name in place.files() {
        std::fs::copy(place.path().with_file_name(&name), copy.path().with_file_name(&name)).unwrap();
    }
    copy
}

/// What the child says after each commit.
fn said(line: &str) -> Option<[u64; 3]> {
    let mut numbers = line.split(' ').map(|word| word.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// Runs as the child only: appends, confirms in order and drops a few, until it is killed.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (mut file, recovered) = busbar_queue::File::open(path.as_ref(), &options()).unwrap();
    let (mut next, mut confirmed) = (recovered.next, recovered.oldest);
    let mut out = std::io::stdout();
    loop {
        let mut made = Vec::new();
        for length in [1, 40, 7] {
            made.push(row(next..next + length, 0));
            next += length;
        }
        let mut transaction = rows(made, 0);
        let behind = (next - confirmed).saturating_sub(2_000);
        let parked = u64::from(behind > 0 && next % 5 == 0);
        transaction.settled = vec![
            settled(confirmed, behind, End::Delivered),
            settled(confirmed + behind, parked, End::Parked("no".to_owned())),
        ];
        transaction.delivered_unwritten = next % 3;
        let committed = file.commit(&transaction).unwrap();
        confirmed += behind + parked;
        writeln!(out, "{next} {confirmed} {}", committed.ledger.accepted).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_reported_is_there_after_kill_9() {
    let kills = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let place = Place::new();
    let mut random = 0x2545_F491_4F6C_DD1D_u64 ^ u64::from(std::process::id());
    let mut total = 0;
    for kill in 0..kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let last = run_child(&place, random % 60, random >> 32 & 1 == 1);
        let (mut file, recovered) = place.open();
        let told = format!("kill {kill}: said {last:?}, found {recovered:?}");
        assert!(recovered.notes.is_empty(), "{told}");
        if let Some([next, confirmed, accepted]) = last {
            assert!(recovered.next >= next && recovered.ledger.accepted >= accepted, "{told}");
            assert!(recovered.oldest >= confirmed, "{told}");
            // At most one transaction more than was said.
            assert!(recovered.next <= next + 48 && recovered.ledger.accepted <= accepted + 50, "{told}");
            let numbers = waiting(&mut file, 500);
            assert_eq!(numbers, (recovered.oldest..recovered.next).collect::<Vec<_>>(), "{told}");
            assert_eq!(numbers.len() as u64, recovered.ledger.pending, "{told}");
            total = recovered.ledger.accepted;
        }
        // Every third life ends in order.
        if kill % 3 == 0 {
            file.close().unwrap();
        }
    }
    assert!(total > 0, "no child ever committed");
    let (mut file, _) = place.open();
    let committed = commit(&mut file, &Transaction::default());
    let parked = file.parked(0, usize::MAX >> 1).unwrap().len() as u64;
    assert_eq!(parked, committed.ledger.parked.values().sum::<u64>());
}

/// Kills the child `after` commits were heard, or right at its start; gives back what it said last.
fn run_child(place: &Place, after: u64, wait: bool) -> Option<[u64; 3]> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(CHILD, place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut last = None;
    for _ in 0..after {
        last = std::iter::from_fn(|| line(&mut out)).find_map(|line| said(&line));
        assert!(last.is_some(), "the child ended by itself");
    }
    if wait {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(after * 37) {
            std::hint::spin_loop();
        }
    }
    child.kill().unwrap();
    // What it said before the kill arrived counts too.
    while let Some(line) = line(&mut out) {
        last = said(&line).or(last);
    }
    child.wait().unwrap();
    last
}

/// The next whole line; a torn one at the end is none.
fn line(out: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.strip_suffix('\n').map(str::to_owned)
}
