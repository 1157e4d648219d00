//! Command line of the tasks, parsed by hand (see the crate head: no dependencies).

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Setup,
    Test,
    Lint,
    Fmt,
    Demo,
    Bench,
    Soak,
}

impl Task {
    const ALL: [Self; 7] =
        [Self::Setup, Self::Test, Self::Lint, Self::Fmt, Self::Demo, Self::Bench, Self::Soak];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Test => "test",
            Self::Lint => "lint",
            Self::Fmt => "fmt",
            Self::Demo => "demo",
            Self::Bench => "bench",
            Self::Soak => "soak",
        }
    }

    const fn summary(self) -> &'static str {
        match self {
            Self::Setup => "install what the tests need: Debian packages, Python peers, cargo tools",
            Self::Test => "every check: setup, format, lints, licences, build, tests, doc tests",
            Self::Lint => "clippy with the house lints, and cargo-deny",
            Self::Fmt => "format the sources (--check: only look)",
            Self::Demo => "simulated devices, broker and gateway on this terminal",
            Self::Bench => "measure; writes target/bench/report.md and report.json",
            Self::Soak => {
                "the long forms of stories that the tests tell shortly: survival, outage, queue, upgrade"
            }
        }
    }

    const fn details(self) -> &'static str {
        match self {
            Self::Setup => {
                "Installs, where missing:\n\
                 \x20 Debian packages  mosquitto mosquitto-clients faketime util-linux python3-venv (as root, or through sudo without\n\
                 \x20                  password)\n\
                 \x20 Python peers     the versions pinned in tests/peers/requirements.txt, into target/peers/venv\n\
                 \x20 cargo tools      cargo-nextest, cargo-deny (cargo install --locked)\n\
                 Tries whether a mount namespace is allowed: tests of full disks need one (root, or user namespaces).\n\
                 Takes a second when nothing is missing. Options: --json"
            }
            Self::Test => {
                "Runs setup, then format, clippy, cargo-deny, the build of all plugins, all tests and doc tests. A failing\n\
                 check does not stop the others. The last line is `N passed, N failed`: tests and checks counted together.\n\
                 Options:\n\
                 \x20 --json            the summary as one JSON object before that line\n\
                 \x20 --filter WORD     only tests whose name contains WORD, no other checks\n\
                 \x20 --no-setup        do not install anything"
            }
            Self::Lint => "Options: --json",
            Self::Fmt => "Options: --check, --json",
            Self::Demo => {
                "Builds the release gateway with its plugins and runs `busbar demo`; what follows `--` is passed on."
            }
            Self::Soak => {
                "`cargo task soak upgrade`: the Modbus driver under 20 meters at 200 ms, v1 -> v2 -> v1 ten times, then 60\n\
                 versions one after another; says the longest gap and what the memory did; then more versions than one process may\n\
                 load. About 16 minutes.\n\
                 `cargo task soak queue`: the queue file, 1000 times killed with kill -9, 2000 times damaged at random. About 10\n\
                 minutes.\n\
                 `cargo task soak survival`: gateway, broker and EMS killed at 200 random moments under load, compared with what\n\
                 the devices served. About 5 minutes. Options:\n\
                 \x20 --rounds N        interruptions (200)\n\
                 \x20 --seed N          the moments of an earlier run\n\
                 `cargo task soak outage`: the far side is away while 50,000 records a second come, then everything arrives; says\n\
                 rates, memory and bytes on disk. About 3 minutes. Options:\n\
                 \x20 --records N       records of the outage (5000000)\n\
                 Without a word: all."
            }
            Self::Bench => {
                "Builds the release gateway, then measures it beside its peers on the same simulated devices. No limit is\n\
                 enforced: read the report. What follows `--` is passed on (`cargo task bench -- --help`)."
            }
        }
    }
}

/// Options of all tasks; those that do not apply are refused by [`parse`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) check: bool,
    pub(crate) no_setup: bool,
    pub(crate) filter: Option<String>,
    pub(crate) rest: Vec<String>,
    /// Variables that the long form of a story reads.
    pub(crate) story: Vec<(&'static str, String)>,
}

