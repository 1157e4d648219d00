//! A Modbus server on real sockets, for the demo and for tests.
//!
//! Units with banks of registers and bits, values that move, and every misbehaviour the field knows: delay,
//! silence, exceptions, wrong unit, function, length or checksum, garbage, disconnect. Several listeners and
//! streams may serve the same units at once.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use busbar_modbus::simulator::{Bank, Reaction, Simulator};
//! let simulator = Simulator::builder().unit(1, Bank::new().holding(0, &[1, 2, 3])).build();
//! let address = simulator.bind_tcp("127.0.0.1:0").await?;
//! simulator.react(1, |_| Reaction::Silent);
//! # let _ = address; Ok(()) }
//! ```

mod bank;
mod frame;
mod serve;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::address::Table;
use crate::link::Stream;

pub use bank::{Bank, Wave};

/// A request as a reaction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Unit id.
    pub unit: u8,
    /// Function code.
    pub function: u8,
    /// First offset (0 for functions without one).
    pub start: u16,
    /// Registers or bits (1 for single writes).
    pub count: u16,
    /// Number of this request at this unit, from 0.
    pub number: u64,
}

/// What the server does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// Answers at once.
    Answer,
    /// Answers after this time; later requests of the connection wait, as on a real device.
    After(Duration),
    /// Executes nothing and stays silent.
    Silent,
    /// Refuses with this exception code.
    Exception(u8),
    /// Answers under another unit id.
    WrongUnit,
    /// Answers with another function code.
    WrongFunction,
    /// Answers a read with two bytes less.
    WrongLength,
    /// Spoils the checksum (RTU) or the transaction number (TCP).
    Spoiled,
    /// Sends these bytes instead of an answer.
    Garbage(Vec<u8>),
    /// Sends these bytes and then the answer.
    Prefixed(Vec<u8>),
    /// Closes the connection.
    Disconnect,
}

type React = Arc<dyn Fn(&Query) -> Reaction + Send + Sync>;

struct Unit {
    bank: Bank,
    react: Option<React>,
    requests: u64,
}

pub(crate) struct Shared {
    units: Mutex<HashMap<u8, Unit>>,
    connections: AtomicU64,
    online: watch::Sender<bool>,
}

impl Shared {
    fn units(&self) -> MutexGuard<'_, HashMap<u8, Unit>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a request; `None` where nobody has this unit id.
    fn reaction(&self, mut query: Query) -> Option<Reaction> {
        let react = {
            let mut units = self.units();
            let unit = units.get_mut(&query.unit)?;
            query.number = unit.requests;
            unit.requests += 1;
            unit.react.clone()
        };
        Some(react.map_or(Reaction::Answer, |react| react(&query)))
    }

    /// The response PDU to a request PDU.
    fn execute(&self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut units = self.units();
        match units.get_mut(&unit) {
            Some(unit) => unit.bank.execute(pdu),
            None => Vec::new(),
        }
    }
}

/// Collects the units of a simulator.
#[derive(Default)]
pub struct Builder {
    units: HashMap<u8, Unit>,
}

impl Builder {
    /// Adds a unit.
    #[must_use]
    pub fn unit(mut self, id: u8, bank: Bank) -> Self {
        self.units.insert(id, Unit { bank, react: None, requests: 0 });
        self
    }

    /// Adds a unit that misbehaves from the start.
    #[must_use]
    pub fn unit_reacting(
        mut self,
        id: u8,
        bank: Bank,
        react: impl Fn(&Query) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        self.units.insert(id, Unit { bank, react: Some(Arc::new(react)), requests: 0 });
        self
    }

    /// The simulator, not listening yet.
    #[must_use]
    pub fn build(self) -> Simulator {
        let shared = Shared {
            units: Mutex::new(self.units),
            connections: AtomicU64::new(0),
            online: watch::Sender::new(true),
        };
        Simulator { shared: Arc::new(shared), tasks: Mutex::new(Vec::new()) }
    }
}

/// A running simulator; everything it serves ends when it is dropped.
pub struct Simulator {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("units", &self.shared.units().len()).finish_non_exhaustive()
    }
}

impl Simulator {
    /// Starts with no unit.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Serves Modbus TCP; port 0 takes a free one. Returns the address in use.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind_tcp(&self, address: &str) -> io::Result<SocketAddr> {
        self.bind(address, serve::Framing::Tcp).await
    }

    /// Serves RTU frames over TCP, like a transparent serial server.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind_rtu_over_tcp(&self, address: &str) -> io::Result<SocketAddr> {
        self.bind(address, serve::Framing::Rtu).await
    }

    async fn bind(&self, address: &str, framing: serve::Framing) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        self.keep(tokio::spawn(serve::accept(Arc::clone(&self.shared), listener, address, framing)));
        Ok(address)
    }

    /// Serves RTU on any stream: a serial port, a pseudo-terminal, a duplex pipe.
    pub fn serve_rtu(&self, stream: impl Stream + 'static) {
        let shared = Arc::clone(&self.shared);
        self.keep(tokio::spawn(async move {
            let _ended = serve::connection(&shared, stream, serve::Framing::Rtu).await;
        }));
    }

    /// Serves Modbus TCP on any stream.
    pub fn serve_tcp(&self, stream: impl Stream + 'static) {
        let shared = Arc::clone(&self.shared);
        self.keep(tokio::spawn(async move {
            let _ended = serve::connection(&shared, stream, serve::Framing::Tcp).await;
        }));
    }

    fn keep(&self, task: JoinHandle<()>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// Decides about every request to a unit from now on.
    pub fn react(&self, unit: u8, react: impl Fn(&Query) -> Reaction + Send + Sync + 'static) {
        if let Some(unit) = self.shared.units().get_mut(&unit) {
            unit.react = Some(Arc::new(react));
        }
    }

    /// The unit behaves again.
    pub fn behave(&self, unit: u8) {
        if let Some(unit) = self.shared.units().get_mut(&unit) {
            unit.react = None;
        }
    }

    /// Adds or replaces a unit while the simulator runs.
    pub fn set_unit(&self, id: u8, bank: Bank) {
        self.shared.units().insert(id, Unit { bank, react: None, requests: 0 });
    }

    /// Takes the device off the network (connections are closed, the port refuses) or puts it back.
    pub fn set_online(&self, online: bool) {
        self.shared.online.send_replace(online);
    }

    /// Changes registers of a unit; those that do not exist stay absent.
    pub fn set_words(&self, unit: u8, table: Table, start: u16, words: &[u16]) {
        if let Some(unit) = self.shared.units().get_mut(&unit) {
            unit.bank.set_words(table, start, words);
        }
    }

    /// Changes bits of a unit.
    pub fn set_bits(&self, unit: u8, table: Table, start: u16, bits: &[bool]) {
        if let Some(unit) = self.shared.units().get_mut(&unit) {
            unit.bank.set_bits(table, start, bits);
        }
    }

    /// The registers of a unit as they are now.
    #[must_use]
    pub fn words(&self, unit: u8, table: Table, start: u16, count: u16) -> Option<Vec<u16>> {
        self.shared.units().get_mut(&unit).and_then(|unit| unit.bank.words(table, start, count))
    }

    /// The bits of a unit as they are now.
    #[must_use]
    pub fn bits(&self, unit: u8, table: Table, start: u16, count: u16) -> Option<Vec<bool>> {
        self.shared.units().get(&unit).and_then(|unit| unit.bank.bits(table, start, count))
    }

    /// Requests a unit has received.
    #[must_use]
    pub fn requests(&self, unit: u8) -> u64 {
        self.shared.units().get(&unit).map_or(0, |unit| unit.requests)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}
