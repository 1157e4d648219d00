//! The server over real sockets on loopback, plain and with TLS, against a master made of the same link machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use busbar_iec104::apci::{Decoded, decode};
use busbar_iec104::asdu::{Asdu, Cause, Element, Object, Qds, Reason, Stamp, Tag, TypeId};
use busbar_iec104::link::{Input, Link, Output as LinkOutput, Parameters, Role};
use busbar_iec104::server::{Access, Network, Options, Server, TlsFiles, Told, server_config};
use busbar_iec104::station::{
    CommandPoint, Config, Event, Lane, Output, Point, Progress, SelectMode, Station,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Far beyond what anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Master {
    stream: Box<dyn Stream>,
    link: Link,
    began: Instant,
    bytes: Vec<u8>,
}

impl Master {
    fn new(stream: impl Stream + 'static) -> Self {
        let link = Link::new(Role::Controlling, Parameters { w: 1, ..Parameters::default() }, Duration::ZERO);
        Self { stream: Box::new(stream), link, began: Instant::now(), bytes: Vec::new() }
    }

    async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    async fn act(&mut self, out: Vec<LinkOutput>, asdus: &mut Vec<Vec<u8>>) {
        for output in out {
            match output {
                LinkOutput::Transmit(bytes) => self.stream.write_all(&bytes).await.unwrap(),
                LinkOutput::Deliver(asdu) => asdus.push(asdu),
                LinkOutput::Close(fault) => panic!("{fault}"),
                _ => {}
            }
        }
    }

    async fn start(&mut self) {
        let mut out = Vec::new();
        self.link.step(self.began.elapsed(), Input::Start, &mut out);
        self.act(out, &mut Vec::new()).await;
    }

    async fn send(&mut self, asdu: &[u8]) {
        let mut out = Vec::new();
        assert!(self.link.send(self.began.elapsed(), asdu, &mut out));
        self.act(out, &mut Vec::new()).await;
    }

    /// Reads until `enough`; `None` when the station closed.
    async fn until(&mut self, mut enough: impl FnMut(&[Vec<u8>]) -> bool) -> Option<Vec<Vec<u8>>> {
        let mut asdus = Vec::new();
        while !enough(&asdus) {
            let mut buffer = [0; 2048];
            let count =
                timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("an answer").unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.bytes.extend(buffer.iter().take(count));
            let bytes = std::mem::take(&mut self.bytes);
            let mut rest = &bytes[..];
            while let Decoded::Frame { apdu, used } = decode(rest).unwrap() {
                let mut out = Vec::new();
                self.link.step(self.began.elapsed(), Input::Frame(apdu), &mut out);
                self.act(out, &mut asdus).await;
                rest = rest.split_at(used).1;
            }
            self.bytes = rest.to_vec();
        }
        Some(asdus)
    }
}

fn asdu(type_id: TypeId, reason: Reason, ioa: u32, element: Element) -> Vec<u8> {
    Asdu::single(type_id, Cause::new(reason, 0), 1, Object { ioa, element, tag: Tag::None }).unwrap()
}

fn station() -> Station {
    let points = (1..=500)
        .map(|ioa| Point { common_address: 1, ioa, type_id: TypeId::M_ME_TF_1, group: None })
        .collect();
    let command = CommandPoint {
        common_address: 1,
        ioa: 1,
        type_id: TypeId::C_SC_NA_1,
        select: SelectMode::Direct,
        qualifier: None,
    };
    let lanes = vec![Lane { name: "centre".into(), commands: true }];
    let config =
        Config { points, lanes, commands: vec![command], end_of_initialisation: false, ..Config::default() };
    Station::new(config).unwrap()
}

fn options(networks: &[&str]) -> Options {
    Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        access: vec![Access { networks: networks.iter().map(|n| n.parse().unwrap()).collect(), lane: 0 }],
        tls: None,
        clock: Box::new(|| Stamp::utc(1_772_323_198_123_000_000)),
    }
}

async fn plain() -> Server {
    Server::bind(station(), options(&["127.0.0.0/8"])).await.unwrap()
}

/// Drives the server and a dialogue of a master at once, until the dialogue ends.
async fn with<T>(server: &mut Server, told: &mut Vec<Told>, dialogue: impl Future<Output = T>) -> T {
    tokio::pin!(dialogue);
    loop {
        tokio::select! {
            result = &mut dialogue => return result,
            news = server.next() => {
                if let Told::Station(Output::Command(request)) = &news {
                    server.progress(request.id, Progress::Finished);
                }
                told.push(news);
            }
        }
    }
}

