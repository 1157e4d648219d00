//! What a sink gets of a point's samples: every one, changes beyond the deadband, or the latest per interval.
//!
//! Nothing holds back a quality change, an event, a first sample after resync, or a silence beyond `max_silence`
//! (SEMANTICS 3). `clock_unsynced` speaks about time only and is no change. The deadband counts against the last value
//! sent to this sink.

use std::hash::{DefaultHasher, Hash, Hasher};

use busbar_contract::{Cause, Flags, Kind, Quality, Value, batch};

use crate::{
    Now,
    books::Drop,
    model::{self, Deadband, Send, Timestamp},
    queue::{Class, Record, Settled},
    route::Outgoing,
    sink::Sink,
    time::ns,
};

/// What was last sent of one point.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    kind: u8,
    /// The value; of texts a hash.
    bits: u64,
    quality: u16,
    at_ns: u64,
    /// Something was sent, and not lost since.
    valid: bool,
    deadband: f64,
}

/// The rule and its memory.
#[derive(Debug)]
pub(crate) struct Feed {
    send: Send,
    received_time: bool,
    history: bool,
    max_silence_ns: Option<u64>,
    last: Vec<Last>,
    due: Vec<u32>,
    is_due: Vec<bool>,
}

impl Feed {
    pub(crate) fn new(config: &model::Sink) -> Self {
        Self {
            send: config.send,
            received_time: config.timestamp == Timestamp::Received,
            history: config.history,
            max_silence_ns: config.max_silence.map(ns),
            last: Vec::new(),
            due: Vec::new(),
            is_due: Vec::new(),
        }
    }

    /// Takes another rule; what was last sent is remembered.
    pub(crate) fn set_rule(&mut self, config: &model::Sink) {
        let old = std::mem::replace(self, Self::new(config));
        (self.last, self.due, self.is_due) = (old.last, old.due, old.is_due);
    }

    pub(crate) fn resize(&mut self, points: usize) {
        self.last.resize(points, Last::default());
        self.is_due.resize(points, false);
    }

    pub(crate) fn set_deadband(&mut self, slot: u32, deadband: Deadband) {
        if let Some(last) = self.last.get_mut(slot as usize) {
            last.deadband = match deadband {
                Deadband::Absolute(width) => width,
                Deadband::None => 0.0,
            };
        }
    }

    pub(crate) fn interval_ns(&self) -> Option<u64> {
        match self.send {
            Send::Interval(every) => Some(ns(every).max(1)),
            Send::Every | Send::Changes => None,
        }
    }

    /// Points with news since the last interval, in order of arrival.
    pub(crate) fn take_due(&mut self) -> Vec<u32> {
        self.is_due.fill(false);
        std::mem::take(&mut self.due)
    }

    /// The last value sent got lost: the next sample passes.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(last) = self.last.get_mut(slot as usize) {
            last.valid = false;
        }
    }

    fn wants(&mut self, slot: u32, out: &Outgoing, now_ns: u64) -> bool {
        match out.class {
            Class::History => return self.history,
            Class::Event if !matches!(self.send, Send::Interval(_)) => return true,
            Class::Event | Class::State => {}
        }
        match self.send {
            Send::Every => true,
            Send::Changes => self.changed(slot, out, now_ns),
            Send::Interval(_) => {
                let news = self.quality_changed(slot, out);
                if !news
                    && let Some(due) = self.is_due.get_mut(slot as usize)
                    && !std::mem::replace(due, true)
                {
                    self.due.push(slot);
                }
                news
            }
        }
    }

    fn quality_changed(&self, slot: u32, out: &Outgoing) -> bool {
        self.last
            .get(slot as usize)
            .is_none_or(|last| !last.valid || comparable(last.quality) != comparable(out.sample.quality))
    }

    fn changed(&self, slot: u32, out: &Outgoing, now_ns: u64) -> bool {
        let Some(last) = self.last.get(slot as usize) else { return true };
        if self.quality_changed(slot, out) || Cause::of(out.sample.flags) == Cause::Resync {
            return true;
        }
        if self.max_silence_ns.is_some_and(|silence| now_ns.saturating_sub(last.at_ns) >= silence) {
            return true;
        }
        let bits = value_bits(out);
        if last.kind != out.sample.kind {
            return true;
        }
        match (last.deadband > 0.0).then(|| (number(last.kind, last.bits), number(last.kind, bits))) {
            Some((Some(before), Some(after))) => (after - before).abs() > last.deadband,
            _ => bits != last.bits,
        }
    }

    fn remember(&mut self, slot: u32, out: &Outgoing, now_ns: u64) {
        if let Some(last) = self.last.get_mut(slot as usize) {
            last.kind = out.sample.kind;
            last.bits = value_bits(out);
            last.quality = out.sample.quality;
            last.at_ns = now_ns;
            last.valid = true;
        }
    }
}

