//! TLS of the listener (IEC 62351-3): our certificate, and who may sign those of masters. rustls with ring, passed
//! explicitly, so that no process-wide default is needed or changed.

use std::path::PathBuf;
use std::sync::Arc;

use busbar_kit::tls::{authorities, certificates, private_key};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

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
            let roots = Arc::new(authorities(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| {
                format!(
                    "expected certificates of authorities in {}, found one that cannot be used: {error}",
                    ca.display()
                )
            })?)
        }
    };
    let config = builder.with_single_cert(certificates(&files.cert)?, private_key(&files.key)?);
    config.map(Arc::new).map_err(|error| {
        let (key, cert) = (files.key.display(), files.cert.display());
        format!("expected the private key {key} to fit the certificate {cert}: {error}")
    })
}
