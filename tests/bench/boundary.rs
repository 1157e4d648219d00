//! ns per sample across the plugin boundary: an example of the SDK measures it, because it needs both sides of the contract.

use std::process::Command;

use busbar_tests::built;
use serde_json::Value;

/// The example's document with `request_ns` and `rows` by batch size, or a text that says why there is none.
pub(crate) fn run() -> Value {
    eprintln!("measuring the plugin boundary ...");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "run",
        "--release",
        "--locked",
        "--quiet",
        "--package",
        "busbar-driver-api",
        "--example",
        "boundary",
    ]);
    match command.current_dir(built::root()).output() {
        Err(error) => Value::String(format!("cargo: {error}")),
        Ok(output) if !output.status.success() => {
            Value::String(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | "))
        }
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            Value::String(format!("expected one JSON document from the example: {error}"))
        }),
    }
}