fn comparable(quality: u16) -> u16 {
    quality & !Quality::CLOCK_UNSYNCED.0
}

fn value_bits(out: &Outgoing) -> u64 {
    out.blob.as_ref().map_or(out.sample.bits, |blob| {
        let mut hasher = DefaultHasher::new();
        blob.hash(&mut hasher);
        hasher.finish()
    })
}

fn number(kind: u8, bits: u64) -> Option<f64> {
    Kind::from_code(kind).filter(|kind| kind.is_number())?;
    Value::decode(kind, bits, &[]).ok()?.as_f64()
}

impl Sink {
    /// A sample for this sink; true if a record was taken that must be confirmed.
    pub(crate) fn offer(&mut self, slot: u32, out: &Outgoing, device: u32, now: Now) -> bool {
        if !self.feed.wants(slot, out, now.mono_ns) {
            return false;
        }
        self.accept(slot, out, device, now);
        self.durable
    }

    /// Takes a record, whatever `send` says.
    pub(crate) fn accept(&mut self, slot: u32, out: &Outgoing, device: u32, now: Now) {
        if !out.late && out.class != Class::History {
            self.feed.remember(slot, out, now.mono_ns);
        }
        let record = self.record(out, device, now);
        if self.journal.is_some() {
            return self.accept_on_disk(slot, record);
        }
        self.books.accepted += 1;
        if self.durable {
            self.enqueue(slot, record);
        } else {
            let superseded = match record.class {
                Class::State => self.slots.state(slot, record),
                Class::Event | Class::History => {
                    let late = out.late || record.class == Class::History;
                    self.slots.event(slot, record, late)
                }
            };
            if superseded {
                self.books.dropped(Drop::Superseded);
            }
        }
        self.keep_bounds(self.limits.max_bytes);
    }

    /// A record made from the table: in no ledger.
    pub(crate) fn push_transient(&mut self, slot: u32, out: &Outgoing, device: u32, now: Now) {
        self.feed.remember(slot, out, now.mono_ns);
        let record = Record { transient: true, ..self.record(out, device, now) };
        self.enqueue(slot, record);
    }

    fn record(&self, out: &Outgoing, device: u32, now: Now) -> Record {
        let mut sample = out.sample;
        let flags = Flags(sample.flags);
        // A source time of a change says when the value began, not when it was read.
        if self.feed.received_time
            && out.class == Class::State
            && !flags.gateway_time()
            && flags.cause() != Cause::DataChange
        {
            sample.ts_ns = now.wall_ns;
        }
        Record {
            sample,
            value_ts_ns: out.value_ts_ns,
            blob: out.blob.clone(),
            accepted_ns: now.mono_ns,
            device,
            commit: if self.durable { out.commit } else { 0 },
            class: out.class,
            flags: out.flags,
            end: false,
            transient: false,
        }
    }

