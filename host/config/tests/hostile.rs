//! Whatever is in the files: an answer in bounded time and memory, and never a panic.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use std::{fmt::Write as _, path::Path};

use busbar_config::{Loaded, MAX_PROBLEMS, load, load_text, render};
use proptest::{prelude::*, test_runner::RngSeed};
use support::{Plugins, options};

const SAMPLE: &str = include_str!("design.toml");

/// Loads, renders in every way, and checks what must hold for any input.
fn survive(text: &str) -> Loaded {
    let loaded = load_text(Path::new("/nonexistent/plugins.toml"), text, &Plugins::new(), &options());
    let errors = loaded.problems.iter().any(|problem| problem.severity == busbar_config::Severity::Error);
    assert_eq!(errors, loaded.failed());
    assert!(loaded.problems.len() <= MAX_PROBLEMS + 1);
    let lines = text.split('\n').count();
    for problem in &loaded.problems {
        assert!(problem.line <= lines && problem.length >= 1, "{problem:?}");
    }
    let _ = (loaded.render(true), render::json(&loaded.problems));
    if let Some(text) = loaded.effective() {
        let again = load_text(Path::new("/nonexistent/plugins.toml"), &text, &Plugins::new(), &options());
        assert!(!again.failed(), "{text}\n{}", again.render(false));
    }
    loaded
}

/// Pieces that configurations are made of, right and wrong.
const FRAGMENTS: [&str; 36] = [
    "[host]",
    "[host.admin]",
    "[[device]]",
    "[[sink]]",
    "[template.t]",
    "[template.t.repeat]",
    "[defaults.device]",
    "[defaults.modbus]",
    "[plugins.modbus]",
    "[[device.points]]",
    "[[template.t.points]]",
    "name = 'a'",
    "name = 'b'",
    "driver = 'modbus'",
    "plugin = 'mqtt'",
    "plugin = 'iec104'",
    "template = 't'",
    "templates = ['t', 't']",
    "connection = { transport = 'tcp', host = 'h', unit_id = 1 }",
    "settings = { url = 'mqtt://x' }",
    "points = [ { name = 'u', address = 'holding:0' }, { name = 'v{n}', address = '{x}', enabled = false } ]",
    "points = 'x.csv'",
    "points = ['*', 'a/u', '@host/*', '[']",
    "map = [ { point = 'a/u', ioa = 1 }, 5, { device = 'a' } ]",
    "vars = { x = 'holding:1', y = [1] }",
    "iec104 = { ioa = 1, ioa_base = 10 }",
    "poll_interval = '${env:SITE}'",
    "repeat = { count = 3, stride = 1, name = 'r{n}' }",
    "address = 'coil:1'",
    "range = [1, 0]",
    "scale = 1e999",
    "blocks = [ { name = 'k', points = '*', gate = { point = 'u', equals = 1 } } ]",
    "count = 2",
    "interlock = { point = 'a/u', equals = true }",
    "unit_id = 0x_1",
    "deadband = '5%'",
];

