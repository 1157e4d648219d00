//! A new version of the Modbus driver that is wrong. It loads, describes itself and starts; what it does then stands in
//! the environment variable `BUSBAR_TEST_FAULT` of the gateway: `wrong` (its answers leave points out), `crash` (SIGSEGV
//! after five seconds), `stuck` (its stop never returns), `check` (it does not accept the configuration), `late:FILE`
//! (SIGSEGV as soon as that file is there).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use busbar_driver_api::{
    BoundPoint, Check, Device, Driver, Endpoint, Group, NoSettings, Problem, Readings, Result, export_driver,
};
use serde_json::Value;

/// Time until `crash` crashes.
const CRASH_AFTER: Duration = Duration::from_secs(5);

#[derive(serde::Deserialize, schemars::JsonSchema, Clone)]
struct Connection {
    host: String,
    port: u16,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Point {
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn fault() -> String {
    std::env::var("BUSBAR_TEST_FAULT").unwrap_or_default()
}

struct Session {
    fault: String,
    opened: Instant,
}

impl Driver for Session {
    const NAME: &'static str = "modbus";
    type Connection = Connection;
    type Settings = NoSettings;
    type Point = Point;
    type Plan = ();

    fn endpoint(connection: &Connection) -> Endpoint {
        let Connection { host, port, .. } = connection;
        Endpoint::new(format!("tcp:{host}:{port}")).exclusive()
    }

    fn check(input: &Check<'_, Self>) -> Vec<Problem> {
        let known = input.connection.is_some_and(|connection| connection.rest.contains_key("baud_rate"));
        if fault() != "check" || known {
            return Vec::new();
        }
        let points = input.points.iter().filter(|point| point.spec.rest.contains_key("address"));
        points
            .map(|point| {
                let pointer = format!("{}/address", point.pointer);
                Problem::error(pointer, "an address of the new kind", "an address of the old kind")
            })
            .collect()
    }

    fn plan(_: &Connection, _: &[BoundPoint<Self>]) {}

    async fn open(_: &Device<Self>) -> Result<Self> {
        Ok(Self { fault: fault(), opened: Instant::now() })
    }

    async fn read(&mut self, group: &mut Group<'_, Self>, out: &mut Readings) -> Result<()> {
        let late = self.fault.strip_prefix("late:").is_some_and(|file| std::path::Path::new(file).exists());
        if late || (self.fault == "crash" && self.opened.elapsed() >= CRASH_AFTER) {
            #[allow(unsafe_code, reason = "this is the fault")]
            // SAFETY: none: the process is meant to die of SIGSEGV. `raise` is what a wild pointer would end in.
            unsafe {
                libc::raise(libc::SIGSEGV);
            }
        }
        let count = group.points().len();
        let kept = if self.fault == "wrong" { count.saturating_sub(1) } else { count };
        for slot in 0..kept {
            out.f64(slot, 1.0);
        }
        Ok(())
    }

    async fn close(self) {
        let hangs = self.fault == "stuck";
        for _ in std::iter::repeat_n((), if hangs { usize::MAX } else { 0 }) {
            #[allow(clippy::disallowed_methods, reason = "this is the fault")]
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

export_driver!(Session);
