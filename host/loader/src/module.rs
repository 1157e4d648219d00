//! An in-process plugin behind safe calls.
//!
//! `init`, `open`, `control` and `shutdown` run on a thread of their own with a deadline ([`crate::call`]). A panic
//! inside the plugin cannot be caught from here: the SDK catches it in the plugin; one that it does not catch ends
//! the process at the waist, which is why the probe makes a trial start first.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RResult, RSlice, RStr},
};
use busbar_abi::{HostBox, InstanceBox, Module_Ref};
use busbar_contract::{
    Describe,
    describe::{InitOptions, Open},
};

use crate::{
    LoadError, Step,
    call::{Caller, GUARDED_SHUTDOWN_GRACE},
    host::HostCallbacks,
    instance::{Instance, Side},
    judge::Expect,
    load::{describe, open_root},
    receive::{Adapter, BoundaryStats, Receiver, StatsCell},
};

/// Files that are initialised in this process: the statics of a library exist once, whoever loads it.
static RUNNING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A plugin loaded into this process.
pub(crate) struct Module {
    root: Module_Ref,
    describe: Describe,
    path: PathBuf,
    caller: Caller,
    stats: Arc<StatsCell>,
    receiver: Mutex<Option<Arc<Receiver>>>,
}

impl Module {
    /// Loads the private copy at `path`; errors name `shown_as`.
    pub(crate) fn load(path: &Path, shown_as: &Path, expect: Expect<'_>) -> Result<Self, LoadError> {
        Self::load_announced(path, shown_as, expect, || ())
    }

    /// [`Module::load`] that calls `loaded` between the dynamic linker's part and `describe`.
    pub(crate) fn load_announced(
        path: &Path,
        shown_as: &Path,
        expect: Expect<'_>,
        loaded: impl FnOnce(),
    ) -> Result<Self, LoadError> {
        let caller = Caller::default();
        let root = open_root(path, shown_as, &caller)?;
        loaded();
        let describe = describe(root, shown_as, expect, &caller)?;
        let (stats, receiver) = (Arc::default(), Mutex::new(None));
        Ok(Self { root, describe, path: path.to_path_buf(), caller, stats, receiver })
    }

    pub(crate) const fn describe(&self) -> &Describe {
        &self.describe
    }

    pub(crate) fn stats(&self) -> BoundaryStats {
        self.stats.snapshot()
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.caller.is_stuck()
    }

    fn error(&self, step: Step, text: impl AsRef<str>) -> LoadError {
        LoadError::new(step, Path::new(&self.describe.name), text)
    }

    /// Starts the plugin's runtime; may follow `shutdown`.
    pub(crate) fn init(
        &self,
        callbacks: Arc<dyn HostCallbacks>,
        options: &InitOptions,
        limit: Duration,
    ) -> Result<(), LoadError> {
        let fail = |text: &str| self.error(Step::Start, text);
        let options = serde_json::to_string(options).map_err(|error| fail(&error.to_string()))?;
        if !running().insert(self.path.clone()) {
            return Err(fail(
                "already started in this process; stop it first or set isolation = \"process\"",
            ));
        }
        let receiver = Receiver::new(callbacks, Arc::clone(&self.stats));
        let (root, adapter) = (self.root, Adapter(Arc::clone(&receiver)));
        let started = self.caller.call("init", limit, move || {
            let host = HostBox::from_value(adapter, TD_Opaque);
            root.init()(host, RStr::from_str(&options)).into_result().map_err(String::from)
        });
        match started {
            Ok(Ok(())) => {
                *self.receiver.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
                Ok(())
            }
            Ok(Err(text)) => {
                receiver.close();
                running().remove(&self.path);
                Err(fail(&format!("start failed: {text}")))
            }
            Err(failure) => {
                receiver.close();
                if !self.caller.is_stuck() {
                    running().remove(&self.path);
                }
                Err(fail(&failure.text("start")))
            }
        }
    }

    /// Opens an instance. `Ok` means "accepted" (R5).
    pub(crate) fn open(&self, inst: u64, config: &Open, limit: Duration) -> Result<Instance, LoadError> {
        let fail = |text: &str| self.error(Step::Start, text);
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let receiver = receiver.ok_or_else(|| fail("not started"))?;
        let config = serde_json::to_string(config).map_err(|error| fail(&error.to_string()))?;
        // Before the call: OPENED may arrive before it returns.
        if !receiver.register(inst) {
            return Err(fail(&format!("instance {inst} is 0 or open already; this is a bug of Busbar")));
        }
        let root = self.root;
        let opened: Result<Result<InstanceBox, String>, _> = self.caller.call("open", limit, move || {
            root.open()(inst, RStr::from_str(&config)).into_result().map_err(String::from)
        });
        match opened {
            Ok(Ok(instance)) => Ok(Instance::new(inst, receiver, Side::Local(instance))),
            Ok(Err(text)) => {
                receiver.unregister(inst);
                Err(fail(&format!("open failed: {text}")))
            }
            Err(failure) => {
                receiver.unregister(inst);
                Err(fail(&failure.text("open")))
            }
        }
    }

    /// Asks a pure question or throws a switch.
    pub(crate) fn control(&self, op: u32, body: &[u8], limit: Duration) -> Result<Vec<u8>, LoadError> {
        let (root, body) = (self.root, body.to_vec());
        let answer =
            self.caller.call("control", limit, move || match root.control()(op, RSlice::from_slice(&body)) {
                RResult::ROk(answer) => Ok(answer.into_vec()),
                RResult::RErr(text) => Err(text.into_string()),
            });
        match answer {
            Ok(answer) => answer.map_err(|text| self.error(Step::Call, text)),
            Err(failure) => Err(self.error(Step::Call, failure.text("control"))),
        }
    }

    /// Stops the runtime. True when everything ended in time; afterwards `init` may follow.
    pub(crate) fn shutdown(&self, deadline: Duration) -> bool {
        let Some(receiver) = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return true;
        };
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let root = self.root;
        let limit = deadline.saturating_add(GUARDED_SHUTDOWN_GRACE);
        let ended =
            self.caller.call("shutdown", limit, move || root.shutdown()(deadline_ms)).unwrap_or(false);
        receiver.close();
        if ended {
            running().remove(&self.path);
        }
        ended
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // The library stays mapped, but a plugin nobody holds must not go on talking.
        if let Some(receiver) = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take() {
            receiver.close();
        }
    }
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