    /// On overflow the oldest goes, counted (G9).
    pub(crate) fn keep_bounds(&mut self, max_bytes: u64) {
        while self.queue.bytes() + self.slots.event_bytes() > max_bytes {
            if let Some(record) = self.slots.drop_oldest_event() {
                self.books.dropped(Drop::Overflow);
                self.lost(record.sample.point, record.commit);
                self.overflow = true;
                continue;
            }
            let Some((number, _)) = self.queue.oldest() else { return };
            self.give_up(number, Drop::Overflow);
            self.overflow = true;
        }
    }

    /// The host gives a queued record up.
    pub(crate) fn give_up(&mut self, number: u64, why: Drop) {
        if let Some(settled) = self.queue.settle(number) {
            match &mut self.journal {
                None => self.books.dropped(why),
                Some(journal) if !settled.transient => journal.dropped(number, why),
                Some(_) => {}
            }
            self.lost(settled.point, settled.commit);
        }
    }

    /// A record did not reach the far side.
    pub(crate) fn lost(&mut self, point: u32, commit: u32) {
        if let Some(slot) = self.slot_of.get(&point) {
            self.feed.forget(*slot);
        }
        if commit != 0 {
            self.ended_commits.push((commit, false));
        }
    }

    /// The plugin turned out to be durable: what waited in slots is queued.
    pub(crate) fn slots_to_queue(&mut self) {
        while let Some(record) = self.slots.pop() {
            self.enqueue_any(record);
        }
        self.queue.end_of_poll();
    }

    /// Numbers a record.
    pub(crate) fn enqueue_any(&mut self, record: Record) {
        let slot = self.slot_of.get(&record.sample.point).copied().unwrap_or(u32::MAX);
        self.enqueue(slot, record);
    }

    /// Numbers a record of the point in `slot`.
    pub(crate) fn enqueue(&mut self, slot: u32, record: Record) {
        let number = self.queue.push(record);
        if let Some(newest) = self.newest.get_mut(slot as usize) {
            *newest = number;
        }
    }

    /// A record comes again: behind newer ones of its point it must not be the last word. True if it was void instead.
    pub(crate) fn comes_again(&mut self, number: u64, again: &Settled) -> bool {
        let Some(slot) = self.slot_of.get(&again.point).copied() else { return false };
        let newest = self.newest.get(slot as usize).copied().unwrap_or(0);
        if newest <= number {
            return false;
        }
        if again.transient || (!self.durable && again.class == Class::State) {
            self.give_up(number, Drop::Superseded);
            return true;
        }
        if !self.will_come(newest, again.device) {
            self.echo.insert(slot);
        }
        false
    }

    /// A record of `device` is still to be delivered.
    pub(crate) fn will_come(&self, number: u64, device: u32) -> bool {
        if self.queue.knows(number) {
            return self.queue.is_waiting(number);
        }
        let Some(journal) = &self.journal else { return false };
        let missing = self.queue.reach()..journal.committed.min(self.queue.live_from());
        missing.contains(&number) || journal.aside.get(&device).is_some_and(|from| number >= *from)
    }

    /// A record was confirmed. The latest state of its point is sent last, if an older one may come, or came, after it.
    pub(crate) fn confirmed(&mut self, number: u64, settled: &Settled) {
        let Some(slot) = self.slot_of.get(&settled.point).copied() else { return };
        let at = slot as usize;
        let early = settled.waiting && self.newest.get(at) == Some(&number);
        let late = self.journal.is_some() && self.sent.get(at).is_some_and(|sent| *sent > number);
        if early || late {
            self.echo.insert(slot);
        }
        if let Some(sent) = self.sent.get_mut(at).filter(|_| !late) {
            *sent = number;
        }
    }

