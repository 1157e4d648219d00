//! A site in a temporary folder, the binary under test, and one request of HTTP.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Once,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value as Json;
use tempfile::TempDir;

/// Only a broken gateway reaches it: starts, stops and answers all have far shorter times of their own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const BUSBAR: &str = env!("CARGO_BIN_EXE_busbar");

/// Looks until there is something to return.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A configuration in a folder of its own.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) admin: SocketAddr,
}

/// What one command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("expected JSON: {error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Site {
    /// `host`: further lines of `[host]`; `body`: everything behind `[host.admin]`.
    pub(crate) fn new(host: &str, body: &str) -> Self {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let site = Self { dir: tempfile::tempdir().unwrap(), admin };
        let plugins = plugin_dir();
        let text = format!(
            "[host]\nname = \"site\"\nplugin_dirs = [{plugins:?}]\n{host}\n[host.admin]\nlisten = \"{admin}\"\n{body}\n"
        );
        std::fs::write(site.config(), text).unwrap();
        site
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("plugins.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn busbar(&self, arguments: &[&str]) -> Done {
        done(self.command(arguments).output().unwrap())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BUSBAR);
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.data().join("admin.token")).unwrap().trim().to_owned()
    }

    /// Lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<Json> {
        let text = std::fs::read_to_string(self.data().join("audit.log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) fn start(&self) -> Gateway<'_> {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let mut command = self.command(&["run"]);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut gateway = Gateway { site: self, child };
        until("the gateway to be ready", || {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("the gateway ended: {status}\n{}", gateway.log());
            }
            let answer = self.http("GET", "/readyz", None, "").ok()?;
            (answer.0 == 200).then_some(())
        });
        gateway
    }

    /// One request on a connection of its own: status and body.
    pub(crate) fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let authorization =
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        parse(&answer).ok_or_else(|| std::io::Error::other(format!("no HTTP: {answer:?}")))
    }

    /// GET of the API with the token.
    pub(crate) fn api(&self, path: &str) -> Json {
        let (status, body) = self.http("GET", &format!("/api/v1{path}"), Some(&self.token()), "").unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// A running gateway; killed when dropped.
pub(crate) struct Gateway<'a> {
    pub(crate) site: &'a Site,
    pub(crate) child: Child,
}

impl Gateway<'_> {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.site.dir.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        until("the gateway to end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let config = std::fs::read_to_string(self.site.config()).unwrap_or_default();
            eprintln!("=== plugins.toml ===\n{config}\n=== log ===\n{}", self.log());
        }
    }
}

pub(crate) fn done(output: Output) -> Done {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The head of an answer names its status; chunked bodies do not occur with `Connection: close` and a known length.
pub(crate) fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The listener cannot be told to take any port and say which, so the test looks for one.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Where cargo puts plugins: beside the binary under test.
pub(crate) fn plugin_dir() -> PathBuf {
    Path::new(BUSBAR).parent().unwrap().to_owned()
}

/// The fake driver, built when it is missing or older than its sources: `cargo test` builds no `.so`.
pub(crate) fn fake_driver() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sources = ["tests/plugins/fake-driver/src", "driver-api/src", "driver-api/contract/src"];
        let file = plugin_dir().join("libbusbar_driver_fake.so");
        let built = std::fs::metadata(&file).and_then(|file| file.modified()).ok();
        if sources.iter().any(|source| newest(&root.join(source)) > built) {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "-p", "busbar-driver-fake"]).current_dir(root);
            if !cfg!(debug_assertions) {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the fake driver could not be built");
        }
    });
}

fn newest(dir: &Path) -> Option<SystemTime> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            if entry.path().is_dir() {
                newest(&entry.path())
            } else {
                entry.metadata().unwrap().modified().ok()
            }
        })
        .max()
        .flatten()
}

/// A device of the fake driver.
pub(crate) fn fake_device(points: &str) -> String {
    fake_driver();
    format!(
        "[[device]]\nname = \"m\"\ndriver = \"fake\"\npoll_interval = \"200ms\"\nresponse_timeout = \"2s\"\n\
         connection = {{ endpoint = \"e\", browse = 3 }}\npoints = [\n{points}\n]\n"
    )
}

/// A point that can be written, one that is fixed, one that the device refuses.
pub(crate) const POINTS: &str = "  { name = \"set\", address = \"value:set\", type = \"float64\", unit = \"V\", writable = true, range = [0, 100] },\n  \
    { name = \"fixed\", address = \"const:231.4\", type = \"float64\", unit = \"V\" },";

/// Quality without what it says about time: the clock of a test machine need not be synchronised.
pub(crate) fn quality(row: &Json) -> String {
    let text = row["quality"].as_str().unwrap();
    text.split('|').filter(|part| *part != "clock_unsynced").collect::<Vec<_>>().join("|")
}
