//! Samples on their way into the table. A sample can reach only the points of the device it came from (G4): an answer
//! only the points it was asked for, an unsolicited sample only the points of devices of that instance with a session.
//! What does not fit is dropped and counted, and never stops what does.

use busbar_contract::{Cause, Flags, Kind, Quality, Sample, Validity, batch};

use crate::{
    Core,
    arena::{ChannelId, DeviceId, GroupId, PointId},
    convert::Converted,
    event::{Verdict, verdict},
    input::Push,
    output::LogLevel,
    route::Outgoing,
    state::{ChannelPhase, Owner, Phase, Work},
    table::{Blob, Cell, Overlay, Stamp},
    time::ns,
};

/// Flags of a batch that this version knows.
const KNOWN_FLAGS: u32 =
    batch::LAST | batch::BLOCK | batch::SNAPSHOT | batch::RESYNC | batch::REPLAY | batch::TIMES;

/// Which points a batch may name.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// The points of a group that was asked for.
    Group(DeviceId, GroupId),
    /// The points of a fresh read.
    Fetch(DeviceId, u64),
    /// Unsolicited: devices of the channel.
    Channel(ChannelId),
}

/// What holds for all samples of a batch.
#[derive(Debug, Clone, Copy)]
struct Context {
    scope: Scope,
    request: u64,
    /// The cause that the request implies.
    cause: Option<Cause>,
    commit: u32,
    block: bool,
}

impl Core {
    pub(crate) fn take_push(&mut self, push: Push) {
        let Some(Owner::Channel(channel)) = self.instances.get(&push.instance).map(|state| state.owner)
        else {
            self.oddities.late += 1;
            return;
        };
        // What an instance sends after it was asked to stop is late too.
        let stopping = self.channels[channel].phase == ChannelPhase::Stopping;
        if self.channels[channel].instance != push.instance || stopping {
            self.oddities.late += 1;
            return;
        }
        if push.flags & !KNOWN_FLAGS != 0 {
            let plugin = self.channels[channel].plugin;
            self.plugins[plugin].unknown_flags += 1;
        }
        match push.request {
            0 => self.take_unsolicited(channel, push),
            _ => self.take_answer(push),
        }
    }

    fn take_unsolicited(&mut self, channel: ChannelId, push: Push) {
        let commit = self.begin_commit(channel, &push);
        let block = push.flags & batch::BLOCK != 0;
        let context = Context { scope: Scope::Channel(channel), request: 0, cause: None, commit, block };
        self.take_samples(&push, context);
        self.commit_complete(commit);
    }

    fn take_answer(&mut self, push: Push) {
        let known = self.requests.get(&push.request).filter(|pending| pending.instance == push.instance);
        let Some(pending) = known else {
            self.oddities.unexpected += 1;
            return;
        };
        let (device, session) = (pending.device, pending.session);
        let scope = match (&pending.work, device) {
            // What an old group brings is late: its points are bound in another one.
            (Work::Read { group, .. }, _) if self.groups[*group].gone => None,
            (Work::Read { group, cause, .. }, Some(device)) => Some((Scope::Group(device, *group), *cause)),
            (Work::Fetch(fetch), Some(device)) => Some((Scope::Fetch(device, *fetch), Cause::Poll)),
            _ => None,
        };
        let current = device.is_some_and(|device| self.devices[device].session == session);
        if let Some((scope, cause)) = scope.filter(|_| current) {
            let block = push.flags & batch::BLOCK != 0;
            let context = Context { scope, request: push.request, cause: Some(cause), commit: 0, block };
            self.take_samples(&push, context);
        } else {
            self.oddities.late += 1;
        }
        if push.flags & batch::LAST != 0 {
            self.request_samples(push.instance, push.request);
        }
    }

    fn take_samples(&mut self, push: &Push, context: Context) {
        for sample in &push.samples.samples {
            match self.in_scope(sample.point, context.scope) {
                Some((device, point)) => self.take_sample(device, point, sample, &push.samples.blob, context),
                None => self.foreign_sample(context.scope),
            }
        }
        self.end_of_poll();
    }

    fn in_scope(&self, number: u32, scope: Scope) -> Option<(DeviceId, PointId)> {
        let id = self.points.find(number)?;
        let point = &self.points[id];
        let device = point.device?;
        let fits = match scope {
            Scope::Group(owner, group) => owner == device && point.group == Some(group),
            Scope::Fetch(owner, fetch) => {
                owner == device && self.fetches.get(&fetch).is_some_and(|fetch| fetch.points.contains(&id))
            }
            Scope::Channel(channel) => {
                let state = &self.devices[device];
                state.channel == Some(channel) && state.phase.has_session() && state.phase != Phase::Paused
            }
        };
        fits.then_some((device, id))
    }

