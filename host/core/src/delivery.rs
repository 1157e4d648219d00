//! Deliveries and confirmations. At most `queue.in_flight` records are on their way; each ends as delivered, parked or
//! dropped, or comes again: after the verdict `retry` (only its device waits), after a delivery that was not taken, after
//! a reconnect.

use busbar_contract::{
    Describe, batch,
    binary::{Ack, Verdict},
};

use crate::{
    Core, Output,
    arena::SinkId,
    backoff,
    books::Drop,
    model::Backoff,
    queue::{Delivery, Limits, Side},
    sink::Sink,
    time::SECOND,
    timers::Timer,
};

/// Deliveries of one sink per step (G5: one sink with a long backlog does not hold up the others).
const MAX_DELIVERIES: usize = 16;
/// With `replay_rate` a second's records of the backlog go out in about so many deliveries.
const PACED_PARTS: usize = 10;
/// Pause after a delivery that was not taken.
const NOT_TAKEN: Backoff =
    Backoff { initial: std::time::Duration::from_millis(50), max: std::time::Duration::from_secs(1) };

impl Core {
    /// Sends what may be sent.
    pub(crate) fn pump(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        self.sinks[sink].touched = false;
        self.next_part(sink);
        let state = &mut self.sinks[sink];
        let mut more = false;
        if state.may_deliver(now_ns) {
            let instance = state.instance;
            for turn in 0.. {
                let Some(delivery) = state.next_delivery(now_ns, turn) else { break };
                state.books.deliveries += 1;
                self.out.push(Output::Deliver {
                    instance,
                    lane: 0,
                    first: delivery.first,
                    flags: delivery.flags,
                    samples: delivery.samples,
                });
                if turn + 1 >= MAX_DELIVERIES {
                    more = true;
                    break;
                }
            }
        }
        self.tend(sink);
        self.settled_commits.append(&mut self.sinks[sink].ended_commits);
        if more {
            self.timers.arm(now_ns + 1, Timer::Retry(sink));
        }
    }

    pub(crate) fn take_acks(&mut self, sink: SinkId, lane: u32, acks: &[Ack]) {
        let now_ns = self.now.mono_ns;
        let plugin = self.sinks[sink].plugin;
        let describe = plugin.and_then(|plugin| self.plugins[plugin].describe.as_ref());
        let state = &mut self.sinks[sink];
        let delivered = state.books.delivered;
        let mut retry = Vec::new();
        for ack in acks {
            if lane != 0 {
                state.books.late_acks += u64::from(ack.count);
                continue;
            }
            state.take_ack(ack, describe, &mut retry);
        }
        if state.books.delivered > delivered {
            state.books.last_delivered_ns = now_ns;
        }
        self.hold_devices(sink, retry);
        self.send_echoes(sink);
        self.mark_sink(sink);
    }

    fn hold_devices(&mut self, sink: SinkId, devices: Vec<u32>) {
        for device in devices {
            let now_ns = self.now.mono_ns;
            let attempts = self.sinks[sink].held.get(&device).map_or(0, |(_, attempts)| *attempts);
            let retry = self.sinks[sink].limits.retry;
            let pause_ns = backoff::pause(&retry, attempts, &mut self.rng);
            let at = self.timers.arm(now_ns + pause_ns, Timer::Retry(sink));
            let state = &mut self.sinks[sink];
            let held = state.held.entry(device).or_insert((0, 0));
            if held.0 <= now_ns {
                *held = (at, attempts.saturating_add(1));
            }
        }
    }

    pub(crate) fn retry_timer(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        let state = &mut self.sinks[sink];
        for (until_ns, _) in state.held.values_mut() {
            if *until_ns <= now_ns {
                *until_ns = 0;
            }
        }
        state.queue.rewind();
        self.mark_sink(sink);
    }

    pub(crate) fn delivery_not_taken(&mut self, instance: u64, first: u64) {
        let sink =
            self.sinks.iter().find(|(_, sink)| sink.instance == instance && instance != 0).map(|(id, _)| id);
        let Some(sink) = sink else {
            self.oddities.late += 1;
            return;
        };
        let state = &mut self.sinks[sink];
        state.books.refused += 1;
        let first = state.journal.as_ref().map_or(first, |journal| journal.number_now(first));
        for (number, again) in state.queue.not_taken(first) {
            state.comes_again(number, &again);
        }
        let pause_ns = backoff::pause(&NOT_TAKEN, state.refusals, &mut self.rng);
        state.refusals = state.refusals.saturating_add(1);
        state.paused_until_ns = self.timers.arm(self.now.mono_ns + pause_ns, Timer::Retry(sink));
        self.send_echoes(sink);
    }

    /// Once a second: records older than `max_age` go. Those in a file are the file's.
    pub(crate) fn expire(&mut self, sink: SinkId) {
        if self.sinks[sink].journal.as_ref().is_some_and(|journal| journal.is_open()) {
            return;
        }
        let max_age_ns = crate::time::ns(self.sinks[sink].limits.max_age);
        let Some(limit) = self.now.mono_ns.checked_sub(max_age_ns) else { return };
        self.sinks[sink].expire(limit);
        self.mark_sink(sink);
    }

    /// The text of a reason number of a sink.
    pub(crate) fn reason_text(&self, sink: SinkId, reason: u16) -> String {
        let plugin = self.sinks[sink].plugin;
        reason_text(plugin.and_then(|plugin| self.plugins[plugin].describe.as_ref()), reason)
    }
}