/// The same cases in every run; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for others.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(7);
    }
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 400;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fragments_in_any_order(picks in prop::collection::vec(0..FRAGMENTS.len(), 0..30)) {
        let text: String = picks.iter().flat_map(|at| [FRAGMENTS[*at], "\n"]).collect();
        survive(&text);
    }

    #[test]
    fn a_damaged_sample(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<char>()), 1..12)) {
        let mut symbols: Vec<char> = SAMPLE.chars().collect();
        for (at, what, symbol) in edits {
            let at = at.index(symbols.len());
            match what {
                0 => { symbols.remove(at); if symbols.is_empty() { symbols.push('\n'); } }
                1 => symbols.insert(at, symbol),
                2 => symbols[at] = symbol,
                _ => symbols.truncate(at.max(1)),
            }
        }
        survive(&symbols.into_iter().collect::<String>());
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        survive(&text);
    }

    #[test]
    fn any_bytes_in_files(main in prop::collection::vec(any::<u8>(), 0..200), csv in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plugins.toml"), &main).unwrap();
        let _ = load(&dir.path().join("plugins.toml"), &Plugins::new(), &options());
        let text = "[[device]]\nname = 'm'\ndriver = 'modbus'\nconnection = { transport = 'tcp', host = 'h', unit_id = 1 }\npoints = 'p.csv'\n";
        std::fs::write(dir.path().join("plugins.toml"), text).unwrap();
        std::fs::write(dir.path().join("p.csv"), &csv).unwrap();
        let _ = load(&dir.path().join("plugins.toml"), &Plugins::new(), &options());
    }

    #[test]
    fn csv_of_likely_symbols(csv in "(name|address|u|holding:0|[,;\"\n\r#. {}\\[\\]0-9-]){0,60}") {
        let dir = tempfile::tempdir().unwrap();
        let text = "[[device]]\nname = 'm'\ndriver = 'modbus'\nconnection = { transport = 'tcp', host = 'h', unit_id = 1 }\npoints = 'p.csv'\n";
        std::fs::write(dir.path().join("plugins.toml"), text).unwrap();
        std::fs::write(dir.path().join("p.csv"), &csv).unwrap();
        let loaded = load(&dir.path().join("plugins.toml"), &Plugins::new(), &options());
        let _ = loaded.render(false);
    }
}

#[test]
fn deep_nesting() {
    const DEEP: usize = 20_000;
    for text in [
        format!("a = {}", "[".repeat(DEEP)),
        format!("a = {}{}", "[".repeat(DEEP), "]".repeat(DEEP)),
        format!("a = {}", "{ a = ".repeat(DEEP)),
        format!("[{}a]\n", "a.".repeat(DEEP)),
        format!("{}a = 1\n", "a.".repeat(DEEP)),
        "[[a]]\n".repeat(DEEP),
    ] {
        assert!(survive(&text).failed());
    }
}

#[test]
fn repetitions_multiply_but_stay_bounded() {
    let text = "
[template.t]
repeat = { count = 10000, name = 'a{n}' }
points = [ { address = 'holding:0', repeat = { count = 10000, name = 'b{n}' } } ]
blocks = [ { name = 'k', points = '*' } ]
[[device]]
name = 'm'
driver = 'modbus'
template = 't'
connection = { transport = 'tcp', host = 'h', unit_id = 1 }
";
    let loaded = survive(text);
    assert!(loaded.problems.iter().any(|problem| problem.expected.starts_with("at most 100000 points")));
}

#[test]
fn more_problems_than_anybody_reads() {
    let mut text = String::from("[host]\n");
    for n in 0..MAX_PROBLEMS * 3 {
        let _ = writeln!(text, "k{n} = 1");
    }
    let loaded = survive(&text);
    assert_eq!(loaded.problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(loaded.problems.last().unwrap().found, format!("{} more", MAX_PROBLEMS * 2));
    let text: String = (0..30_000).fold(String::from("[host]\n"), |text, n| text + &format!("k{n} = 1\n"));
    assert!(survive(&text).problems.iter().any(|problem| problem.found.contains("keys in one table")));
}

#[test]
fn a_chain_of_includes_ends() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..30 {
        let text = format!("[host]\ninclude = ['f{}.toml']\n", n + 1);
        std::fs::write(dir.path().join(format!("f{n}.toml")), text).unwrap();
    }
    let loaded = load(&dir.path().join("f0.toml"), &Plugins::new(), &options());
    assert_eq!(loaded.problems.len(), 1, "{}", loaded.render(false));
    assert_eq!(loaded.problems[0].expected, "includes at most 16 deep");
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    for (path, found) in
        [(dir.path().join("none.toml"), "no such file"), (dir.path().to_owned(), "is a directory")]
    {
        let loaded = load(&path, &Plugins::new(), &options());
        assert!(loaded.failed());
        assert_eq!(loaded.problems.len(), 1);
        assert!(loaded.problems[0].found.contains(found), "{}", loaded.problems[0]);
    }
}
