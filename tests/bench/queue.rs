//! The queue file beside a bare SQLite insert loop: an example of the queue's crate measures it, because the harness links
//! nothing of the gateway.

use std::process::Command;

use busbar_tests::built;
use serde_json::Value;

/// The example's document, or a text that says why there is none.
pub(crate) fn run() -> Value {
    eprintln!("measuring the queue file ...");
    let place = built::target().join("bench/queue");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "run",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            "busbar-queue",
            "--example",
            "queue-bench",
            "--",
        ])
        .arg(&place);
    let outcome = match command.current_dir(built::root()).output() {
        Err(error) => Value::String(format!("cargo: {error}")),
        Ok(output) if !output.status.success() => {
            Value::String(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | "))
        }
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            Value::String(format!("expected one JSON document from the example: {error}"))
        }),
    };
    let _ = std::fs::remove_dir_all(place);
    outcome
}