fn reason_text(describe: Option<&Describe>, reason: u16) -> String {
    match describe.and_then(|describe| describe.reasons.get(usize::from(reason))) {
        Some(text) if !text.is_empty() => text.clone(),
        _ if reason == 0 => "rejected".to_owned(),
        _ => format!("reason {reason}"),
    }
}

impl Sink {
    /// The far side is up, the plugin knows all points, and it is known what waits.
    fn may_deliver(&self, now_ns: u64) -> bool {
        self.is_up()
            && !self.handover
            && self.announcing == 0
            && self.paused_until_ns <= now_ns
            && self.journal.as_ref().is_none_or(|journal| journal.is_ready())
    }

    fn next_delivery(&mut self, now_ns: u64, turn: usize) -> Option<Delivery> {
        let window = self.limits.in_flight.max(1);
        // Slots give up their records only when they can go out at once: until then the newest state wins.
        while self.slots.len() > 0 && self.queue.pending() < window {
            let Some(record) = self.slots.pop() else { break };
            self.enqueue_any(record);
        }
        let mut limits = Limits::window(window);
        if let Some(rate) = self.limits.replay_rate {
            limits.replay =
                if self.paced_until_ns > now_ns { 0 } else { (rate as usize / PACED_PARTS).max(1) };
        }
        let delivery = if self.queue.live_from() == u64::MAX {
            self.pick(Side::Older, limits)
        } else {
            limits.replay_window = (window / 2).max(1);
            let (one, other) =
                if turn.is_multiple_of(2) { (Side::Live, Side::Older) } else { (Side::Older, Side::Live) };
            self.pick(one, limits).or_else(|| self.pick(other, limits))
        }?;
        if let Some(rate) = self.limits.replay_rate
            && delivery.flags & batch::REPLAY != 0
        {
            let cost_ns = delivery.samples.samples.len() as u64 * SECOND / u64::from(rate.max(1));
            self.paced_until_ns = self.paced_until_ns.max(now_ns) + cost_ns;
        }
        Some(delivery)
    }

    fn pick(&mut self, side: Side, limits: Limits) -> Option<Delivery> {
        let held = &self.held;
        let aside = self.journal.as_ref().map(|journal| &journal.aside).filter(|aside| !aside.is_empty());
        if held.is_empty() && aside.is_none() {
            return self.queue.next_delivery(side, limits, |_, _| false);
        }
        self.queue.next_delivery(side, limits, |device, number| {
            held.get(&device).is_some_and(|(until, _)| *until > 0)
                || aside.and_then(|aside| aside.get(&device)).is_some_and(|from| number >= *from)
        })
    }

    fn take_ack(&mut self, ack: &Ack, describe: Option<&Describe>, retry: &mut Vec<u32>) {
        let first = self.journal.as_ref().map_or(ack.first, |journal| journal.number_now(ack.first));
        let end = first.saturating_add(u64::from(ack.count));
        let mut known = 0;
        let mut next = first;
        // Only numbers that are here are walked, whatever `count` says.
        while let Some(number) = self.queue.known_from(next, end) {
            next = number + 1;
            known += 1;
            match ack.verdict {
                Verdict::Retry => match self.queue.send_again(number) {
                    Some(again) => {
                        self.books.retries += 1;
                        if !self.comes_again(number, &again) && retry.last() != Some(&again.device) {
                            retry.push(again.device);
                        }
                    }
                    None => self.books.late_acks += 1,
                },
                Verdict::Delivered => self.take_delivered(number),
                Verdict::Rejected => self.take_rejected(number, ack.reason, describe),
            }
        }
        self.books.late_acks += u64::from(ack.count) - known;
    }

    fn take_delivered(&mut self, number: u64) {
        let Some(settled) = self.queue.settle(number) else {
            self.books.late_acks += 1;
            return;
        };
        self.refusals = 0;
        self.confirmed(number, &settled);
        if !settled.transient {
            self.books.delivered += 1;
            if let Some(journal) = &mut self.journal {
                journal.delivered(number);
            }
        }
        if !self.held.is_empty() && self.held.get(&settled.device).is_some_and(|(until, _)| *until == 0) {
            self.held.remove(&settled.device);
        }
        if settled.commit != 0 {
            self.ended_commits.push((settled.commit, true));
        }
    }

    fn take_rejected(&mut self, number: u64, reason: u16, describe: Option<&Describe>) {
        let Some((settled, record)) = self.queue.settle_and_take(number) else {
            self.books.late_acks += 1;
            return;
        };
        self.refusals = 0;
        self.confirmed(number, &settled);
        let Some(journal) = &mut self.journal else {
            self.books.park(reason);
            return self.lost(settled.point, settled.commit);
        };
        if settled.transient {
            return self.lost(settled.point, 0);
        }
        // It keeps its row: a token counts when that is on disk.
        let kept = journal.parked_as(number, record, &reason_text(describe, reason));
        self.lost(settled.point, if kept { 0 } else { settled.commit });
    }

    fn expire(&mut self, limit_ns: u64) {
        while let Some((number, at)) = self.queue.oldest()
            && at < limit_ns
        {
            self.give_up(number, Drop::Expired);
        }
        while self.slots.oldest_event().is_some_and(|at| at < limit_ns) {
            let Some(record) = self.slots.drop_oldest_event() else { return };
            self.books.dropped(Drop::Expired);
            self.lost(record.sample.point, record.commit);
        }
    }
}
