//! Reads a set of points: planned requests through a session, values out, refusals learned.
//!
//! Planning happens once and again only when a refusal taught something; a poll then costs one exchange per
//! block and no allocation per point. A block that fails spoils exactly its own points. Where the device
//! refuses a merged block (exceptions 2 and 3) its points are read singly in the same poll, so that no poll
//! goes by without them, and the plan avoids that block from then on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::{Answer, Call};
use crate::error::{Consequence, Error};
use crate::plan::{Block, Lessons, Limits, Want, plan};
use crate::session::Session;
use crate::value::{Field, Value};

/// A point the device refused by itself is asked again after this time, and with every resync.
pub const REFUSED_FOR: Duration = Duration::from_secs(600);
/// Broken answers in one poll after which the rest of it is given up: each costs a new connection.
const MAX_NONSENSE: u32 = 3;

/// The points of one unit that are read together.
#[derive(Debug)]
pub struct Poller {
    unit: u8,
    fields: Vec<Field>,
    wants: Vec<Want>,
    limits: Limits,
    lessons: Lessons,
    /// Shared, so that a read that is dropped half way leaves the plan behind.
    blocks: Arc<[Block]>,
    planned: u64,
    /// Until when a refused point is not asked again, and what the device said.
    refused: Vec<Option<(Instant, Error)>>,
}

/// Takes what a poll finds.
pub trait Receive: Send {
    /// An answer arrived just now; the values that follow come from it.
    fn answered(&mut self) {}

    /// What became of one point: its index in the order of [`Poller::new`], and a value or the reason why not.
    fn point(&mut self, index: usize, value: Result<Value, &Error>);
}

impl<F: FnMut(usize, Result<Value, &Error>) + Send> Receive for F {
    fn point(&mut self, index: usize, value: Result<Value, &Error>) {
        self(index, value);
    }
}

impl Poller {
    /// Plans the reading of `fields` from one unit.
    #[must_use]
    pub fn new(unit: u8, fields: Vec<Field>, limits: Limits) -> Self {
        let wants: Vec<Want> =
            fields.iter().map(|field| Want { address: field.address, count: field.count }).collect();
        let lessons = Lessons::default();
        let blocks = plan(&wants, &limits, &lessons).into();
        let refused = fields.iter().map(|_| None).collect();
        Self { unit, fields, wants, limits, planned: lessons.version(), lessons, blocks, refused }
    }