async fn told(server: &mut Server) -> Told {
    timeout(PATIENCE, server.next()).await.expect("something to be told")
}

async fn dialogue(server: &mut Server, master: &mut Master) {
    let mut news = Vec::new();
    let gi = asdu(TypeId::C_IC_NA_1, Reason::ACTIVATION, 0, Element::Interrogation(20));
    let single = busbar_iec104::asdu::CommandValue::Single(true);
    let command = busbar_iec104::asdu::Command { value: single, qualifier: 0, select: false };
    let command = asdu(TypeId::C_SC_NA_1, Reason::ACTIVATION, 1, Element::Command(command));
    let term = |asdus: &[Vec<u8>]| asdus.last().is_some_and(|asdu| asdu.get(2) == Some(&10));
    let answers = with(server, &mut news, async {
        master.start().await;
        master.until(|_| true).await.unwrap();
        let mut buffer = [0; 6];
        master.stream.read_exact(&mut buffer).await.unwrap();
        let mut out = Vec::new();
        let Decoded::Frame { apdu, .. } = decode(&buffer).unwrap() else { panic!("{buffer:?}") };
        master.link.step(master.began.elapsed(), Input::Frame(apdu), &mut out);
        assert_eq!(out, [LinkOutput::Started]);
        master.send(&gi).await;
        let interrogated = master.until(term).await.unwrap();
        master.send(&command).await;
        (interrogated, master.until(term).await.unwrap())
    })
    .await;
    let objects: usize = answers.0.iter().map(|asdu| Asdu::decode(asdu).unwrap().objects.len()).sum();
    assert_eq!(objects, 502, "confirmation, 500 points, termination");
    assert_eq!(answers.1.len(), 2, "the command is confirmed and ended");
    assert!(
        matches!(news[..], [Told::Opened { lane: 0, .. }, Told::Station(Output::Started { .. }), ..]),
        "{news:?}"
    );
    let stamp = Stamp::utc(1_772_323_198_123_000_000);
    for record in 0..300 {
        let element = Element::Float(record as f32, Qds::GOOD);
        let event = Event { record, point: 0, element, stamp, reason: Reason::SPONTANEOUS, test: false };
        server.update(0, element, false).unwrap();
        server.event(0, event).unwrap();
    }
    server.flush();
    let count =
        |asdus: &[Vec<u8>]| asdus.iter().map(|a| Asdu::decode(a).unwrap().objects.len()).sum::<usize>();
    with(server, &mut news, master.until(|asdus| count(asdus) == 300)).await.unwrap();
    while news.last() != Some(&Told::Station(Output::Confirmed { lane: 0, record: 299 })) {
        news.push(told(server).await);
    }
}

#[tokio::test]
async fn a_master_interrogates_commands_and_acknowledges_events() {
    let mut server = plain().await;
    let mut master = Master::connect(server.address()).await;
    dialogue(&mut server, &mut master).await;
    drop(master);
    assert!(matches!(told(&mut server).await, Told::Closed { .. }));
    assert_eq!(server.station().started(0), None);
}

#[tokio::test]
async fn strangers_are_refused() {
    let mut server = Server::bind(station(), options(&["192.0.2.0/24"])).await.unwrap();
    let mut master = Master::connect(server.address()).await;
    let Told::Refused { reason, .. } = told(&mut server).await else { panic!("not refused") };
    assert_eq!(reason, "its address is not in the list of masters");
    assert_eq!(master.until(|_| false).await, None);
}

#[tokio::test]
async fn who_speaks_something_else_is_cut_off() {
    let mut server = plain().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(told(&mut server).await, Told::Opened { .. }));
    let Told::Closed { reason, .. } = told(&mut server).await else { panic!("not closed") };
    assert_eq!(reason, "a frame begins with 0x68, found 0x47; is the peer an IEC 60870-5-104 station?");
    let mut rest = Vec::new();
    // An end or a reset: the request was not read to its end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end");
    assert_eq!(rest, [0_u8; 0]);
}

