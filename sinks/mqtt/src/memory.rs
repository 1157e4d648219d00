//! What outlives a connection, per sink: the SDK makes a new [`crate::sink::Mqtt`] for every connect, but ids of
//! commands must not be forgotten by a reconnect (nor by a restart: see [`crate::commands::remember`]), and a take-over shows only over several connections.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use busbar_mqtt::command::Gate;
use busbar_mqtt::options::default_client_id;
use busbar_mqtt::takeover::TakeOver;

/// Commands without a last answer, over all connections of a sink.
pub(crate) const MAX_PENDING: usize = 1024;

/// What is remembered of one sink.
#[derive(Debug)]
pub(crate) struct Memory {
    pub gate: Gate,
    /// The gate knows what earlier processes executed.
    pub recalled: bool,
    pub take_over: TakeOver,
    /// Used when none is configured.
    pub client_id: String,
    /// Broker of the list that worked last.
    pub last_good: usize,
    /// Device name -> online, as last published.
    pub online: HashMap<Box<str>, bool>,
    /// Number of the request at the host -> where its answer goes.
    pub pending: HashMap<u64, Pending>,
}

/// A command on its way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// The client's id.
    pub id: String,
    /// Topic of the answers.
    pub topic: String,
    /// Monotonic time of the request.
    pub since: Duration,
    /// What the client gets whatever the host answers: it was refused here.
    pub refused: Option<Vec<u8>>,
}

/// Shared by all connections of one sink.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    /// The memory of this sink; sinks are known by gateway and name, so their number is that of the configuration.
    pub(crate) fn of(host: &str, sink: &str) -> Self {
        type All = Mutex<HashMap<(String, String), Shared>>;
        static ALL: LazyLock<All> = LazyLock::new(All::default);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = all.entry((host.to_owned(), sink.to_owned())).or_insert_with(|| {
            Self(Arc::new(Mutex::new(Memory {
                gate: Gate::default(),
                recalled: false,
                take_over: TakeOver::default(),
                client_id: default_client_id(host, sink),
                last_good: 0,
                online: HashMap::new(),
                pending: HashMap::new(),
            })))
        });
        shared.clone()
    }

    /// Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
