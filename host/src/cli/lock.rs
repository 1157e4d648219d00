//! `busbar lock` and `busbar unlock`: the switch for all commands; persisted, audited.

use std::time::Duration;

use serde_json::json;

use super::{Context, Outcome, access::Access};
use crate::control::protocol::Call;

pub(super) fn run(context: &Context, lock: bool) -> Outcome {
    let mut access = Access::open(context, &[], Duration::ZERO)?;
    let answer = access.call(if lock { Call::Lock {} } else { Call::Unlock {} }, |_| {});
    access.close()?;
    answer?;
    let state = if lock { "locked" } else { "enabled" };
    if context.out.json {
        context.out.document(&json!({ "commands": state }));
    } else {
        context.out.line(&format!("commands are {state}"));
    }
    Ok(())
}
