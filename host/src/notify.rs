//! systemd's notification protocol (sd_notify(3)): one datagram with `KEY=value` to the socket in `NOTIFY_SOCKET`.
#![allow(unsafe_code, reason = "clock_gettime(2) has no safe form in std that tells the number")]

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// Sends states to the service manager; does nothing where there is none.
#[derive(Debug, Default)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// From the environment of a service. A malformed address counts as none: it must not stop the gateway.
    #[must_use]
    pub fn from_env() -> Self {
        Self::to(env::var("NOTIFY_SOCKET").ok().as_deref())
    }

    fn to(path: Option<&str>) -> Self {
        let target = path.filter(|path| !path.is_empty()).and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(path).ok()?,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        Self { target }
    }

    /// A reload begins; `READY=1` ends it. `Type=notify-reload` wants the monotonic time with it.
    pub fn reloading(&self) {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec that lives here.
        let known = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } == 0;
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        if known {
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        } else {
            self.send("RELOADING=1");
        }
    }

    /// Sends one state, e.g. `READY=1`. Lost when the manager does not listen: nothing depends on it here.
    pub fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.target {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// How often the service manager wants a sign of life: half of `WATCHDOG_USEC`, if it is meant for this process.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    let meant_for = env::var("WATCHDOG_PID").ok();
    if meant_for.is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 1).then(|| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive_and_a_missing_manager_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        Notifier::to(path.to_str()).send("READY=1");
        let mut state = [0; 16];
        let length = manager.recv(&mut state).unwrap();
        assert_eq!(&state[..length], b"READY=1");
        Notifier::to(None).send("READY=1");
        Notifier::to(Some("/nonexistent/notify")).send("READY=1");
        Notifier::to(Some(&"x".repeat(300))).send("READY=1");
    }
}
