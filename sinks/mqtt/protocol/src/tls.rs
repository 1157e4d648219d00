//! TLS towards the broker.

use std::sync::Arc;

use busbar_kit::tls::{self, Peer, TlsFiles, Trouble};
use rumqttc::tokio_rustls::TlsConnector;
use rustls::pki_types::ServerName;

use crate::error::Error;
use crate::options::Url;

/// What is needed to begin TLS with the broker.
pub(crate) fn connector(files: &TlsFiles, url: &Url) -> Result<(TlsConnector, ServerName<'static>), Error> {
    let name = ServerName::try_from(url.host.clone())
        .map_err(|_| Error::Configuration(format!("expected a host name or address, found {}", url.host)))?;
    let config = tls::client_config(files).map_err(Error::Configuration)?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Names what is wrong with a certificate; anything else is [`Error::Unreachable`].
pub(crate) fn classify(error: &std::io::Error, url: &Url) -> Error {
    let Some(found) = tls::find(error) else {
        return Error::Unreachable(format!(
            "TLS with {url} failed: {error}: is this the TLS port of the broker?"
        ));
    };
    let peer = Peer { shown: url, host: &url.host, expected: "the TLS port of the broker" };
    match tls::explain(found, &peer) {
        Trouble::Certificate(text) => Error::Certificate(text),
        Trouble::NoTls(text) => Error::Unreachable(text),
    }
}

/// A TLS alert that comes after the handshake (TLS 1.3 tells about our certificate only then).
pub(crate) fn late_alert(error: &std::io::Error) -> Option<String> {
    match tls::find(error)? {
        rustls::Error::AlertReceived(alert) => Some(format!("{alert:?}")),
        _ => None,
    }
}
