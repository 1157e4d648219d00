//! Taking a control block: read it, read its data set, reserve, set, resume, enable, check, interrogate.
//!
//! Every attribute is a write of its own, because a device may refuse one (fixed by engineering) and take the
//! others. What decides is not what it accepted but what the block says afterwards: enabled, with data change or
//! update among its triggers, with its data set unchanged. On failure the block is given back.

use iec61850_rs::proto::data::Value;

use super::block::{Availability, Block};
use crate::error::{Consequence, Error};
use crate::kind::Kind;
use crate::name::Name;
use crate::report::{OptFlds, TrgOps};
use crate::request::{Answer, Request};

/// Where a buffered block goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// With everything in its buffer.
    Buffered,
    /// After this entry.
    After(Vec<u8>),
    /// With what is new: the buffer is purged.
    Purge,
}

/// How a block is to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// `IntgPd` in ms; 0 for none.
    pub integrity_ms: u32,
    /// `BufTm` in ms, where it is to be changed.
    pub buffer_ms: Option<u32>,
    /// Seconds for which a buffered block of edition 2 stays ours after the association is lost.
    pub reserve_seconds: i64,
    /// Report updates too (`dupd`).
    pub data_update: bool,
    /// Where a buffered block goes on.
    pub resume: Resume,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            integrity_ms: 60_000,
            buffer_ms: None,
            reserve_seconds: 60,
            data_update: true,
            resume: Resume::Buffered,
        }
    }
}

impl Wishes {
    fn triggers(&self) -> TrgOps {
        TrgOps::NONE
            .with_data_change(true)
            .with_quality_change(true)
            .with_data_update(self.data_update)
            .with_integrity(self.integrity_ms > 0)
            .with_general_interrogation(true)
    }

    fn options(buffered: bool) -> OptFlds {
        OptFlds::NONE
            .with_sequence_number(true)
            .with_report_time_stamp(true)
            .with_reason_for_inclusion(true)
            .with_data_set_name(true)
            .with_buffer_overflow(buffered)
            .with_entry_id(buffered)
            .with_conf_revision(true)
            .with_segmentation(true)
    }
}

/// A block that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The block, as it says it is now.
    pub block: Block,
    /// Members of its data set.
    pub members: Vec<Option<Name>>,
    /// Its buffer goes on after the entry asked for; `None` where none was asked for.
    pub resumed: Option<bool>,
    /// It was interrogated; otherwise its points must be read once.
    pub interrogated: bool,
    /// Attributes the device did not let us set.
    pub refused: Vec<&'static str>,
}

impl Subscription {
    /// Asks for all values.
    #[must_use]
    pub fn interrogate(&self) -> Request {
        write(&self.block, "GI", Value::Boolean(true))
    }

    /// Asks whether the block is still enabled.
    #[must_use]
    pub fn probe(&self) -> Request {
        Request::Read(vec![self.block.name.child("RptEna")])
    }

    /// Reads the answer to [`Self::probe`].
    #[must_use]
    pub fn lives(answer: &Answer) -> bool {
        matches!(answer, Answer::Values(values) if matches!(values[..], [Ok(Value::Boolean(true))]))
    }

