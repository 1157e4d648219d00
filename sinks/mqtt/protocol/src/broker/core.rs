//! What all connections share: clients, subscriptions, retained messages, observers, the script.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Observed;
use super::filter;
use super::packet::Publish;
use super::script::Script;

/// Messages that may wait for one client; more are dropped and counted.
const CLIENT_QUEUE: usize = 8192;
/// Messages that may wait for one observer; more are dropped and counted.
const OBSERVER_QUEUE: usize = 65_536;
/// Most retained messages.
const MAX_RETAINED: usize = 200_000;
/// Most subscriptions of one client.
const MAX_SUBSCRIPTIONS: usize = 256;

/// What a connection's task is told.
pub(super) enum ToClient {
    Publish(Publish),
    TakenOver,
    Cut,
}

struct Client {
    serial: u64,
    sender: mpsc::Sender<ToClient>,
    subscriptions: Vec<(String, u8)>,
}

#[derive(Default)]
pub(super) struct Core {
    pub(super) script: Script,
    clients: HashMap<String, Client>,
    retained: HashMap<String, (Bytes, u8)>,
    observers: Vec<(String, mpsc::Sender<Observed>)>,
    serial: u64,
    pub(super) dropped: u64,
    pub(super) connects: u64,
}

impl Core {
    /// A client connected; another one with the same id is told to go.
    pub(super) fn join(&mut self, id: &str) -> (u64, mpsc::Receiver<ToClient>) {
        self.serial += 1;
        self.connects += 1;
        let (sender, receiver) = mpsc::channel(CLIENT_QUEUE);
        let client = Client { serial: self.serial, sender, subscriptions: Vec::new() };
        if let Some(old) = self.clients.insert(id.to_owned(), client) {
            // A full queue ends that client, too: its sender is dropped here.
            let _ = old.sender.try_send(ToClient::TakenOver);
        }
        (self.serial, receiver)
    }

    pub(super) fn leave(&mut self, id: &str, serial: u64) {
        if self.clients.get(id).is_some_and(|client| client.serial == serial) {
            self.clients.remove(id);
        }
    }

    pub(super) fn client_ids(&self) -> Vec<String> {
        self.clients.keys().cloned().collect()
    }

    pub(super) fn cut_all(&mut self) {
        for client in self.clients.values() {
            let _ = client.sender.try_send(ToClient::Cut);
        }
        self.clients.clear();
    }

    pub(super) fn observe(&mut self, filter: &str) -> mpsc::Receiver<Observed> {
        let (sender, receiver) = mpsc::channel(OBSERVER_QUEUE);
        self.observers.push((filter.to_owned(), sender));
        receiver
    }

    /// Adds a subscription; returns the granted QoS (or 0x80) and the retained messages for it.
    pub(super) fn subscribe(&mut self, id: &str, serial: u64, wanted: &str, qos: u8) -> (u8, Vec<Publish>) {
        const REFUSED: (u8, Vec<Publish>) = (0x80, Vec::new());
        let Some(client) = self.clients.get_mut(id).filter(|client| client.serial == serial) else {
            return REFUSED;
        };
        if !filter::is_legal(wanted) || client.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return REFUSED;
        }
        let granted = qos.min(1);
        client.subscriptions.retain(|(filter, _)| filter != wanted);
        client.subscriptions.push((wanted.to_owned(), granted));
        let retained = self.retained.iter().filter(|(topic, _)| filter::matches(wanted, topic));
        let retained = retained.map(|(topic, (payload, qos))| Publish {
            topic: topic.clone(),
            payload: payload.clone(),
            qos: granted.min(*qos),
            retain: true,
            ..Publish::default()
        });
        (granted, retained.collect())
    }

    pub(super) fn unsubscribe(&mut self, id: &str, filter: &str) {
        if let Some(client) = self.clients.get_mut(id) {
            client.subscriptions.retain(|(known, _)| known != filter);
        }
    }

    pub(super) fn retained(&self, topic: &str) -> Option<Bytes> {
        self.retained.get(topic).map(|(payload, _)| payload.clone())
    }

    /// Routes a message to observers and subscribers, and keeps it when it is retained (3.3.1.3).
    pub(super) fn publish(&mut self, from: &str, message: &Publish) {
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.topic);
            } else if self.retained.len() < MAX_RETAINED || self.retained.contains_key(&message.topic) {
                self.retained.insert(message.topic.clone(), (message.payload.clone(), message.qos));
            } else {
                self.dropped += 1;
            }
        }
        self.show(from, message);
        for client in self.clients.values() {
            let granted = client.subscriptions.iter().filter(|(f, _)| filter::matches(f, &message.topic));
            // Overlapping subscriptions give one message with the highest QoS.
            let Some(granted) = granted.map(|(_, qos)| *qos).max() else { continue };
            let copy = Publish {
                qos: message.qos.min(granted),
                retain: false,
                dup: false,
                id: 0,
                topic: message.topic.clone(),
                payload: message.payload.clone(),
            };
            if client.sender.try_send(ToClient::Publish(copy)).is_err() {
                self.dropped += 1;
            }
        }
    }

    fn show(&mut self, from: &str, message: &Publish) {
        let dropped = &mut self.dropped;
        self.observers.retain(|(filter, sender)| {
            if !filter::matches(filter, &message.topic) {
                return !sender.is_closed();
            }
            let observed = Observed {
                client: from.to_owned(),
                topic: message.topic.clone(),
                payload: message.payload.clone(),
                qos: message.qos,
                retain: message.retain,
            };
            match sender.try_send(observed) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    *dropped += 1;
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }
}
