//! TLS with our own authority, and what is said when it does not fit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use busbar_ems_http::client::{Common, header_name};
use busbar_ems_http::{Client, Endpoint, Error, Post};
use busbar_kit::tls::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn authority(dir: &Path, name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, issuer.pem()).unwrap();
    (issuer, file)
}

/// Certificate and key for `name`, PEM.
fn signed(name: &str, issuer: &CertifiedIssuer<'static, KeyPair>) -> (String, String) {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

/// An HTTPS server that accepts everything; with `ask`, only from clients that this authority signed.
async fn server(own: &(String, String), ask: Option<&Path>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match ask {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap()];
    let config =
        builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if buffer[..count].ends_with(b"{}") {
                        let _ = stream.write_all(b"HTTP/1.1 204 No\r\n\r\n").await;
                    }
                }
            });
        }
    });
    port
}

async fn try_it(port: u16, files: &TlsFiles) -> Result<u16, Error> {
    let common = Common {
        headers: [].into_iter().collect(),
        key_header: header_name("Idempotency-Key").unwrap(),
        token_header: header_name("Authorization").unwrap(),
        token_prefix: "Bearer ".into(),
        gzip: false,
    };
    let client = Client::new(common, files, true)?;
    let to = Endpoint::parse(&format!("https://localhost:{port}"), "/").unwrap();
    let reached = client.reach(&to).await;
    let posted = client.post(&to, &Post { body: b"{}", batch_id: "k", token: None }).await;
    if let (Err(reached), Err(posted)) = (&reached, &posted) {
        assert_eq!(reached, posted, "both ways tell the same");
    }
    posted.map(|reply| reply.status)
}

#[tokio::test]
async fn certificates_good_and_bad() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, ca) = authority(dir.path(), "ours");
    let (_, other) = authority(dir.path(), "theirs");
    let files = |ca: &Path| TlsFiles { ca: Some(ca.to_owned()), ..TlsFiles::default() };

    let port = server(&signed("localhost", &issuer), None).await;
    assert_eq!(try_it(port, &files(&ca)).await, Ok(204));
    let Err(Error::Certificate(text)) = try_it(port, &files(&other)).await else { panic!() };
    assert!(text.contains("unknown authority"), "{text}");
    assert!(try_it(port, &TlsFiles::default()).await.is_err(), "the system's authorities did not sign it");

    let port = server(&signed("elsewhere.example", &issuer), None).await;
    let Err(Error::Certificate(text)) = try_it(port, &files(&ca)).await else { panic!() };
    assert!(text.contains("for another host"), "{text}");

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let Err(Error::Unreachable(text)) = try_it(port, &files(&ca)).await else { panic!() };
    assert!(text.contains("does not speak TLS"), "{text}");
}

#[tokio::test]
async fn client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, ca) = authority(dir.path(), "ours");
    let port = server(&signed("localhost", &issuer), Some(&ca)).await;
    let (cert, key) = signed("gateway", &issuer);
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_file, cert).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let with = TlsFiles { ca: Some(ca.clone()), cert: Some(cert_file.clone()), key: Some(key_file.clone()) };
    assert_eq!(try_it(port, &with).await, Ok(204));
    let without = TlsFiles { ca: Some(ca.clone()), ..TlsFiles::default() };
    assert!(try_it(port, &without).await.is_err());

    let absent = dir.path().join("absent.pem");
    for (files, words) in [
        (TlsFiles { ca: Some(absent), ..TlsFiles::default() }, "cannot read"),
        (TlsFiles { ca: Some(key_file.clone()), ..TlsFiles::default() }, "expected a PEM certificate in"),
        (TlsFiles { cert: Some(cert_file.clone()), ..without.clone() }, "tls.key beside"),
        (TlsFiles { key: Some(key_file), ..without.clone() }, "tls.cert beside"),
        (TlsFiles { cert: Some(cert_file.clone()), key: Some(cert_file), ..without }, "private key"),
    ] {
        let Err(Error::Configuration(text)) = try_it(port, &files).await else { panic!("{words}") };
        assert!(text.contains(words), "{text}");
    }
}
