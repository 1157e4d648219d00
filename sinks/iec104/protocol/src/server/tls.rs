//! TLS of the listener (IEC 62351-3): our certificate, and who may sign those of masters. rustls with ring, passed
//! explicitly, so that no process-wide default is needed or changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Largest PEM file that is read, bytes.
const MAX_PEM: u64 = 4 * 1024 * 1024;

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate with its chain.
    pub cert: PathBuf,
    /// Our private key.
    pub key: PathBuf,
    /// Who signs the certificates of masters; with it every master must show one.
    pub ca: Option<PathBuf>,
}

/// Reads the files and makes the TLS configuration.
///
/// # Errors
/// One sentence that names the file and holds nothing of it.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let bad = |error: String| {
                format!(
                    "expected certificates of authorities in {}, found one that cannot be used: {error}",
                    ca.display()
                )
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(error.to_string()))?)
        }
    };
    let config = builder.with_single_cert(certificates(&files.cert)?, private_key(&files.key)?);
    config.map(Arc::new).map_err(|error| {
        let (key, cert) = (files.key.display(), files.cert.display());
        format!("expected the private key {key} to fit the certificate {cert}: {error}")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bad = |found: String| format!("cannot read {}: {found}", path.display());
    let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > MAX_PEM {
        return Err(bad(format!("expected a PEM file of at most {MAX_PEM} bytes, found {size}")));
    }
    std::fs::read(path).map_err(|error| bad(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(format!("expected a PEM certificate in {}, found none", path.display())),
        Err(error) => Err(format!("expected PEM certificates in {}: {error}", path.display())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        // The parser's words could quote the file.
        format!("expected a PEM private key without pass phrase in {}", path.display())
    })
}
