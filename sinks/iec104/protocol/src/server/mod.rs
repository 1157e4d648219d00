//! Sockets around a [`Station`]: a listener, an allow-list, TLS, one task per connection.
//!
//! The [`Server`] owns the station. It is driven by [`Server::next`], which is cancel safe: it waits for bytes, for the
//! end of connections and for time-outs, and gives what is for the host. Everything else is a call that does not wait.
//!
//! ```text
//! accept task --Opened--> Server (Station) --frames--> task of a connection --> socket
//!                            ^------------- Bytes, Closed --------'
//! ```
//!
//! Bounds: [`MAX_CONNECTIONS`] sockets, those in the TLS handshake counted; [`INCOMING`] messages before reading waits;
//! `k` and some frames per connection before a master that does not read is cut off.

mod access;
mod socket;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

pub use access::{Access, Network, NetworkError, lane};
pub use tls::{TlsFiles, server_config};

use crate::asdu::{Element, Stamp, WrongElement};
use crate::station::{ConnectionId, Event, Now, Output, Progress, Station};

/// Most connections at once.
pub const MAX_CONNECTIONS: usize = 64;
/// Messages of connections that wait for the server.
const INCOMING: usize = 256;
/// Frames beyond `k` that wait for a socket: acknowledgements and tests.
const SPARE_FRAMES: usize = 64;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after the operating system refused to accept (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Messages that one call of [`Server::next`] handles before it returns.
const BATCH: usize = 64;

/// The wall clock: nanoseconds, zone, and whether it can be trusted.
pub type Clock = Box<dyn Fn() -> Stamp + Send + Sync>;

/// How to listen.
pub struct Options {
    /// Address and port.
    pub listen: SocketAddr,
    /// Who may connect, and to which lane it belongs.
    pub access: Vec<Access>,
    /// TLS; `None`: plain TCP.
    pub tls: Option<Arc<ServerConfig>>,
    /// The wall clock.
    pub clock: Clock,
}

/// What is for the host and the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A connection was made.
    Opened {
        /// Its number.
        connection: ConnectionId,
        /// Its lane.
        lane: usize,
        /// The far side.
        peer: SocketAddr,
    },
    /// A connection ended.
    Closed {
        /// Its number.
        connection: ConnectionId,
        /// Why, for the log.
        reason: String,
    },
    /// A connection was refused before it became one.
    Refused {
        /// The far side.
        peer: SocketAddr,
        /// Why.
        reason: String,
    },
    /// What the station says; frames and ends of connections are handled already.
    Station(Output),
}

enum Incoming {
    Opened {
        id: ConnectionId,
        lane: usize,
        peer: SocketAddr,
        frames: mpsc::Sender<Vec<u8>>,
        kill: oneshot::Sender<()>,
    },
    Refused(SocketAddr, String),
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId, String),
}

struct Handle {
    frames: mpsc::Sender<Vec<u8>>,
    /// Dropped to end the task.
    _kill: oneshot::Sender<()>,
}

