//! A small MQTT broker, 3.1.1 and 5, for `busbar demo` and for tests. Not for production.
//!
//! It does: connect with or without user and password, take-over of client ids, last will, retained messages, QoS 0, 1
//! and 2 from clients, QoS 0 and 1 to them, wildcard subscriptions, keep-alive, TLS. It does not: sessions that outlive
//! a connection (every session is clean), QoS 2 to subscribers (granted 1), shared subscriptions, properties of MQTT 5
//! (read over, not forwarded). Every queue is bounded; what does not fit is dropped and counted.
//!
//! For tests it misbehaves on purpose: [`Script`].
//!
//! ```no_run
//! # async fn demo() -> std::io::Result<()> {
//! let broker = busbar_mqtt::broker::Broker::bind("127.0.0.1:0").await?;
//! let mut seen = broker.observe("busbar/#");
//! println!("mqtt://{}", broker.address());
//! while let Some(message) = seen.recv().await {
//!     println!("{} {}", message.topic, message.text());
//! }
//! # Ok(()) }
//! ```

mod client;
mod core;
mod filter;
mod packet;
mod script;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::tokio_rustls::TlsAcceptor;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use self::client::lock;
use self::core::Core;
pub use self::script::Script;

/// Most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Time for a TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may connect.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; never printed.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How the broker is set up.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Empty: anybody.
    pub credentials: Vec<Credentials>,
    /// Speaks TLS when set.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A message that a client published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Client id of the sender.
    pub client: String,
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service it was sent with.
    pub qos: u8,
    /// It was to be retained.
    pub retain: bool,
}

impl Observed {
    /// The payload as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// A running broker. Dropping it ends it and all its connections.
pub struct Broker {
    address: SocketAddr,
    core: Arc<Mutex<Core>>,
    accept: JoinHandle<()>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Broker {
    /// Listens; port 0 takes a free one.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::bind_with(address, Config::default()).await
    }

    /// Listens with credentials or TLS.
    pub async fn bind_with(address: impl ToSocketAddrs, config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let core = Arc::new(Mutex::new(Core::default()));
        let accept = tokio::spawn(accept(listener, Arc::clone(&core), Arc::new(config)));
        Ok(Self { address, core, accept })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on misbehave like this; the default script ends it.
    pub fn play(&self, script: Script) {
        lock(&self.core).script = script;
    }

    /// Everything that clients publish from now on and that matches the filter. The queue is bounded: an observer that
    /// does not keep up misses messages ([`Broker::dropped`]).
    #[must_use]
    pub fn observe(&self, filter: &str) -> mpsc::Receiver<Observed> {
        lock(&self.core).observe(filter)
    }

    /// The retained message of a topic.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<Bytes> {
        lock(&self.core).retained(topic)
    }

    /// Publishes as if a client with the id `broker` had.
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: u8, retain: bool) {
        let message = packet::Publish {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos: qos.min(2),
            retain,
            ..packet::Publish::default()
        };
        lock(&self.core).publish("broker", &message);
    }

    /// Client ids that are connected.
    #[must_use]
    pub fn clients(&self) -> Vec<String> {
        lock(&self.core).client_ids()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connects(&self) -> u64 {
        lock(&self.core).connects
    }

    /// Messages dropped because a queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        lock(&self.core).dropped
    }

    /// Cuts all connections as a power failure would; last wills are published.
    pub fn cut(&self) {
        lock(&self.core).cut_all();
    }

    /// Ends the broker; the port is free afterwards.
    pub async fn stop(mut self) {
        self.accept.abort();
        // Cancelled is what was asked for.
        let _ = (&mut self.accept).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, core: Arc<Mutex<Core>>, config: Arc<Config>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (core, config) = (Arc::clone(&core), Arc::clone(&config));
                connections.spawn(async move {
                    serve(stream, core, config).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, or the peer is gone already: wait a little and go on.
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, core: Arc<Mutex<Core>>, config: Arc<Config>) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = &config.tls else {
        return client::serve(stream, core, config).await;
    };
    match tokio::time::timeout(TLS_TIMEOUT, TlsAcceptor::from(Arc::clone(tls)).accept(stream)).await {
        Ok(Ok(stream)) => client::serve(stream, core, config).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => {}
    }
}