    /// Requests one poll needs when nothing is refused.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.blocks.len()
    }

    /// The planned requests.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What the device's refusals taught.
    #[must_use]
    pub const fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    /// The unit asked.
    #[must_use]
    pub const fn unit(&self) -> u8 {
        self.unit
    }

    /// Asks refused points again with the next poll.
    pub fn forget_refusals(&mut self) {
        self.refused.iter_mut().for_each(|refused| *refused = None);
    }

    /// Reads every point once.
    ///
    /// # Errors
    /// Only where the rest of the device cannot be read either: no answer, or no connection. Refusals and
    /// broken answers go to the points they concern.
    pub async fn read(&mut self, session: &mut Session, receive: &mut impl Receive) -> Result<(), Error> {
        let blocks = Arc::clone(&self.blocks);
        let result = self.read_blocks(&blocks, session, receive).await;
        if self.lessons.version() != self.planned {
            self.blocks = plan(&self.wants, &self.limits, &self.lessons).into();
            self.planned = self.lessons.version();
        }
        result
    }

    async fn read_blocks(
        &mut self,
        blocks: &[Block],
        session: &mut Session,
        receive: &mut impl Receive,
    ) -> Result<(), Error> {
        let mut nonsense = 0;
        for block in blocks {
            if self.is_refused(block, receive) {
                continue;
            }
            match self.request(session, block.address, block.count).await {
                Ok(answer) => self.decode(block, &answer, receive),
                Err(error) => match error.consequence() {
                    Consequence::PointsOnly if may_be_split(&error, block) => {
                        self.read_singly(block, session, receive).await?;
                    }
                    Consequence::PointsOnly => {
                        nonsense += u32::from(matches!(error, Error::Nonsense { .. }));
                        if nonsense >= MAX_NONSENSE {
                            return Err(error);
                        }
                        self.spoil(block, &error, receive);
                    }
                    Consequence::DeviceSilent | Consequence::SessionOver | Consequence::NotSent => {
                        return Err(error);
                    }
                },
            }
        }
        Ok(())
    }

    async fn request(&self, session: &mut Session, at: crate::Address, count: u16) -> Result<Answer, Error> {
        session.call(self.unit, &Call::Read { table: at.table, start: at.offset, count }).await
    }

    /// Reads the points of a refused block one by one and learns which of them, or which gap, was the reason.
    async fn read_singly(
        &mut self,
        block: &Block,
        session: &mut Session,
        receive: &mut impl Receive,
    ) -> Result<(), Error> {
        let mut seen: Vec<(Want, bool)> = Vec::with_capacity(block.members.len());
        let mut last: Option<(Want, Result<Answer, Error>)> = None;
        for member in &block.members {
            let Some(want) = self.wants.get(*member as usize).copied() else { continue };
            // Members are sorted, so points on the same registers follow each other and share the request.
            let result = match last.take() {
                Some((before, result)) if before == want => result,
                _ => self.request(session, want.address, want.count).await,
            };
            let single = Block { address: want.address, count: want.count, members: vec![*member] };
            match &result {
                Ok(answer) => self.decode(&single, answer, receive),
                Err(error) if error.consequence() == Consequence::PointsOnly => {
                    self.spoil(&single, error, receive)
                }
                Err(error) => return Err(error.clone()),
            }
            let refused =
                matches!(&result, Err(Error::Refused { exception, .. }) if exception.is_permanent());
            seen.push((want, !refused));
            last = Some((want, result));
        }
        seen.dedup();
        let before = self.lessons.version();
        self.lessons.block_refused(&seen);
        if self.lessons.version() == before {
            return Ok(());
        }
        tracing::info!(
            unit = self.unit, start = %block.address, count = block.count, places = self.lessons.len(),
            "the device refused a block; its points were read singly and the plan avoids it from now on"
        );
        Ok(())
    }

    fn is_refused(&self, block: &Block, receive: &mut impl Receive) -> bool {
        let [member] = block.members.as_slice() else { return false };
        match self.refused.get(*member as usize) {
            Some(Some((until, error))) if Instant::now() < *until => {
                receive.point(*member as usize, Err(error));
                true
            }
            _ => false,
        }
    }

    fn decode(&mut self, block: &Block, answer: &Answer, receive: &mut impl Receive) {
        receive.answered();
        for member in &block.members {
            let index = *member as usize;
            let Some(field) = self.fields.get(index) else { continue };
            let start = usize::from(field.address.offset.saturating_sub(block.address.offset));
            let value = match answer {
                Answer::Words(words) => words
                    .get(start..start + usize::from(field.count))
                    .and_then(|words| field.decode_words(words)),
                Answer::Bits(bits) => bits.get(start).map(|bit| field.decode_bit(*bit)),
                Answer::Written => None,
            };
            match value {
                Some(value) => receive.point(index, Ok(value)),
                None => receive
                    .point(index, Err(&Error::NotSent("the plan does not cover this point".to_owned()))),
            }
            if let Some(refused) = self.refused.get_mut(index).filter(|refused| refused.is_some()) {
                *refused = None;
                if let Some(want) = self.wants.get(index) {
                    self.lessons.accept(want);
                }
            }
        }
    }

    fn spoil(&mut self, block: &Block, error: &Error, receive: &mut impl Receive) {
        for member in &block.members {
            let index = *member as usize;
            receive.point(index, Err(error));
            let permanent = matches!(error, Error::Refused { exception, .. } if exception.is_permanent());
            if permanent
                && block.members.len() == 1
                && let Some(refused) = self.refused.get_mut(index)
            {
                *refused = Some((Instant::now() + REFUSED_FOR, error.clone()));
            }
        }
    }
}

fn may_be_split(error: &Error, block: &Block) -> bool {
    block.members.len() > 1 && matches!(error, Error::Refused { exception, .. } if exception.may_be_a_hole())
}