    fn foreign_sample(&mut self, scope: Scope) {
        let device = match scope {
            Scope::Group(device, _) | Scope::Fetch(device, _) => Some(device),
            Scope::Channel(channel) => self.channels[channel].devices.first().copied(),
        };
        if let Some(device) = device {
            self.devices[device].counters.foreign_samples += 1;
        }
    }

    fn take_sample(&mut self, device: DeviceId, id: PointId, sample: &Sample, blob: &[u8], context: Context) {
        let converted = self.points[id].conversion.forward(sample.kind, sample.bits, blob);
        let cell_blob = converted.kind.in_blob().then(|| blob_of(sample.bits, blob)).flatten();
        let cell = Cell { kind: converted.kind, bits: converted.bits, blob: cell_blob };
        let flags = Flags(sample.flags);
        // What was asked for carries the cause it was asked with; a plugin cannot make host samples.
        let cause = match context.cause.unwrap_or(flags.cause()) {
            Cause::Host => Cause::Integrity,
            cause => cause,
        };
        let (ts_ns, marks) = self.source_time(device, sample.ts_ns, flags.with_cause(cause));
        let device_quality = Quality(sample.quality).normalised();
        let host = self.host_bits(&converted, marks, device_quality);
        if cause == Cause::History {
            return self.history(device, id, cell, ts_ns, marks, device_quality.worst(host), context.commit);
        }
        self.devices[device].counters.samples += 1;
        self.exchanged(device);
        let verdict = verdict(&self.points[id], cell.kind, ts_ns, Flags(marks).gateway_time(), cause);
        let event = verdict.is_event();
        match verdict {
            Verdict::LateState => {
                self.devices[device].counters.late_samples += 1;
                // The device is heard of, the value is not newer than what the table holds.
                self.points[id].refreshed_ns = self.now.mono_ns;
                self.points[id].request = context.request;
                self.fresh_again(id);
                return;
            }
            Verdict::LateEvent => {
                let out = Outgoing::late(
                    id,
                    &cell,
                    ts_ns,
                    marks,
                    cause,
                    device_quality.worst(host),
                    context.commit,
                );
                return self.emit(id, &out);
            }
            Verdict::State | Verdict::Event => {}
        }
        let was_lost = self.points[id].is_lost();
        self.store(id, sample.kind, cell, ts_ns, marks, device_quality, host);
        self.points[id].request = context.request;
        self.answered(id);
        self.emit_taken(id, cause, event, was_lost, context);
        if context.request == 0 {
            self.maybe_online(device);
        }
    }

    /// Passes on what the table took, unless an operator covers it.
    fn emit_taken(&mut self, id: PointId, cause: Cause, event: bool, was_lost: bool, context: Context) {
        let resync = cause == Cause::Resync;
        if self.points[id].overlay != Overlay::None {
            if resync || was_lost {
                self.emit_host(id);
            }
            return;
        }
        let flags =
            if resync { batch::RESYNC as u8 } else { 0 } | if context.block { batch::BLOCK as u8 } else { 0 };
        let out = Outgoing::from_point(id, &self.points[id], cause, event, flags, context.commit);
        self.emit(id, &out);
    }

    /// The table takes the sample.
    #[allow(clippy::too_many_arguments, reason = "the parts of one sample")]
    fn store(
        &mut self,
        id: PointId,
        raw_kind: u8,
        cell: Cell,
        ts_ns: i64,
        marks: u8,
        device_quality: Quality,
        host: Quality,
    ) {
        let point = &mut self.points[id];
        point.device_quality = device_quality;
        point.host_quality = host;
        point.refreshed_ns = self.now.mono_ns;
        point.ts_ns = ts_ns;
        if !Flags(marks).gateway_time() {
            point.source_ns = Some(ts_ns);
        }
        point.marks = marks;
        // A bad sample without a value keeps the last one and its time.
        if cell.kind == Kind::None && !device_quality.worst(host).is_good() {
            return;
        }
        point.raw_kind = Kind::from_code(raw_kind).filter(|kind| *kind != Kind::None).or(point.raw_kind);
        point.cell = cell;
        point.value_ts_ns = ts_ns;
    }

    /// The host's own bits for a sample that just came: recovery clears all others.
    fn host_bits(&self, converted: &Converted, marks: u8, device: Quality) -> Quality {
        let mut host = converted.quality;
        if converted.kind == Kind::None && device.is_good() {
            host = host.worst(crate::table::MISSING);
        }
        if Flags(marks).gateway_time() && !self.clock_synced {
            host = host.with(Quality::CLOCK_UNSYNCED);
        }
        host
    }