    /// The far side or the instance is gone: what is unconfirmed comes again. States of a sink that is not durable are
    /// void, because the snapshot after the reconnect holds newer ones; so is what was made from the table in any case, so
    /// that a far side that comes and goes does not fill the queue with images.
    pub(crate) fn send_all_again(&mut self) {
        for (number, again) in self.queue.send_all_again() {
            self.comes_again(number, &again);
        }
        let durable = self.durable;
        let void = self.queue.waiting_where(|record| {
            let state = record.class == Class::State;
            record.transient || (state && (!durable || record.flags & batch::SNAPSHOT as u8 != 0))
        });
        for number in void {
            self.give_up(number, Drop::Superseded);
        }
        self.snapshot_due = true;
        self.image_at = None;
        self.end_live();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use busbar_contract::Sample;

    use super::*;

    fn feed(send: Send, deadband: f64) -> Feed {
        let config =
            model::Sink { send, max_silence: Some(Duration::from_secs(60)), ..model::Sink::default() };
        let mut feed = Feed::new(&config);
        feed.resize(1);
        feed.set_deadband(0, Deadband::Absolute(deadband));
        feed
    }

    fn out(value: f64, quality: Quality, cause: Cause) -> Outgoing {
        Outgoing {
            sample: Sample {
                ts_ns: 0,
                bits: value.to_bits(),
                point: 0,
                quality: quality.0,
                kind: Kind::Float64 as u8,
                flags: cause as u8,
            },
            blob: None,
            value_ts_ns: 0,
            class: Class::State,
            late: false,
            flags: 0,
            commit: 0,
        }
    }

    fn pass(feed: &mut Feed, out: &Outgoing, now_ns: u64) -> bool {
        let wants = feed.wants(0, out, now_ns);
        if wants {
            feed.remember(0, out, now_ns);
        }
        wants
    }

    #[test]
    fn the_deadband_counts_against_the_last_value_sent() {
        let mut feed = feed(Send::Changes, 1.0);
        assert!(pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Poll), 0));
        assert!(!pass(&mut feed, &out(10.6, Quality::GOOD, Cause::Poll), 0));
        assert!(pass(&mut feed, &out(11.1, Quality::GOOD, Cause::Poll), 0), "creeping adds up");
    }

    #[test]
    fn the_deadband_never_holds_back_quality_resync_or_a_long_silence() {
        let mut feed = feed(Send::Changes, 1.0);
        assert!(pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Poll), 0));
        assert!(pass(&mut feed, &out(10.0, Quality::INVALID, Cause::Host), 0));
        assert!(pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Poll), 0));
        assert!(
            !pass(&mut feed, &out(10.0, Quality::CLOCK_UNSYNCED, Cause::Poll), 0),
            "says nothing about the value"
        );
        assert!(pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Resync), 0));
        assert!(!pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Poll), 59_000_000_000));
        assert!(pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Poll), 60_000_000_000));
        feed.forget(0);
        assert!(pass(&mut feed, &out(10.0, Quality::GOOD, Cause::Poll), 60_000_000_000));
    }

    #[test]
    fn every_includes_unchanged_polls() {
        let mut feed = feed(Send::Every, 1.0);
        for _ in 0..3 {
            assert!(pass(&mut feed, &out(1.0, Quality::GOOD, Cause::Poll), 0));
        }
    }

    #[test]
    fn interval_keeps_the_latest_and_passes_quality_at_once() {
        let mut feed = feed(Send::Interval(Duration::from_secs(60)), 0.0);
        assert!(pass(&mut feed, &out(1.0, Quality::GOOD, Cause::Poll), 0));
        assert!(!pass(&mut feed, &out(2.0, Quality::GOOD, Cause::Poll), 0));
        assert!(!pass(&mut feed, &out(3.0, Quality::GOOD, Cause::Poll), 0));
        assert!(pass(&mut feed, &out(3.0, Quality::INVALID, Cause::Host), 0));
        assert_eq!(feed.take_due(), [0]);
        assert_eq!(feed.take_due(), Vec::<u32>::new());
    }

    #[test]
    fn history_goes_only_to_sinks_that_take_it() {
        let mut feed = feed(Send::Every, 0.0);
        let record = Outgoing { class: Class::History, ..out(1.0, Quality::GOOD, Cause::History) };
        assert!(!pass(&mut feed, &record, 0));
        feed.history = true;
        assert!(pass(&mut feed, &record, 0));
    }
}
