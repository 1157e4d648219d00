//! TLS towards a far side: rustls with ring, passed explicitly, so that no process-wide default is needed or changed.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::file;

/// Largest PEM file that is read, bytes.
const MAX_PEM: u64 = 4 * 1024 * 1024;

/// PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that may sign the far side's; `None`: those of the operating system.
    pub ca: Option<PathBuf>,
    /// Our certificate with its chain; needs `key`.
    pub cert: Option<PathBuf>,
    /// Our private key; needs `cert`.
    pub key: Option<PathBuf>,
}

/// Reads the files and makes the TLS configuration. `Err`: one sentence that names the file and holds nothing of it.
pub fn client_config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    match (&files.cert, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| {
                format!(
                    "expected the private key {} to fit the certificate {}: {error}",
                    key.display(),
                    cert.display()
                )
            })
        }
        (Some(_), None) => Err("expected tls.key beside tls.cert, found none".into()),
        (None, Some(_)) => Err("expected tls.cert beside tls.key, found none".into()),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(path) = ca else {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(
                "expected certificate authorities in the operating system, found none: set tls.ca".into()
            );
        }
        return Ok(store);
    };
    authorities(path)
}

/// The certificates in a file as those that may sign others. `Err`: one sentence that names the file.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| {
            format!(
                "expected certificates of authorities in {}, found one that cannot be used: {error}",
                path.display()
            )
        })?;
    }
    Ok(store)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    file::read(path, MAX_PEM).map_err(|found| format!("cannot read {}: {found}", path.display()))
}

/// The certificates in a PEM file, one at least. `Err`: one sentence that names the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(format!("expected a PEM certificate in {}, found none", path.display())),
        Err(error) => Err(format!("expected PEM certificates in {}: {error}", path.display())),
    }
}

/// The private key in a PEM file. `Err`: one sentence that names the file and holds nothing of it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        // The parser's words could quote the file.
        format!("expected a PEM private key without pass phrase in {}", path.display())
    })
}

/// The TLS error within a chain of errors. `io::Error` shows its inner error not as its source.
#[must_use]
pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner: Option<&'a (dyn StdError + 'static)> =
            error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()).map(|inner| inner as _);
        next = inner.or_else(|| error.source());
    }
    None
}

/// Whom we speak to, as the operator knows it.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    /// Scheme, host and port.
    pub shown: &'a dyn fmt::Display,
    /// The host of the URL, which must stand in the certificate.
    pub host: &'a str,
    /// What was expected behind that address: `the TLS port of the broker`.
    pub expected: &'a str,
}

/// Why TLS with a peer failed; one sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The peer's certificate, or ours, is not accepted: trying again helps only after a change.
    Certificate(String),
    /// The peer speaks something else.
    NoTls(String),
}

/// Names what is wrong, and what to do.
#[must_use]
pub fn explain(error: &rustls::Error, peer: &Peer<'_>) -> Trouble {
    let Peer { shown, expected, .. } = peer;
    match error {
        rustls::Error::InvalidCertificate(reason) => Trouble::Certificate(certificate(reason, peer)),
        rustls::Error::AlertReceived(alert) => Trouble::Certificate(format!(
            "{shown} ended TLS with {alert:?}: does it ask for a client certificate (tls.cert, tls.key) that it knows?"
        )),
        rustls::Error::InvalidMessage(_) => {
            Trouble::NoTls(format!("{shown} does not speak TLS: expected {expected}"))
        }
        other => Trouble::Certificate(format!("TLS with {shown} failed: {other}")),
    }
}

fn certificate(reason: &CertificateError, peer: &Peer<'_>) -> String {
    use CertificateError as C;
    let Peer { shown, host, .. } = peer;
    match reason {
        C::UnknownIssuer => format!(
            "the certificate of {shown} is signed by an unknown authority: set tls.ca to the authority's file"
        ),
        C::Expired | C::ExpiredContext { .. } => {
            format!("the certificate of {shown} has expired: renew it, or check this machine's clock")
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            format!("the certificate of {shown} is not valid yet: check this machine's clock")
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            format!("the certificate of {shown} is for another host: use the name that is in it, not {host}")
        }
        C::Revoked => format!("the certificate of {shown} is revoked"),
        C::BadSignature => {
            format!("the certificate of {shown} has a wrong signature: is tls.ca the right authority?")
        }
        other => format!("the certificate of {shown} is not accepted: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, junk) = (dir.path().join("absent.pem"), dir.path().join("junk.pem"));
        std::fs::write(&junk, "nothing here: hunter2").unwrap();
        let files = |ca: Option<&Path>, cert: Option<&Path>, key: Option<&Path>| TlsFiles {
            ca: ca.map(PathBuf::from),
            cert: cert.map(PathBuf::from),
            key: key.map(PathBuf::from),
        };
        for (files, words) in [
            (files(Some(&absent), None, None), "cannot read"),
            (files(Some(&junk), None, None), "expected a PEM certificate in"),
        ] {
            let text = client_config(&files).unwrap_err();
            assert!(text.contains(words) && text.contains(".pem") && !text.contains("hunter2"), "{text}");
        }
        for (key, words) in [(&absent, "cannot read"), (&junk, "expected a PEM private key")] {
            let text = private_key(key).unwrap_err();
            assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_error_within_is_found_and_explained() {
        let peer = Peer { shown: &"mqtts://b:8883", host: "b", expected: "the TLS port of the broker" };
        let inner = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::other(std::io::Error::other(inner));
        let Trouble::Certificate(text) = explain(find(&wrapped).unwrap(), &peer) else { panic!() };
        assert!(text.contains("unknown authority") && text.contains("mqtts://b:8883"), "{text}");
        let other = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let Trouble::NoTls(text) = explain(&other, &peer) else { panic!() };
        assert_eq!(text, "mqtts://b:8883 does not speak TLS: expected the TLS port of the broker");
        assert!(find(&std::io::Error::other("something else")).is_none());
    }
}
