//! A plugin that can run, in this process or in a worker: one code path for everything above.

use std::{sync::Arc, time::Duration};

use busbar_contract::{
    Describe,
    describe::{InitOptions, Open},
    op,
};
use serde::{Deserialize, Serialize};

use crate::{
    LoadError,
    host::{HostCallbacks, Level},
    instance::Instance,
    judge::Expect,
    launcher::Launcher,
    module::Module,
    probe::Probed,
    receive::BoundaryStats,
    stage::Staged,
    worker::Worker,
};

/// Time for `init` and `open`, which only parse and start threads.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for `control`, which never blocks (R6).
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In the host's process.
    #[default]
    InProcess,
    /// In a process of its own.
    Process,
}

/// A loaded plugin.
pub struct Plugin {
    staged: Staged,
    side: Side,
}

enum Side {
    InProc(Module),
    Worker(Worker),
}

impl Plugin {
    /// Loads what was probed. With [`Isolation::Process`] nothing is loaded into this process; the worker starts
    /// with [`Plugin::init`].
    ///
    /// # Errors
    /// One sentence; too many versions in this process, or what the probe found after all.
    pub fn load(probed: &Probed, isolation: Isolation, launcher: &Launcher) -> Result<Self, LoadError> {
        let Probed { staged, describe } = probed;
        let expect = Expect { kind: Some(describe.kind), name: Some(&describe.name) };
        let side = match isolation {
            Isolation::InProcess => Side::InProc(Module::load(&staged.path, &staged.source, expect)?),
            Isolation::Process => Side::Worker(Worker::new(launcher, staged, describe)),
        };
        Ok(Self { staged: staged.clone(), side })
    }

    /// What the plugin says about itself.
    #[must_use]
    pub fn describe(&self) -> &Describe {
        match &self.side {
            Side::InProc(module) => module.describe(),
            Side::Worker(worker) => worker.describe(),
        }
    }

    /// The copy it runs from.
    #[must_use]
    pub const fn staged(&self) -> &Staged {
        &self.staged
    }

    /// Where its code runs.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        match self.side {
            Side::InProc(_) => Isolation::InProcess,
            Side::Worker(_) => Isolation::Process,
        }
    }

    /// Process id of the worker, while one runs.
    #[must_use]
    pub fn worker_pid(&self) -> Option<u32> {
        match &self.side {
            Side::InProc(_) => None,
            Side::Worker(worker) => worker.pid(),
        }
    }

    /// Starts the plugin's runtime (and its worker process). May be called again after [`Plugin::shutdown`], and
    /// after a worker went down. Blocks up to [`START_TIMEOUT`].
    ///
    /// # Errors
    /// One sentence: the plugin's own text, or that it did not return.
    pub fn init(&self, callbacks: Arc<dyn HostCallbacks>, options: &InitOptions) -> Result<(), LoadError> {
        self.init_within(callbacks, options, START_TIMEOUT)
    }

    /// [`Plugin::init`] with another time-out.
    ///
    /// # Errors
    /// As [`Plugin::init`].
    pub fn init_within(
        &self,
        callbacks: Arc<dyn HostCallbacks>,
        options: &InitOptions,
        limit: Duration,
    ) -> Result<(), LoadError> {
        match &self.side {
            Side::InProc(module) => module.init(callbacks, options, limit),
            Side::Worker(worker) => worker.init(callbacks, options, limit),
        }
    }

    /// Opens an instance. `Ok` means "accepted"; the result is `Event::Opened` or `Event::Failed` (R5). `inst` is
    /// not 0 and never used twice in a process (R3). Blocks up to [`START_TIMEOUT`].
    ///
    /// # Errors
    /// One sentence: the plugin's own text, not started, or that it did not return.
    pub fn open(&self, inst: u64, config: &Open) -> Result<Instance, LoadError> {
        self.open_within(inst, config, START_TIMEOUT)
    }

    /// [`Plugin::open`] with another time-out.
    ///
    /// # Errors
    /// As [`Plugin::open`].
    pub fn open_within(&self, inst: u64, config: &Open, limit: Duration) -> Result<Instance, LoadError> {
        match &self.side {
            Side::InProc(module) => module.open(inst, config, limit),
            Side::Worker(worker) => worker.open(inst, config, limit),
        }
    }

    /// Asks a question or throws a switch (`busbar_contract::op::control`). A worker must be started. Blocks up to [`CONTROL_TIMEOUT`]: never
    /// call it from an async worker (R6).
    ///
    /// # Errors
    /// One sentence: the plugin's own text, or that it did not return.
    pub fn control(&self, op: u32, body: &[u8]) -> Result<Vec<u8>, LoadError> {
        self.control_within(op, body, CONTROL_TIMEOUT)
    }

    /// [`Plugin::control`] with another time-out.
    ///
    /// # Errors
    /// As [`Plugin::control`].
    pub fn control_within(&self, op: u32, body: &[u8], limit: Duration) -> Result<Vec<u8>, LoadError> {
        match &self.side {
            Side::InProc(module) => module.control(op, body, limit),
            Side::Worker(worker) => worker.control(op, body, limit),
        }
    }

    /// Sets the plugin's log level.
    ///
    /// # Errors
    /// As [`Plugin::control`].
    pub fn set_log_level(&self, level: Level) -> Result<(), LoadError> {
        self.control(op::control::LOG_LEVEL, level.as_str().as_bytes()).map(|_| ())
    }

    /// Stops the runtime after the instances have stopped. True when everything ended in time; then `init` may
    /// follow. A worker is killed when it does not end. Blocks up to `deadline` and a second.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        match &self.side {
            Side::InProc(module) => module.shutdown(deadline),
            Side::Worker(worker) => worker.shutdown(deadline),
        }
    }

    /// Kills the worker process at once; its end is reported like any death. In the host's own process nothing can be
    /// killed: no effect.
    pub fn kill(&self) {
        if let Side::Worker(worker) = &self.side {
            worker.kill();
        }
    }

    /// True while a call has not returned by its deadline: everything but `submit`, `deliver`, `stop` is refused.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        match &self.side {
            Side::InProc(module) => module.is_stuck(),
            Side::Worker(_) => false,
        }
    }

    /// What was wrong with what the plugin said.
    #[must_use]
    pub fn stats(&self) -> BoundaryStats {
        match &self.side {
            Side::InProc(module) => module.stats(),
            Side::Worker(worker) => worker.stats(),
        }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let isolation = self.isolation();
        f.debug_struct("Plugin")
            .field("staged", &self.staged)
            .field("isolation", &isolation)
            .finish_non_exhaustive()
    }
}
