//! Fresh reads: FETCH of a sink (points or a block of one device, read as one unit, one time stamp, all or an error), and
//! `read` and `browse` of an operator. Nothing is asked of a device that is not online.

use busbar_contract::{
    Request,
    event::{Fetch as FetchBody, Page},
    request::{AnswerTo, BlockRead, Browse},
};

use crate::{
    Core, Output,
    arena::{DeviceId, GroupId, Id, PointId, SinkId},
    input::Reading,
    output::Reply,
    request::GRACE_NS,
    state::{Asker, Fetch, Outcome, Work},
    time::{MS, SECOND, ms},
    timers::Timer,
};

/// Fresh reads and browses that may run at once (G9).
const MAX_FETCHES: usize = 64;
/// Longest time an asker may give.
const MAX_SPAN_NS: u64 = 600 * SECOND;
/// Time given where the asker names none.
const DEFAULT_SPAN_NS: u64 = 10 * SECOND;
/// Entries of one browse that are passed on (G9).
const MAX_BROWSE_ENTRIES: usize = 100_000;

impl Core {
    pub(crate) fn sink_fetch(&mut self, sink: SinkId, instance: u64, request: u64, fetch: &FetchBody) {
        let asker = Asker::Sink { sink, instance, request };
        match self.fetch_points(sink, fetch) {
            Ok((device, points)) => {
                let work = Work::Fetch;
                self.begin_fetch(asker, device, points, Vec::new(), fetch.deadline_ms, Vec::new(), work);
            }
            Err(reason) => self.reply_failed(&asker, &reason),
        }
    }

    fn fetch_points(&self, sink: SinkId, fetch: &FetchBody) -> Result<(DeviceId, Vec<PointId>), String> {
        let points: Vec<PointId> = match &fetch.block {
            Some(name) => {
                let (device, index) =
                    self.block_named(name).ok_or_else(|| format!("no block named {name}"))?;
                let block = self.block(device, index).ok_or("no such block")?;
                self.check_gate(device, block).map_err(|(_, text)| text)?;
                block.points.iter().map(|index| self.index_point(device, *index)).collect()
            }
            None => fetch.points.iter().filter_map(|number| self.points.find(*number)).collect(),
        };
        if points.is_empty() || (fetch.block.is_none() && points.len() != fetch.points.len()) {
            return Err("the fetch names no point, or one that does not exist".into());
        }
        if points.iter().any(|point| !self.sinks[sink].slot_of.contains_key(&point.number())) {
            return Err("the fetch names a point that is not routed to this sink".into());
        }
        let device = self
            .points
            .find(points.first().map_or(0, |point| point.number()))
            .and_then(|id| self.points[id].device);
        let device = device.ok_or("a system point cannot be fetched")?;
        if points.iter().any(|point| self.points[*point].device != Some(device)) {
            return Err("one fetch reads the points of one device: one time stamp".into());
        }
        Ok((device, points))
    }

    pub(crate) fn operator_read(&mut self, id: u64, device: &str, points: &[String], deadline_ms: u64) {
        let asker = Asker::Operator { id };
        let Some(device_id) = self.device_named(device) else {
            return self.reply_failed(&asker, &format!("no device named {device}"));
        };
        let mut wanted = Vec::new();
        for name in points {
            match self.named(&format!("{device}/{name}")) {
                Some(point)
                    if self.points[point].device == Some(device_id) && self.points[point].group.is_some() =>
                {
                    wanted.push(point);
                }
                _ => return self.reply_failed(&asker, &format!("device {device} has no point named {name}")),
            }
        }
        if points.is_empty() {
            wanted = self.point_ids(device_id).collect();
        }
        let mut groups: Vec<GroupId> = wanted.iter().filter_map(|point| self.points[*point].group).collect();
        groups.sort_unstable();
        groups.dedup();
        let work = Work::Fetch;
        self.begin_fetch(asker, device_id, wanted, groups, deadline_ms, Vec::new(), work);
    }

