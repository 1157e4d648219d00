//! The listener: plain HTTP on loopback, TLS beyond it. A slow or hostile client costs one of [`MAX_CONNECTIONS`]
//! places for a bounded time and nothing else.

use std::{convert::Infallible, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use busbar_config::{Admin, Tls};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::api::Peer;

/// Connections at the same time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A request's head must be complete within this; also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A request must be answered within this; commands have their own, shorter limit.
const REQUEST_TIME: Duration = Duration::from_secs(90);
/// TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A connection is closed after this, so that clients that do not read cannot keep their place.
const CONNECTION_TIME: Duration = Duration::from_secs(600);
/// Largest head of a request, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Most header lines of a request.
const MAX_HEADERS: usize = 64;
/// Pause after a failed accept (no descriptors left), so that the error does not become a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A bound listener.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds. Refuses plain HTTP beyond loopback, whatever the configuration says.
    pub async fn bind(admin: &Admin) -> Result<Self, String> {
        let listen = admin.listen;
        if admin.tls.is_none() && !listen.ip().is_loopback() {
            return Err(format!(
                "[host.admin] listen = \"{listen}\": expected a loopback address, or tls = {{ cert, key }} beside it"
            ));
        }
        let tls = admin.tls.as_ref().map(acceptor).transpose()?;
        let tcp = TcpListener::bind(listen).await.map_err(|error| {
            format!(
                "[host.admin] listen = \"{listen}\": expected a free address of this machine, found: {error}"
            )
        })?;
        Ok(Self { tcp, tls })
    }

    /// The address, with the port that the system chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop` says so.
    pub async fn serve(self, app: Router, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.tcp, &places) => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Some((stream, peer, place)) = accepted else { continue };
            let (app, tls, mut stop) = (app.clone(), self.tls.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    _ = timeout(CONNECTION_TIME, connection(stream, peer, tls, app)) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
        }
    }
}

async fn accept(
    tcp: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match tcp.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!("the admin listener could not take a connection: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, app: Router) {
    // Errors here are the client's: a broken connection, a wrong protocol. Nothing to do, nothing to log.
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(stream, peer, app).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
                serve(stream, peer, app).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, app: Router) {
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let answer = hyper::service::Service::call(&app, request.map(Body::new));
        async move {
            let response: Response = match timeout(REQUEST_TIME, answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => (StatusCode::REQUEST_TIMEOUT, "not answered in time\n").into_response(),
            };
            Ok::<_, Infallible>(response)
        }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let unusable = |path: &Path, what: &str, error: &dyn std::fmt::Display| {
        format!("[host.admin] tls: {}: expected {what}, found: {error}", path.display())
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(&tls.cert, "a certificate chain as PEM", &error))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| unusable(&tls.key, "a private key as PEM", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| unusable(&tls.cert, "a certificate that fits its key", &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
