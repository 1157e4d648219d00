//! Records made from the table: the snapshot after a connect, and the latest state after a replay.
//!
//! Without a queue on disk they are ordinary numbered records, made at once: for a sink that is not durable in place of
//! the states it missed, for a durable one behind its backlog.
//!
//! With a queue on disk they are transient: they have numbers, but they are in no ledger and never written, because a
//! restart makes them anew; so the equation of the ledger never speaks of a record that a crash takes away. The snapshot
//! comes when nothing is missing in memory any more, that is behind the backlog (with `live-first`: at once, as live), in
//! parts that leave room in the window. It leaves out points of which a live record was or will be delivered on this
//! connection anyway. The end of the connection voids what is left of it.

use busbar_contract::{Cause, batch};

use crate::{
    Core,
    arena::{Id, SinkId},
    route::Outgoing,
    sink::{Lasting, Sink},
    timers::Timer,
};

/// Most records of an image that are made at once.
const MAX_PART: usize = 5_000;

impl Core {
    pub(crate) fn arm_interval(&mut self, sink: SinkId) {
        if let Some(every) = self.sinks[sink].feed.interval_ns().filter(|_| !self.sinks[sink].gone) {
            self.sinks[sink].interval_ns = self.timers.arm(self.now.mono_ns + every, Timer::Interval(sink));
        }
    }

    /// `send = "interval"`: the latest of each point that changed meanwhile.
    pub(crate) fn interval_timer(&mut self, sink: SinkId) {
        if self.sinks[sink].interval_ns > self.now.mono_ns {
            return;
        }
        for slot in self.sinks[sink].feed.take_due() {
            let routed = self.sinks[sink].routed.get(slot as usize);
            if let Some(routed) = routed.filter(|routed| routed.lasting == Lasting::Live) {
                let point = routed.point;
                let device = self.points[point].device.map_or(u32::MAX, Id::number);
                let out = Outgoing::from_point(point, &self.points[point], Cause::Poll, false, 0, 0);
                self.sinks[sink].accept(slot, &out, device, self.now);
            }
        }
        self.sinks[sink].queue.end_of_poll();
        self.mark_sink(sink);
        self.arm_interval(sink);
    }

    /// The far side is up: it gets the image.
    pub(crate) fn begin_image(&mut self, sink: SinkId) {
        let state = &mut self.sinks[sink];
        let due = std::mem::replace(&mut state.snapshot_due, false);
        if state.journal.is_some() {
            state.image_at = due.then_some(0);
            return;
        }
        if !due {
            return self.send_echoes(sink);
        }
        state.echo.clear();
        for slot in 0..self.sinks[sink].routed.len() as u32 {
            self.send_state(sink, slot, batch::SNAPSHOT as u8);
        }
        self.sinks[sink].queue.end_of_poll();
    }

    /// With a queue on disk: the next part of the image, or the latest states, if it is their turn and there is room.
    pub(crate) fn next_part(&mut self, sink: SinkId) {
        let state = &mut self.sinks[sink];
        let room = state.room_for_images();
        if room == 0 {
            return;
        }
        if let Some(at) = state.image_at {
            if at == 0 && state.queue.live_from() == u64::MAX {
                // It comes last. Beside a backlog it does not.
                state.echo.clear();
            }
            let end = at.saturating_add(room as u32).min(state.routed.len() as u32);
            state.image_at = (end < state.routed.len() as u32).then_some(end);
            for slot in at..end {
                if !self.sinks[sink].tells_by_itself(slot) {
                    self.send_state(sink, slot, batch::SNAPSHOT as u8);
                }
            }
            self.sinks[sink].queue.end_of_poll();
        } else if self.sinks[sink].is_replayed() {
            self.send_some_echoes(sink, room);
        }
    }

    /// After a replay the latest state of each point is sent last (SEMANTICS 8).
    pub(crate) fn send_echoes(&mut self, sink: SinkId) {
        if self.sinks[sink].journal.is_none() {
            self.send_some_echoes(sink, usize::MAX);
        }
    }

    fn send_some_echoes(&mut self, sink: SinkId, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.sinks[sink].echo.pop_first() else { break };
            self.send_state(sink, slot, 0);
        }
        self.sinks[sink].queue.end_of_poll();
    }

    /// What the table shows of one point, as a record.
    pub(crate) fn send_state(&mut self, sink: SinkId, slot: u32, flags: u8) {
        let routed = self.sinks[sink].routed.get(slot as usize);
        let Some(point) = routed.filter(|routed| routed.lasting == Lasting::Live).map(|routed| routed.point)
        else {
            return;
        };
        let device = self.points[point].device.map_or(u32::MAX, Id::number);
        let out = Outgoing::from_point(point, &self.points[point], Cause::Integrity, false, flags, 0);
        let state = &mut self.sinks[sink];
        if state.journal.is_some() {
            state.push_transient(slot, &out, device, self.now);
        } else {
            state.accept(slot, &out, device, self.now);
        }
    }
}

impl Sink {
    /// Records of an image that may be made now.
    fn room_for_images(&self) -> usize {
        let waits = self.image_at.is_some() || !self.echo.is_empty();
        let ready = self.journal.as_ref().is_some_and(|journal| journal.is_ready());
        if !ready || !self.is_up() || !waits {
            return 0;
        }
        let half = (self.limits.window / 2).max(1);
        let live = self.queue.live_from() != u64::MAX;
        let room = if live {
            half.saturating_sub(self.queue.live_len())
        } else if self.queue.is_whole() {
            half.saturating_sub(self.queue.pending())
        } else {
            0
        };
        room.min(MAX_PART)
    }

    /// A live record of the point was or will be delivered on this connection: an image would say it twice.
    fn tells_by_itself(&self, slot: u32) -> bool {
        self.newest.get(slot as usize).is_some_and(|newest| *newest >= self.queue.replay_below())
    }

    /// A part of an image, or a latest state, can be made now.
    pub(crate) fn has_part_due(&self) -> bool {
        self.room_for_images() > 0 && (self.image_at.is_some() || self.is_replayed())
    }

    /// No record of the backlog is left to be delivered.
    fn is_replayed(&self) -> bool {
        let live_from = self.queue.live_from();
        self.is_whole()
            && (live_from == u64::MAX || self.queue.oldest().is_none_or(|(number, _)| number >= live_from))
    }
}
