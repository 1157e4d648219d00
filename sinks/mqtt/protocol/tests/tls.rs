//! TLS: certificates made here, good and bad.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use busbar_kit::tls::TlsFiles;
use busbar_mqtt::broker::{Broker, Config};
use busbar_mqtt::{Error, Options, Session, Url, Version};
use common::authority::{Authority, save};
use common::{PATIENCE, VERSIONS, send_all};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

async fn broker(certificate: &(String, String), clients: Option<&Authority>) -> Broker {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(certificate.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.1.as_bytes()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.issuer.pem().as_bytes()).unwrap()).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let tls = Some(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    Broker::bind_with("127.0.0.1:0", Config { tls, credentials: vec![] }).await.unwrap()
}

fn options(broker: &Broker, host: &str, version: Version, tls: TlsFiles) -> Options {
    let url = Url { host: host.to_owned(), port: broker.address().port(), tls: true };
    Options { version, tls, ..Options::new(url, "client-1") }
}

async fn refused(options: &Options) -> String {
    match Session::<u32>::connect(options, PATIENCE).await {
        Err(Error::Certificate(text)) => text,
        other => panic!("expected a certificate error, found {:?}", other.map(|_| ())),
    }
}

#[tokio::test]
async fn good_certificates_work_by_name_and_by_address() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("good");
    let ca = Some(authority.save(dir.path(), "ca.pem"));
    for host in ["localhost", "127.0.0.1"] {
        let broker = broker(&authority.sign(host, false), None).await;
        for version in VERSIONS {
            let options = options(&broker, host, version, TlsFiles { ca: ca.clone(), ..TlsFiles::default() });
            let mut session = Session::connect(&options, PATIENCE).await.unwrap();
            let mut confirmed = Vec::new();
            let tokens: Vec<u32> = (0..3000).collect();
            send_all(&mut session, &tokens, &mut confirmed).await.unwrap();
            assert_eq!(confirmed, tokens);
            session.close(PATIENCE).await;
        }
    }
}

#[tokio::test]
async fn bad_certificates_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (Authority::new("good"), Authority::new("other"));
    let ca = TlsFiles { ca: Some(good.save(dir.path(), "ca.pem")), ..TlsFiles::default() };
    for version in VERSIONS {
        for (certificate, words) in [
            (other.sign("localhost", false), "unknown authority"),
            (good.sign("localhost", true), "has expired"),
            (good.sign("broker.example", false), "for another host"),
        ] {
            let broker = broker(&certificate, None).await;
            let text = refused(&options(&broker, "localhost", version, ca.clone())).await;
            assert!(text.contains(words), "{text}");
        }
    }
}

#[tokio::test]
async fn the_system_authorities_do_not_know_ours() {
    let authority = Authority::new("private");
    let broker = broker(&authority.sign("localhost", false), None).await;
    let options = options(&broker, "localhost", Version::V3_1_1, TlsFiles::default());
    match Session::<u32>::connect(&options, PATIENCE).await {
        Err(Error::Certificate(text)) => assert!(text.contains("set tls.ca"), "{text}"),
        // A machine without any authority.
        Err(Error::Configuration(text)) => assert!(text.contains("set tls.ca"), "{text}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[tokio::test]
async fn client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("good"), Authority::new("stranger"));
    let ca = Some(authority.save(dir.path(), "ca.pem"));
    let broker = broker(&authority.sign("localhost", false), Some(&authority)).await;
    let files = |(cert, key): (String, String), name: &str| TlsFiles {
        ca: ca.clone(),
        cert: Some(save(dir.path(), &format!("{name}.pem"), &cert)),
        key: Some(save(dir.path(), &format!("{name}.key"), &key)),
    };
    let known = files(authority.sign("gateway", false), "known");
    let unknown = files(stranger.sign("gateway", false), "unknown");
    let none = TlsFiles { ca: ca.clone(), ..TlsFiles::default() };
    for version in VERSIONS {
        assert!(
            Session::<u32>::connect(&options(&broker, "localhost", version, known.clone()), PATIENCE)
                .await
                .is_ok()
        );
        for bad in [&unknown, &none] {
            let text = refused(&options(&broker, "localhost", version, bad.clone())).await;
            assert!(text.contains("client certificate"), "{text}");
        }
    }
    let mismatch = TlsFiles { key: unknown.key.clone(), ..known };
    let error = Session::<u32>::connect(&options(&broker, "localhost", Version::V5, mismatch), PATIENCE)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Configuration(text) if text.contains("to fit the certificate")),
        "{error}"
    );
}

#[tokio::test]
async fn tls_and_plain_ports_are_told_apart() {
    let authority = Authority::new("good");
    let plain = Broker::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = TlsFiles { ca: Some(authority.save(dir.path(), "ca.pem")), ..TlsFiles::default() };
    let error =
        Session::<u32>::connect(&options(&plain, "localhost", Version::V5, ca), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(text) if text.contains("TLS port")), "{error}");

    let tls = broker(&authority.sign("127.0.0.1", false), None).await;
    let error = Session::<u32>::connect(&common::options(tls.address(), Version::V3_1_1), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Closed(_) | Error::Nonsense(_)), "{error}");
}
