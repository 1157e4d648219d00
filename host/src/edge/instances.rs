//! The open instances, as the core thread sees them.
//!
//! `open` runs on a helper thread, and a plugin may say OPENED before that call is back. What the core sends in between
//! waits here, bounded by what the core sends to one instance before it is open; order is kept.

use std::{collections::HashMap, time::Duration};

use busbar_core::{Input, Output};
use busbar_loader::{Admission, Delivery, Instance};

/// What the core may send to an instance whose `open` has not returned; more is refused.
const MAX_EARLY: usize = 1_024;

/// The table.
#[derive(Default)]
pub(crate) struct Instances {
    entries: HashMap<u64, Entry>,
}

struct Entry {
    plugin: usize,
    state: State,
}

enum State {
    /// `open` has not returned; what waits for it.
    Opening(Vec<Output>),
    Open(Instance),
}

impl Instances {
    /// `open` was started.
    pub(crate) fn opening(&mut self, instance: u64, plugin: usize) {
        self.entries.insert(instance, Entry { plugin, state: State::Opening(Vec::new()) });
    }

    /// `open` returned; what waited is sent. An instance that the core gave up meanwhile is abandoned.
    pub(crate) fn opened(&mut self, instance: u64, handle: Instance) -> Vec<Input> {
        let Some(entry) = self.entries.get_mut(&instance) else {
            handle.abandon();
            return Vec::new();
        };
        let State::Opening(early) = std::mem::replace(&mut entry.state, State::Open(handle)) else {
            return Vec::new();
        };
        early.into_iter().filter_map(|output| self.send(output)).collect()
    }

    /// Carries out Submit, Deliver and Stop. What was not taken comes back as an input.
    pub(crate) fn send(&mut self, output: Output) -> Option<Input> {
        let instance = target(&output)?;
        match self.entries.get_mut(&instance).map(|entry| &mut entry.state) {
            Some(State::Open(handle)) => carry(handle, output),
            Some(State::Opening(early)) if early.len() < MAX_EARLY => {
                early.push(output);
                None
            }
            _ => refused(output),
        }
    }

    /// The instance ended by itself; true when it was known.
    pub(crate) fn remove(&mut self, instance: u64) -> Option<usize> {
        self.entries.remove(&instance).map(|entry| entry.plugin)
    }

    /// Ends all instances of a plugin that is gone; nothing of them is listened to any more.
    pub(crate) fn abandon_plugin(&mut self, plugin: usize) -> Vec<u64> {
        let gone: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.plugin == plugin)
            .map(|(instance, _)| *instance)
            .collect();
        for instance in &gone {
            if let Some(Entry { state: State::Open(handle), .. }) = self.entries.remove(instance) {
                handle.abandon();
            }
        }
        gone
    }
}

const fn target(output: &Output) -> Option<u64> {
    match output {
        Output::Submit { instance, .. }
        | Output::Deliver { instance, .. }
        | Output::Stop { instance, .. } => Some(*instance),
        _ => None,
    }
}

fn carry(handle: &Instance, output: Output) -> Option<Input> {
    match output {
        Output::Submit { instance, request, body } => {
            not_taken(instance, request, false, handle.submit(request, &body))
        }
        Output::Deliver { instance, lane, first, flags, samples } => {
            not_taken(instance, first, true, handle.deliver(Delivery { first, lane, flags, samples }))
        }
        Output::Stop { deadline_ms, .. } => {
            handle.stop(Duration::from_millis(deadline_ms));
            None
        }
        _ => None,
    }
}

fn refused(output: Output) -> Option<Input> {
    match output {
        Output::Submit { instance, request, .. } => not_taken(instance, request, false, Admission::Refused),
        Output::Deliver { instance, first, .. } => not_taken(instance, first, true, Admission::Refused),
        _ => None,
    }
}

fn not_taken(instance: u64, request: u64, delivery: bool, answer: Admission) -> Option<Input> {
    (!answer.is_taken()).then(|| Input::NotTaken { instance, request, delivery, code: answer.code() })
}