#[tokio::test]
async fn a_master_that_does_not_acknowledge_is_cut_off() {
    let mut config = station().config().clone();
    config.link = Parameters { t1: Duration::from_secs(2), t2: Duration::from_secs(1), ..config.link };
    let station = Station::new(config).unwrap();
    let mut server = Server::bind(station, options(&["127.0.0.1/32"])).await.unwrap();
    let mut master = Master::connect(server.address()).await;
    master.start().await;
    assert!(matches!(told(&mut server).await, Told::Opened { .. }));
    assert!(matches!(told(&mut server).await, Told::Station(Output::Started { .. })));
    let element = Element::Float(1.0, Qds::GOOD);
    let stamp = Stamp::utc(1_772_323_198_123_000_000);
    let event = Event { record: 7, point: 0, element, stamp, reason: Reason::SPONTANEOUS, test: false };
    server.event(0, event).unwrap();
    server.flush();
    let Told::Closed { reason, .. } = told(&mut server).await else { panic!("not closed") };
    assert_eq!(reason, "1 ASDUs were not acknowledged within t1");
    assert_eq!(server.station().pending(0), 1, "kept for the next connection");
}

#[tokio::test]
async fn connections_are_bounded() {
    let mut server = plain().await;
    let mut streams = Vec::new();
    for _ in 0..busbar_iec104::server::MAX_CONNECTIONS {
        streams.push(TcpStream::connect(server.address()).await.unwrap());
        assert!(matches!(told(&mut server).await, Told::Opened { .. }));
    }
    let _one_too_many = TcpStream::connect(server.address()).await.unwrap();
    let Told::Refused { reason, .. } = told(&mut server).await else { panic!("not refused") };
    assert_eq!(reason, "there are 64 connections already");
    streams.pop();
    assert!(matches!(told(&mut server).await, Told::Closed { .. }));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let server = plain().await;
    let listen = server.address();
    let error = Server::bind(station(), Options { listen, ..options(&["::/0"]) }).await.err().unwrap();
    assert!(error.starts_with(&format!("cannot listen on {listen}: ")), "{error}");
    assert_eq!(Network::ANY.len(), 2);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn save(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn encrypted(address: SocketAddr, ca: &Authority, own: Option<&(String, String)>) -> Option<Master> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.0.pem().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok().map(Master::new)
}

#[tokio::test]
async fn tls_with_and_without_certificates_of_masters() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (cert, key) = ours.sign("localhost");
    let files = TlsFiles {
        cert: save(dir.path(), "cert.pem", &cert),
        key: save(dir.path(), "key.pem", &key),
        ca: Some(save(dir.path(), "ca.pem", &ours.0.pem())),
    };
    let tls =
        |files: &TlsFiles| Options { tls: Some(server_config(files).unwrap()), ..options(&["127.0.0.1"]) };
    let mut server = Server::bind(station(), tls(&files)).await.unwrap();
    let good = ours.sign("master");
    let mut master = encrypted(server.address(), &ours, Some(&good)).await.unwrap();
    dialogue(&mut server, &mut master).await;
    for own in [None, Some(&theirs.sign("master"))] {
        // With TLS 1.3 the master learns of the refusal only when it reads.
        if let Some(mut master) = encrypted(server.address(), &ours, own).await {
            let _ = timeout(PATIENCE, master.stream.read(&mut [0; 16])).await.expect("the end");
        }
        let Told::Refused { reason, .. } = told(&mut server).await else { panic!("not refused") };
        assert!(reason.starts_with("TLS failed: "), "{reason}");
    }
    let mut server = Server::bind(station(), tls(&TlsFiles { ca: None, ..files })).await.unwrap();
    let mut master = encrypted(server.address(), &ours, None).await.unwrap();
    dialogue(&mut server, &mut master).await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let ((cert, key), (_, other)) = (authority.sign("localhost"), authority.sign("localhost"));
    let (cert, key) = (save(dir.path(), "cert.pem", &cert), save(dir.path(), "key.pem", &key));
    let other = save(dir.path(), "other.pem", &other);
    let text = save(dir.path(), "text.pem", "no certificate");
    let good = TlsFiles { cert: cert.clone(), key: key.clone(), ca: None };
    assert!(server_config(&good).is_ok());
    for (files, words) in [
        (TlsFiles { key: other, ..good.clone() }, "to fit the certificate"),
        (TlsFiles { key: text.clone(), ..good.clone() }, "text.pem"),
        (TlsFiles { cert: text.clone(), ..good.clone() }, "expected a PEM certificate in"),
        (TlsFiles { ca: Some(text), ..good.clone() }, "expected a PEM certificate in"),
        (TlsFiles { cert: dir.path().join("absent.pem"), ..good }, "absent.pem"),
    ] {
        let error = server_config(&files).err().unwrap();
        assert!(error.contains(words), "{error}");
    }
}
