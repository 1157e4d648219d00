//! The live connection: what the SDK calls.
//!
//! `deliver` turns records into messages and hands them to the session, waiting only when its window is full; `next`
//! drives the session. Confirmations become verdicts, told to the host in ranges. What was never confirmed needs no
//! verdict: the host delivers it again after the next connect.

use std::collections::VecDeque;
use std::time::Duration;

use busbar_driver_api::{
    AnswerTo, Delivery, Error, Link, PointsChange, Problem, Result, Sink, SinkCheck, SinkTraits,
    contract::FailureKind, time, tokio,
};
use busbar_mqtt::ems;
use busbar_mqtt::takeover::Ended;
use busbar_mqtt::{Event, Message, ONLINE, Qos, SendError, Session};
use busbar_sink_kit::shown::{BadValue, Test};

use crate::check::{self, Topics};
use crate::commands::{self, Todo};
use crate::connect;
use crate::memory::Shared;
use crate::online::track;
use crate::points::Points;
use crate::publish::{Publisher, Read, Step, Style, Target};
use crate::settings::{Map, Settings};
use crate::verdict::{LANE, REASONS, Span, Verdicts, verdict};

/// Time for the last confirmations when the connection is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Commands and answers that may wait while the broker or the host has no room; more are ignored. A client that sends
/// faster than that is broken or hostile.
const MAX_TODO: usize = 1024;

/// One connection to a broker.
pub(crate) struct Mqtt {
    session: Session<Span>,
    topics: Topics,
    points: Points,
    publisher: Publisher,
    verdicts: Verdicts,
    todo: VecDeque<Todo>,
    memory: Shared,
    client_id: String,
    /// The end of the session was counted for take-overs.
    end_noted: bool,
    /// For the operator, not told yet.
    fault: Option<String>,
    /// Commands ignored because too many wait.
    ignored: u64,
    /// `format = "ems"`: the topic of the status that the control plane reads.
    gateway_status: Option<String>,
    /// What is kept there, and whether the broker has it.
    status: (Vec<u8>, bool),
}

impl Sink for Mqtt {
    const NAME: &'static str = "mqtt";
    const DESCRIPTION: &'static str = "Values to an MQTT broker (3.1.1 and 5), commands from it";
    const REASONS: &'static [&'static str] = REASONS;
    type Settings = Settings;
    type Map = Map;

    fn traits() -> SinkTraits {
        SinkTraits { history: true, durable: true, ..SinkTraits::default() }
    }

    fn check(input: &SinkCheck<'_, Self>) -> Vec<Problem> {
        check::check(input)
    }

    async fn open(link: &Link<Self>) -> Result<Self> {
        let topics = connect::topics(&link.settings)?;
        let memory = Shared::of(&link.host, &link.name);
        commands::recall(link, &memory).await?;
        let session = connect::connect(link, &topics, &memory).await?;
        let qos = connect::qos(&link.settings);
        let style = Style {
            qos,
            retain: link.settings.retain,
            bad_value: BadValue::parse(&link.bad_value).unwrap_or_default(),
            test: Test::parse(&link.test),
            split: session.max_packet() / 4 * 3,
        };
        let client_id = link.settings.client_id.clone().unwrap_or_else(|| memory.lock().client_id.clone());
        let mut sink = Self {
            session,
            points: Points::prepare(link, &topics),
            topics,
            publisher: Publisher::new(style),
            verdicts: Verdicts::default(),
            todo: VecDeque::new(),
            memory,
            client_id,
            end_noted: false,
            fault: None,
            ignored: 0,
            gateway_status: link.settings.gateway_status(&link.host),
            status: (Vec::new(), false),
        };
        sink.announce_devices(link).await?;
        Ok(sink)
    }

    async fn points(&mut self, link: &Link<Self>, _: &PointsChange) -> Result<()> {
        let before = std::mem::replace(&mut self.points, Points::prepare(link, &self.topics));
        self.points.inherit(&before);
        for device in before.devices {
            let kept = self.points.devices.iter().any(|other| other.name == device.name);
            if !kept && self.memory.lock().online.remove(&device.name).is_some() {
                // Its retained status would stay "online" for ever.
                self.todo.push_back(Todo::Result { topic: device.status_topic.into(), payload: Vec::new() });
            }
        }
        self.tell(link).await
    }

    async fn deliver(&mut self, link: &Link<Self>, delivery: &Delivery) -> Result<()> {
        let mut changed = Vec::new();
        for record in delivery.records() {
            let read = Read::new(&record, delivery);
            changed.extend(track(&read, &mut self.points, &self.memory));
            loop {
                match self.publisher.take(&read, &mut self.points, &mut self.verdicts) {
                    Step::Done => break,
                    Step::Send { again } => {
                        self.push(link).await?;
                        if !again {
                            break;
                        }
                    }
                }
            }
        }
        if self.publisher.end_group() {
            self.push(link).await?;
        }
        for (device, online) in changed {
            self.publisher.status(device, online, Span::OWN);
            self.push(link).await?;
        }
        self.note_status(link);
        self.tell(link).await
    }

    async fn next(&mut self, link: &Link<Self>) -> Result<()> {
        // Everything is in `self` before an await, so that being dropped there loses nothing. It stays in here because
        // returning for every acknowledgement costs more than the acknowledgement.
        loop {
            self.tell(link).await?;
            match self.verdicts.due {
                None => self.drive(link).await?,
                Some(due) => tokio::select! {
                    biased;
                    driven = self.drive(link) => driven?,
                    () = time::sleep_until(due) => {}
                },
            }
        }
    }

    async fn answered(&mut self, link: &Link<Self>, request: u64, answer: &AnswerTo) -> Result<()> {
        let todo = commands::answered(request, answer, &mut self.memory.lock());
        self.todo.extend(todo);
        self.tell(link).await
    }

    async fn probe(&mut self, link: &Link<Self>) -> Result<()> {
        match self.session.probe().await {
            Ok(()) => self.tell(link).await,
            Err(error) => Err(self.over(&error, link).await),
        }
    }

    async fn close(mut self, link: &Link<Self>) {
        for event in self.session.close(CLOSE_LIMIT).await {
            if let Some((span, verdict, reason)) = verdict(&event) {
                self.verdicts.add(span, verdict, reason);
            }
        }
        // Fails only when the instance stops; then the host settles the rest itself.
        let _ = link.ctx.ack(LANE, self.verdicts.acks).await;
    }
}

