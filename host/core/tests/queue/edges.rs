//! What the core asks of its edges: the plugins answer, the writers of the files do their jobs in order.

use busbar_contract::{
    Cause, Event, Flags, Quality, Request, Samples, Value, batch,
    event::{BoundGroup, Done},
};
use busbar_core::{Input, Output, input::Push};

use crate::{
    far::Mood,
    file::Fate,
    world::{Happening, Job, MS, World},
};

impl World {
    pub(crate) fn carry_out(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Open { plugin, instance, config } => {
                match &config {
                    busbar_contract::describe::Open::Sink { name, .. } => {
                        let sink = self.site.sinks.iter().position(|sink| sink.name == *name).unwrap();
                        self.fars[sink].opened(instance);
                    }
                    busbar_contract::describe::Open::Driver { .. } => self.driver = instance,
                }
                self.event(plugin, instance, 0, 3, Event::Opened);
            }
            Output::Submit { instance, request, body } if instance == self.driver => {
                self.driver_asked(instance, request, &body)?;
            }
            Output::Submit { instance, request, body } => self.sink_asked(instance, request, &body)?,
            Output::Deliver { instance, first, flags, samples, .. } => {
                self.delivered(instance, first, flags, samples)?;
            }
            Output::Stop { instance, .. } => {
                let plugin = usize::from(instance != self.driver);
                if let Some(far) = self.fars.iter_mut().find(|far| far.instance == instance) {
                    (far.stopped, far.asked_to_stop) = (true, true);
                }
                let delay = self.rng.range(1, 100);
                self.event(plugin, instance, 0, delay, Event::Stopped);
            }
            Output::JournalOpen { sink } => self.job(sink, Job::Open),
            Output::Journal { sink, transaction } => self.job(sink, Job::Write(transaction)),
            Output::JournalLoad { sink, from, records, .. } => self.job(sink, Job::Load { from, records }),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn driver_asked(&mut self, instance: u64, request: u64, body: &Request) -> Result<(), String> {
        match body {
            Request::Bind(bind) => {
                for group in &bind.groups {
                    self.groups.insert(group.group, group.points.clone());
                }
                let groups =
                    bind.groups.iter().map(|group| BoundGroup { group: group.group, exchanges: 1 }).collect();
                self.event(0, instance, request, 1, Event::Done(Done { groups, ..Done::default() }));
            }
            Request::Read(read) => {
                let mut samples = Samples::default();
                for point in self.groups[&read.group].clone() {
                    let value = self.core.points(None).nth(point as usize).map(|view| view.value);
                    let value = value.filter(|value| *value != Value::None).unwrap_or(Value::Uint(0));
                    let ts = self.now.wall_ns - self.set_ns;
                    samples.push(point, ts, &value, Quality::GOOD, Flags::new(Cause::Poll, 0));
                }
                let push = Push { instance, request, token: 0, flags: batch::LAST, samples };
                self.input_at(self.now.mono_ns, Input::Push(push));
            }
            Request::Connect(of) => {
                self.connected[of.device.unwrap() as usize] = true;
                self.event(0, instance, request, 2, Event::Done(Done::default()));
            }
            Request::Committed(committed) => self.committed(committed.token, committed.ok)?,
            Request::Cancel(_) | Request::Answer(_) => {}
            _ => self.event(0, instance, request, 1, Event::Done(Done::default())),
        }
        Ok(())
    }

    pub(crate) fn sink_asked(&mut self, instance: u64, request: u64, body: &Request) -> Result<(), String> {
        let Some(sink) = self.fars.iter().position(|far| far.instance == instance) else {
            return Err(format!("a request to instance {instance}, which is gone"));
        };
        self.fars[sink].points(body)?;
        let delay = self.rng.range(1, 20);
        let down = self.fars[sink].mood == Mood::Down;
        let event = match body {
            Request::Connect(_) if down => Event::Failed(busbar_contract::Failure::new(
                busbar_contract::FailureKind::Session,
                "connection refused",
            )),
            Request::Points(_) | Request::Connect(_) => Event::Done(Done::default()),
            _ => return Ok(()),
        };
        self.event(1, instance, request, delay, event);
        Ok(())
    }

    pub(crate) fn delivered(
        &mut self,
        instance: u64,
        first: u64,
        flags: u32,
        mut samples: Samples,
    ) -> Result<(), String> {
        let Some(sink) = self.fars.iter().position(|far| far.instance == instance && !far.asked_to_stop)
        else {
            return Err(format!("a delivery to instance {instance}, which is gone"));
        };
        if self.fars[sink].stopped {
            // The core does not know yet.
            return Ok(());
        }
        if self.fars[sink].refusing || (self.rng.chance(2) && !self.healing) {
            self.fars[sink].refusing = true;
            let input = Input::NotTaken { instance, request: first, delivery: true, code: 2 };
            self.input_at(self.now.mono_ns, input);
            return Ok(());
        }
        if flags & batch::TIMES != 0 {
            samples.take_times().map_err(|error| error.to_string())?;
        }
        let file = &self.writers[sink].file;
        let known = |value: u64| file.fates.get(&value) == Some(&Fate::Delivered);
        let answers =
            self.fars[sink].deliver(&mut self.rng, self.now.mono_ns, (first, flags), &samples, &known)?;
        for answer in answers {
            self.at(answer.at_ns, Happening::Answer(sink, instance, answer));
        }
        Ok(())
    }

    pub(crate) fn job(&mut self, sink: usize, job: Job) {
        self.writers[sink].jobs.push_back(job);
        if self.writers[sink].jobs.len() == 1 {
            self.begin_job(sink);
        }
    }

    pub(crate) fn begin_job(&mut self, sink: usize) {
        let slow = self.writers[sink].slow;
        let delay = match slow {
            true if self.rng.chance(3) => {
                // Longer than any sync that ends: the core says that the disk does not answer.
                self.stats.silences += 1;
                if matches!(self.writers[sink].jobs.front(), Some(Job::Open)) {
                    // What is in memory is delivered meanwhile, before a backlog that nobody knows.
                    self.fars[sink].ordered = false;
                }
                self.rng.range(11_000, 20_000)
            }
            true => self.rng.range(200, 3000),
            false => self.rng.range(1, 15),
        };
        if slow {
            self.writers[sink].ill_ns = Some(self.absolute_ns() + delay * MS);
        }
        self.at(self.now.mono_ns + delay * MS, Happening::Job(sink));
    }

    pub(crate) fn job_done(&mut self, sink: usize) {
        let absolute_ns = self.absolute_ns();
        let writer = &mut self.writers[sink];
        let Some(job) = writer.jobs.pop_front() else { return };
        let input = match job {
            Job::Open if writer.open_fails => {
                writer.ill_ns = Some(absolute_ns);
                self.fars[sink].ordered = false;
                Input::JournalOpened { sink, result: Err("permission denied".into()) }
            }
            Job::Open => Input::JournalOpened { sink, result: Ok(writer.file.open()) },
            Job::Write(transaction) => match writer.file.write(&transaction) {
                Ok(result) => {
                    if result.is_err() {
                        writer.ill_ns = Some(absolute_ns);
                        self.stats.failed_transactions += 1;
                    }
                    Input::Journaled { sink, number: transaction.number, result }
                }
                Err(error) => {
                    self.error.get_or_insert(format!("sink {sink}: {error}"));
                    return;
                }
            },
            Job::Load { from, records } => {
                self.stats.loads += 1;
                let result = if self.rng.chance(3) && !self.healing {
                    Err("cannot read".to_owned())
                } else {
                    Ok(self.writers[sink].file.load(from, records))
                };
                Input::JournalLoaded { sink, result }
            }
            Job::Again => {
                let Some((ledger, again)) = writer.file.again() else { return self.next_job(sink) };
                self.stats.again += again.rows.len() as u64;
                // The far side hears of them once more, as somebody wished.
                for entry in again.rows.iter().flat_map(|row| &row.entries) {
                    self.fars[sink].known.remove(&entry.sample.bits);
                }
                Input::JournalAgain { sink, ledger, again }
            }
        };
        self.step(input);
        self.next_job(sink);
    }

    fn next_job(&mut self, sink: usize) {
        if !self.writers[sink].jobs.is_empty() {
            self.begin_job(sink);
        }
    }
}
