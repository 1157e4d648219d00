//! One exchange with the EMS over `reqwest`. It knows no time: the caller limits an exchange by dropping it.
//!
//! Decisions:
//! * Redirects are never followed: the token would travel to another host, and a POST would become a GET.
//! * No proxy is taken from the environment: where measurements go is said in the configuration only.
//! * HTTP/1.1, one connection. An idle connection is given up before usual servers do it (Node 5 s, nginx 75 s, gunicorn
//!   2 s): a batch sent into a connection that is just being closed would count as a failure.
//! * Token and headers are marked sensitive; `Debug` of everything here shows none of them.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use busbar_kit::tls::{self, Peer, TlsFiles, Trouble};
use flate2::{Compression, write::GzEncoder};
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Url, redirect};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::{MAX_BODY, Reply};
use crate::error::Error;

/// An idle connection is closed after this time.
const IDLE: Duration = Duration::from_secs(1);
/// Longest URL.
pub const MAX_URL: usize = 2048;
/// Most characters of an error of the HTTP library that are shown.
const MAX_CAUSE: usize = 300;

/// Headers that the client itself writes: a setting must not.
pub const RESERVED: [&str; 7] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding"];

/// Where batches go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// `url`: `https://host[:port][/base]`; `path` is appended. Neither may carry user, password or fragment, and `url` no
    /// query. The text of an error says "expected ..., found ...".
    pub fn parse(url: &str, path: &str) -> Result<Self, String> {
        let bad = |found: &str| {
            format!("expected http://host or https://host with port and path where needed, found {found}")
        };
        if url.len() > MAX_URL || path.len() > MAX_URL {
            return Err(format!("expected at most {MAX_URL} bytes, found more"));
        }
        // What is shown must not hold a password: of a refused URL only the kind of mistake is told.
        let parsed = Url::parse(url).map_err(|error| bad(&format!("a text that is none ({error})")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad(&format!("{}://", parsed.scheme())));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("expected no user and password in url, found some: use token or headers".into());
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err("expected no ? and # in url, found one: a query belongs into path".into());
        }
        if !path.starts_with('/') || path.contains('#') || path.chars().any(|c| c.is_control() || c == ' ') {
            return Err(
                "expected a path that begins with / and has no blank and #, found another text".into()
            );
        }
        let whole = format!("{}{path}", parsed.as_str().trim_end_matches('/'));
        let url = Url::parse(&whole).map_err(|error| bad(&format!("a text that is none ({error})")))?;
        // `//other.example` as path must not change the host.
        if url.host_str() != parsed.host_str()
            || url.port_or_known_default() != parsed.port_or_known_default()
        {
            return Err("expected a path on the same host, found another host".into());
        }
        Ok(Self { url })
    }

    /// With TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Host name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }
}

/// Scheme, host and port; never path or query, which may hold keys.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.url.scheme(), self.url.host_str().unwrap_or_default(), self.port())
    }
}

/// What every request carries.
#[derive(Clone)]
pub struct Common {
    /// Further headers.
    pub headers: HeaderMap,
    /// Header of the idempotency key.
    pub key_header: HeaderName,
    /// Header of the token.
    pub token_header: HeaderName,
    /// Stands before the token: `Bearer `.
    pub token_prefix: String,
    /// Compress bodies.
    pub gzip: bool,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("gzip", &self.gzip)
            .finish_non_exhaustive()
    }
}

/// Reads a header that an operator wrote; it will not be shown. The text of an error says "expected ..., found ...".
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = header_name(name)?;
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| "expected printable ASCII as value, found something else".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Reads the name of a header that the client does not write itself.
pub fn header_name(name: &str) -> Result<HeaderName, String> {
    let bad = || format!("expected the name of a header, found {name:?}");
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    if RESERVED.contains(&name.as_str()) {
        return Err(format!("expected a header that the gateway does not write itself, found {name}"));
    }
    Ok(name)
}

/// One batch.
#[derive(Clone, Copy)]
pub struct Post<'a> {
    /// JSON.
    pub body: &'a [u8],
    /// Idempotency key.
    pub batch_id: &'a str,
    /// Token; `None`: no such header.
    pub token: Option<&'a str>,
}

impl fmt::Debug for Post<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("batch_id", &self.batch_id)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A client for all endpoints of one sink.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    common: Common,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("common", &self.common).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the certificate files; nothing is connected. `with_tls`: some endpoint needs it.
    pub fn new(common: Common, files: &TlsFiles, with_tls: bool) -> Result<Self, Error> {
        let tls = if with_tls { tls::client_config(files).map_err(Error::Configuration)? } else { unused()? };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("busbar/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Configuration(format!("the HTTP client cannot be set up: {error}")))?;
        Ok(Self { http, tls: Arc::new(tls), common })
    }

    /// Sends a batch and reads the answer. Dropping the future ends the exchange.
    pub async fn post(&self, to: &Endpoint, post: &Post<'_>) -> Result<Reply, Error> {
        let bad = |what: &str| {
            Error::Configuration(format!("expected printable ASCII as {what}, found something else"))
        };
        let mut headers = self.common.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = HeaderValue::from_str(post.batch_id).map_err(|_| bad("batch id"))?;
        headers.insert(self.common.key_header.clone(), key);
        if let Some(token) = post.token {
            let text = format!("{}{token}", self.common.token_prefix);
            let mut value = HeaderValue::from_str(&text).map_err(|_| bad("token"))?;
            value.set_sensitive(true);
            headers.insert(self.common.token_header.clone(), value);
        }
        let body = match self.common.gzip {
            true => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                compressed(post.body)?
            }
            false => post.body.to_vec(),
        };
        let sent = self.http.post(to.url.clone()).headers(headers).body(body).send().await;
        read(sent.map_err(|error| failure(&error, to))?, to).await
    }

    /// Connects, with TLS where it belongs to the endpoint, and closes again: somebody is there, and the certificate is good.
    pub async fn reach(&self, to: &Endpoint) -> Result<(), Error> {
        let unreachable =
            |error: &dyn fmt::Display| Error::Unreachable(format!("cannot reach {to}: {error}"));
        let stream = TcpStream::connect((to.host(), to.port())).await.map_err(|error| unreachable(&error))?;
        if !to.is_tls() {
            return Ok(());
        }
        let name = ServerName::try_from(to.host().to_owned()).map_err(|_| {
            Error::Configuration(format!("expected a host name or address, found {}", to.host()))
        })?;
        match TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error, to).unwrap_or_else(|| unreachable(&error))),
        }
    }
}

