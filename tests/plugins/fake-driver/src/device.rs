//! The simulated device: it lives on when the session ends, so its memory is kept beside the session.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use busbar_driver_api::{Kind, Value};

use crate::act::Act;

/// Memory of one device.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) values: HashMap<String, Value>,
    pub(crate) counters: HashMap<u32, u64>,
    pub(crate) acts: HashMap<String, Act>,
    /// Name of the selected value and the client that selected it.
    pub(crate) selected: Option<(String, String)>,
    pub(crate) committed: Vec<String>,
}

static DEVICES: LazyLock<Mutex<HashMap<(String, u32), Memory>>> = LazyLock::new(Mutex::default);

/// All devices of this plugin; never held across an await.
pub(crate) fn devices() -> MutexGuard<'static, HashMap<(String, u32), Memory>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works on the memory of one device.
pub(crate) fn with<T>(endpoint: &str, device: u32, f: impl FnOnce(&mut Memory) -> T) -> T {
    f(devices().entry((endpoint.to_owned(), device)).or_default())
}

/// What a value is before anybody wrote it.
pub(crate) fn blank(kind: Kind) -> Value {
    match kind {
        Kind::None => Value::None,
        Kind::Bool => Value::Bool(false),
        Kind::Int64 => Value::Int(0),
        Kind::Uint64 => Value::Uint(0),
        Kind::Float32 => Value::Float32(0.0),
        Kind::Float64 => Value::Float64(0.0),
        Kind::DoublePoint => Value::DoublePoint(1),
        Kind::Step => Value::Step(0, false),
        Kind::Bits32 => Value::Bits32(0),
        Kind::Text => Value::Text(String::new()),
        Kind::Bytes => Value::Bytes(Vec::new()),
        Kind::Time => Value::Time(0),
        Kind::Json => Value::Json(busbar_driver_api::serde_json::Value::Null),
    }
}
