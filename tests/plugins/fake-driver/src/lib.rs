//! Fake driver: a scripted peer without a socket, for tests. What it does is said by its `connection` (`acts`), by the
//! addresses of its points, and by commands: writing a behaviour to `act:OPERATION`, or JSON to `script`.

mod act;
mod config;
mod device;
mod script;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use busbar_driver_api::{
    Action, Answer, BlockWrite, BoundPoint, Check, Command, Device, Driver, Endpoint, Error, Group, Pages,
    Plan, Problem, Reading, Readings, Reason, Result, Stage, Subscription, Update, Value, export_driver,
    serde_json::json, time, tracing,
};

use crate::{
    act::Act,
    config::{Address, Connection, Point, Settings},
    script::Coming,
};

/// The session of one endpoint.
struct Fake {
    endpoint: String,
    acts: HashMap<String, Act>,
    coming: VecDeque<Coming>,
}

/// Counts reads, to show that a plan survives reconnects.
struct Reads(u32);

impl Plan for Reads {
    fn exchanges(&self) -> u32 {
        self.0.max(1)
    }
}

impl Fake {
    /// Behaves as the script says for `operation`: what was written last wins over the configuration.
    async fn act(&self, device: Option<u32>, operation: &str) -> Result<()> {
        let written =
            device::with(&self.endpoint, device.unwrap_or(0), |memory| memory.acts.get(operation).copied());
        let act = written.or_else(|| self.acts.get(operation).copied()).unwrap_or_default();
        act.play(operation).await
    }

    fn answer(&self, device: u32, point: &BoundPoint<Self>, slot: usize, out: &mut Readings) {
        if let Address::Const(number) = &point.spec.address {
            return out.f64(slot, *number);
        }
        match &point.spec.address {
            Address::Refused => return out.refuse(slot, "exception 2, illegal data address"),
            Address::Silent => return,
            _ => {}
        }
        let mut reading = Reading::new(self.value(device, point)).quality(point.spec.quality.0);
        reading.source_time = point.spec.source_time;
        out.set(slot, reading);
    }

    fn value(&self, device: u32, point: &BoundPoint<Self>) -> Value {
        device::with(&self.endpoint, device, |memory| match &point.spec.address {
            Address::Const(number) => Value::Float64(*number),
            Address::Counter => {
                let counter = memory.counters.entry(point.number).or_default();
                *counter += 1;
                Value::Uint(*counter)
            }
            Address::Value(name) | Address::Sticky(name) | Address::Report(name) => {
                memory.values.get(name).cloned().unwrap_or_else(|| device::blank(point.spec.kind.0))
            }
            Address::Committed => Value::Text(memory.committed.join(" ")),
            Address::Refused | Address::Silent | Address::Act(_) | Address::Script => Value::None,
        })
    }

    /// Writes; false when the device kept its old value.
    fn write(&self, device: u32, point: &BoundPoint<Self>, value: &Value) -> Result<bool> {
        device::with(&self.endpoint, device, |memory| match &point.spec.address {
            Address::Value(name) | Address::Report(name) => {
                memory.values.insert(name.clone(), value.clone());
                Ok(true)
            }
            Address::Sticky(_) => Ok(false),
            Address::Act(operation) => {
                let Value::Text(text) = value else {
                    return Err(Error::refused("act: expected text"));
                };
                let act = Act::try_from(text.clone()).map_err(Error::refused)?;
                memory.acts.insert(operation.clone(), act);
                Ok(true)
            }
            other => Err(Error::refused(format!("{other:?} cannot be written")).code("0x03")),
        })
    }

    fn select(&self, device: &Device<Self>, command: &Command<'_, Self>) -> Answer {
        let name = command.point.name.clone();
        let client = command.origin.client.clone();
        device::with(&self.endpoint, device.number, |memory| match (&memory.selected, command.action) {
            (Some((_, owner)), Action::Select) if *owner != client => {
                Answer::refused(Reason::Busy, format!("selected by {owner}"))
            }
            (_, Action::Select) => {
                memory.selected = Some((name, client));
                Answer::stage(Stage::Selected)
            }
            (_, Action::Cancel) => {
                memory.selected = None;
                Answer::stage(Stage::Finished)
            }
            (selected, Action::Operate) => {
                if selected.as_ref() == Some(&(name, client)) {
                    memory.selected = None;
                    Answer::stage(Stage::Finished)
                } else {
                    Answer::refused(Reason::NotSelected, "operate needs a selection")
                }
            }
        })
    }
}

