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

/// Others fill the disk while the file is small: once it is drained it gives back what it has, and takes rows again.
#[test]
fn a_small_file_on_a_full_disk_does_not_stay_full() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=8m busbar-test \"$0\" && exec \"$1\" --exact full::small_child --nocapture";
    let (code, text) = run(dir.path().to_str().unwrap(), script);
    assert!(code == Some(0) && text.contains("STEPS DONE"), "{text}");
}

#[test]
fn small_child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let path = PathBuf::from(&dir).join("queue/ems.db");
    let (mut file, _) = File::open(&path, &synced()).unwrap();
    let mut next = 1;
    for _ in 0..200 {
        commit(&mut file, &rows(vec![row(next..next + 200, 0)], 0));
        next += 200;
    }
    let size = fs::metadata(&path).unwrap().len() / 4096;
    assert!((100..250).contains(&size), "{size} pages: not a small file");
    let others = PathBuf::from(&dir).join("others");
    let mut grow = fs::OpenOptions::new().create(true).append(true).open(&others).unwrap();
    let mut take = |most: usize| {
        let mut taken = 0;
        while taken < most && std::io::Write::write_all(&mut grow, &[7; 4096]).is_ok() {
            taken += 4096;
        }
        taken
    };
    take(usize::MAX);
    // The room kept back is given up, and others take half of it.
    fill_from(&mut file, &mut next);
    let reserve = path.with_extension("db.reserve");
    assert!(!reserve.exists());
    take(1 << 20);
    let committed = commit(&mut file, &ends(vec![settled(0, next, End::Delivered)]));
    assert_eq!(committed.ledger.pending, 0);
    commit(&mut file, &ends(vec![]));
    commit(&mut file, &rows(vec![row(next..next + 20, 0)], 0));
    assert!(reserve.exists());
    println!("STEPS DONE");
}

/// The log cannot be worked into the file, for another reason than a full disk: that is what is said.
#[test]
fn a_checkpoint_that_fails_is_no_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    // No file may be longer than 4 MiB; the signal that tells so is ignored.
    let script = "trap '' XFSZ; ulimit -f 8192; exec \"$1\" --exact full::limited_child --nocapture";
    let mut command = Command::new("sh");
    command.args(["-c", script, dir.path().to_str().unwrap()]);
    let (code, text) = output(command, dir.path().to_str().unwrap());
    assert!(code == Some(0) && text.contains("STEPS DONE"), "{text}");
}

#[test]
fn limited_child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let path = PathBuf::from(dir).join("queue/ems.db");
    let (mut file, _) = File::open(&path, &synced()).unwrap();
    let (next, refused) = (1..)
        .map(|n| n * 2_000)
        .find_map(|next| {
            let made = (0..100).map(|n| row(next + n * 20..next + n * 20 + 20, 0)).collect();
            file.commit(&rows(made, 0)).err().map(|refused| (next, refused))
        })
        .unwrap();
    assert!(
        !refused.full && refused.text.contains("write-ahead log cannot be worked into it"),
        "{refused:?}"
    );
    let log = fs::metadata(path.with_extension("db-wal")).unwrap().len();
    assert!(log < 4 << 20, "the log grew to {log} bytes");
    // What the far side confirms is taken all the same.
    let committed = commit(&mut file, &ends(vec![settled(0, 2_020, End::Delivered)]));
    assert_eq!(committed.ledger.delivered, 20);
    assert_eq!(waiting(&mut file, 1_000).last(), Some(&(next - 1)));
    println!("STEPS DONE");
}

fn run(dir: &str, script: &str) -> (Option<i32>, String) {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script, dir]);
    output(command, dir)
}

fn output(mut command: Command, dir: &str) -> (Option<i32>, String) {
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
