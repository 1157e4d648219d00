//! Case folders: `tests/cases/NAME/{gateway.toml,script,expected}`. A bug becomes a folder.
//!
//! Every file of the folder is copied into an empty one, with `${...}` replaced; `script` is obeyed line by line; what
//! happened is written down and must equal `expected`, where `*` stands for any text within a line.
//!
//! | line of `script` | does | writes down |
//! |---|---|---|
//! | `# ...` | nothing | nothing |
//! | `$ busbar ARGS` | runs the command line | the line, its output, `exit N` |
//! | `peer TRANSPORT {tables}` | starts a pymodbus server; `${PEER}` is its `connection` from then on | nothing |
//! | `broker` | starts mosquitto; `${BROKER}` is its URL | nothing |
//! | `start` | starts the gateway, waits until it is ready | nothing |
//! | `point NAME VALUE QUALITY` | waits until the API shows it | the line |
//! | `set TABLE ADDRESS VALUE...` | changes the device | nothing |
//! | `stop` / `resume` | the device hangs / goes on | nothing |
//!
//! With `BUSBAR_UPDATE_CASES=1` the test writes what happened into `expected`: read the difference before committing it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use busbar_tests::gateway::Site;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Peer, built};
use serde_json::Value;

use crate::shared::quality;

#[test]
fn every_case() {
    let root = built::root().join("tests/cases");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "no cases in {}", root.display());
    let failures: Vec<String> = folders.iter().filter_map(|folder| run(folder).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n\n{}",
        failures.len(),
        folders.len(),
        failures.join("\n\n")
    );
}

/// What a case has running.
struct Story {
    site: Option<Site>,
    gateway: Option<Gateway>,
    peer: Option<Peer>,
    broker: Option<Broker>,
    source: PathBuf,
    connection: String,
}

fn run(folder: &Path) -> Result<(), String> {
    let script =
        std::fs::read_to_string(folder.join("script")).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut story = Story {
        site: None,
        gateway: None,
        peer: None,
        broker: None,
        source: folder.to_path_buf(),
        connection: String::new(),
    };
    let mut happened = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        story.obey(line, &mut happened);
    }
    let path = folder.join("expected");
    if std::env::var_os("BUSBAR_UPDATE_CASES").is_some_and(|value| value == "1") {
        std::fs::write(&path, &happened).map_err(|error| error.to_string())?;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    compare(&expected, &happened).map_err(|difference| format!("--- {} ---\n{difference}", folder.display()))
}

impl Story {
    fn obey(&mut self, line: &str, happened: &mut String) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "$" => self.command(line, rest, happened),
            "peer" => {
                let (transport, tables) = rest.split_once(' ').unwrap();
                let peer = Peer::single(transport, &serde_json::from_str(tables).unwrap());
                self.connection = peer.place(0).connection(transport, 1);
                self.peer = Some(peer);
            }
            "broker" => self.broker = Some(Broker::start()),
            "start" => {
                self.lay_out();
                self.gateway = self.site.take().map(Gateway::start_site);
            }
            "point" => {
                let [name, value, wanted] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                let value: Value = serde_json::from_str(value).unwrap();
                let gateway = self.gateway.as_ref().unwrap();
                gateway.point_until(name, rest, PATIENCE, |point| {
                    point["value"] == value && quality(point) == wanted
                });
                happened.push_str(line);
                happened.push('\n');
            }
            "set" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let values: Vec<u16> = words[2..].iter().map(|word| word.parse().unwrap()).collect();
                self.peer.as_mut().unwrap().set(words[0], words[1].parse().unwrap(), &values);
            }
            "stop" => self.peer.as_mut().unwrap().process.stop(),
            "resume" => self.peer.as_mut().unwrap().process.resume(),
            _ => panic!("no such step: {line}"),
        }
    }

    fn command(&mut self, line: &str, rest: &str, happened: &mut String) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        assert_eq!(words.first(), Some(&"busbar"), "only busbar can be run: {line}");
        self.lay_out();
        let site = self.gateway.as_ref().map_or_else(|| self.site.as_ref().unwrap(), |gateway| &gateway.site);
        let done = site.cli(&words[1..]);
        let dir = site.dir.path().display().to_string();
        let plugins = built::folder().display().to_string();
        let text = done.text().replace(&dir, "${DIR}").replace(&plugins, "${PLUGINS}");
        let _ = write!(happened, "{line}\n{text}");
        if !text.is_empty() && !text.ends_with('\n') {
            happened.push('\n');
        }
        let _ = writeln!(
            happened,
            "exit {}",
            done.code.map_or_else(|| "by signal".to_owned(), |code| code.to_string())
        );
    }

    /// Copies the case into its folder, once.
    fn lay_out(&mut self) {
        if self.site.is_some() || self.gateway.is_some() {
            return;
        }
        let site = Site::new("");
        copy(&self.source, site.dir.path(), &|text| {
            text.replace("${PLUGINS}", &built::folder().display().to_string())
                .replace("${ADMIN}", &site.admin.to_string())
                .replace("${PEER}", &self.connection)
                .replace("${BROKER}", &self.broker.as_ref().map(Broker::url).unwrap_or_default())
        });
        self.site = Some(site);
    }
}

fn copy(from: &Path, to: &Path, fill: &dyn Fn(String) -> String) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            std::fs::create_dir_all(to.join(&name)).unwrap();
            copy(&entry.path(), &to.join(&name), fill);
        } else if !matches!(name.as_str(), "script" | "expected") {
            let name = if name == "gateway.toml" { "plugins.toml" } else { &name };
            std::fs::write(to.join(name), fill(std::fs::read_to_string(entry.path()).unwrap())).unwrap();
        }
    }
}

/// The first line that differs, with what was expected and what was found.
fn compare(expected: &str, found: &str) -> Result<(), String> {
    let (wanted, lines): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    for number in 0..wanted.len().max(lines.len()) {
        let (want, have) = (wanted.get(number).copied(), lines.get(number).copied());
        if !matches!((want, have), (Some(want), Some(have)) if matches(want, have)) {
            let line = number + 1;
            return Err(format!(
                "line {line}\nexpected: {}\nfound:    {}\nall that was found:\n{found}",
                want.unwrap_or("(end)"),
                have.unwrap_or("(end)")
            ));
        }
    }
    Ok(())
}

/// `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn patterns() {
    assert!(matches("a*c", "abbc") && matches("*", "") && matches("x", "x") && matches("a*b*", "a1b2"));
    assert!(!matches("a*c", "abb") && !matches("x", "xy") && !matches("a*b*c", "acb"));
    assert!(compare("a\nb*\n", "a\nbc\n").is_ok());
    assert!(compare("a\n", "a\nb\n").unwrap_err().contains("line 2"));
}