/// A listening station.
pub struct Server {
    station: Station,
    clock: Clock,
    began: Instant,
    address: SocketAddr,
    incoming: mpsc::Receiver<Incoming>,
    connections: HashMap<ConnectionId, Handle>,
    /// What [`Server::next`] has not given yet; nothing is taken from connections before it is empty, so it holds what
    /// one batch and the calls between two `next` brought.
    told: VecDeque<Told>,
    accept: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be used; the error names it.
    pub async fn bind(station: Station, options: Options) -> Result<Self, String> {
        let listen = options.listen;
        let listener =
            TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("cannot listen on {listen}: {error}"))?;
        let (server, incoming) = mpsc::channel(INCOMING);
        let door = Door {
            access: options.access,
            tls: options.tls.map(TlsAcceptor::from),
            frames: usize::from(station.config().link.k) + SPARE_FRAMES,
            server,
        };
        Ok(Self {
            station,
            clock: options.clock,
            began: Instant::now(),
            address,
            incoming,
            connections: HashMap::new(),
            told: VecDeque::new(),
            accept: tokio::spawn(accept(listener, Arc::new(door))),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The station, to ask about it.
    #[must_use]
    pub const fn station(&self) -> &Station {
        &self.station
    }

    /// A point has a new value.
    ///
    /// # Errors
    /// See [`Station::update`].
    pub fn update(&mut self, point: usize, element: Element, test: bool) -> Result<(), WrongElement> {
        self.station.update(point, element, test)
    }

    /// A point is not shown until its next update.
    pub fn suppress(&mut self, point: usize) {
        self.station.suppress(point);
    }

    /// Queues an event; [`Server::flush`] sends.
    ///
    /// # Errors
    /// See [`Station::event`].
    pub fn event(&mut self, lane: usize, event: Event) -> Result<(), WrongElement> {
        let mut out = Vec::new();
        let result = self.station.event(lane, event, &mut out);
        self.hand_out(out);
        result
    }

    /// Sends what there is room for.
    pub fn flush(&mut self) {
        let mut out = Vec::new();
        self.station.flush(self.now(), &mut out);
        self.hand_out(out);
    }

    /// The host's answer to a command.
    pub fn progress(&mut self, id: u64, progress: Progress) {
        let mut out = Vec::new();
        self.station.progress(self.now(), id, progress, &mut out);
        self.hand_out(out);
    }

    /// Waits until there is something for the host. Cancel safe.
    pub async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            let deadline = self.station.deadline().map(|at| self.began + at);
            let timeout = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = self.incoming.recv() => message,
                () = timeout => None,
            };
            if let Some(message) = message {
                self.incoming(message);
                for _ in 0..BATCH {
                    let Ok(message) = self.incoming.try_recv() else { break };
                    self.incoming(message);
                }
            }
            // Also while bytes keep coming: time-outs are not for quiet hours only.
            if self.station.deadline().is_some_and(|at| self.began + at <= Instant::now()) {
                let mut out = Vec::new();
                self.station.tick(self.now(), &mut out);
                self.hand_out(out);
            }
        }
    }

    fn now(&self) -> Now {
        Now { elapsed: self.began.elapsed(), utc: (self.clock)() }
    }

    fn incoming(&mut self, message: Incoming) {
        let now = self.now();
        let mut out = Vec::new();
        match message {
            Incoming::Opened { id, lane, peer, frames, kill } => {
                if self.station.opened(now, id, lane) {
                    self.connections.insert(id, Handle { frames, _kill: kill });
                    self.told.push_back(Told::Opened { connection: id, lane, peer });
                }
            }
            Incoming::Refused(peer, reason) => self.told.push_back(Told::Refused { peer, reason }),
            Incoming::Bytes(id, bytes) => self.station.received(now, id, &bytes, &mut out),
            Incoming::Closed(id, reason) => {
                self.station.closed(now, id, &mut out);
                self.end(id, reason);
            }
        }
        self.hand_out(out);
    }

    fn hand_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Transmit { connection, bytes } => self.transmit(connection, bytes),
                Output::Close { connection, reason } => self.end(connection, reason.to_string()),
                other => self.told.push_back(Told::Station(other)),
            }
        }
    }

    fn transmit(&mut self, connection: ConnectionId, bytes: Vec<u8>) {
        let Some(handle) = self.connections.get(&connection) else { return };
        if handle.frames.try_send(bytes).is_err() {
            let mut out = Vec::new();
            self.station.closed(self.now(), connection, &mut out);
            self.end(connection, "the master does not read".into());
            self.hand_out(out);
        }
    }

    fn end(&mut self, connection: ConnectionId, reason: String) {
        if self.connections.remove(&connection).is_some() {
            self.told.push_back(Told::Closed { connection, reason });
        }
    }
}

/// What the accept task knows.
struct Door {
    access: Vec<Access>,
    tls: Option<TlsAcceptor>,
    frames: usize,
    server: mpsc::Sender<Incoming>,
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Never used twice: 2^64 connections do not happen.
    let mut last = 0;
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let refusal = match lane(&door.access, peer.ip()) {
            None => Err("its address is not in the list of masters".to_owned()),
            Some(lane) => match Arc::clone(&places).try_acquire_owned() {
                Err(_) => Err(format!("there are {MAX_CONNECTIONS} connections already")),
                Ok(place) => Ok((lane, place)),
            },
        };
        match refusal {
            Ok((lane, place)) => {
                last += 1;
                tokio::spawn(admit(Arc::clone(&door), stream, peer, ConnectionId(last), lane, place));
            }
            // Told if there is room: a flood of strangers must not hold anybody up.
            Err(reason) => drop(door.server.try_send(Incoming::Refused(peer, reason))),
        }
    }
}

async fn admit(
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    id: ConnectionId,
    lane: usize,
    _place: OwnedSemaphorePermit,
) {
    // Events are small and must not wait for others.
    let _ = stream.set_nodelay(true);
    let (frames, queue) = mpsc::channel(door.frames);
    let (kill, killed) = oneshot::channel();
    let opened = Incoming::Opened { id, lane, peer, frames, kill };
    let Some(tls) = &door.tls else {
        if door.server.send(opened).await.is_ok() {
            socket::serve(stream, id, door.server.clone(), queue, killed).await;
        }
        return;
    };
    let refused = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            if door.server.send(opened).await.is_ok() {
                socket::serve(stream, id, door.server.clone(), queue, killed).await;
            }
            return;
        }
        Ok(Err(error)) => format!("TLS failed: {error}"),
        Err(_) => format!("TLS was not agreed within {} s", HANDSHAKE.as_secs()),
    };
    let _ = door.server.try_send(Incoming::Refused(peer, refused));
}