    /// Time of a sample: the source's, or the gateway's where that is configured, missing or too far off.
    fn source_time(&mut self, device: DeviceId, ts_ns: i64, flags: Flags) -> (i64, u8) {
        use crate::arena::Id;
        let wall_ns = self.now.wall_ns;
        let marks = flags.0 & !0b1000_0111;
        let gateway = (wall_ns, marks | Flags::GATEWAY_TIME);
        let Some(config) = self.site.devices.get(device.number() as usize) else { return gateway };
        if ts_ns == 0 || config.gateway_time {
            return gateway;
        }
        let Some(skew) = config.max_skew.filter(|_| flags.cause() != Cause::History) else {
            return (ts_ns, marks);
        };
        if wall_ns.abs_diff(ts_ns) <= ns(skew) {
            return (ts_ns, marks);
        }
        self.devices[device].counters.skewed_samples += 1;
        let name = config.name.clone();
        self.log(
            LogLevel::Warn,
            ("skew", u64::from(device.number())),
            vec![("device", name)],
            "the device's time is further off than max_skew; the gateway's time is used, check the device's clock",
        );
        gateway
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one sample")]
    fn history(
        &mut self,
        device: DeviceId,
        id: PointId,
        cell: Cell,
        ts_ns: i64,
        marks: u8,
        quality: Quality,
        commit: u32,
    ) {
        self.devices[device].counters.samples += 1;
        let out = Outgoing::history(id, &cell, ts_ns, marks, quality, commit);
        self.emit(id, &out);
    }

    /// A point was heard of without a new sample: `old_data` of the host goes.
    pub(crate) fn fresh_again(&mut self, id: PointId) {
        let point = &mut self.points[id];
        if !point.host_quality.contains(Quality::OLD_DATA) {
            return;
        }
        let quality = without_old_data(point.host_quality);
        if point.set_host(quality, Stamp::new(self.now.wall_ns, self.clock_synced)) {
            self.emit_host(id);
        }
    }

    /// The edge lost samples of this instance (R9): what its devices show may be incomplete.
    pub(crate) fn overrun(&mut self, instance: u64, samples: u64) {
        let Some(Owner::Channel(channel)) = self.instances.get(&instance).map(|state| state.owner) else {
            return;
        };
        for device in self.channels[channel].devices.clone() {
            let points = self.point_ids(device).collect();
            self.gap(device, points, &format!("{samples} samples were dropped because the host was busy"));
        }
    }

    pub(crate) fn take_gap(&mut self, channel: ChannelId, gap: &busbar_contract::event::Gap) {
        let Some(device) = self.device_of(channel, gap.device) else { return };
        let points = if gap.points.is_empty() {
            self.point_ids(device).collect()
        } else {
            gap.points.iter().filter_map(|number| self.point_of(device, *number)).collect()
        };
        self.gap(device, points, &gap.reason);
    }

    /// Samples were lost before they reached the table: its points are `questionable|inconsistent` until they are read
    /// again, which happens at once, and `DEVICE/@gap` says so.
    fn gap(&mut self, device: DeviceId, points: Vec<PointId>, reason: &str) {
        if !self.devices[device].phase.has_session() {
            return;
        }
        for id in &points {
            let point = &mut self.points[*id];
            if point.is_lost() || point.host_quality.contains(Quality::OPERATOR_BLOCKED) {
                continue;
            }
            let quality = point.host_quality.worst(crate::table::GAP);
            if point.set_host(quality, Stamp::new(self.now.wall_ns, self.clock_synced)) {
                self.emit_host(*id);
            }
        }
        self.end_of_poll();
        self.gap_event(device, reason);
        let mut groups: Vec<GroupId> = points.iter().filter_map(|id| self.points[*id].group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            self.read_now(group);
        }
    }
}

/// Host bits without `old_data`, with the validity that the others ask for.
fn without_old_data(host: Quality) -> Quality {
    let rest = host.without_detail(Quality::OLD_DATA);
    let validity = if rest.contains(Quality::FAILURE) {
        Validity::Invalid
    } else if rest.contains(Quality::OUT_OF_RANGE) || rest.contains(Quality::INCONSISTENT) {
        Validity::Questionable
    } else {
        Validity::Good
    };
    rest.with_validity(validity)
}

fn blob_of(bits: u64, blob: &[u8]) -> Blob {
    busbar_contract::value::slice(bits, blob).ok().map(Into::into)
}
