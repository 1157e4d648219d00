//! Host core of Busbar: a pure state machine `step(now, input) -> outputs`.
//!
//! No socket, thread, file or clock is touched here; the edges in the host binary carry outputs out and bring inputs
//! in. So thousands of histories run through it in a test, with the guarantees checked after every step.
//!
//! Contract with the edge:
//! * [`Core::step`] is called with every input, in the order in which things happened, and with [`Input::Tick`] when
//!   the instant of [`Core::next_wake`] has come. Outputs are carried out in order.
//! * An instance exists from [`Output::Open`] until the event STOPPED, `Input::OpenFailed`, `Input::PluginFailed` or
//!   [`Output::Abandon`]. Its number never comes back.
//! * Point, device and group numbers are the same in every plugin and are never used twice in a process, so a group
//!   number alone names one group of one device.

pub mod decimal;
pub mod input;
pub mod metrics;
pub mod model;
pub mod output;
pub mod switches;
pub mod view;

pub use input::{Input, Now};
pub use metrics::Metric;
pub use output::Output;
pub use switches::Switches;

/// The state machine.
#[derive(Debug)]
pub struct Core {
    site: model::Site,
    switches: Switches,
}

impl Core {
    /// A core for `site`, with the persisted operator `switches`. `seed` feeds the jitter of back-off and phases: equal
    /// seeds and inputs give equal outputs.
    #[must_use]
    pub fn new(site: model::Site, switches: Switches, seed: u64, now: Now) -> Self {
        let _ = (seed, now);
        Self { site, switches }
    }

    /// Takes one input and appends what must be done to `out`. Never blocks, never fails, and a late call only means
    /// that reads are skipped and counted.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let _ = (now, input, out);
    }

    /// Monotonic nanoseconds at which [`Input::Tick`] is due at the latest; `None` = only when something happens.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        None
    }

    /// The configuration it runs.
    #[must_use]
    pub fn site(&self) -> &model::Site {
        &self.site
    }

    /// Every instance is stopped after [`Input::Shutdown`]: the process may end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        false
    }

    /// Commands are locked by an operator or by configuration.
    #[must_use]
    pub fn commands_locked(&self) -> bool {
        self.switches.locked.unwrap_or(false)
    }

    /// Every plugin is loaded or failed with a reason; `strict`: every plugin and its instances run. The error names
    /// the first that is not.
    pub fn ready(&self, strict: bool) -> Result<(), String> {
        let _ = strict;
        Err("starting".into())
    }

    /// Points in the order of the configuration, without system points; of one device, or all.
    pub fn points<'a>(&'a self, device: Option<&str>) -> Box<dyn Iterator<Item = view::PointView<'a>> + 'a> {
        let _ = device;
        Box::new(std::iter::empty())
    }

    /// System points: `@host/...`, `@sink/NAME/...`, `DEVICE/@...`.
    pub fn system_points(&self) -> Box<dyn Iterator<Item = view::PointView<'_>> + '_> {
        Box::new(std::iter::empty())
    }

    /// One point by name (`device/point`), system points too.
    #[must_use]
    pub fn point(&self, name: &str) -> Option<view::PointView<'_>> {
        let _ = name;
        None
    }

    /// Devices in the order of the configuration.
    #[must_use]
    pub fn devices(&self) -> Vec<view::DeviceView<'_>> {
        Vec::new()
    }

    /// Plugins in the order of [`model::Site::plugins`].
    #[must_use]
    pub fn plugins(&self) -> Vec<view::PluginView<'_>> {
        Vec::new()
    }

    /// Sinks in the order of the configuration.
    #[must_use]
    pub fn sinks(&self) -> Vec<view::SinkView<'_>> {
        Vec::new()
    }

    /// The device (index into [`model::Site::devices`]) and point behind a point number, for log lines of plugins;
    /// `None` for a number never given.
    #[must_use]
    pub fn point_name(&self, number: u32) -> Option<String> {
        let _ = number;
        None
    }

    /// Name of the device with this number (numbers are given by ATTACH), for log lines of plugins.
    #[must_use]
    pub fn device_name(&self, number: u32) -> Option<&str> {
        self.site.devices.get(usize::try_from(number).ok()?).map(|device| device.name.as_str())
    }

    /// Everything `/metrics` shows of the core. Bounded: one entry per plugin, device or sink and name.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }
}
