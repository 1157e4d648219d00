//! An independent MQTT client that writes down everything the broker sends, with the time of arrival.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::broker::Broker;
use crate::wait::PATIENCE;

/// Packets of the gateway are small; this is only the client's own limit.
const MAX_PACKET: usize = 1 << 20;

/// Requests the client holds before `publish` waits.
const REQUESTS: usize = 100;

/// One received message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Payload: JSON, or text where it is none.
    pub payload: Value,
    /// Retain flag as received: set only for messages stored before the subscription.
    pub retain: bool,
    /// Quality of service of the delivery.
    pub qos: u8,
    /// When it came.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    messages: Vec<Message>,
    subscribed: bool,
    failed: Option<String>,
}

/// A subscriber of `#`.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Observer {
    client: Client,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Subscribes to everything; returns when the broker has confirmed.
    #[must_use]
    pub fn start(broker: &Broker) -> Self {
        Self::login(broker, None)
    }

    /// Like [`Self::start`], with user and password.
    ///
    /// # Panics
    /// When the broker does not take the subscription.
    #[must_use]
    pub fn login(broker: &Broker, login: Option<(&str, &str)>) -> Self {
        let mut options =
            MqttOptions::new(format!("observer-{}", crate::ports::free()), "127.0.0.1", broker.port);
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        let (client, mut connection) = Client::new(options, REQUESTS);
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            for event in connection.iter() {
                let mut seen = shared.0.lock().unwrap();
                match event {
                    Ok(Event::Incoming(Packet::Publish(publish))) => seen.messages.push(message(&publish)),
                    Ok(Event::Incoming(Packet::SubAck(_))) => seen.subscribed = true,
                    Ok(_) => continue,
                    Err(error) => {
                        seen.failed = Some(error.to_string());
                        shared.1.notify_all();
                        return;
                    }
                }
                shared.1.notify_all();
            }
        });
        let observer = Self { client, seen, thread: Some(thread) };
        observer.wait("the subscription", PATIENCE, |_, subscribed| subscribed.then_some(()));
        observer
    }

    /// Publishes with QoS 1.
    ///
    /// # Panics
    /// When the client has ended.
    pub fn publish(&self, topic: &str, payload: &str, retain: bool) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).unwrap();
    }

    /// Everything so far.
    ///
    /// # Panics
    /// Never in practice: the lock is not held across a panic.
    #[must_use]
    pub fn all(&self) -> Vec<Message> {
        self.seen.0.lock().unwrap().messages.clone()
    }

    /// Number of messages so far: a mark for [`Self::since`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.seen.0.lock().unwrap().messages.len()
    }

    /// Messages on one topic that arrived after the mark.
    #[must_use]
    pub fn since(&self, mark: usize, topic: &str) -> Vec<Message> {
        let seen = self.seen.0.lock().unwrap();
        seen.messages[mark..].iter().filter(|message| message.topic == topic).cloned().collect()
    }

    /// Waits for the first message on a topic after the mark for which `accept` holds.
    pub fn wait_for(
        &self,
        what: &str,
        mark: usize,
        topic: &str,
        limit: Duration,
        mut accept: impl FnMut(&Message) -> bool,
    ) -> Message {
        self.wait(what, limit, |messages, _| {
            messages[mark..].iter().find(|message| message.topic == topic && accept(message)).cloned()
        })
    }

    /// Waits until `look` finds something in all messages.
    pub fn wait_all<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&[Message]) -> Option<T>,
    ) -> T {
        self.wait(what, limit, |messages, _| look(messages))
    }

    fn wait<T>(&self, what: &str, limit: Duration, mut look: impl FnMut(&[Message], bool) -> Option<T>) -> T {
        let begin = Instant::now();
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            if let Some(found) = look(&seen.messages, seen.subscribed) {
                return found;
            }
            if let Some(error) = seen.failed.clone() {
                drop(seen);
                panic!("the observer lost the broker while waiting for {what}: {error}");
            }
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                let text = tail(&seen.messages);
                drop(seen);
                panic!("waited {limit:?} for {what}; last messages:\n{text}");
            }
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // When the broker has gone the thread has ended by itself.
        let _ = self.client.disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn message(publish: &rumqttc::Publish) -> Message {
    let text = String::from_utf8_lossy(&publish.payload).into_owned();
    Message {
        topic: publish.topic.clone(),
        payload: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        retain: publish.retain,
        qos: publish.qos as u8,
        at: Instant::now(),
    }
}

fn tail(messages: &[Message]) -> String {
    let begin = messages.len().saturating_sub(30);
    messages[begin..]
        .iter()
        .map(|m| format!("  {} {}{}\n", m.topic, m.payload, if m.retain { " (retained)" } else { "" }))
        .collect()
}
