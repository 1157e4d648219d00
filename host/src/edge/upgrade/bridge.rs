//! Between the thread that runs upgrades, which may wait, and the core thread, which may not.

use std::{collections::HashMap, sync::Arc, time::Duration};

use busbar_core::{Core, Input, input::HandoverRequest, model, output::HandoverStep};
use busbar_loader::Probed;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::{
    handle::CoreHandle,
    inbox::{Inbox, Item},
    plugins::{News, Plugins},
};

/// Steps of a hand-over that may be unread; the last place is kept for its end.
const MAX_STEPS: usize = 4_096;
/// For a version to load and start: its own time-outs are shorter.
const START_TIME: Duration = Duration::from_secs(45);
/// For the runtime of a version to end.
const END_TIME: Duration = Duration::from_secs(10);

/// What the core thread is asked.
pub(crate) enum Ask {
    /// Starts a version beside the one that serves (`of`).
    Add { of: usize, model: Box<model::Plugin>, probed: Box<Probed>, answer: Sender<Result<usize, String>> },
    /// Moves everything.
    Handover { request: HandoverRequest, steps: Sender<HandoverStep> },
    /// Its trial is over: from now on it is started again when it dies.
    Accepted { plugin: usize },
    /// Ends a version that serves nothing.
    Retire { plugin: usize, ended: Sender<()> },
}

/// The core thread's side.
#[derive(Default)]
pub(crate) struct Versions {
    next: u64,
    starting: HashMap<usize, Sender<Result<usize, String>>>,
    moving: HashMap<u64, Sender<HandoverStep>>,
}

impl Versions {
    /// Carries a request out; the inputs for the core.
    pub(crate) fn take(&mut self, ask: Ask, core: &Core, plugins: &mut Plugins) -> Option<Input> {
        match ask {
            Ask::Add { of, model, probed, answer } => {
                let isolation = model.isolation;
                let plugin = plugins.add_version(core.site(), *model, *probed);
                self.starting.insert(plugin, answer);
                Some(Input::Version { plugin, of, isolation })
            }
            Ask::Handover { request, steps } => {
                self.next += 1;
                self.moving.insert(self.next, steps);
                Some(Input::Handover(HandoverRequest { id: self.next, ..request }))
            }
            Ask::Accepted { plugin } => {
                plugins.accepted(plugin);
                None
            }
            Ask::Retire { plugin, ended } => {
                plugins.retire(plugin, ended);
                Some(Input::Retired { plugin })
            }
        }
    }

    /// A version started, or did not; true when it was waited for.
    pub(crate) fn started(&mut self, plugin: usize, result: Result<usize, String>) -> bool {
        match self.starting.remove(&plugin) {
            Some(answer) => answer.try_send(result).is_ok(),
            None => false,
        }
    }

    /// A hand-over went on.
    pub(crate) fn step(&mut self, id: u64, step: HandoverStep) {
        let ended = matches!(step, HandoverStep::Ended(_));
        if let Some(steps) = self.moving.get(&id)
            && (ended || steps.len() + 1 < MAX_STEPS)
        {
            // Whoever asked may be gone.
            let _ = steps.try_send(step);
        }
        if ended {
            self.moving.remove(&id);
        }
    }
}

/// What an upgrade asks of the core thread, and waits for.
pub(crate) trait Way: Send {
    /// For questions.
    fn core(&self) -> &CoreHandle;
    /// Starts a version in the given place; its number.
    fn add(&self, serving: &Serving, probed: &Probed, isolation: model::Isolation) -> Result<usize, String>;
    /// Moves everything; `say` hears of each step.
    fn hand_over(
        &self,
        request: HandoverRequest,
        say: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<(), String>;
    /// From now on it is started again when it dies.
    fn accepted(&self, plugin: usize);
    /// Ends a version and waits for its runtime.
    fn retire(&self, plugin: usize);
    /// Index of the plugin in the configuration and of the version that serves.
    fn serving(&self, key: &str) -> Result<Serving, String>;
}

/// The waiting side.
pub(crate) struct Bridge {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) core: CoreHandle,
}

/// Nothing more will happen.
pub(crate) const STOPPING: &str = "the gateway is stopping";

impl Bridge {
    fn ask(&self, ask: Ask) {
        self.inbox.send(Item::News(Box::new(News::Upgrade(ask))));
    }
}

impl Way for Bridge {
    fn core(&self) -> &CoreHandle {
        &self.core
    }

    fn add(&self, serving: &Serving, probed: &Probed, isolation: model::Isolation) -> Result<usize, String> {
        let (answer, answered) = bounded(1);
        let model = model::Plugin { isolation, ..serving.model.clone() };
        self.ask(Ask::Add {
            of: serving.serving,
            model: Box::new(model),
            probed: Box::new(probed.clone()),
            answer,
        });
        match answered.recv_timeout(START_TIME) {
            Ok(result) => result,
            Err(error) if error.is_disconnected() => Err(STOPPING.into()),
            Err(_) => Err(format!("it did not start within {} s", START_TIME.as_secs())),
        }
    }

    fn hand_over(
        &self,
        request: HandoverRequest,
        say: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<(), String> {
        let (steps, taken): (_, Receiver<HandoverStep>) = bounded(MAX_STEPS);
        self.ask(Ask::Handover { request, steps });
        loop {
            match taken.recv() {
                Ok(HandoverStep::Moved { unit, done, total }) => say(&unit, done, total),
                Ok(HandoverStep::Ended(result)) => return result,
                Err(_) => return Err(STOPPING.into()),
            }
        }
    }

    fn accepted(&self, plugin: usize) {
        self.ask(Ask::Accepted { plugin });
    }

    fn retire(&self, plugin: usize) {
        let (ended, end) = bounded(1);
        self.ask(Ask::Retire { plugin, ended });
        let _ = end.recv_timeout(END_TIME);
    }

    fn serving(&self, key: &str) -> Result<Serving, String> {
        let key = key.to_owned();
        let found = self.core.query_blocking(move |core, _| {
            let views = core.plugins();
            let view = views.iter().find(|view| super::active::key(view.kind, view.name) == key)?;
            let model = core.site().plugins.get(view.base)?.clone();
            Some(Serving { serving: view.index, model })
        });
        found.map_err(|error| error.to_string())?.ok_or_else(|| "it is not configured any more".to_owned())
    }
}

/// Who serves.
pub(crate) struct Serving {
    pub(crate) serving: usize,
    pub(crate) model: model::Plugin,
}
