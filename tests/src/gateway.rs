//! A running gateway in a folder of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::admin::{self, Answer};
use crate::built;
use crate::cli::{self, Done};
use crate::metrics::Metrics;
use crate::ports;
use crate::proc::Process;
use crate::wait::{PATIENCE, until};

/// Name of every gateway under test, the `{host}` of topics.
pub const HOST: &str = "site";

/// Lines of the log shown when a test fails.
const LOG_TAIL: usize = 120;

/// A folder with a configuration, without a running gateway: for the one-shot commands.
#[derive(Debug)]
pub struct Site {
    /// Where `plugins.toml` is.
    pub dir: TempDir,
    /// Where the admin listener will be.
    pub admin: SocketAddr,
    /// Words before the command line of the running gateway, e.g. those that enter a namespace; usually none.
    pub before: Vec<String>,
    /// Environment of every start.
    pub env: Vec<(String, String)>,
}

impl Site {
    /// Writes `plugins.toml`: a `[host]` table for tests, then `body` (devices, sinks; `[host.*]` keys through `host`).
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn new(body: &str) -> Self {
        Self::with_host("", body)
    }

    /// Like [`Self::new`], with further lines of the `[host]` table.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn with_host(host: &str, body: &str) -> Self {
        let admin = ([127, 0, 0, 1], ports::free()).into();
        let site = Self { dir: tempfile::tempdir().unwrap(), admin, before: Vec::new(), env: Vec::new() };
        site.write(host, body);
        site
    }

    /// Replaces the configuration.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, host: &str, body: &str) {
        let (plugins, admin) = (built::folder(), self.admin);
        let text = format!(
            "[host]\nname = \"{HOST}\"\ndata_dir = \"data\"\nplugin_dirs = [\"{}\"]\nwatch_plugins = false\n{host}\n\n[host.admin]\nlisten = \
             \"{admin}\"\n\n{body}\n",
            plugins.display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// Path of the configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("plugins.toml")
    }

    /// Runs `busbar` here.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Done {
        cli::busbar(self.dir.path(), args)
    }
}

/// A running gateway; killed on drop, and if the test failed by then, everything needed to understand it is printed.
#[derive(Debug)]
pub struct Gateway {
    /// Its folder.
    pub site: Site,
    /// Its process.
    pub process: Process,
}

impl Gateway {
    /// Starts and waits until `/readyz` says yes.
    #[must_use]
    pub fn start(body: &str) -> Self {
        Self::start_site(Site::new(body))
    }

    /// Starts with further lines of the `[host]` table.
    #[must_use]
    pub fn start_with(host: &str, body: &str) -> Self {
        Self::start_site(Site::with_host(host, body))
    }

    /// Starts what is in a folder.
    ///
    /// # Panics
    /// When it ends or is not ready in time.
    #[must_use]
    pub fn start_site(site: Site) -> Self {
        let mut gateway = Self { process: Process::new("busbar", launch(&site)), site };
        until("/readyz to say 200", PATIENCE, || {
            if let Some(status) = gateway.process.ended() {
                panic!("the gateway ended with {status}");
            }
            gateway.get("/readyz").ok().filter(|answer| answer.status == 200)
        });
        gateway
    }

    /// Kills the gateway and starts it again in the same folder.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn restart(&mut self) {
        self.relaunch();
        until("/readyz to say 200", PATIENCE, || {
            self.get("/readyz").ok().filter(|answer| answer.status == 200)
        });
    }

    /// Kills the gateway, wherever it is, and starts it again in the same folder without waiting for anything.
    pub fn relaunch(&mut self) {
        self.process.kill();
        self.process = Process::new("busbar", launch(&self.site));
    }

    /// The same with environment variables, which every later start has too.
    ///
    /// # Panics
    /// When it ends or is not ready in time.
    #[must_use]
    pub fn start_site_env(mut site: Site, env: &[(&str, &str)]) -> Self {
        site.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::start_site(site)
    }

    /// The bearer token made at first start.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.site.dir.path().join("data/admin.token")).unwrap().trim().to_owned()
    }

    /// GET without a token.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        admin::request(self.site.admin, "GET", path, None, None)
    }

    /// GET of the API with the token, as JSON.
    ///
    /// # Panics
    /// When the answer is not 200 with JSON.
    #[must_use]
    pub fn api(&self, path: &str) -> Value {
        let answer = admin::request(self.site.admin, "GET", path, Some(&self.token()), None).unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// POST to the API with the token.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        admin::request(self.site.admin, "POST", path, Some(&self.token()), Some(body)).unwrap()
    }

    /// One point of `/api/v1/points`.
    #[must_use]
    pub fn point(&self, name: &str) -> Option<Value> {
        self.api("/api/v1/points").as_array()?.iter().find(|point| point["point"] == name).cloned()
    }

    /// Waits until a point satisfies `accept`.
    pub fn point_until(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        mut accept: impl FnMut(&Value) -> bool,
    ) -> Value {
        until(&format!("{name} {what}"), limit, || self.point(name).filter(|point| accept(point)))
    }

    /// One scrape of `/metrics`.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").unwrap();
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.body)
    }

    /// Runs `busbar` beside the running gateway.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Done {
        self.site.cli(args)
    }

    /// Lines of the audit log.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let path = self.site.dir.path().join("data/audit.log");
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Everything the gateway logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.site.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let ended =
            self.process.ended().map_or_else(|| "still running".to_owned(), |status| status.to_string());
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        let config = std::fs::read_to_string(self.site.config()).unwrap_or_default();
        eprintln!("=== plugins.toml ===\n{config}\n=== gateway: {ended}, last lines of its log ===\n{tail}");
        // The folder of its data may be out of sight.
        let token =
            std::fs::read_to_string(self.site.dir.path().join("data/admin.token")).unwrap_or_default();
        for path in ["/api/v1/sinks", "/api/v1/points"] {
            if let Ok(answer) = admin::request(self.site.admin, "GET", path, Some(token.trim()), None) {
                eprintln!("=== {path} ===\n{:.4000}", answer.body);
            }
        }
        let audit = self.audit().join("\n");
        if !audit.is_empty() {
            eprintln!("=== audit ===\n{audit}");
        }
    }
}

fn launch(site: &Site) -> std::process::Child {
    let log = File::options().create(true).append(true).open(site.dir.path().join("log")).unwrap();
    let gateway = built::gateway();
    let mut command = match site.before.split_first() {
        None => Command::new(gateway),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(gateway);
            command
        }
    };
    command.arg("run").arg("--config").arg(relative(&site.config(), site.dir.path()));
    command.current_dir(site.dir.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
    command.envs(site.env.iter().map(|(name, value)| (name, value)));
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn relative<'a>(path: &'a Path, base: &Path) -> &'a Path {
    path.strip_prefix(base).unwrap_or(path)
}
