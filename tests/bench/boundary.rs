//! ns per sample across the plugin boundary: the loader's own example, because it needs both sides of the contract.

use std::process::Command;

use busbar_tests::built;
use serde_json::Value;

/// An array of `{"batch", "ns_per_sample"}`, or a text that says why there is none.
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
        "busbar-loader",
        "--example",
        "boundary",
    ]);
    match command.current_dir(built::root()).output() {
        Err(error) => Value::String(format!("cargo: {error}")),
        Ok(output) if !output.status.success() => {
            Value::String(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | "))
        }
        Ok(output) => {
            let lines = String::from_utf8_lossy(&output.stdout).into_owned();
            Value::Array(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
        }
    }
}
