//! `isolation = "process"`: the host's side of a plugin in a process of its own.
//!
//! The worker is the same binary (`--worker COPY`), its standard input a socket with frames in both directions
//! (`frame.rs`). One reader and one writer thread per worker here; what it says passes the same checks as what an
//! in-process plugin says ([`crate::receive`]).
//!
//! Its death (SIGKILL, SIGSEGV, abort, memory exhaustion, broken frames, a call that does not return) is seen at the
//! end of its socket: calls that wait are answered, [`HostCallbacks::down`] is told once, all instances are gone. When
//! to start it again, and how often, is the host's decision: [`crate::Plugin::init`] starts a new process.
//!
//! Flow: the socket is read at the pace of the host. A batch that the host refuses is offered again for
//! [`REFUSAL_PATIENCE`], meanwhile the worker's own queue fills and its plugin is told to slow down; then it is
//! dropped, counted and reported as [`crate::Arrival::Lost`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use busbar_contract::{
    Describe,
    describe::{InitOptions, Open},
};

use crate::{
    LoadError, Step,
    call::GUARDED_SHUTDOWN_GRACE,
    frame::Frame,
    host::HostCallbacks,
    instance::{Instance, Side},
    launcher::Launcher,
    link::Link,
    receive::{BoundaryStats, Receiver, StatsCell},
    stage::Staged,
};

/// How long a batch or event that the host refuses is offered again.
pub const REFUSAL_PATIENCE: Duration = Duration::from_millis(100);

/// A plugin in a process of its own; not running until `init`.
pub(crate) struct Worker {
    launcher: Launcher,
    staged: Staged,
    describe: Describe,
    stats: Arc<StatsCell>,
    link: Mutex<Option<Arc<Link>>>,
    /// One start at a time.
    starting: Mutex<()>,
}

impl Worker {
    pub(crate) fn new(launcher: &Launcher, staged: &Staged, describe: &Describe) -> Self {
        Self {
            launcher: launcher.clone(),
            staged: staged.clone(),
            describe: describe.clone(),
            stats: Arc::default(),
            link: Mutex::new(None),
            starting: Mutex::new(()),
        }
    }

    pub(crate) const fn describe(&self) -> &Describe {
        &self.describe
    }

    pub(crate) fn stats(&self) -> BoundaryStats {
        self.stats.snapshot()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.alive().map(|link| link.pid())
    }

    fn alive(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone().filter(|link| link.end().is_none())
    }

    fn error(&self, step: Step, text: impl AsRef<str>) -> LoadError {
        LoadError::new(step, self.describe.name.as_ref(), text)
    }

    pub(crate) fn init(
        &self,
        callbacks: Arc<dyn HostCallbacks>,
        options: &InitOptions,
        limit: Duration,
    ) -> Result<(), LoadError> {
        let fail = |text: &str| self.error(Step::Start, text);
        let _one_at_a_time = lock(&self.starting);
        if self.alive().is_some() {
            return Err(fail("already started; stop it first"));
        }
        let options = serde_json::to_vec(options).map_err(|error| fail(&error.to_string()))?;
        let receiver = Receiver::new(callbacks, Arc::clone(&self.stats));
        let link =
            Link::start(&self.launcher, &self.staged, &self.describe.name, receiver).map_err(|error| {
                fail(&format!("no worker process could be started: {}", crate::stage::plain(&error)))
            })?;
        let started = link.call("start", limit, |call| Frame::Init { call, options });
        match started.and_then(|_| link.announce_end()) {
            Ok(()) => {
                *lock(&self.link) = Some(link);
                Ok(())
            }
            Err(text) => {
                link.kill();
                Err(fail(&text))
            }
        }
    }

    pub(crate) fn open(&self, inst: u64, config: &Open, limit: Duration) -> Result<Instance, LoadError> {
        let fail = |text: &str| self.error(Step::Start, text);
        let link = self.alive().ok_or_else(|| fail("not started"))?;
        let config = serde_json::to_vec(config).map_err(|error| fail(&error.to_string()))?;
        let receiver = Arc::clone(link.receiver());
        if !receiver.register(inst) {
            return Err(fail(&format!("instance {inst} is 0 or open already; this is a bug of Busbar")));
        }
        match link.call("open", limit, |call| Frame::Open { inst, call, config }) {
            Ok(_) => Ok(Instance::new(inst, receiver, Side::Remote(link))),
            Err(text) => {
                receiver.unregister(inst);
                Err(fail(&text))
            }
        }
    }

    pub(crate) fn control(&self, op: u32, body: &[u8], limit: Duration) -> Result<Vec<u8>, LoadError> {
        let link = self.alive().ok_or_else(|| self.error(Step::Call, "not started"))?;
        let body = body.to_vec();
        link.call("control", limit, |call| Frame::Control { call, op, body })
            .map_err(|text| self.error(Step::Call, text))
    }

    pub(crate) fn kill(&self) {
        if let Some(link) = self.alive() {
            link.kill();
        }
    }

    pub(crate) fn shutdown(&self, deadline: Duration) -> bool {
        let Some(link) = lock(&self.link).take() else { return true };
        link.expect_end();
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let limit = deadline.saturating_add(GUARDED_SHUTDOWN_GRACE);
        let answer = link.call("shutdown", limit, |call| Frame::Shutdown { call, deadline_ms });
        let ended = link.finish(GUARDED_SHUTDOWN_GRACE);
        ended && answer.is_ok_and(|answer| answer == [1])
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(link) = lock(&self.link).take() {
            link.expect_end();
            link.kill();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
