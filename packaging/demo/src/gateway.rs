//! The gateway as a child process, as it runs on a site.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::site::Site;

/// An orderly stop is bounded to ten seconds by the gateway itself.
const STOP_TIME: Duration = Duration::from_secs(15);
/// Lines of its log shown when it ends by itself.
const LOG_TAIL: usize = 20;

/// The running gateway; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    log: std::path::PathBuf,
}

impl Gateway {
    pub(crate) fn start(program: &Path, site: &Site) -> Result<Self, String> {
        let log = site.log();
        let failed = |error: std::io::Error| format!("{}: {error}", log.display());
        let file = File::create(&log).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        let child = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(site.config())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            // Ctrl-C is for the demo, which then stops the gateway in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: the gateway could not be started: {error}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Why it ended by itself, with the end of its log.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default().join("\n");
        Some(format!("the gateway ended by itself ({status}); the end of its log:\n{tail}"))
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // Gone already: nothing to stop.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_TIME, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