/// Stands for the TLS configuration where every endpoint is plain: no files are read.
fn unused() -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Configuration(format!("TLS cannot be set up: {error}")))?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// RFC 1952.
fn compressed(body: &[u8]) -> Result<Vec<u8>, Error> {
    let failed =
        |error: std::io::Error| Error::Configuration(format!("the body cannot be compressed: {error}"));
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4 + 64), Compression::default());
    encoder.write_all(body).map_err(failed)?;
    encoder.finish().map_err(failed)
}

async fn read(mut response: reqwest::Response, from: &Endpoint) -> Result<Reply, Error> {
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let location = text(LOCATION).map(|target| redirect_host(target, from));
    let mut reply = Reply {
        status: response.status().as_u16(),
        retry_after: text(RETRY_AFTER).map(str::to_owned),
        location,
        body: Vec::new(),
        overflow: false,
    };
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error, from))? {
        let room = MAX_BODY - reply.body.len();
        if chunk.len() > room {
            reply.overflow = true;
            // The rest stays unread; the connection is not used again.
            break;
        }
        reply.body.extend_from_slice(&chunk);
    }
    Ok(reply)
}

/// Host of a redirect, for the operator.
fn redirect_host(target: &str, from: &Endpoint) -> String {
    match from.url.join(target) {
        Ok(url) if url.host_str().is_some() => {
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
        }
        _ => "another place".to_owned(),
    }
}

/// What is wrong with TLS, if that is why an exchange failed.
fn explain(error: &(dyn std::error::Error + 'static), to: &Endpoint) -> Option<Error> {
    let peer = Peer { shown: to, host: to.host(), expected: "the https port of the EMS" };
    Some(match tls::explain(tls::find(error)?, &peer) {
        Trouble::Certificate(text) => Error::Certificate(text),
        Trouble::NoTls(text) => Error::Unreachable(text),
    })
}

fn failure(error: &reqwest::Error, to: &Endpoint) -> Error {
    if let Some(explained) = explain(error, to) {
        return explained;
    }
    // The library's own text would show the URL.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause: String = match std::ptr::eq(cause, error as &dyn std::error::Error) {
        true => "the HTTP exchange failed".to_owned(),
        false => cause.to_string().chars().take(MAX_CAUSE).collect(),
    };
    match error.is_connect() {
        true => Error::Unreachable(format!("cannot reach {to}: {cause}")),
        false => {
            Error::Broken(format!("the connection to {to} broke before the answer was complete: {cause}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths() {
        let parse = |url: &str, path: &str| Endpoint::parse(url, path);
        let good = parse("https://ems.example/base/", "/api/v1/measurements:batch?x=1").unwrap();
        assert_eq!(good.url.as_str(), "https://ems.example/base/api/v1/measurements:batch?x=1");
        assert_eq!(good.to_string(), "https://ems.example:443");
        assert_eq!(parse("http://[::1]:8000", "/").unwrap().host(), "::1");
        for (url, path) in [
            ("ems.example", "/"),
            ("ftp://a", "/"),
            ("https://user:hunter2@a", "/"),
            ("https://a?token=hunter2", "/"),
            ("https://a#x", "/"),
            ("https://", "/"),
            ("https://a", "x"),
            ("https://a", "/a b"),
            ("https://a", "/#"),
            ("", "/"),
        ] {
            let problem = parse(url, path).unwrap_err();
            assert!(problem.starts_with("expected ") && problem.contains(", found "), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        assert_eq!(parse("https://a", "//b/c").unwrap().host(), "a");
        assert!(parse(&format!("https://a/{}", "x".repeat(3000)), "/").is_err());
    }

    #[test]
    fn headers_are_checked_and_hidden() {
        let (name, value) = header("X-Site", "hunter2").unwrap();
        assert!(!format!("{name:?} {value:?}").contains("hunter2"));
        for (name, value) in [("a b", "x"), ("", "x"), ("X", "a\nb"), ("Host", "x"), ("content-LENGTH", "1")]
        {
            assert!(header(name, value).unwrap_err().contains("found"), "{name}");
        }
        let post = Post { body: b"secret", batch_id: "id", token: Some("hunter2") };
        assert!(!format!("{post:?}").contains("hunter2"));
    }

    #[test]
    fn gzip_goes_both_ways() {
        use std::io::Read as _;
        let packed = compressed(b"{\"a\":1}").unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"a\":1}");
    }
}
