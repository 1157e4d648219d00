//! How a byte stream to the device comes to be: TCP hosts tried in order, or a serial port.
//!
//! A session asks its [`Connect`] for a fresh stream whenever the old one cannot be trusted any more.
//! Tests and simulators hand in their own.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::serial::SerialSettings;

/// Any byte stream a session can own.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Stream for T {}

/// An owned byte stream.
pub type BoxStream = Box<dyn Stream>;
/// The future of [`Connect::connect`].
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Opens streams to one peer.
pub trait Connect: Send + fmt::Debug {
    /// The peer, for messages: host and port, or the serial path.
    fn peer(&self) -> String;
    /// Opens a fresh stream.
    fn connect(&mut self) -> Connecting<'_>;
}

/// Which host of a list is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefer {
    /// The first of the list.
    #[default]
    First,
    /// The one that worked last.
    LastGood,
}

/// Which host of a list worked last. Clones share it, so that it outlives a connection.
#[derive(Debug, Clone, Default)]
pub struct LastGood(Arc<AtomicUsize>);

/// One or more hosts of the same device, tried in order.
#[derive(Debug, Clone)]
pub struct TcpHosts {
    hosts: Vec<String>,
    port: u16,
    prefer: Prefer,
    last_good: LastGood,
    attempt_timeout: Duration,
}

impl TcpHosts {
    /// Hosts in order of preference, the port they share, and how long one attempt may take.
    #[must_use]
    pub fn new(hosts: Vec<String>, port: u16, prefer: Prefer, attempt_timeout: Duration) -> Self {
        Self { hosts, port, prefer, last_good: LastGood::default(), attempt_timeout }
    }

    /// Remembers the host that worked last here instead of in itself.
    #[must_use]
    pub fn with_last_good(mut self, last_good: LastGood) -> Self {
        self.last_good = last_good;
        self
    }

    fn first(&self) -> usize {
        if self.prefer == Prefer::LastGood { self.last_good.0.load(Ordering::Relaxed) } else { 0 }
    }

    async fn attempt(&self, host: &str) -> io::Result<TcpStream> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = TcpStream::connect((bare, self.port));
        let stream = timeout(self.attempt_timeout, connecting).await.map_err(|_| {
            let text = format!("no connection within {} ms", self.attempt_timeout.as_millis());
            io::Error::new(io::ErrorKind::TimedOut, text)
        })??;
        // A request is one small segment; waiting for more would cost up to 40 ms per exchange.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn first_that_answers(&mut self) -> io::Result<BoxStream> {
        let count = self.hosts.len();
        let first = self.first();
        let mut failures = Vec::new();
        for turn in 0..count {
            let index = (first + turn) % count;
            let Some(host) = self.hosts.get(index) else { continue };
            match self.attempt(host).await {
                Ok(stream) => {
                    self.last_good.0.store(index, Ordering::Relaxed);
                    return Ok(Box::new(stream));
                }
                Err(error) => failures.push((host.clone(), error)),
            }
        }
        Err(combine(failures))
    }
}

fn combine(mut failures: Vec<(String, io::Error)>) -> io::Error {
    match failures.len() {
        0 => io::Error::new(io::ErrorKind::InvalidInput, "no host is configured"),
        1 => failures.swap_remove(0).1,
        _ => {
            let texts: Vec<String> =
                failures.iter().map(|(host, error)| format!("{host}: {error}")).collect();
            io::Error::new(io::ErrorKind::NotConnected, texts.join("; "))
        }
    }
}

impl Connect for TcpHosts {
    fn peer(&self) -> String {
        let host = self.hosts.get(self.first());
        format!("{}:{}", host.map_or("", String::as_str), self.port)
    }

    fn connect(&mut self) -> Connecting<'_> {
        Box::pin(self.first_that_answers())
    }
}

/// A serial port.
#[derive(Debug, Clone)]
pub struct SerialPath {
    settings: SerialSettings,
}

impl SerialPath {
    /// The port with these settings.
    #[must_use]
    pub const fn new(settings: SerialSettings) -> Self {
        Self { settings }
    }
}

impl Connect for SerialPath {
    fn peer(&self) -> String {
        self.settings.path.clone()
    }

    fn connect(&mut self) -> Connecting<'_> {
        Box::pin(async { self.settings.open().map(|port| Box::new(port) as BoxStream) })
    }
}

/// A single stream that cannot be opened again: for tests, and for transports made elsewhere.
#[derive(Debug)]
pub struct Once {
    stream: Option<BoxStream>,
}

impl Once {
    /// Hands out this stream once.
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Some(Box::new(stream)) }
    }
}

impl Connect for Once {
    fn peer(&self) -> String {
        "stream".to_owned()
    }

    fn connect(&mut self) -> Connecting<'_> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the stream is used up");
        Box::pin(async move { self.stream.take().ok_or_else(gone) })
    }
}
