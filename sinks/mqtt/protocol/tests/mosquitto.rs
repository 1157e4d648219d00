//! Independent peers: our session against the real `mosquitto`, our broker against the real `mosquitto_pub` and
//! `mosquitto_sub`. All are Debian packages, installed by `cargo task setup`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use busbar_kit::tls::TlsFiles;
use busbar_mqtt::broker::{Broker, Credentials};
use busbar_mqtt::{Error, Event, Options, Session, Url, Version};
use common::authority::{Authority, save};
use common::{PATIENCE, VERSIONS, end, message, options, received, send_all};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const HINT: &str =
    "this test needs the Debian packages mosquitto and mosquitto-clients: run `cargo task setup`";

fn command(names: &[&str]) -> Command {
    let path = names.iter().find(|name| Path::new(name).exists()).unwrap_or_else(|| panic!("{HINT}"));
    let mut command = Command::new(path);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

fn client(name: &str) -> Command {
    let paths = [format!("/usr/bin/{name}"), format!("/usr/local/bin/{name}")];
    let path = paths.iter().find(|path| Path::new(path).exists()).unwrap_or_else(|| panic!("{HINT}"));
    // Its output must come line by line, also into a pipe.
    let mut command = command(&["/usr/bin/stdbuf", "/bin/stdbuf"]);
    command.arg("-oL").arg(path);
    command
}

struct Mosquitto {
    child: Child,
    address: SocketAddr,
}

impl Mosquitto {
    /// Starts on a free port; `extra` are further lines of its configuration.
    async fn start(dir: &Path, extra: &str) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        Self::start_at(dir, address, extra).await
    }

    async fn start_at(dir: &Path, address: SocketAddr, extra: &str) -> Self {
        let config = dir.join("mosquitto.conf");
        let mut file = std::fs::File::create(&config).unwrap();
        writeln!(file, "listener {} 127.0.0.1\nlog_type all\n{extra}", address.port()).unwrap();
        let mut child = command(&["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"])
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut all = String::new();
        loop {
            match tokio::time::timeout(PATIENCE, log.next_line()).await.expect("mosquitto starts").unwrap() {
                Some(line) if line.contains("running") => break,
                Some(line) => all.push_str(&line),
                None => panic!("mosquitto ended: {all}"),
            }
        }
        // Its log must be read, or it stops when the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, address }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// The subscriber is slower than we are: its queue must hold everything.
const OPEN: &str = "allow_anonymous true\nmax_queued_messages 0";

#[tokio::test]
async fn five_thousand_messages_of_every_qos_reach_an_independent_subscriber() {
    let dir = tempfile::tempdir().unwrap();
    let server = Mosquitto::start(dir.path(), OPEN).await;
    for version in VERSIONS {
        let port = server.address.port().to_string();
        let mut subscriber = client("mosquitto_sub")
            .args(["-p", &port, "-V", "5", "-q", "2", "-t", "busbar/h/d/p", "-C", "5000", "-d"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("SUBACK") {
                break;
            }
        }
        let mut session = Session::connect(&options(server.address, version), PATIENCE).await.unwrap();
        let mut confirmed = Vec::new();
        let tokens: Vec<u32> = (0..5000).collect();
        send_all(&mut session, &tokens, &mut confirmed).await.unwrap();
        assert_eq!(confirmed.len(), 5000);
        let mut arrived = Vec::new();
        while arrived.len() < 5000 {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
            arrived.extend(line.parse::<u32>());
        }
        assert_eq!(arrived, tokens);
        session.close(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_killed_broker_loses_nothing_that_was_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    for version in VERSIONS {
        let server = Mosquitto::start(dir.path(), OPEN).await;
        let address = server.address;
        let mut session = Session::connect(&options(address, version), PATIENCE).await.unwrap();
        let mut confirmed = Vec::new();
        send_all(&mut session, &[0, 1, 2], &mut confirmed).await.unwrap();
        server.kill().await;
        for token in 3..20 {
            session.send(&message(&token.to_string()), token).unwrap();
        }
        let error = end(&mut session, &mut confirmed).await;
        assert!(matches!(error, Error::Closed(_) | Error::Lost(_)), "{error}");
        let server = Mosquitto::start_at(dir.path(), address, OPEN).await;
        let mut session = Session::connect(&options(address, version), PATIENCE).await.unwrap();
        let open: Vec<u32> = (0..20).filter(|token| !confirmed.contains(token)).collect();
        assert_eq!(open, (3..20).collect::<Vec<_>>());
        send_all(&mut session, &open, &mut confirmed).await.unwrap();
        assert_eq!(confirmed, (0..20).collect::<Vec<_>>());
        server.kill().await;
    }
}

#[tokio::test]
async fn take_over_wrong_password_and_commands() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    std::fs::write(&passwords, "me:hunter2\n").unwrap();
    let made = client("mosquitto_passwd").arg("-U").arg(&passwords).status().await.unwrap();
    assert!(made.success());
    // mosquitto gives up root and must still read the file.
    let extra = format!("password_file {}\nuser root", passwords.display());
    let server = Mosquitto::start(dir.path(), &extra).await;
    for version in VERSIONS {
        let with = |password: &str| Options {
            username: Some("me".into()),
            password: Some(password.into()),
            subscribe: Some("busbar/h/+/+/set".into()),
            ..options(server.address, version)
        };
        let error = Session::<u32>::connect(&with("wrong"), PATIENCE).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");

        let mut first = Session::<u32>::connect(&with("hunter2"), PATIENCE).await.unwrap();
        first.probe().await.unwrap();
        let port = server.address.port().to_string();
        let sent = client("mosquitto_pub")
            .args(["-p", &port, "-u", "me", "-P", "hunter2", "-q", "1", "-t", "busbar/h/d/p/set", "-m", "{}"])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
        let event = tokio::time::timeout(PATIENCE, first.next()).await.unwrap();
        let expected =
            Event::Received { topic: "busbar/h/d/p/set".into(), payload: "{}".into(), retained: false };
        assert_eq!(event, Ok(expected));

        let mut second = Session::<u32>::connect(&with("hunter2"), PATIENCE).await.unwrap();
        // MQTT 5 brokers may say that the session was taken over; mosquitto 2.0 only closes.
        let error = end(&mut first, &mut Vec::new()).await;
        assert!(matches!(error, Error::TakenOver(_) | Error::Closed(_)), "{error}");
        second.probe().await.unwrap();
        second.close(PATIENCE).await;
    }
}

/// OpenSSL on the other side: server and client certificates.
#[tokio::test]
async fn tls_with_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("good"), Authority::new("stranger"));
    let ca = authority.save(dir.path(), "ca.pem");
    let files = |(cert, key): (String, String), name: &str| TlsFiles {
        ca: Some(ca.clone()),
        cert: Some(save(dir.path(), &format!("{name}.pem"), &cert)),
        key: Some(save(dir.path(), &format!("{name}.key"), &key)),
    };
    let server = files(authority.sign("localhost", false), "server");
    let extra = format!(
        "{OPEN}\nuser root\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
        ca.display(),
        server.cert.unwrap().display(),
        server.key.unwrap().display()
    );
    let server = Mosquitto::start(dir.path(), &extra).await;
    let known = files(authority.sign("gateway", false), "known");
    let unknown = files(stranger.sign("gateway", false), "unknown");
    for version in VERSIONS {
        let with = |tls: &TlsFiles| {
            let url = Url { host: "localhost".into(), port: server.address.port(), tls: true };
            Options { url, tls: tls.clone(), ..options(server.address, version) }
        };
        let mut session = Session::connect(&with(&known), PATIENCE).await.unwrap();
        let mut confirmed = Vec::new();
        let tokens: Vec<u32> = (0..2000).collect();
        send_all(&mut session, &tokens, &mut confirmed).await.unwrap();
        assert_eq!(confirmed.len(), 2000);
        session.close(PATIENCE).await;
        let none = TlsFiles { ca: Some(ca.clone()), ..TlsFiles::default() };
        for bad in [&unknown, &none] {
            let error = Session::<u32>::connect(&with(bad), PATIENCE).await.unwrap_err();
            assert!(
                matches!(&error, Error::Certificate(text) if text.contains("client certificate")),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn the_last_will_of_a_killed_client() {
    let dir = tempfile::tempdir().unwrap();
    let server = Mosquitto::start(dir.path(), OPEN).await;
    for version in VERSIONS {
        let port = server.address.port().to_string();
        let mut session = Session::<u32>::connect(&options(server.address, version), PATIENCE).await.unwrap();
        session.probe().await.unwrap();
        let mut subscriber = client("mosquitto_sub")
            .args(["-p", &port, "-t", "busbar/h/status", "-F", "%r %p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("1 online"));
        drop(session);
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("0 offline"));
    }
}

#[tokio::test]
async fn our_broker_serves_independent_clients() {
    let broker = Broker::bind("127.0.0.1:0").await.unwrap();
    let port = broker.address().port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        let mut seen = broker.observe("a/#");
        let mut subscriber = client("mosquitto_sub")
            .args(["-p", &port, "-V", version, "-q", "1", "-t", "a/+/c", "-C", "3", "-d", "-F", "%t %q %p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(subscriber.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("received SUBACK") {
            line.clear();
            assert!(output.read_line(&mut line).await.unwrap() > 0, "mosquitto_sub ended");
        }
        for qos in ["0", "1", "2"] {
            let sent = client("mosquitto_pub")
                .args(["-p", &port, "-V", version, "-q", qos, "-t", "a/b/c", "-m", &format!("text-{qos}")])
                .status()
                .await
                .unwrap();
            assert!(sent.success(), "QoS {qos}");
            let message = received(&mut seen).await;
            assert_eq!((message.text(), message.qos.to_string()), (format!("text-{qos}"), qos.to_owned()));
        }
        let mut rest = String::new();
        tokio::time::timeout(PATIENCE, output.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(subscriber.wait().await.unwrap().success());
        for expected in ["a/b/c 0 text-0", "a/b/c 1 text-1", "a/b/c 1 text-2"] {
            assert!(rest.contains(expected), "{rest}");
        }
    }
}

#[tokio::test]
async fn our_broker_keeps_retained_messages_and_wills_for_independent_clients() {
    let broker = Broker::bind("127.0.0.1:0").await.unwrap();
    let port = broker.address().port().to_string();
    let sent =
        client("mosquitto_pub").args(["-p", &port, "-r", "-t", "kept", "-m", "text"]).status().await.unwrap();
    assert!(sent.success());
    let output = client("mosquitto_sub")
        .args(["-p", &port, "-V", "5", "-t", "#", "-C", "1", "-F", "%t %r %p"])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kept 1 text\n");

    let mut seen = broker.observe("will");
    let mut dying = client("mosquitto_sub")
        .args(["-p", &port, "-i", "dying", "-t", "x", "--will-topic", "will", "--will-payload", "gone", "-d"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dying.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("mosquitto_sub runs").contains("SUBACK") {}
    assert_eq!(broker.clients(), ["dying"]);
    dying.kill().await.unwrap();
    assert_eq!(received(&mut seen).await.text(), "gone");
}

#[tokio::test]
async fn our_broker_asks_independent_clients_for_a_password() {
    let credentials = vec![Credentials { username: "me".into(), password: "hunter2".into() }];
    let config = busbar_mqtt::broker::Config { credentials, tls: None };
    let broker = Broker::bind_with("127.0.0.1:0", config).await.unwrap();
    let port = broker.address().port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        for (password, expected) in [("hunter2", true), ("wrong", false)] {
            let status = client("mosquitto_pub")
                .args(["-p", &port, "-V", version, "-u", "me", "-P", password, "-t", "t", "-m", "m"])
                .stderr(Stdio::null())
                .status()
                .await
                .unwrap();
            assert_eq!(status.success(), expected, "{version} {password}");
        }
    }
}

/// A subscriber that reads slowly, or never, must not stop the others.
#[tokio::test]
async fn a_stopped_subscriber_does_not_stop_our_broker() {
    let broker = Broker::bind("127.0.0.1:0").await.unwrap();
    let mut sleeper = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    let hello = [
        &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'z'][..],
        &[0x82, 6, 0, 1, 0, 1, b'#', 0][..],
    ]
    .concat();
    tokio::io::AsyncWriteExt::write_all(&mut sleeper, &hello).await.unwrap();
    let mut answer = [0; 9];
    sleeper.read_exact(&mut answer).await.unwrap();
    let mut session = Session::connect(&options(broker.address(), Version::V3_1_1), PATIENCE).await.unwrap();
    let mut confirmed = Vec::new();
    let tokens: Vec<u32> = (0..20_000).collect();
    let large = "x".repeat(2000);
    for token in &tokens {
        while !session.has_room() {
            common::take(session.next().await.unwrap(), &mut confirmed);
        }
        session.send(&message(&large), *token).unwrap();
    }
    tokio::time::timeout(Duration::from_secs(120), send_all(&mut session, &[], &mut confirmed))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(confirmed, tokens);
    assert!(broker.dropped() > 0, "the queue of the sleeper is bounded");
}
