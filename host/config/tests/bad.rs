//! Folders of bad files, each with the problems as they are shown. `UPDATE_EXPECTED=1 cargo test` writes `expected.txt`
//! anew; read the difference before keeping it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod support;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use busbar_config::{Problem, load, render};
use support::{Plugins, options};

/// Values in the cases that must never be shown.
const SECRETS: [&str; 8] = [
    "hunter2",
    "very secret",
    "top secret",
    "12345,",
    "not for",
    "do not show",
    "secret word",
    "for anybody",
];

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The problems of a case, the folder's own path left out.
fn problems(folder: &Path) -> (Vec<Problem>, String, bool) {
    let loaded = load(&folder.join("plugins.toml"), &Plugins::new(), &options());
    let prefix = format!("{}/", folder.display());
    let text = loaded.render(false).replace(&prefix, "");
    (loaded.problems.clone(), text, loaded.failed())
}

#[test]
fn bad_files_are_explained() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = String::new();
    for folder in folders() {
        let (_, text, _) = problems(&folder);
        let file = folder.join("expected.txt");
        if update {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if expected != text {
            different += &format!("{}\n--- expected\n{expected}\n--- shown\n{text}\n", folder.display());
        }
    }
    assert!(different.is_empty(), "{different}");
}

#[test]
fn every_case_has_a_problem_and_there_are_many_kinds() {
    let mut kinds = BTreeSet::new();
    for folder in folders() {
        let (problems, text, _) = problems(&folder);
        assert!(!problems.is_empty(), "{}", folder.display());
        for problem in &problems {
            assert!(!problem.expected.is_empty() && !problem.found.is_empty(), "{text}");
            let from_a_file = problem.line > 0 && problem.column > 0 && !problem.file.is_empty();
            assert!(from_a_file, "no place: {problem}");
            kinds.insert(problem.expected.clone());
        }
    }
    assert!(kinds.len() >= 60, "only {} kinds of mistakes: {kinds:#?}", kinds.len());
}

#[test]
fn no_secret_is_ever_shown() {
    for folder in folders() {
        let loaded = load(&folder.join("plugins.toml"), &Plugins::new(), &options());
        let shown = format!(
            "{}{}{}",
            loaded.render(true),
            render::json(&loaded.problems),
            loaded.problems.iter().map(ToString::to_string).collect::<String>()
        );
        for secret in SECRETS {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

#[test]
fn errors_mean_no_site_and_warnings_do_not() {
    for folder in folders() {
        let (problems, text, failed) = problems(&folder);
        let errors = problems.iter().any(|problem| problem.severity == busbar_config::Severity::Error);
        assert_eq!(errors, failed, "{text}");
    }
}

#[test]
fn json_has_every_field() {
    let folder = folders().into_iter().find(|folder| folder.ends_with("crlf-and-bom")).unwrap();
    let (problems, _, _) = problems(&folder);
    let json = render::json(&problems);
    let first = json[0].as_object().unwrap();
    for key in
        ["severity", "file", "line", "column", "length", "key", "expected", "found", "suggestion", "repeated"]
    {
        assert!(first.contains_key(key), "{key}");
    }
    assert_eq!(json[0]["severity"], "error");
    assert_eq!((json[0]["line"].as_u64(), json[0]["column"].as_u64()), (Some(5), Some(1)));
    assert_eq!(json[0]["suggestion"], "did you mean \"poll_interval\"?");
}
