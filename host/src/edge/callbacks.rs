//! What a plugin may call: everything is checked by the loader, then queued for the core, and nothing waits (R2).

use std::sync::Arc;

use busbar_contract::{Event, event::Heartbeat};
use busbar_core::{Input, input};
use busbar_loader::{Admission, Arrival, HostCallbacks, LogEntry, Push, Pushed};

use super::{
    inbox::{Inbox, Item, Pressure},
    names::Names,
    plugin_log::PluginLog,
    plugins::News,
    queue::Urgency,
};

/// Bytes of one sample on the waist.
const SAMPLE_BYTES: usize = size_of::<busbar_contract::Sample>();

/// The host as one start of one plugin sees it.
pub(crate) struct Callbacks {
    plugin: usize,
    /// Counts the starts of this plugin: what a dead worker left behind must not hit the next one.
    start: u64,
    inbox: Arc<Inbox>,
    log: PluginLog,
}

impl Callbacks {
    pub(crate) fn new(plugin: usize, name: &str, start: u64, inbox: Arc<Inbox>, names: Arc<Names>) -> Self {
        Self { plugin, start, inbox, log: PluginLog::new(name, names) }
    }

    fn input(&self, instance: u64, request: u64, arrival: Arrival) -> Input {
        let plugin = self.plugin;
        match arrival {
            Arrival::Event(event) => Input::Event { plugin, instance, request, event },
            Arrival::Malformed(error) => Input::Malformed { plugin, instance, request, error },
            Arrival::Lost { samples, .. } => Input::Overrun { instance, samples: samples as u64 },
        }
    }
}

impl HostCallbacks for Callbacks {
    fn push(&self, instance: u64, push: Push) -> Pushed {
        let bytes = push.samples.samples.len() * SAMPLE_BYTES + push.samples.blob.len();
        let Some((room, pressure)) = self.inbox.reserve(self.plugin, instance, bytes) else {
            return Pushed::Refused(push);
        };
        let Push { id: request, token, flags, samples } = push;
        let input = Input::Push(input::Push { instance, request, token, flags, samples });
        match (self.inbox.put(room, input, Urgency::Collect), pressure) {
            (Some(Input::Push(input::Push { request: id, token, flags, samples, .. })), _) => {
                Pushed::Refused(Push { id, token, flags, samples })
            }
            (_, Pressure::Free) => Pushed::Accepted,
            (_, Pressure::Congested) => Pushed::Congested,
        }
    }

    fn event(&self, instance: u64, request: u64, arrival: Arrival) -> Admission {
        let Some((room, pressure)) = self.inbox.reserve(self.plugin, instance, weight(&arrival)) else {
            return Admission::Refused;
        };
        let urgency = urgency(&arrival);
        if self.inbox.put(room, self.input(instance, request, arrival), urgency).is_some() {
            return Admission::Refused;
        }
        match pressure {
            Pressure::Free => Admission::Accepted,
            Pressure::Congested => Admission::Congested,
        }
    }

    fn log(&self, instance: u64, entry: LogEntry) {
        self.log.write(instance, &entry);
    }

    fn down(&self, reason: &str) {
        let news = News::Down { plugin: self.plugin, start: self.start, reason: reason.to_owned() };
        // On a thread of the loader, which may wait.
        self.inbox.send(Item::News(Box::new(news)));
    }
}

/// Confirmations, figures and signs of life wait for the next turn; what somebody waits for does not.
const fn urgency(arrival: &Arrival) -> Urgency {
    match arrival {
        Arrival::Event(Event::Ack { .. } | Event::Heartbeat(_) | Event::Metric(_) | Event::Metadata(_)) => {
            Urgency::Lazy
        }
        Arrival::Event(_) | Arrival::Malformed(_) | Arrival::Lost { .. } => Urgency::Now,
    }
}

/// Rough size of an event, for the bound on bytes.
fn weight(arrival: &Arrival) -> usize {
    match arrival {
        Arrival::Event(Event::Ack { acks, .. }) => acks.len() * size_of::<busbar_contract::binary::Ack>(),
        Arrival::Event(Event::Page(page)) => page.entries.iter().map(|entry| entry.to_string().len()).sum(),
        Arrival::Event(Event::StatePut(entry)) => entry.value.as_ref().map_or(0, String::len),
        Arrival::Event(Event::Heartbeat(Heartbeat { .. })) => 0,
        Arrival::Event(_) | Arrival::Malformed(_) | Arrival::Lost { .. } => 256,
    }
}