impl Driver for Fake {
    const NAME: &'static str = "fake";
    const DESCRIPTION: &'static str = "Scripted peer for tests";
    type Connection = Connection;
    type Settings = Settings;
    type Point = Point;
    type Plan = Reads;

    fn endpoint(connection: &Connection) -> Endpoint {
        let Connection { endpoint, exclusive, .. } = connection;
        Endpoint { key: format!("fake:{endpoint}"), exclusive: *exclusive, parallel: 1, lock_path: None }
    }

    fn check(input: &Check<'_, Self>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if input.connection.is_some_and(|connection| connection.endpoint.is_empty()) {
            problems.push(Problem::error("/connection/endpoint", "a name", "nothing").hint("give it one"));
        }
        for point in input.points.iter().filter(|point| point.writable) {
            if let Address::Const(_) | Address::Counter = point.spec.address {
                let pointer = format!("{}/address", point.pointer);
                problems.push(Problem::warning(
                    pointer,
                    "an address that can be written",
                    point.name.clone(),
                ));
            }
        }
        problems
    }

    #[allow(clippy::panic, reason = "a scripted panic is the point of this plugin")]
    fn plan(connection: &Connection, _: &[BoundPoint<Self>]) -> Reads {
        if connection.acts.get("plan") == Some(&Act::Panic) {
            panic!("plan: panic by script");
        }
        Reads(0)
    }

    async fn open(device: &Device<Self>) -> Result<Self> {
        let connection = &device.connection;
        let fake = Self {
            endpoint: connection.endpoint.clone(),
            acts: connection.acts.clone(),
            coming: VecDeque::new(),
        };
        tracing::debug!(password = ?connection.password, "opening");
        fake.act(Some(device.number), "open").await?;
        Ok(fake)
    }

    async fn connect(&mut self, device: &Device<Self>) -> Result<String> {
        self.act(Some(device.number), "connect").await?;
        Ok(device.settings.model.clone())
    }

    async fn read(&mut self, group: &mut Group<'_, Self>, out: &mut Readings) -> Result<()> {
        let device = group.device;
        self.act(Some(device.number), "read").await?;
        group.plan.0 += 1;
        if device.logs_frames() {
            device.log_frame("tx", &[3, 0, 0, 1]);
        }
        for (slot, point) in group.points().iter().enumerate() {
            self.answer(device.number, point, slot, out);
        }
        Ok(())
    }

    async fn probe(&mut self, device: &Device<Self>) -> Result<()> {
        self.act(Some(device.number), "probe").await
    }

    async fn command(&mut self, device: &Device<Self>, command: &Command<'_, Self>) -> Result<Answer> {
        self.act(Some(device.number), "command").await?;
        if command.point.spec.address == Address::Script {
            let step = script::read(command.value)?;
            let text = script::perform(step, &device.ctx, &mut self.coming).await?;
            return Ok(Answer { text, ..Answer::stage(Stage::Finished) });
        }
        if command.action != Action::Operate || device.connection.select_required {
            let answer = self.select(device, command);
            if answer.stage != Stage::Finished || command.action == Action::Cancel {
                return Ok(answer);
            }
        }
        if command.test {
            return Ok(Answer { text: "test only".to_owned(), ..Answer::stage(Stage::Finished) });
        }
        command.progress(Answer::stage(Stage::Accepted)).await;
        if self.write(device.number, command.point, command.value)? {
            Ok(Answer::stage(Stage::Finished))
        } else {
            Ok(Answer::refused(Reason::DeviceRefused, "the device kept its value"))
        }
    }

    async fn block_read(
        &mut self,
        device: &Device<Self>,
        points: &[BoundPoint<Self>],
        out: &mut Readings,
    ) -> Result<()> {
        self.act(Some(device.number), "block_read").await?;
        out.stamp();
        for (slot, point) in points.iter().enumerate() {
            self.answer(device.number, point, slot, out);
        }
        Ok(())
    }

    async fn block_write(&mut self, device: &Device<Self>, write: &BlockWrite<'_, Self>) -> Result<Answer> {
        self.act(Some(device.number), "block_write").await?;
        for (point, value) in &write.values {
            self.write(device.number, point, value)?;
        }
        let kept = write.values.iter().find(|(point, value)| self.value(device.number, point) != **value);
        if let Some((point, _)) = kept {
            let text = format!("{} was read back different; the commit point was not written", point.name);
            return Ok(Answer::unknown(Reason::DeviceRefused, text));
        }
        if let Some((point, value)) = &write.commit {
            self.write(device.number, point, value)?;
        }
        Ok(Answer::stage(Stage::Finished))
    }

    async fn subscribe(
        &mut self,
        device: &Device<Self>,
        points: &[BoundPoint<Self>],
        integrity: Option<Duration>,
    ) -> Result<Subscription> {
        self.act(Some(device.number), "subscribe").await?;
        let is_report = |point: &&BoundPoint<Self>| matches!(point.spec.address, Address::Report(_));
        let subscribed: Vec<u32> = points.iter().filter(is_report).map(|point| point.number).collect();
        let refused = points.iter().filter(|point| point.spec.address == Address::Refused);
        let rejected = refused.map(|point| (point.number, "refused by script".to_owned())).collect();
        if device.connection.report_ms > 0 {
            let (ctx, numbers) = (device.ctx.clone(), subscribed.clone());
            let period = Duration::from_millis(device.connection.report_ms);
            device.ctx.spawn(async move { report(&ctx, &numbers, period).await });
        }
        Ok(Subscription { subscribed, rejected, integrity })
    }

    async fn unsubscribe(&mut self, device: &Device<Self>) -> Result<()> {
        self.act(Some(device.number), "unsubscribe").await
    }

    async fn browse(&mut self, device: &Device<Self>, arguments: &[String], pages: &mut Pages) -> Result<()> {
        self.act(Some(device.number), "browse").await?;
        for number in 0..device.connection.browse {
            if arguments.iter().any(|argument| argument == "slow") {
                time::sleep(Duration::from_millis(1)).await;
            }
            pages
                .push(json!({ "name": format!("v{number}"), "address": format!("value:v{number}") }))
                .await?;
        }
        Ok(())
    }

    #[allow(clippy::panic, reason = "a scripted panic is the point of this plugin")]
    async fn next(&mut self) -> Result<Update> {
        match self.coming.pop_front() {
            Some(Coming::Update(update)) => Ok(update),
            Some(Coming::Error(text)) => Err(Error::session(text)),
            Some(Coming::Panic) => panic!("next: panic by script"),
            None => std::future::pending().await,
        }
    }

    async fn committed(&mut self, device: &Device<Self>, token: u32, ok: bool) -> Result<()> {
        self.act(Some(device.number), "committed").await?;
        device::with(&self.endpoint, device.number, |memory| memory.committed.push(format!("{token}:{ok}")));
        Ok(())
    }

    async fn disconnect(&mut self, device: &Device<Self>) -> Result<()> {
        self.act(Some(device.number), "disconnect").await
    }

    async fn close(self) {
        // How it ends is all the same to a caller that wants it gone.
        let _ = self.act(None, "close").await;
    }
}

/// Sends a value of every subscribed point again and again.
async fn report(ctx: &busbar_driver_api::Context, points: &[u32], period: Duration) {
    let mut ticks = time::interval(period);
    let mut count = 0.0;
    loop {
        ticks.tick().await;
        count += 1.0;
        let mut update = ctx.update(busbar_driver_api::Cause::DataChange);
        for point in points {
            update.push(*point, count);
        }
        if ctx.publish(update).await.is_err() {
            return;
        }
    }
}

export_driver!(Fake);
