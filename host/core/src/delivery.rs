//! Deliveries and confirmations. At most `queue.in_flight` records are on their way; each ends as delivered, parked or
//! dropped, or comes again: after the verdict `retry` (only its device waits), after a delivery that was not taken, after
//! a reconnect.

use busbar_contract::binary::{Ack, Verdict};

use crate::{Core, Output, arena::SinkId, backoff, books::Drop, model::Backoff, sink::Sink, timers::Timer};

/// Deliveries of one sink per step (G5: one sink with a long backlog does not hold up the others).
const MAX_DELIVERIES: usize = 16;
/// Pause after a delivery that was not taken.
const NOT_TAKEN: Backoff =
    Backoff { initial: std::time::Duration::from_millis(50), max: std::time::Duration::from_secs(1) };

impl Core {
    /// Sends what may be sent.
    pub(crate) fn pump(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        let state = &mut self.sinks[sink];
        state.touched = false;
        let mut more = false;
        if state.is_up() && !state.handover && state.paused_until_ns <= now_ns {
            let instance = state.instance;
            for turn in 0.. {
                let Some(delivery) = state.next_delivery() else { break };
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
        self.settled_commits.append(&mut self.sinks[sink].ended_commits);
        if more {
            self.timers.arm(now_ns + 1, Timer::Retry(sink));
        }
    }

    pub(crate) fn take_acks(&mut self, sink: SinkId, lane: u32, acks: &[Ack]) {
        let now_ns = self.now.mono_ns;
        let state = &mut self.sinks[sink];
        let delivered = state.books.delivered;
        let mut retry = Vec::new();
        for ack in acks {
            if lane != 0 {
                state.books.late_acks += u64::from(ack.count);
                continue;
            }
            state.take_ack(ack, &mut retry);
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
        for (number, again) in state.queue.not_taken(first) {
            state.comes_again(number, &again);
        }
        let pause_ns = backoff::pause(&NOT_TAKEN, state.refusals, &mut self.rng);
        state.refusals = state.refusals.saturating_add(1);
        state.paused_until_ns = self.timers.arm(self.now.mono_ns + pause_ns, Timer::Retry(sink));
        self.send_echoes(sink);
    }

    /// Once a second: records older than `max_age` go.
    pub(crate) fn expire(&mut self, sink: SinkId) {
        let Some(limit) = self.now.mono_ns.checked_sub(self.max_age_ns(sink)) else { return };
        self.sinks[sink].expire(limit);
        self.mark_sink(sink);
    }

    /// The text of a reason number of a sink.
    pub(crate) fn reason_text(&self, sink: SinkId, reason: u16) -> String {
        let describe = self.sinks[sink].plugin.and_then(|plugin| self.plugins[plugin].describe.as_ref());
        match describe.and_then(|describe| describe.reasons.get(usize::from(reason))) {
            Some(text) if !text.is_empty() => text.clone(),
            _ if reason == 0 => "rejected".to_owned(),
            _ => format!("reason {reason}"),
        }
    }
}

impl Sink {
    fn next_delivery(&mut self) -> Option<crate::queue::Delivery> {
        let window = self.limits.in_flight.max(1);
        // Slots give up their records only when they can go out at once: until then the newest state wins.
        while self.slots.len() > 0 && self.queue.pending() < window {
            let Some(record) = self.slots.pop() else { break };
            self.enqueue(record);
        }
        let held = &self.held;
        if held.is_empty() {
            return self.queue.next_delivery(window, |_| false);
        }
        self.queue.next_delivery(window, |device| held.get(&device).is_some_and(|(until, _)| *until > 0))
    }

    fn take_ack(&mut self, ack: &Ack, retry: &mut Vec<u32>) {
        // Only numbers that can exist are walked, whatever `count` says.
        let (from, to) = self.queue.range();
        let end = ack.first.saturating_add(u64::from(ack.count));
        let known = ack.first.max(from)..end.min(to).max(ack.first.max(from));
        self.books.late_acks += u64::from(ack.count) - (known.end - known.start).min(u64::from(ack.count));
        for number in known {
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
                verdict => self.take_end(number, verdict == Verdict::Delivered, ack.reason),
            }
        }
    }

    fn take_end(&mut self, number: u64, delivered: bool, reason: u16) {
        let Some(settled) = self.queue.settle(number) else {
            self.books.late_acks += 1;
            return;
        };
        self.refusals = 0;
        self.confirmed_early(number, &settled);
        if delivered {
            self.books.delivered += 1;
            if self.held.get(&settled.device).is_some_and(|(until, _)| *until == 0) {
                self.held.remove(&settled.device);
            }
            if settled.commit != 0 {
                self.ended_commits.push((settled.commit, true));
            }
        } else {
            self.books.park(reason);
            self.lost(settled.point, settled.commit);
        }
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
