//! What goes wrong.

use busbar_contract::{Event, describe::PluginKind, event::State};
use busbar_core::{Core, Input, Switches, input::PluginReady};

use crate::{
    far::Mood,
    site,
    world::{Happening, Job, MS, World},
};

impl World {
    pub(crate) fn chaos(&mut self) {
        if self.healing {
            return;
        }
        let at = self.now.mono_ns + self.rng.range(50, 700) * MS;
        self.at(at, Happening::Chaos);
        let sink = self.rng.below(self.site.sinks.len() as u64) as usize;
        match self.rng.below(23) {
            20 => self.job(sink, Job::Again),
            21 | 22 => self.set_clock(),
            0..=6 => self.far_mood(sink),
            7 | 8 => self.disconnect(sink),
            9..=11 => self.file_mood(sink),
            12 => self.instance_dies(sink),
            13 => self.lose_device(),
            14 | 15 => self.plugin_fails(),
            16..=18 => self.crash(),
            _ => self.busy = !self.busy,
        }
    }

    pub(crate) fn far_mood(&mut self, sink: usize) {
        let device = self.rng.below(self.site.devices.len() as u64);
        let moods = [
            Mood::Prompt,
            Mood::Slow,
            Mood::Withholds,
            Mood::Odd,
            Mood::Odd,
            Mood::Poison(device),
            Mood::Down,
            Mood::Down,
        ];
        let mood = *self.rng.pick(&moods);
        self.note(|| format!("far side {sink} is {mood:?}"));
        let before = std::mem::replace(&mut self.fars[sink].mood, mood);
        if mood == Mood::Down || before == Mood::Withholds {
            self.disconnect(sink);
        }
    }

    pub(crate) fn disconnect(&mut self, sink: usize) {
        let instance = self.fars[sink].instance;
        if instance != 0 && !self.fars[sink].stopped {
            let state = State { device: None, up: false, reason: "gone".into() };
            self.event(1, instance, 0, 1, Event::State(state));
        }
    }

    pub(crate) fn file_mood(&mut self, sink: usize) {
        let absolute_ns = self.absolute_ns();
        let (full, slow, fails) = (self.rng.chance(30), self.rng.chance(25), self.rng.chance(15));
        let writer = &mut self.writers[sink];
        (writer.file.full, writer.slow, writer.open_fails) = (full, slow, fails);
        writer.ill_ns = (full || slow || fails).then_some(absolute_ns).or(writer.ill_ns);
        self.note(|| format!("file {sink}: full {full}, slow {slow}, cannot be opened {fails}"));
    }

    /// The wall clock is set, by years: nothing expires by that, nothing stops, no number comes back.
    pub(crate) fn set_clock(&mut self) {
        const YEAR_NS: i64 = 365 * 86_400 * 1_000_000_000;
        let years = self.rng.range(1, 20) as i64;
        let back = self.rng.chance(50);
        let step = if back { -years * YEAR_NS } else { years * YEAR_NS };
        self.now.wall_ns += step;
        self.set_ns += step;
        self.stats.clock_steps += 1;
        self.note(|| format!("the clock is set by {years} years, back: {back}"));
    }

    /// The plugin loses the instance: it stops by itself.
    pub(crate) fn instance_dies(&mut self, sink: usize) {
        let instance = self.fars[sink].instance;
        if instance != 0 && !self.fars[sink].stopped {
            self.fars[sink].stopped = true;
            self.event(1, instance, 0, 0, Event::Stopped);
        }
    }

    pub(crate) fn plugin_fails(&mut self) {
        for far in &mut self.fars {
            far.stopped = true;
        }
        self.step(Input::PluginFailed { plugin: 1, reason: "the worker died".into() });
        let at = self.now.mono_ns + self.rng.range(10, 1500) * MS;
        let describe = crate::common::describe("x", PluginKind::Sink, true);
        let ready = PluginReady { plugin: 1, describe, endpoints: Vec::new() };
        self.input_at(at, Input::PluginReady(Box::new(ready)));
    }

    pub(crate) fn lose_device(&mut self) {
        let device = self.rng.below(self.site.devices.len() as u64) as u32;
        let state = State { device: Some(device), up: false, reason: "reset".into() };
        self.event(0, self.driver, 0, 0, Event::State(state));
    }

    /// kill -9, and a new start, perhaps with another configuration.
    pub(crate) fn crash(&mut self) {
        self.stats.crashes += 1;
        self.note(|| "the gateway is killed".into());
        self.check_crash();
        for sink in 0..self.writers.len() {
            self.writers[sink].jobs.clear();
            self.writers[sink].file.crash(self.now.mono_ns);
            self.fars[sink].gateway_died();
        }
        self.before_ns += self.now.mono_ns;
        self.now.mono_ns = 0;
        self.queue.clear();
        self.tokens.clear();
        self.groups.clear();
        self.driver = 0;
        if self.rng.chance(40) {
            self.site = site::edited(&mut self.rng, &self.site);
        }
        self.core = Core::new(self.site.clone(), Switches::default(), self.seed, self.now);
        self.start();
    }
}
