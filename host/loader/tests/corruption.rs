//! Randomly corrupted plugins through staging and probe, seeded: each is refused with a sentence or proves sound, and
//! this process lives on. The damaged bytes never reach the dynamic linker of this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by a panic"
)]

mod common;

use std::{fs, path::PathBuf};

use common::{assert_sentence, bad_plugin, stage_and_probe, stage_dir};

const FILES: u64 = 240;

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough to choose places.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Damage of one kind per seed: flips everywhere, flips where the linker reads, a zeroed block, a shifted block.
fn corrupt(seed: u64, good: &[u8]) -> Vec<u8> {
    let mut random = Random(seed);
    let mut file = good.to_vec();
    let size = file.len();
    match seed % 4 {
        0 => flip(&mut random, &mut file, 0, size, 2000),
        // ELF and program headers, then dynamic symbols, relocations, versions at the front of the file.
        1 => flip(&mut random, &mut file, 0, 64 * 1024, 60),
        2 => {
            let at = random.below(size - 65_536);
            file[at..at + 65_536].fill(0);
        }
        _ => {
            let (at, shift) = (random.below(size - 300_000), 1 + random.below(4096));
            file.copy_within(at..at + 200_000, at + shift);
        }
    }
    file
}

fn flip(random: &mut Random, file: &mut [u8], from: usize, to: usize, count: usize) {
    for _ in 0..count {
        let at = from + random.below(to - from);
        file[at] ^= 1 << random.below(8);
    }
}

/// A plugin without debug information: what is deployed, and small enough to hit what matters.
fn stripped(dir: &tempfile::TempDir) -> Vec<u8> {
    let file = dir.path().join("stripped.so");
    let status =
        std::process::Command::new("strip").arg("-o").arg(&file).arg(bad_plugin("bad-contract")).status();
    assert!(status.expect("strip(1) of binutils is needed, as the linker is").success());
    fs::read(file).unwrap()
}

#[test]
fn corrupted_plugins_never_reach_this_process() {
    let dir = stage_dir();
    let good = stripped(&dir);
    let file: PathBuf = dir.path().join("libbusbar_driver_bad_contract.so");
    fs::write(&file, &good).unwrap();
    stage_and_probe(&dir, "good", &file).expect("the undamaged file must pass");
    let (mut sound, mut by_headers, mut by_child) = (0, 0, 0);
    for seed in 0..FILES {
        fs::write(&file, corrupt(seed, &good)).unwrap();
        match stage_and_probe(&dir, "damaged", &file) {
            Ok(_) => sound += 1,
            Err(error) => {
                assert_sentence(&error, &file, &[]);
                match error.step {
                    busbar_loader::Step::Preflight => by_headers += 1,
                    busbar_loader::Step::Probe => by_child += 1,
                    step => panic!("seed {seed}: refused at {step:?}: {error}"),
                }
                eprintln!("seed {seed}: {error}");
            }
        }
        // Copies of damaged files are of no further use; the disk is shared.
        busbar_loader::stage::prune(dir.path(), "damaged", &[]);
    }
    eprintln!("{FILES} files: {by_headers} refused by their headers, {by_child} in the child, {sound} ran");
    assert!(by_child >= FILES / 20, "the damage is too mild to test the child: {by_child}");
    assert!(by_headers > 0, "the damage never hit the headers");
}
