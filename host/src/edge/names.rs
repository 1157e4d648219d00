//! Names behind the numbers of the waist, for log lines.
//!
//! A plugin's log record names an instance and a device by number. The core thread notes both names as it sends them
//! to the plugin; threads of plugins look them up when they log.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use super::frames::FrameHub;

/// Shared table. Bounded by the configuration: one entry per device, and per open instance.
#[derive(Debug, Default)]
pub(crate) struct Names {
    devices: RwLock<HashMap<u32, String>>,
    instances: RwLock<HashMap<u64, String>>,
    /// Who gets the log records that are frames.
    pub(crate) frames: FrameHub,
}

impl Names {
    pub(crate) fn note_device(&self, number: u32, name: &str) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if devices.get(&number).is_none_or(|known| known != name) {
            devices.insert(number, name.to_owned());
        }
    }

    pub(crate) fn note_instance(&self, number: u64, name: &str) {
        self.instances.write().unwrap_or_else(PoisonError::into_inner).insert(number, name.to_owned());
    }

    pub(crate) fn forget_instance(&self, number: u64) {
        self.instances.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    pub(crate) fn device(&self, number: u32) -> Option<String> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Endpoint or sink name of an instance.
    pub(crate) fn instance(&self, number: u64) -> Option<String> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }
}