    pub(crate) fn operator_browse(
        &mut self,
        id: u64,
        device: &str,
        arguments: Vec<String>,
        deadline_ms: u64,
    ) {
        let asker = Asker::Operator { id };
        let Some(device_id) = self.device_named(device) else {
            return self.reply_failed(&asker, &format!("no device named {device}"));
        };
        self.begin_fetch(asker, device_id, Vec::new(), Vec::new(), deadline_ms, arguments, Work::Browse);
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a fresh read")]
    fn begin_fetch(
        &mut self,
        asker: Asker,
        device: DeviceId,
        points: Vec<PointId>,
        groups: Vec<GroupId>,
        deadline_ms: u64,
        arguments: Vec<String>,
        work: fn(u64) -> Work,
    ) {
        if self.fetches.len() >= MAX_FETCHES {
            return self.reply_failed(&asker, "too many fresh reads are running");
        }
        let refused = self.check_handover(Some(device)).and_then(|()| self.check_device(device));
        if let Err((_, text)) = refused {
            let text = if text.is_empty() { "it is not connected".to_owned() } else { text };
            return self.reply_failed(&asker, &format!("the device is not online: {text}"));
        }
        let span_ns = match deadline_ms {
            0 => DEFAULT_SPAN_NS,
            given => given.saturating_mul(MS).min(MAX_SPAN_NS),
        };
        let id = self.next_command;
        self.next_command += 1;
        let deadline_ns = self.now.mono_ns + span_ns;
        self.timers.arm(deadline_ns + GRACE_NS, Timer::Fetch(id));
        let by_groups = groups.clone();
        let fetch = Fetch { asker, device, points, groups, deadline_ns, arguments, entries: 0 };
        self.fetches.insert(id, fetch);
        if by_groups.is_empty() {
            return self.ask(device, work(id));
        }
        for group in by_groups {
            self.read_now(group);
        }
    }

    pub(crate) fn fetch_body(&self, id: u64) -> Option<(Request, u64)> {
        let fetch = self.fetches.get(&id).filter(|fetch| fetch.deadline_ns > self.now.mono_ns)?;
        let body = BlockRead {
            device: fetch.device.number(),
            points: fetch.points.iter().map(|point| point.number()).collect(),
            deadline_ms: ms(fetch.deadline_ns - self.now.mono_ns),
        };
        Some((Request::BlockRead(body), fetch.deadline_ns))
    }

    pub(crate) fn browse_body(&self, id: u64) -> Option<(Request, u64)> {
        let fetch = self.fetches.get(&id).filter(|fetch| fetch.deadline_ns > self.now.mono_ns)?;
        let body = Browse {
            device: fetch.device.number(),
            arguments: fetch.arguments.clone(),
            deadline_ms: ms(fetch.deadline_ns - self.now.mono_ns),
        };
        Some((Request::Browse(body), fetch.deadline_ns))
    }

    /// A block read came to its end: all points, or an error.
    pub(crate) fn fetch_finished(&mut self, id: u64, outcome: Outcome) {
        let Some(fetch) = self.fetches.get(&id) else { return };
        let (device, points) = (fetch.device, fetch.points.clone());
        match outcome {
            Outcome::Samples | Outcome::Done(_) => {
                let last = points.iter().map(|point| self.points[*point].request).max().unwrap_or(0);
                let whole = last != 0 && points.iter().all(|point| self.points[*point].request == last);
                if whole {
                    self.exchanged(device);
                    self.fetch_done(id);
                } else {
                    self.fetch_failed(id, "the answer does not hold every point");
                }
            }
            Outcome::NotTaken { .. } => self.fetch_failed(id, "the driver did not take the request"),
            Outcome::Failed(failure) => {
                self.fetch_failed(id, &failure.text);
                use busbar_contract::FailureKind as Kind;
                if matches!(failure.kind, Kind::Session | Kind::NoAnswer | Kind::Deadline | Kind::Bug) {
                    self.consequence(device, failure.kind, &failure.text);
                }
            }
        }
    }

    /// A group was read: operators who wait for it are a step further.
    pub(crate) fn fetch_group_read(&mut self, device: DeviceId, group: GroupId) {
        if self.fetches.is_empty() {
            return;
        }
        let mut done = Vec::new();
        for (id, fetch) in &mut self.fetches {
            // A read that ran when the operator asked does not count: it may be older than the question.
            if fetch.device == device && !fetch.groups.is_empty() && !self.groups[group].again {
                fetch.groups.retain(|other| *other != group);
                if fetch.groups.is_empty() {
                    done.push(*id);
                }
            }
        }
        for id in done {
            self.fetch_done(id);
        }
    }

    fn fetch_done(&mut self, id: u64) {
        let Some(fetch) = self.fetches.remove(&id) else { return };
        match &fetch.asker {
            Asker::Operator { id } => {
                let readings = fetch.points.iter().map(|point| self.reading(*point)).collect();
                self.out.push(Output::Reply { id: *id, reply: Reply::Readings(readings) });
            }
            Asker::Sink { instance, request, .. } => {
                let values = fetch
                    .points
                    .iter()
                    .map(|id| {
                        let point = &self.points[*id];
                        (id.number(), point.shown().value(), point.quality())
                    })
                    .collect();
                let ts_ns = fetch
                    .points
                    .iter()
                    .map(|point| self.points[*point].ts_ns)
                    .max()
                    .unwrap_or(self.now.wall_ns);
                self.tell(*instance, *request, Request::Answer(AnswerTo::Fetch { ts_ns, values }));
            }
        }
    }

    fn reading(&self, id: PointId) -> Reading {
        let view = self.view_of(id);
        Reading {
            point: self.full_name(id),
            value: view.value,
            quality: view.quality,
            ts_ns: view.ts_ns,
            gateway_time: view.gateway_time,
            unit: view.unit.to_owned(),
        }
    }

    pub(crate) fn fetch_failed(&mut self, id: u64, reason: &str) {
        if let Some(fetch) = self.fetches.remove(&id) {
            self.reply_failed(&fetch.asker, reason);
        }
    }

    fn reply_failed(&mut self, asker: &Asker, reason: &str) {
        match asker {
            Asker::Operator { id } => {
                self.out.push(Output::Reply { id: *id, reply: Reply::Failed(reason.to_owned()) });
            }
            Asker::Sink { instance, request, .. } => {
                let answer = AnswerTo::FetchFailed { reason: reason.to_owned() };
                self.tell(*instance, *request, Request::Answer(answer));
            }
        }
    }

    pub(crate) fn fetch_timer(&mut self, id: u64) {
        self.fetch_failed(id, "no answer before the deadline");
    }

    pub(crate) fn end_fetches_of(&mut self, device: DeviceId) {
        let ids: Vec<u64> =
            self.fetches.iter().filter(|(_, fetch)| fetch.device == device).map(|(id, _)| *id).collect();
        for id in ids {
            self.fetch_failed(id, "the device was lost");
        }
    }

    pub(crate) fn browse_page(&mut self, instance: u64, request: u64, page: Page) {
        let pending = self.requests.get(&request).filter(|pending| pending.instance == instance);
        let Some(Work::Browse(id)) = pending.map(|pending| pending.work.clone()) else {
            self.oddities.unexpected += 1;
            return;
        };
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        let room = MAX_BROWSE_ENTRIES.saturating_sub(fetch.entries);
        let mut entries = page.entries;
        entries.truncate(room);
        fetch.entries += entries.len();
        if let (Asker::Operator { id }, false) = (&fetch.asker, entries.is_empty()) {
            self.out.push(Output::Reply { id: *id, reply: Reply::Page(entries) });
        }
    }

    pub(crate) fn browse_finished(&mut self, id: u64, outcome: Outcome) {
        match outcome {
            Outcome::Done(_) | Outcome::Samples => {
                if let Some(fetch) = self.fetches.remove(&id)
                    && let Asker::Operator { id } = fetch.asker
                {
                    self.out.push(Output::Reply { id, reply: Reply::Done });
                }
            }
            Outcome::NotTaken { .. } => self.fetch_failed(id, "the driver did not take the request"),
            Outcome::Failed(failure) => self.fetch_failed(id, &failure.text),
        }
    }
}
