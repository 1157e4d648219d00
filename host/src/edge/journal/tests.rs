use std::{sync::mpsc::sync_channel, time::Duration};

use busbar_contract::Sample;
use busbar_core::journal::{Entry, Kept, Name, Row};

use super::*;

fn sink(name: &str) -> Sink {
    Sink { name: name.to_owned(), plugin: "ems".to_owned(), ..Sink::default() }
}

fn transaction(number: u64, records: std::ops::Range<u64>) -> Box<Transaction> {
    let entries: Vec<Entry> = records
        .clone()
        .map(|number| Entry {
            number,
            sample: Sample { ts_ns: 7, bits: number, point: 1, quality: 0, kind: 3, flags: 0 },
            value_ts_ns: 7,
            blob: None,
            kept: Kept::State,
            flags: 0,
        })
        .collect();
    let name = Name { device: "m".to_owned(), point: "p".to_owned(), unit: "V".to_owned() };
    let rows = if entries.is_empty() { vec![] } else { vec![Row { accepted_ns: 0, entries }] };
    Box::new(Transaction {
        number,
        names: vec![(1, name)],
        rows,
        next: records.end,
        ..Transaction::default()
    })
}

struct Files {
    dir: tempfile::TempDir,
    journals: Arc<Journals>,
    answers: std::sync::mpsc::Receiver<Input>,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (sender, answers) = sync_channel(64);
    let journals = Journals::new(dir.path(), Clock::new(), move |input| sender.send(input).unwrap());
    Files { dir, journals, answers }
}

impl Files {
    fn next(&self) -> Input {
        self.answers.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

#[test]
fn every_job_is_answered_in_order_and_the_last_transaction_is_kept() {
    let files = files();
    let ems = sink("ems");
    assert!(files.journals.submit(3, &ems, Wanted::Open).is_none());
    assert!(files.journals.submit(3, &ems, Wanted::Commit(transaction(1, 1..11))).is_none());
    assert!(files.journals.submit(3, &ems, Wanted::Load { from: 1, records: 100, bytes: 1 << 20 }).is_none());
    assert!(files.journals.submit(3, &ems, Wanted::Commit(transaction(2, 11..12))).is_none());
    let Input::JournalOpened { sink: 3, result: Ok(recovered) } = files.next() else { panic!() };
    assert_eq!(recovered.next, 1);
    let Input::Journaled { sink: 3, number: 1, result: Ok(committed) } = files.next() else { panic!() };
    assert_eq!(committed.ledger.pending, 10);
    let Input::JournalLoaded { sink: 3, result: Ok(loaded) } = files.next() else { panic!() };
    assert_eq!(loaded.rows[0].entries.len(), 10);
    files.journals.finish();
    assert!(matches!(files.next(), Input::Journaled { number: 2, result: Ok(_), .. }));
    // The orderly end left no log.
    let mut names: Vec<_> = std::fs::read_dir(files.dir.path().join("queue"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ems.db", "ems.db.reserve"]);
    // The same sink with another number goes on where it was.
    files.journals.submit(0, &ems, Wanted::Open);
    let Input::JournalOpened { sink: 0, result: Ok(recovered) } = files.next() else { panic!() };
    assert_eq!((recovered.ledger.pending, recovered.next), (11, 12));
}

#[test]
fn what_cannot_be_done_is_an_answer() {
    let files = files();
    let ems = sink("ems");
    let refused = files.journals.submit(0, &ems, Wanted::Commit(transaction(9, 1..2)));
    assert!(
        matches!(refused, Some(Input::Journaled { number: 9, result: Err(why), .. }) if why.text.contains("no queue"))
    );
    assert!(files.journals.ask("ems", Box::new(|_| ())).is_err());
    std::fs::write(files.dir.path().join("queue"), "a file").unwrap();
    files.journals.submit(0, &ems, Wanted::Open);
    assert!(
        matches!(files.next(), Input::JournalOpened { result: Err(text), .. } if text.contains("cannot be opened"))
    );
    files.journals.submit(0, &ems, Wanted::Commit(transaction(9, 1..2)));
    assert!(
        matches!(files.next(), Input::Journaled { result: Err(why), .. } if why.text.contains("not open"))
    );
}

#[test]
fn a_slow_disk_never_makes_the_core_wait() {
    let files = files();
    let ems = sink("ems");
    files.journals.submit(0, &ems, Wanted::Open);
    let (gate, open) = sync_channel::<()>(0);
    files.journals.ask("ems", Box::new(move |_| _ = open.recv())).unwrap();
    let refused =
        (1..).find_map(|number| files.journals.submit(0, &ems, Wanted::Commit(transaction(number, 1..1))));
    assert!(
        matches!(refused, Some(Input::Journaled { result: Err(why), .. }) if why.text.contains("too slow"))
    );
    // The stop does not wait for it.
    let begun = std::time::Instant::now();
    assert_eq!(files.journals.finish(), ["ems"]);
    assert!(begun.elapsed() < 20 * CLOSE_TIME);
    drop(gate);
}

#[test]
fn queues_are_on_disk_where_they_must_be() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("queue")).unwrap();
    std::fs::write(dir.path().join("queue/left.db"), "").unwrap();
    let mut site =
        Site { sinks: ["left", "durable", "plain", "configured"].map(sink).to_vec(), ..Site::default() };
    site.sinks[1].plugin = "mqtt".to_owned();
    site.sinks[3].queue.on_disk = true;
    place(&mut site, dir.path(), |plugin| plugin == "mqtt");
    let on_disk: Vec<bool> = site.sinks.iter().map(|sink| sink.queue.on_disk).collect();
    assert_eq!(on_disk, [true, true, false, true]);
}

#[test]
fn files_that_no_sink_owns_are_listed() {
    let files = files();
    let gone = sink("gone");
    files.journals.submit(0, &gone, Wanted::Open);
    files.journals.submit(0, &gone, Wanted::Commit(transaction(1, 1..11)));
    assert!(files.journals.finish().is_empty());
    std::fs::write(files.dir.path().join("queue/gone.db.damaged-1"), "evidence").unwrap();
    std::fs::write(files.dir.path().join("queue/other.db"), "no database").unwrap();
    let left = files.journals.left(&["ems".to_owned()]);
    let names: Vec<&str> = left.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(names, ["gone", "other"]);
    assert_eq!(left[0].holds.as_ref().unwrap().0.pending, 10);
    assert!(left[0].advice().contains("configure it again") && left[1].holds.is_err());
    assert_eq!(files.journals.left(&["gone".to_owned(), "other".to_owned()]), []);
}