    /// Gives the block back; the answers say nothing that matters.
    #[must_use]
    pub fn release(&self) -> Vec<Request> {
        release(&self.block)
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The block is ours.
    Subscribed(Box<Subscription>),
    /// Another client has it: try the next.
    Busy,
    /// It cannot be used; the reason.
    Unusable(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Members,
    Write(&'static str),
    Check,
    Interrogate,
    Release,
}

/// Takes one block. One request at a time.
#[derive(Debug)]
pub struct Subscribe {
    name: Name,
    kind: Kind,
    wishes: Wishes,
    step: Step,
    block: Option<Block>,
    members: Vec<Option<Name>>,
    /// Attributes still to write, the last first.
    writes: Vec<(&'static str, Value)>,
    releases: Vec<Request>,
    refused: Vec<&'static str>,
    resumed: Option<bool>,
    ended: Option<Outcome>,
}

impl Subscribe {
    /// For the block `name` of the type `kind`.
    #[must_use]
    pub fn new(name: Name, kind: Kind, wishes: Wishes) -> Self {
        Self {
            name,
            kind,
            wishes,
            step: Step::Read,
            block: None,
            members: Vec::new(),
            writes: Vec::new(),
            releases: Vec::new(),
            refused: Vec::new(),
            resumed: None,
            ended: None,
        }
    }

    /// The request to make now. Its answer goes to [`Self::answer`].
    #[must_use]
    pub fn request(&self) -> Request {
        let block = Request::Read(vec![self.name.clone()]);
        match (self.step, &self.block) {
            (Step::Members, Some(Block { data_set: Some(set), .. })) => Request::DataSet(set.clone()),
            (Step::Write(attribute), Some(found)) => {
                let value = self.writes.last().map_or(Value::Boolean(true), |(_, value)| value.clone());
                write(found, attribute, value)
            }
            (Step::Interrogate, Some(found)) => write(found, "GI", Value::Boolean(true)),
            (Step::Release, _) => self.releases.last().cloned().unwrap_or(block),
            _ => block,
        }
    }

    /// Takes the answer. The outcome, once there is one.
    ///
    /// # Errors
    /// What ends the session, or a silent device.
    pub fn answer(&mut self, outcome: Result<Answer, Error>) -> Result<Option<Outcome>, Error> {
        let answer = match outcome {
            Err(error) if error.consequence() != Consequence::RequestOnly => return Err(error),
            other => other,
        };
        match self.step {
            Step::Read => self.read(answer),
            Step::Members => match answer {
                Ok(Answer::Members(members)) => {
                    self.members = members;
                    self.plan();
                }
                other => self
                    .give_up(Outcome::Unusable(format!("its data set cannot be read: {}", reason(&other)))),
            },
            Step::Write(attribute) => self.written(attribute, answer),
            Step::Check => self.check(answer),
            Step::Interrogate => self.finish(accepted(&answer)),
            Step::Release => {
                self.releases.pop();
            }
        }
        if self.step == Step::Release && self.releases.is_empty() {
            return Ok(self.ended.take());
        }
        Ok(if self.step == Step::Release { None } else { self.ended.take() })
    }

    fn read(&mut self, answer: Result<Answer, Error>) {
        let Some(block) = self.parse(&answer) else {
            self.ended = Some(Outcome::Unusable(format!("it cannot be read: {}", reason(&answer))));
            return;
        };
        if block.availability() == Availability::Busy {
            self.ended = Some(Outcome::Busy);
        } else if block.data_set.is_none() {
            self.ended = Some(Outcome::Unusable("it has no data set".to_owned()));
        }
        self.block = Some(block);
        self.step = Step::Members;
    }

    fn parse(&self, answer: &Result<Answer, Error>) -> Option<Block> {
        let Ok(Answer::Values(values)) = answer else { return None };
        let [Ok(value)] = &values[..] else { return None };
        Block::read(&self.name, &self.kind, value)
    }

    /// Everything that is to be written, in order.
    fn plan(&mut self) {
        let Some(block) = &self.block else { return };
        let unsigned = |value: u32| Value::Unsigned(value.into());
        let mut writes = Vec::new();
        if block.buffered {
            writes.push(("ResvTms", Value::Integer(self.wishes.reserve_seconds)));
        } else {
            writes.push(("Resv", Value::Boolean(true)));
        }
        writes.push(("OptFlds", Wishes::options(block.buffered).to_value()));
        writes.push(("TrgOps", self.wishes.triggers().to_value()));
        writes.push(("IntgPd", unsigned(self.wishes.integrity_ms)));
        if let Some(ms) = self.wishes.buffer_ms {
            writes.push(("BufTm", unsigned(ms)));
        }
        if block.buffered {
            match &self.wishes.resume {
                Resume::Buffered => {}
                Resume::After(entry) => writes.push(("EntryID", Value::OctetString(entry.clone()))),
                Resume::Purge => writes.push(("PurgeBuf", Value::Boolean(true))),
            }
        }
        writes.push(("RptEna", Value::Boolean(true)));
        writes.retain(|(attribute, _)| block.has(attribute));
        writes.reverse();
        self.writes = writes;
        self.next_write();
    }

    fn next_write(&mut self) {
        self.step = self.writes.last().map_or(Step::Check, |(attribute, _)| Step::Write(attribute));
    }

    fn written(&mut self, attribute: &'static str, answer: Result<Answer, Error>) {
        let accepted = accepted(&answer);
        match attribute {
            "Resv" | "ResvTms" if !accepted => return self.give_up(Outcome::Busy),
            "RptEna" if !accepted => {
                let text = format!("the device does not enable it: {}", reason(&answer));
                return self.give_up(Outcome::Unusable(text));
            }
            "EntryID" => self.resumed = Some(accepted),
            _ if !accepted => self.refused.push(attribute),
            _ => {}
        }
        self.writes.pop();
        self.next_write();
    }

    fn check(&mut self, answer: Result<Answer, Error>) {
        let Some(now) = self.parse(&answer) else {
            let text = format!("it cannot be read back: {}", reason(&answer));
            return self.give_up(Outcome::Unusable(text));
        };
        let before = self.block.as_ref().and_then(|block| block.data_set.clone());
        if !now.enabled {
            self.give_up(Outcome::Unusable("it accepted to be enabled and is not".to_owned()));
        } else if now.data_set != before {
            self.give_up(Outcome::Unusable("its data set changed meanwhile".to_owned()));
        } else if !now.triggers.data_change() && !now.triggers.data_update() {
            self.give_up(Outcome::Unusable("its triggers are fixed without data change".to_owned()));
        } else {
            let interrogates = now.has("GI") && now.triggers.general_interrogation();
            self.block = Some(now);
            if interrogates {
                self.step = Step::Interrogate;
            } else {
                self.finish(false);
            }
        }
    }

    fn finish(&mut self, interrogated: bool) {
        let Some(block) = self.block.take() else { return };
        self.ended = Some(Outcome::Subscribed(Box::new(Subscription {
            block,
            members: std::mem::take(&mut self.members),
            resumed: self.resumed,
            interrogated,
            refused: std::mem::take(&mut self.refused),
        })));
    }

    /// Gives back what was taken, then ends with `outcome`.
    fn give_up(&mut self, outcome: Outcome) {
        self.ended = Some(outcome);
        let nothing_taken = matches!(self.step, Step::Members | Step::Write("Resv" | "ResvTms"));
        if let Some(block) = self.block.as_ref().filter(|_| !nothing_taken) {
            self.releases = release(block);
            self.releases.reverse();
            self.step = Step::Release;
        }
    }
}

fn write(block: &Block, attribute: &str, value: Value) -> Request {
    Request::Write(vec![(block.name.child(attribute), value)])
}

fn release(block: &Block) -> Vec<Request> {
    let mut requests = vec![write(block, "RptEna", Value::Boolean(false))];
    if block.has("Resv") {
        requests.push(write(block, "Resv", Value::Boolean(false)));
    }
    if block.buffered && block.has("ResvTms") {
        requests.push(write(block, "ResvTms", Value::Integer(0)));
    }
    requests
}

fn accepted(answer: &Result<Answer, Error>) -> bool {
    matches!(answer, Ok(Answer::Written(results)) if results.iter().all(Result::is_ok))
}

fn reason(answer: &Result<Answer, Error>) -> String {
    match answer {
        Err(error) => error.to_string(),
        Ok(Answer::Written(results)) => {
            results.iter().find_map(|result| result.err()).map_or_else(String::new, |e| e.to_string())
        }
        Ok(Answer::Values(values)) => values
            .iter()
            .find_map(|value| value.as_ref().err())
            .map_or_else(|| "it is no control block".to_owned(), ToString::to_string),
        Ok(_) => "an answer to another service".to_owned(),
    }
}
