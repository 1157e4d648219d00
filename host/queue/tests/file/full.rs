//! A full disk, for real: a tmpfs of a few megabytes in a mount namespace of its own. The test runs itself again within
//! `unshare`; without root it needs user namespaces.

use std::{fs, path::PathBuf, process::Command};

use busbar_core::journal::End;
use busbar_queue::File;

use crate::support::*;

const CHILD: &str = "BUSBAR_QUEUE_FULL_CHILD";

#[test]
fn a_full_disk_refuses_rows_and_takes_confirmations() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=12m busbar-test \"$0\" && exec \"$1\" --exact full::child --nocapture";
    let (code, text) = run(dir.path().to_str().unwrap(), script);
    assert!(
        code == Some(0) && text.contains("STEPS DONE"),
        "mount namespaces, or the queue, do not work here: {text}"
    );
}

fn run(dir: &str, script: &str) -> (Option<i32>, String) {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script, dir]);
    let output = command.arg(std::env::current_exe().unwrap()).env(CHILD, dir).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn is_root() -> bool {
    // The owner of a fresh process's own entry is its effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let path = PathBuf::from(dir).join("queue/ems.db");
    let (mut file, _) = File::open(&path, &synced()).unwrap();
    let (mut next, refused) = fill(&mut file);
    assert!(refused.contains("full"), "{refused}");
    let before = file.ledger().clone();
    assert!(before.is_balanced() && before.pending > 10_000, "{before:?}");

    // Nothing of the refused transactions is there, and what was committed can be read.
    assert_eq!(waiting(&mut file, 1_000).len() as u64, before.pending);

    // Confirmations are taken although not one byte is free, and make room for new rows.
    let committed = commit(&mut file, &ends(vec![settled(1, 50, End::Delivered)]));
    assert_eq!(committed.ledger.delivered, 50);
    let half = before.pending / 2;
    let committed = commit(&mut file, &ends(vec![settled(1, half, End::Delivered)]));
    assert_eq!((committed.ledger.delivered, committed.oldest), (half, half + 1));
    let mut again = rows(vec![row(next..next + 100, 0)], 0);
    again.dropped_unwritten.insert("disk_full".to_owned(), 3);
    let committed = commit(&mut file, &again);
    assert_eq!(committed.ledger.dropped["disk_full"], 3);
    next += 100;

    // Full again: the next life opens, reads and drains.
    fill_from(&mut file, &mut next);
    let pending = file.ledger().pending;
    drop(file);
    let (mut file, recovered) = File::open(&path, &synced()).unwrap();
    assert_eq!(recovered.ledger.pending, pending);
    let committed = commit(&mut file, &ends(vec![settled(0, next, End::Delivered)]));
    assert_eq!(committed.ledger.pending, 0);
    // With room the reserve comes back before rows do.
    commit(&mut file, &rows(vec![row(next..next + 20, 0)], 0));
    assert!(path.with_extension("db.reserve").exists());
    println!("STEPS DONE");
}

/// With each transaction synced: the reserve is the small one.
fn synced() -> busbar_queue::Options {
    busbar_queue::Options { sync: busbar_core::model::Sync::Commit, ..options() }
}

fn fill(file: &mut File) -> (u64, String) {
    let mut next = 1;
    let refused = fill_from(file, &mut next);
    (next, refused)
}

/// Appends until the disk is full, in large and then in small transactions.
fn fill_from(file: &mut File, next: &mut u64) -> String {
    let mut text = String::new();
    for count in [100, 10, 1] {
        loop {
            let made = (0..count).map(|n| row(*next + n * 20..*next + n * 20 + 20, 0)).collect();
            match file.commit(&rows(made, 0)) {
                Ok(committed) => {
                    assert!(committed.ledger.is_balanced());
                    *next += count * 20;
                }
                Err(refused) => {
                    assert!(refused.full, "{refused:?}");
                    text = refused.text;
                    break;
                }
            }
        }
    }
    text
}