impl Mqtt {
    /// Sends the message that the publisher holds, driving the session while there is no room.
    async fn push(&mut self, link: &Link<Self>) -> Result<()> {
        if let Some(out) = self.publisher.out
            && let Target::Status(device) = out.target
            && let Some(device) = self.points.devices.get(device)
        {
            let online = self.publisher.payload == ONLINE.as_bytes();
            self.memory.lock().online.insert(device.name.clone(), online);
        }
        if let Some(out) = self.publisher.out
            && let (Target::Device(device), Some(success)) = (out.target, out.success)
            && let Some(device) = self.points.devices.get_mut(device)
        {
            device.reading = success;
        }
        while self.publisher.send(&mut self.session, &self.points, &mut self.verdicts).is_err() {
            self.drive(link).await?;
            self.tell(link).await?;
        }
        Ok(())
    }

    /// `format = "ems"`: which devices are connected and read, for the control plane.
    fn note_status(&mut self, link: &Link<Self>) {
        if self.gateway_status.is_none() {
            return;
        }
        let devices = || self.points.devices.iter().filter(|device| device.frame.is_some());
        let memory = self.memory.lock();
        let online = |name: &str| memory.online.get(name).copied().unwrap_or(false);
        let mut connected: Vec<&str> =
            devices().map(|device| &*device.name).filter(|name| online(name)).collect();
        let mut reading: Vec<&str> =
            devices().filter(|device| device.reading).map(|device| &*device.name).collect();
        connected.sort_unstable();
        reading.sort_unstable();
        let gateway = link.settings.gateway_uuid.as_deref().unwrap_or(&link.host);
        let status = ems::status(gateway, self.points.version.1, &connected, &reading);
        drop(memory);
        if status != self.status.0 {
            self.status = (status, false);
        }
    }

    /// After a connect: what is retained at this broker may be old, or another broker's.
    async fn announce_devices(&mut self, link: &Link<Self>) -> Result<()> {
        let known: Vec<(usize, bool)> = {
            let memory = self.memory.lock();
            let devices = self.points.devices.iter().enumerate();
            devices.filter_map(|(at, device)| Some((at, *memory.online.get(&device.name)?))).collect()
        };
        for (device, online) in known {
            self.publisher.status(device, online, Span::OWN);
            self.push(link).await?;
        }
        Ok(())
    }

    /// Drives the session until something happened, and takes everything that did. Cancel safe.
    async fn drive(&mut self, link: &Link<Self>) -> Result<()> {
        match self.session.next().await {
            Ok(event) => self.happened(event),
            Err(error) => return Err(self.over(&error, link).await),
        }
        while let Some(event) = self.session.ready() {
            self.happened(event);
        }
        Ok(())
    }

