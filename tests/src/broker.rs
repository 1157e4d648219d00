//! mosquitto with a generated configuration, killed and restarted on the same port and data.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::ports;
use crate::proc::Process;
use crate::wait::{PATIENCE, until};

/// What the broker asks of its clients beyond a plain open listener.
#[derive(Debug, Default)]
pub struct Demands {
    /// User and password; the open listener then refuses everybody else.
    pub login: Option<(&'static str, &'static str)>,
    /// A second listener with TLS that wants a client certificate.
    pub tls: bool,
}

/// A broker.
#[derive(Debug)]
pub struct Broker {
    /// Port without TLS.
    pub port: u16,
    /// Port with TLS, when demanded.
    pub tls_port: Option<u16>,
    /// Who signs whom, when TLS is demanded.
    pub certificates: Option<Certificates>,
    process: Option<Process>,
    dir: TempDir,
}

impl Broker {
    /// An open broker on loopback.
    #[must_use]
    pub fn start() -> Self {
        Self::demanding(&Demands::default())
    }

    /// A broker that asks for something.
    ///
    /// # Panics
    /// When mosquitto is missing or does not come up.
    #[must_use]
    pub fn demanding(demands: &Demands) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = ports::free();
        let tls_port = demands.tls.then(ports::free);
        let certificates = demands.tls.then(|| Certificates::make(dir.path()));
        // Started as root mosquitto would become another user, who may not read this folder.
        let mut text = "user root\nper_listener_settings false\nset_tcp_nodelay true\n".to_owned();
        let _ = writeln!(text, "persistence true\npersistence_location {}/", dir.path().display());
        let _ = writeln!(text, "listener {port} 127.0.0.1");
        if let (Some(port), Some(made)) = (tls_port, &certificates) {
            let _ = writeln!(text, "listener {port} 127.0.0.1");
            let (ca, cert, key) = (made.ca.display(), made.server.0.display(), made.server.1.display());
            let _ = writeln!(text, "cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true");
        }
        match demands.login {
            None => text.push_str("allow_anonymous true\n"),
            Some((user, password)) => {
                let file = dir.path().join("passwords");
                File::create(&file).unwrap();
                let mut command = Command::new("mosquitto_passwd");
                let done = command.arg("-b").arg(&file).args([user, password]).status();
                assert!(done.is_ok_and(|status| status.success()), "mosquitto_passwd failed");
                let _ = writeln!(text, "allow_anonymous false\npassword_file {}", file.display());
            }
        }
        std::fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let mut broker = Self { port, tls_port, certificates, process: None, dir };
        broker.launch();
        broker
    }

    /// `mqtt://...` of the open listener.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends the broker at once, as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port with what it had stored.
    ///
    /// # Panics
    /// When it is still running or does not come up.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "still running");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = Command::new(program())
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("mosquitto: {error}: run `cargo task setup`"));
        let mut process = Process::new("mosquitto", child);
        until("mosquitto to listen", PATIENCE, || {
            assert!(process.ended().is_none(), "mosquitto ended:\n{}", self.log());
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.process = Some(process);
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was killed.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// What mosquitto logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("=== mosquitto log ===\n{}", self.log());
        }
    }
}

/// Debian puts it where an ordinary user's PATH does not look.
fn program() -> PathBuf {
    let daemon = Path::new("/usr/sbin/mosquitto");
    if daemon.exists() { daemon.to_path_buf() } else { PathBuf::from("mosquitto") }
}