/// What the command line means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Help(String),
    Run(Task, Options),
}

/// Parses the words after `cargo task`.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut words = words;
    let Some(name) = words.next() else { return Ok(Parsed::Help(overview())) };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        return Ok(Parsed::Help(overview()));
    }
    let Some(task) = Task::ALL.into_iter().find(|task| task.name() == name) else {
        return Err(format!("expected a task, found '{name}'\n\n{}", overview()));
    };
    let mut options = Options::default();
    while let Some(word) = words.next() {
        match (word.as_str(), task) {
            ("--help" | "-h", _) => return Ok(Parsed::Help(help(task))),
            ("--", Task::Demo | Task::Bench) => options.rest.extend(words.by_ref()),
            ("upgrade" | "queue" | "survival" | "outage", Task::Soak) => options.rest.push(word),
            ("--rounds", Task::Soak) => {
                options.story.push(("BUSBAR_TEST_ROUNDS", count(&word, words.next())?))
            }
            ("--seed", Task::Soak) => options.story.push(("BUSBAR_TEST_SEED", count(&word, words.next())?)),
            ("--records", Task::Soak) => {
                options.story.push(("BUSBAR_BACKLOG_RECORDS", count(&word, words.next())?));
            }
            ("--json", _) => options.json = true,
            ("--check", Task::Fmt) => options.check = true,
            ("--no-setup", Task::Test) => options.no_setup = true,
            ("--filter", Task::Test) => match words.next() {
                Some(filter) => options.filter = Some(filter),
                None => return Err("expected a word after --filter".to_owned()),
            },
            _ => return Err(format!("'{word}' is no option of this task\n\n{}", help(task))),
        }
    }
    Ok(Parsed::Run(task, options))
}

/// The number behind an option, as text again.
fn count(option: &str, word: Option<String>) -> Result<String, String> {
    let word = word.unwrap_or_default();
    match word.parse::<u64>() {
        Ok(number) if number > 0 => Ok(number.to_string()),
        _ => Err(format!("expected a number above 0 after {option}, found '{word}'")),
    }
}

fn overview() -> String {
    let mut text = String::from("Usage: cargo task NAME [options]      (cargo task NAME --help)\n");
    for task in Task::ALL {
        text.push_str(&format!("\n  {:<6} {}", task.name(), task.summary()));
    }
    text
}

fn help(task: Task) -> String {
    format!("cargo task {}: {}\n\n{}", task.name(), task.summary(), task.details())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Parsed, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_task_has_help() {
        for task in Task::ALL {
            let Ok(Parsed::Help(text)) = words(&format!("{} --help", task.name())) else {
                panic!("{task:?}")
            };
            assert!(text.contains(task.name()));
        }
    }

    #[test]
    fn options_belong_to_tasks() {
        assert_eq!(
            words("test --filter mqtt --json").unwrap(),
            Parsed::Run(
                Task::Test,
                Options { json: true, filter: Some("mqtt".into()), ..Options::default() }
            )
        );
        assert!(words("setup --filter mqtt").unwrap_err().contains("no option"));
        assert!(words("tset").unwrap_err().contains("expected a task, found 'tset'"));
        let Ok(Parsed::Run(_, options)) = words("bench -- --seconds 5") else { panic!() };
        assert_eq!(options.rest, ["--seconds", "5"]);
        let Ok(Parsed::Run(_, options)) = words("soak survival --rounds 20 --seed 7") else { panic!() };
        assert_eq!(options.rest, ["survival"]);
        assert_eq!(options.story, [("BUSBAR_TEST_ROUNDS", "20".into()), ("BUSBAR_TEST_SEED", "7".into())]);
        assert!(words("soak outage --records many").unwrap_err().contains("found 'many'"));
        assert!(words("soak outage --records").unwrap_err().contains("expected a number"));
        assert!(words("test --rounds 3").unwrap_err().contains("no option"));
    }
}
