//! TLS towards the broker: rustls with ring, passed explicitly, so that no process-wide default is needed or changed.

use std::path::Path;
use std::sync::Arc;

use rumqttc::tokio_rustls::TlsConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::error::Error;
use crate::options::{TlsFiles, Url};

/// Largest PEM file that is read, bytes.
const MAX_PEM: u64 = 4 * 1024 * 1024;

/// Reads the files and makes the TLS configuration; every problem names the file.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Configuration(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    let config = match (&files.cert, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| {
                Error::Configuration(format!(
                    "expected the private key {} to fit the certificate {}: {error}",
                    key.display(),
                    cert.display()
                ))
            })?
        }
        (Some(_), None) => {
            return Err(Error::Configuration("expected tls.key beside tls.cert, found none".into()));
        }
        (None, Some(_)) => {
            return Err(Error::Configuration("expected tls.cert beside tls.key, found none".into()));
        }
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
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

/// What is needed to begin TLS with the broker.
pub(crate) fn connector(files: &TlsFiles, url: &Url) -> Result<(TlsConnector, ServerName<'static>), Error> {
    let name = ServerName::try_from(url.host.clone())
        .map_err(|_| Error::Configuration(format!("expected a host name or address, found {}", url.host)))?;
    Ok((TlsConnector::from(client_config(files)?), name))
}

/// Names what is wrong with a certificate; anything else is [`Error::Unreachable`].
pub(crate) fn classify(error: &std::io::Error, url: &Url) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Error::Unreachable(format!(
            "TLS with {url} failed: {error}: is this the TLS port of the broker?"
        ));
    };
    match tls {
        rustls::Error::InvalidCertificate(reason) => Error::Certificate(broker_certificate(reason, url)),
        rustls::Error::AlertReceived(alert) => Error::Certificate(format!(
            "{url} ended TLS with {alert:?}: does it ask for a client certificate (tls.cert, tls.key) that it knows?"
        )),
        rustls::Error::InvalidMessage(_) => {
            Error::Unreachable(format!("{url} does not speak TLS: expected the TLS port of the broker"))
        }
        other => Error::Certificate(format!("TLS with {url} failed: {other}")),
    }
}

fn broker_certificate(reason: &CertificateError, url: &Url) -> String {
    use CertificateError as C;
    match reason {
        C::UnknownIssuer => {
            format!(
                "the certificate of {url} is signed by an unknown authority: set tls.ca to the authority's file"
            )
        }
        C::Expired | C::ExpiredContext { .. } => {
            format!("the certificate of {url} has expired: renew it, or check this machine's clock")
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            format!("the certificate of {url} is not valid yet: check this machine's clock")
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            format!(
                "the certificate of {url} is for another host: use the name that is in it, not {}",
                url.host
            )
        }
        C::Revoked => format!("the certificate of {url} is revoked"),
        C::BadSignature => {
            format!("the certificate of {url} has a wrong signature: is tls.ca the right authority?")
        }
        other => format!("the certificate of {url} is not accepted: {other}"),
    }
}

/// A TLS alert that comes after the handshake (TLS 1.3 tells about our certificate only then).
pub(crate) fn late_alert(error: &std::io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(format!("{alert:?}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn missing_and_wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let junk = dir.path().join("junk.pem");
        std::fs::write(&junk, "nothing here").unwrap();
        let files = |ca: Option<&Path>, cert: Option<&Path>, key: Option<&Path>| TlsFiles {
            ca: ca.map(PathBuf::from),
            cert: cert.map(PathBuf::from),
            key: key.map(PathBuf::from),
        };
        let absent = dir.path().join("absent.pem");
        for (files, words) in [
            (files(Some(&absent), None, None), "cannot read"),
            (files(Some(&junk), None, None), "expected a PEM certificate in"),
        ] {
            match client_config(&files) {
                Err(Error::Configuration(text)) => assert!(text.contains(words), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
