//! Reading points that no report brings: one variable per data object, as many as fit one request.
//!
//! A value, its quality and its time come in one variable, so they belong together. A variable the device refuses
//! costs only its own points. A request that is refused or unreadable as a whole (some devices cannot answer so
//! much at once, some send one string that cannot be read) is halved until it is answered or stands alone; the
//! halves stay for the next rounds. At most [`Poll::requests`] requests per round, more only while it learns.

use std::collections::{BTreeMap, VecDeque};

use crate::error::{Consequence, Error};
use crate::name::Name;
use crate::point::{Point, Reading};
use crate::request::{Answer, Request};

/// Variables in one request, at most: the answer has to fit a PDU as well, and its size is not known before.
const MAX_VARIABLES: usize = 48;
/// Octets of a read request beside its variables, generously.
const REQUEST_HEADER: usize = 64;
/// Octets a variable needs beside its two names.
const VARIABLE_HEADER: usize = 20;

#[derive(Debug, Clone)]
struct Object {
    name: Name,
    points: Vec<(usize, Point)>,
}

/// What became of one point.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled {
    /// Read.
    Reading(Reading),
    /// The device refuses it; `permanent` where asking soon gives the same.
    Refused {
        /// Its reason.
        reason: String,
        /// The object is not there or not readable.
        permanent: bool,
    },
}

/// The points of one read, grouped.
#[derive(Debug, Clone)]
pub struct Poll {
    objects: Vec<Object>,
    /// Places in `objects`, request by request.
    batches: Vec<Vec<usize>>,
}

/// One round through a [`Poll`]. Requests may be under way at once, answers come in any order.
#[derive(Debug)]
pub struct Round<'a> {
    poll: &'a mut Poll,
    queue: VecDeque<Vec<usize>>,
    under_way: Vec<Vec<usize>>,
    settled: Vec<Vec<usize>>,
}

impl Poll {
    /// Groups the points (by number of the owner) for a device that takes PDUs of `max_pdu` octets.
    #[must_use]
    pub fn new(points: impl IntoIterator<Item = (usize, Point)>, max_pdu: usize) -> Self {
        let mut by_name: BTreeMap<Name, Vec<(usize, Point)>> = BTreeMap::new();
        for (number, point) in points {
            by_name.entry(point.object.clone()).or_default().push((number, point));
        }
        let objects: Vec<Object> =
            by_name.into_iter().map(|(name, points)| Object { name, points }).collect();
        let room = max_pdu.saturating_sub(REQUEST_HEADER);
        let (mut batches, mut batch, mut used) = (Vec::new(), Vec::new(), 0);
        for (place, object) in objects.iter().enumerate() {
            let size = object.name.domain.len() + object.name.item.len() + VARIABLE_HEADER;
            if !batch.is_empty() && (used + size > room || batch.len() >= MAX_VARIABLES) {
                batches.push(std::mem::take(&mut batch));
                used = 0;
            }
            batch.push(place);
            used += size;
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        Self { objects, batches }
    }

    /// Requests of one round.
    #[must_use]
    pub const fn requests(&self) -> usize {
        self.batches.len()
    }

    /// Begins a round. One that is not finished changes nothing.
    pub fn round(&mut self) -> Round<'_> {
        let queue = self.batches.iter().cloned().collect();
        Round { poll: self, queue, under_way: Vec::new(), settled: Vec::new() }
    }

    fn names(&self, batch: &[usize]) -> Vec<Name> {
        batch.iter().filter_map(|place| self.objects.get(*place)).map(|object| object.name.clone()).collect()
    }
}

impl Round<'_> {
    /// The next request, if one can be made now.
    pub fn next_request(&mut self) -> Option<Request> {
        let batch = self.queue.pop_front()?;
        let request = Request::Read(self.poll.names(&batch));
        self.under_way.push(batch);
        Some(request)
    }

    /// True when every point has been given.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    /// Takes the answer to a request made here; what became of its points, by number.
    ///
    /// # Errors
    /// What ends the session, or a silent device.
    pub fn answer(
        &mut self,
        request: &Request,
        outcome: Result<Answer, Error>,
    ) -> Result<Vec<(usize, Polled)>, Error> {
        let Request::Read(names) = request else { return Ok(Vec::new()) };
        let mine = self.under_way.iter().position(|batch| self.poll.names(batch) == *names);
        let Some(place) = mine else { return Ok(Vec::new()) };
        let batch = self.under_way.swap_remove(place);
        let given = match outcome {
            Ok(Answer::Values(values)) => self.read(&batch, values),
            Ok(_) => Vec::new(),
            Err(error) if error.consequence() != Consequence::RequestOnly => return Err(error),
            Err(_) if batch.len() > 1 => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.queue.push_front(second.to_vec());
                self.queue.push_front(first.to_vec());
                return Ok(Vec::new());
            }
            Err(error) => {
                let permanent = matches!(&error, Error::Refused { refusal, .. } if refusal.is_permanent());
                self.all(&batch, &Polled::Refused { reason: error.to_string(), permanent })
            }
        };
        self.settled.push(batch);
        if self.queue.is_empty() && self.under_way.is_empty() {
            self.poll.batches = std::mem::take(&mut self.settled);
        }
        Ok(given)
    }

    fn read(
        &self,
        batch: &[usize],
        values: Vec<Result<crate::request::Value, crate::error::AccessError>>,
    ) -> Vec<(usize, Polled)> {
        let mut given = Vec::new();
        for (place, value) in batch.iter().zip(values) {
            match value {
                Ok(value) => {
                    let points = self.poll.objects.get(*place).into_iter().flat_map(|object| &object.points);
                    given
                        .extend(points.map(|(number, point)| (*number, Polled::Reading(point.read(&value)))));
                }
                Err(error) => {
                    let refused =
                        Polled::Refused { reason: error.to_string(), permanent: error.is_permanent() };
                    given.extend(self.all(&[*place], &refused));
                }
            }
        }
        given
    }

    fn all(&self, batch: &[usize], polled: &Polled) -> Vec<(usize, Polled)> {
        batch
            .iter()
            .filter_map(|place| self.poll.objects.get(*place))
            .flat_map(|object| &object.points)
            .map(|(number, _)| (*number, polled.clone()))
            .collect()
    }
}
