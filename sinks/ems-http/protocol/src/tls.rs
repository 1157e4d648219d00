//! TLS towards the EMS: rustls with ring, passed explicitly, so that no process-wide default is needed or changed.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::error::Error;

/// Largest PEM file that is read, bytes.
const MAX_PEM: u64 = 4 * 1024 * 1024;

/// PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authority that signed the server's certificate; `None`: those of the operating system.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Our private key.
    pub key: Option<PathBuf>,
}

/// Reads the files and makes the TLS configuration; every problem names the file.
pub fn client_config(files: &TlsFiles) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Configuration(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    match (&files.cert, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| {
                Error::Configuration(format!(
                    "expected the private key {} to fit the certificate {}: {error}",
                    key.display(),
                    cert.display()
                ))
            })
        }
        (Some(_), None) => Err(Error::Configuration("expected tls.key beside tls.cert, found none".into())),
        (None, Some(_)) => Err(Error::Configuration("expected tls.cert beside tls.key, found none".into())),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(Error::Configuration(
                "expected certificate authorities in the operating system, found none: set tls.ca".into(),
            ));
        }
        return Ok(store);
    };
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| {
            Error::Configuration(format!(
                "expected certificates of authorities in {}, found one that cannot be used: {error}",
                path.display()
            ))
        })?;
    }
    Ok(store)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bad = |found: String| Error::Configuration(format!("cannot read {}: {found}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > MAX_PEM {
        return Err(bad(format!("expected a PEM file of at most {MAX_PEM} bytes, found {size}")));
    }
    std::fs::read(path).map_err(|error| bad(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => {
            Err(Error::Configuration(format!("expected a PEM certificate in {}, found none", path.display())))
        }
        Err(error) => {
            Err(Error::Configuration(format!("expected PEM certificates in {}: {error}", path.display())))
        }
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        // The parser's words could quote the file.
        Error::Configuration(format!("expected a PEM private key without pass phrase in {}", path.display()))
    })
}

/// Names what is wrong with a certificate, if that is why a connection failed. `shown`: scheme, host and port.
pub(crate) fn explain(error: &(dyn StdError + 'static), shown: &str, host: &str) -> Option<Error> {
    let tls = find(error)?;
    Some(match tls {
        rustls::Error::InvalidCertificate(reason) => Error::Certificate(certificate(reason, shown, host)),
        rustls::Error::AlertReceived(alert) => Error::Certificate(format!(
            "{shown} ended TLS with {alert:?}: does it ask for a client certificate (tls.cert, tls.key) that it knows?"
        )),
        rustls::Error::InvalidMessage(_) => {
            Error::Unreachable(format!("{shown} does not speak TLS: expected the https port of the EMS"))
        }
        other => Error::Certificate(format!("TLS with {shown} failed: {other}")),
    })
}

/// The TLS error within a chain of errors. `io::Error` shows its inner error not as its source.
fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
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

fn certificate(reason: &CertificateError, shown: &str, host: &str) -> String {
    use CertificateError as C;
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
