//! Installs what the tests need and says what it does. Quick when everything is there.
//!
//! Nothing is installed system-wide without being named first; the Python peers live in the build directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{cargo, output, root, run as run_command, target};
use crate::report::{Outcome, Report};

/// A cargo subcommand we need, with the version installed when it is missing. Any installed version is taken.
pub(crate) struct CargoTool {
    step: &'static str,
    subcommand: &'static str,
    krate: &'static str,
    version: &'static str,
}

/// Test runner: one process per test, so that a crashing plugin takes one test with it, not the run.
pub(crate) const NEXTEST: CargoTool =
    CargoTool { step: "cargo-nextest", subcommand: "nextest", krate: "cargo-nextest", version: "0.9.143" };

/// Licence, ban and advisory checks.
pub(crate) const DENY: CargoTool =
    CargoTool { step: "cargo-deny", subcommand: "deny", krate: "cargo-deny", version: "0.20.2" };

/// Programs the tests start, and the Debian package each comes from.
const PROGRAMS: [(&str, &str); 8] = [
    ("mosquitto", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    // Jumps of the wall clock under one process; a test tool, never shipped.
    ("faketime", "faketime"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("strip", "binutils"),
];

/// Oldest Python that the pinned peers run on.
const PYTHON_MIN: (u32, u32) = (3, 10);

/// What is there after [`run_steps`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) packages: bool,
    pub(crate) peers: bool,
    pub(crate) nextest: bool,
    pub(crate) deny: bool,
}

impl Ready {
    /// Assumed when nothing was looked at: a missing tool then shows when it is used.
    pub(crate) const ASSUMED: Self = Self { packages: true, peers: true, nextest: true, deny: true };
}

/// Every step, also after one that failed.
pub(crate) fn run_steps(report: &mut Report) -> Ready {
    let packages = report.step("Debian packages", packages);
    report.step("mount namespaces", namespaces);
    Ready {
        packages,
        peers: report.step("Python peers", peers),
        nextest: cargo_tool(report, &NEXTEST),
        deny: cargo_tool(report, &DENY),
    }
}

/// `cargo task setup`.
pub(crate) fn run(report: &mut Report) {
    run_steps(report);
}

/// Installs a cargo subcommand where it is missing.
pub(crate) fn cargo_tool(report: &mut Report, tool: &CargoTool) -> bool {
    report.step(tool.step, || {
        if let Some(version) = output(&mut cargo(&[tool.subcommand, "--version"])) {
            return Outcome::Done(version.lines().next().unwrap_or_default().to_owned());
        }
        eprintln!("  installing {} {} (compiles for some minutes, once)", tool.krate, tool.version);
        let mut install = cargo(&["install", "--locked", "--quiet", tool.krate, "--version", tool.version]);
        // A tool that runs for a second need not be optimised for minutes.
        install
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env_remove("CARGO_TARGET_DIR");
        match run_command(&mut install) {
            Ok(()) => Outcome::Done(format!("installed {} {}", tool.krate, tool.version)),
            Err(error) => Outcome::Failed(format!(
                "{error}; needs access to crates.io, or install it by hand: cargo install --locked {}",
                tool.krate
            )),
        }
    })
}

fn packages() -> Outcome {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if find_python().is_none() {
        missing.extend(["python3", "python3-venv"]);
    }
    if missing.is_empty() {
        return Outcome::Done("all there".to_owned());
    }
    let words = missing.join(" ");
    if find_program("apt-get").is_none() {
        return Outcome::Failed(format!(
            "missing: {words}; no apt-get here, install them with this system's own tool"
        ));
    }
    let Some(prefix) = root_prefix() else {
        return Outcome::Failed(format!("missing: {words}; not root, run: sudo apt-get install {words}"));
    };
    eprintln!("  installing with apt-get: {words}");
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    let arguments: Vec<&str> = install.into_iter().chain(missing.iter().copied()).collect();
    // An update that fails (one mirror of several) is no reason not to try: the package lists may be good enough.
    let updated = run_command(&mut apt(&prefix, &["update", "-qq"]));
    match run_command(&mut apt(&prefix, &arguments)) {
        Ok(()) => Outcome::Done(format!("installed {words}")),
        Err(error) => Outcome::Failed(match updated {
            Ok(()) => error,
            Err(first) => format!("{first}; then {error}"),
        }),
    }
}

/// A small disk of a test is a tmpfs in a mount namespace of its own. Tried here, so that what is not allowed is said before
/// the tests fail one by one.
fn namespaces() -> Outcome {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let root = is_root();
    let try_one = |flags: &&[&str]| {
        let mount = ["--propagation", "private", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /tmp"];
        output(Command::new("unshare").args(*flags).args(mount)).is_some()
    };
    match ways.iter().position(try_one) {
        Some(_) if root => Outcome::Done("allowed".to_owned()),
        Some(_) => Outcome::Done(
            "allowed; not root: the tests named `unprivileged`, which become another user, will fail".to_owned(),
        ),
        None => Outcome::Failed(
            "expected to mount a tmpfs in a namespace, found it refused; run the tests as root, or allow user namespaces (sysctl \
             kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a container \
             --cap-add SYS_ADMIN)"
                .to_owned(),
        ),
    }
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Command {
    let words: Vec<&str> =
        prefix.iter().copied().chain(["apt-get"]).chain(arguments.iter().copied()).collect();
    let mut command = Command::new(words.first().copied().unwrap_or("apt-get"));
    command
        .args(words.iter().skip(1))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1");
    command
}

/// How to become root: not at all, `sudo` where it asks nothing, or `None`.
fn root_prefix() -> Option<Vec<&'static str>> {
    if is_root() {
        return Some(Vec::new());
    }
    output(Command::new("sudo").args(["-n", "true"])).map(|_| vec!["sudo", "-n"])
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// A program on PATH or where Debian keeps daemons (not on an ordinary user's PATH).
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push(PathBuf::from("/usr/sbin"));
    places.into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A Python that is new enough and can make a virtual environment.
fn find_python() -> Option<PathBuf> {
    let (major, minor) = PYTHON_MIN;
    let test = format!("import sys, venv, ensurepip; sys.exit(sys.version_info < ({major}, {minor}))");
    [find_program("python3"), Some(PathBuf::from("/usr/bin/python3"))]
        .into_iter()
        .flatten()
        .find(|python| output(Command::new(python).args(["-c", &test])).is_some())
}

/// The virtual environment of the peers; a copy of the requirements inside says what it holds.
fn peers() -> Outcome {
    let wanted = root().join("tests/peers/requirements.txt");
    let venv = target().join("peers/venv");
    let stamp = venv.join("requirements.txt");
    let Ok(requirements) = std::fs::read_to_string(&wanted) else {
        return Outcome::Failed(format!("{} cannot be read", wanted.display()));
    };
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == requirements) {
        return Outcome::Done("all there".to_owned());
    }
    let Some(python) = find_python() else {
        let (major, minor) = PYTHON_MIN;
        return Outcome::Failed(format!("expected python3 {major}.{minor} or newer with venv, found none"));
    };
    let pins: Vec<&str> = requirements
        .lines()
        .filter(|line| line.contains("=="))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    eprintln!("  installing into {}: {}", venv.display(), pins.join(" "));
    match install_peers(&python, &venv, &wanted).and_then(|()| {
        std::fs::write(&stamp, &requirements).map_err(|error| format!("{}: {error}", stamp.display()))
    }) {
        Ok(()) => Outcome::Done(format!("installed {}", pins.join(" "))),
        Err(error) => Outcome::Failed(format!("{error}; needs access to PyPI")),
    }
}

fn install_peers(python: &Path, venv: &Path, requirements: &Path) -> Result<(), String> {
    run_command(Command::new(python).args(["-m", "venv", "--clear"]).arg(venv))?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]);
    pip.args(["--require-hashes", "--requirement"]).arg(requirements);
    run_command(&mut pip)
}
