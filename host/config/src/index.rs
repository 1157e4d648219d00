//! Finding `device/point` by name, and saying what was meant where it is not there.

use std::collections::HashMap;

use crate::{device::Made, problem::did_you_mean};

/// All names of a site.
pub(crate) struct Index<'s> {
    devices: HashMap<&'s str, (usize, HashMap<&'s str, usize>)>,
}

impl<'s> Index<'s> {
    pub(crate) fn new(made: &'s [Made]) -> Self {
        let devices = made.iter().enumerate().map(|(at, made)| {
            let points = made.model.points.iter().enumerate();
            (made.model.name.as_str(), (at, points.map(|(at, point)| (point.name.as_str(), at)).collect()))
        });
        Self { devices: devices.collect() }
    }

    pub(crate) fn device(&self, name: &str) -> Option<usize> {
        self.devices.get(name).map(|(at, _)| *at)
    }

    /// Indices of `device/point`; the error is advice.
    pub(crate) fn point(&self, text: &str) -> Result<(usize, usize), String> {
        let Some((device, point)) = text.split_once('/') else {
            return Err("write it as device/point".into());
        };
        let Some((at, points)) = self.devices.get(device) else {
            return Err(self.no_device(device));
        };
        points.get(point).map(|point| (*at, *point)).ok_or_else(|| {
            crate::problem::nearest(point, points.keys().copied()).map_or_else(
                || format!("device {device:?} has no such point"),
                |near| format!("did you mean \"{device}/{near}\"?"),
            )
        })
    }

    pub(crate) fn no_device(&self, name: &str) -> String {
        let help = did_you_mean(name, self.devices.keys().copied());
        if help.is_empty() { "no such device".into() } else { help }
    }
}