    fn happened(&mut self, event: Event<Span>) {
        if let Some((span, verdict, reason)) = verdict(&event) {
            self.verdicts.add(span, verdict, reason);
        } else if let Event::Received { topic, payload, retained } = event {
            if self.todo.len() >= MAX_TODO {
                self.ignored += 1;
                if self.ignored.is_power_of_two() {
                    let ignored = self.ignored;
                    busbar_driver_api::tracing::warn!(
                        topic,
                        ignored,
                        "commands arrive faster than they can be answered"
                    );
                }
                return;
            }
            let todo = commands::receive(&topic, &payload, retained, &self.points, &mut self.memory.lock());
            if todo.is_empty() {
                busbar_driver_api::tracing::debug!(topic, "a command for a topic of no point was ignored");
            }
            self.todo.extend(todo);
        }
    }

    /// Tells the host and the broker what there is to tell. Cancel safe: a thing leaves `self` only when it is told.
    async fn tell(&mut self, link: &Link<Self>) -> Result<()> {
        if self.verdicts.ripe(self.session.unconfirmed()) {
            link.ctx.ack(LANE, self.verdicts.acks.clone()).await?;
            self.verdicts.clear();
        }
        if let (Some(topic), (payload, false)) = (&self.gateway_status, &self.status)
            && !payload.is_empty()
        {
            let qos = self.publisher.style.qos.max(Qos::AtLeastOnce);
            let message = Message { topic, payload, qos, retain: true };
            self.status.1 = match self.session.send(&message, Span::OWN) {
                Ok(()) => true,
                Err(SendError::Full(_)) => false,
                Err(SendError::TooLarge { size, limit, .. }) => {
                    busbar_driver_api::tracing::warn!(
                        topic,
                        size,
                        limit,
                        "the gateway's status is too large and was not sent: raise max_packet here and at the broker"
                    );
                    true
                }
            };
        }
        if let Some(text) = &self.fault {
            link.ctx.fault("take_over", text.clone()).await?;
            self.fault = None;
        }
        while !self.todo.is_empty() {
            if matches!(self.todo.front(), Some(Todo::Command { command, pending: Some(_) }) if command.refused.is_none())
            {
                self.remember(link).await?;
            }
            let Some(todo) = self.todo.pop_front() else { break };
            match todo {
                Todo::Command { command, pending } => {
                    let kept = Todo::Command { command: command.clone(), pending: pending.clone() };
                    self.todo.push_front(kept);
                    let number = link.ctx.command(*command).await?;
                    self.todo.pop_front();
                    if let Some(pending) = pending {
                        self.memory.lock().pending.insert(number, pending);
                    }
                }
                Todo::Result { topic, payload } => {
                    if !self.answer(&topic, &payload) {
                        self.todo.push_front(Todo::Result { topic, payload });
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The ids of the commands that wait are on disk afterwards, or the first one is refused.
    async fn remember(&mut self, link: &Link<Self>) -> Result<()> {
        let Err(error) = commands::remember(link, &self.memory).await else { return Ok(()) };
        if error.kind() != FailureKind::Refused {
            return Err(error);
        }
        if let Some(Todo::Command { command, pending: Some(pending) }) = self.todo.pop_front() {
            for todo in commands::not_stored(*command, pending, error.text()).into_iter().rev() {
                self.todo.push_front(todo);
            }
        }
        Ok(())
    }

    /// Publishes an answer, or removes a retained status when there is no payload. False: no room now.
    fn answer(&mut self, topic: &str, payload: &[u8]) -> bool {
        // An answer is worth a confirmation even where values are not.
        let qos = self.publisher.style.qos.max(Qos::AtLeastOnce);
        let message = Message { topic, payload, qos, retain: payload.is_empty() };
        !matches!(self.session.send(&message, Span::OWN), Err(SendError::Full(_)))
    }

    /// The session is over.
    async fn over(&mut self, error: &busbar_mqtt::Error, link: &Link<Self>) -> Error {
        if !self.end_noted {
            self.end_noted = true;
            let how = match error {
                busbar_mqtt::Error::TakenOver(_) => Ended::TakenOver,
                busbar_mqtt::Error::Closed(_) => Ended::ByPeer,
                _ => Ended::Otherwise,
            };
            self.fault = self.memory.lock().take_over.ended(how, self.session.age(), &self.client_id);
        }
        // What was confirmed before the end must be told; if that fails, the instance stops anyway.
        self.todo.clear();
        if !self.verdicts.acks.is_empty() && link.ctx.ack(LANE, self.verdicts.acks.clone()).await.is_ok() {
            self.verdicts.clear();
        }
        let _ = self.tell(link).await;
        Error::session(error.to_string())
    }
}
