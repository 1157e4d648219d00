//! What a call does: the one place behind the control socket, the direct mode of the command line, and the API.

use std::time::Duration;

use busbar_contract::{Action, Origin, Stage};
use busbar_core::{
    Core,
    input::{Ask, OperatorCommand},
    output::Reply,
};

use serde_json::{Value as Json, json};
use tokio::{sync::mpsc, time::Instant};

use super::protocol::{Call, Line};
use crate::{
    edge::{CoreHandle, Decision, Frame, FrameWatch, Replies, upgrade::Progress},
    rows,
};

/// Longest time limit a client may ask for.
pub const MAX_DEADLINE: Duration = Duration::from_secs(600);
/// Most parked records in one answer.
const MAX_PARKED: usize = 1_000;
/// Room beyond a request's own time limit before its answer is given up.
const GRACE: Duration = Duration::from_secs(5);
/// Time limit where the request has none of its own: the core answers these itself, or by the device's time-out.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// A call under way.
pub struct Running {
    state: State,
    limit: Duration,
    /// A selection ends with `selected`; for an operate that is only a stage.
    select: bool,
}

enum State {
    /// One line is left to say.
    Answered(Option<Line>),
    Waiting(Replies),
    /// Until then.
    Watching(FrameWatch, Instant),
    Upgrading(mpsc::Receiver<Progress>),
}

/// Starts a call. `origin` is who asks, for commands and the audit log.
pub async fn start(core: &CoreHandle, call: Call, origin: Origin) -> Running {
    let limit = limit(&call);
    let select = matches!(&call, Call::Command { action: Action::Select, .. });
    let state = match &call {
        Call::Frames { device, for_ms } => watch(core, device, *for_ms).await,
        Call::DecideParked { sink, retry } => State::Answered(Some(decide(core, sink, *retry, origin).await)),
        Call::ClearState { owner } => State::Answered(Some(clear_state(core, owner, origin).await)),
        Call::PluginRestart { name, kind } => {
            State::Answered(Some(restart(core, name, kind.as_deref(), origin).await))
        }
        Call::Reload { dry_run } => {
            let answer = Box::new(core.wish_reload(*dry_run, origin).await);
            State::Answered(Some(Line::Reload { answer }))
        }
        Call::PluginUpgrade { name, kind, file } => {
            upgrade(core, name, kind.as_deref(), file.as_deref(), &origin).await
        }
        _ => match rows_of(core, &call).await {
            Some(line) => State::Answered(Some(line)),
            None => ask_core(core, call, origin).await,
        },
    };
    Running { state, limit, select }
}

impl Running {
    /// The next line; `None` after the last one.
    pub async fn next(&mut self) -> Option<Line> {
        match &mut self.state {
            State::Answered(line) => line.take(),
            State::Waiting(replies) => {
                let line = match tokio::time::timeout(self.limit, replies.next()).await {
                    Ok(Some(reply)) => line(reply),
                    Ok(None) => Line::failed(
                        "the host gave no answer: it is stopping, or the answer was read too slowly",
                    ),
                    Err(_) => Line::failed(format!("no answer within {} s", self.limit.as_secs())),
                };
                let selected = matches!(&line, Line::Stage { answer } if answer.stage == Stage::Selected);
                if line.is_last() || (self.select && selected) {
                    self.state = State::Answered(None);
                }
                Some(line)
            }
            State::Upgrading(progress) => {
                let line = match progress.recv().await {
                    Some(Progress::Step(text)) => return Some(Line::Step { text }),
                    Some(Progress::End(Ok(text))) => Line::Upgraded { text },
                    Some(Progress::End(Err(text))) => Line::failed(text),
                    None => Line::failed("the host is stopping"),
                };
                self.state = State::Answered(None);
                Some(line)
            }
            State::Watching(watch, until) => {
                let line = match tokio::time::timeout_at(*until, watch.next()).await {
                    Ok(Some(frame)) => return Some(frame_line(frame)),
                    Ok(None) => Line::failed("the host is stopping"),
                    Err(_) => Line::Done,
                };
                self.state = State::Answered(None);
                Some(line)
            }
        }
    }
}

fn frame_line(frame: Frame) -> Line {
    let Frame { ts, direction, frame, hint, lost } = frame;
    Line::Frame { ts, direction, frame, hint, lost }
}

async fn watch(core: &CoreHandle, device: &str, for_ms: u64) -> State {
    let name = device.to_owned();
    let known = core.query(move |core, _| known_device(core, &name)).await;
    let watch = match known {
        Ok(Ok(())) => core.watch_frames(device),
        Ok(Err(usage)) => return State::Answered(Some(Line::usage(usage))),
        Err(error) => Err(error.to_string()),
    };
    match watch {
        Ok(watch) => {
            let until = Instant::now() + Duration::from_millis(for_ms).min(MAX_DEADLINE);
            State::Watching(watch, until)
        }
        Err(text) => State::Answered(Some(Line::failed(text))),
    }
}

/// Tries another version of a plugin.
async fn upgrade(
    core: &CoreHandle,
    name: &str,
    kind: Option<&str>,
    file: Option<&str>,
    origin: &Origin,
) -> State {
    if file.is_some_and(|file| !std::path::Path::new(file).is_absolute()) {
        return State::Answered(Some(Line::usage("expected the absolute path of a plugin file")));
    }
    let (name, kind) = (name.to_owned(), kind.map(str::to_owned));
    let model = core
        .query(move |core, _| {
            let index = plugin_named(core, &name, kind.as_deref())?;
            core.site().plugins.get(index).cloned().ok_or_else(|| "no such plugin".to_owned())
        })
        .await;
    let asked = match model {
        Ok(Ok(model)) => core.upgrade(&model, file.map(Into::into), &origin.client),
        Ok(Err(usage)) => return State::Answered(Some(Line::usage(usage))),
        Err(error) => Err(error.to_string()),
    };
    match asked {
        Ok(progress) => State::Upgrading(progress),
        Err(text) => State::Answered(Some(Line::failed(text))),
    }
}

async fn restart(core: &CoreHandle, name: &str, kind: Option<&str>, origin: Origin) -> Line {
    let (name, kind) = (name.to_owned(), kind.map(str::to_owned));
    let plugin = match core.query(move |core, _| plugin_named(core, &name, kind.as_deref())).await {
        Ok(Ok(plugin)) => plugin,
        Ok(Err(usage)) => return Line::usage(usage),
        Err(error) => return Line::failed(error.to_string()),
    };
    core.restart_plugin(plugin, origin).await.map_or_else(Line::usage, |()| Line::Done)
}

async fn decide(core: &CoreHandle, sink: &str, retry: bool, origin: Origin) -> Line {
    if let Err(line) = known_sink(core, sink).await {
        return line;
    }
    let decision = if retry { Decision::Retry } else { Decision::Discard };
    match core.decide_parked(sink, decision, origin).await {
        Ok(count) => Line::Rows { rows: vec![json!({ "records": count })] },
        Err(text) => Line::failed(text),
    }
}

/// A device or sink that is not configured any more may have left state behind: any name is taken.
async fn clear_state(core: &CoreHandle, owner: &str, origin: Origin) -> Line {
    if !owner.starts_with("device/") && !owner.starts_with("sink/") {
        return Line::usage(format!("expected device/NAME or sink/NAME, found {owner}"));
    }
    match core.clear_state(owner, origin).await {
        Ok(count) => Line::Rows { rows: vec![json!({ "entries": count })] },
        Err(text) => Line::failed(text),
    }
}

/// Parked records of a sink, oldest first.
pub async fn parked(core: &CoreHandle, sink: &str, from: u64, limit: usize) -> Result<Vec<Json>, Line> {
    known_sink(core, sink).await?;
    let limit = limit.min(MAX_PARKED);
    let parked = core.ask_queue(sink, move |file| file.parked(from, limit)).await;
    match parked.and_then(|parked| parked) {
        Ok(parked) => Ok(parked.iter().map(rows::parked).collect()),
        Err(text) => Err(Line::failed(text)),
    }
}

async fn known_sink(core: &CoreHandle, sink: &str) -> Result<(), Line> {
    let name = sink.to_owned();
    let asked = core.query(move |core, _| {
        let names: Vec<&str> = core.site().sinks.iter().map(|sink| sink.name.as_str()).collect();
        if names.contains(&name.as_str()) {
            return Ok(());
        }
        Err(format!("expected the name of a configured sink, found {name}; {}", listed(&names)))
    });
    match asked.await {
        Ok(known) => known.map_err(Line::usage),
        Err(error) => Err(Line::failed(error.to_string())),
    }
}

/// Index of a plugin in the site.
fn plugin_named(core: &Core, name: &str, kind: Option<&str>) -> Result<usize, String> {
    let named: Vec<usize> = core
        .plugins()
        .iter()
        .filter(|plugin| plugin.name == name && kind.is_none_or(|kind| kind == plugin.kind.as_str()))
        .map(|plugin| plugin.base)
        .collect();
    match named.as_slice() {
        [only] => Ok(*only),
        [] => {
            let names: Vec<&str> = core.plugins().into_iter().map(|plugin| plugin.name).collect();
            Err(format!("expected the name of a configured plugin, found {name}; {}", listed(&names)))
        }
        _ => {
            Err(format!("a driver and a sink are named {name}: say which with --kind driver or --kind sink"))
        }
    }
}

fn line(reply: Reply) -> Line {
    match reply {
        Reply::Command(answer) => Line::Stage { answer },
        Reply::Readings(readings) => Line::Readings { rows: readings.iter().map(rows::reading).collect() },
        Reply::Page(entries) => Line::Page { entries },
        // Reloads have a way of their own.
        Reply::Reload(_) | Reply::Done => Line::Done,
        Reply::Failed(text) => Line::failed(text),
    }
}

fn limit(call: &Call) -> Duration {
    let own = match call {
        Call::Read { deadline_ms, .. } | Call::Browse { deadline_ms, .. } => *deadline_ms,
        Call::Command { deadline_ms, .. } => *deadline_ms,
        _ => 0,
    };
    if own == 0 { DEFAULT_LIMIT } else { Duration::from_millis(own).min(MAX_DEADLINE) + GRACE }
}

/// Answers that are only a look at the core.
async fn rows_of(core: &CoreHandle, call: &Call) -> Option<Line> {
    let rows = match call {
        Call::Parked { sink, from, limit } => {
            let parked = parked(core, sink, *from, *limit).await;
            return Some(parked.map_or_else(|line| line, |rows| Line::Rows { rows }));
        }
        Call::Points { device } => {
            let device = device.clone();
            core.query(move |core, _| points(core, device.as_deref())).await
        }
        Call::Devices {} => core.query(|core, _| Ok(rows::devices(core))).await,
        Call::Sinks {} => core.sinks().await.map(Ok),
        Call::Ready { strict } => {
            let strict = *strict;
            let ready = core.query(move |core, _| core.ready(strict)).await;
            return Some(match ready {
                Ok(Ok(())) => Line::Done,
                Ok(Err(reason)) => Line::failed(format!("not ready: {reason}")),
                Err(error) => Line::failed(error.to_string()),
            });
        }
        Call::Plugins {} => {
            let facts = core.plugin_facts();
            let board = core.board();
            core.query(move |core, _| Ok(rows::plugins(core, &facts, &board))).await
        }
        _ => return None,
    };
    Some(match rows {
        Ok(Ok(rows)) => Line::Rows { rows },
        Ok(Err(text)) => Line::usage(text),
        Err(error) => Line::failed(error.to_string()),
    })
}

/// Points of one device or all; a device that is not configured is a mistake, not an empty list.
pub fn points(core: &Core, device: Option<&str>) -> Result<Vec<serde_json::Value>, String> {
    if let Some(device) = device.filter(|device| !device.starts_with('@')) {
        known_device(core, device)?;
    }
    Ok(rows::points(core, device, true))
}

async fn ask_core(core: &CoreHandle, call: Call, origin: Origin) -> State {
    let failed = |line| State::Answered(Some(line));
    let asked = call.clone();
    match core.query(move |core, _| known(core, &asked)).await {
        Ok(Ok(())) => {}
        Ok(Err(usage)) => return failed(Line::usage(usage)),
        Err(error) => return failed(Line::failed(error.to_string())),
    }
    if let Call::FrameLog { device, on } = &call {
        let replies = core.log_frames(device, *on);
        return replies.map_or_else(|error| failed(Line::failed(error.to_string())), State::Waiting);
    }
    let Some(ask) = ask(call, origin) else {
        return failed(Line::usage("this call asks nothing of the core"));
    };
    match core.ask(ask) {
        Ok(replies) => State::Waiting(replies),
        Err(error) => failed(Line::failed(error.to_string())),
    }
}

fn ask(call: Call, origin: Origin) -> Option<Ask> {
    let bounded =
        |deadline_ms: u64| deadline_ms.min(u64::try_from(MAX_DEADLINE.as_millis()).unwrap_or(u64::MAX));
    Some(match call {
        Call::Read { device, points, deadline_ms } => {
            Ask::Read { device, points, deadline_ms: bounded(deadline_ms) }
        }
        Call::Command { point, action, value, deadline_ms } => {
            Ask::Command(OperatorCommand { point, action, value, origin, deadline_ms: bounded(deadline_ms) })
        }
        Call::Browse { device, arguments, deadline_ms } => {
            Ask::Browse { device, arguments, deadline_ms: bounded(deadline_ms) }
        }
        Call::Lock {} => Ask::Lock(origin),
        Call::Unlock {} => Ask::Unlock(origin),
        Call::Block { point } => Ask::Block(point, origin),
        Call::Unblock { point } => Ask::Unblock(point, origin),
        Call::Substitute { point, value } => Ask::Substitute(point, value, origin),
        Call::Maintenance { device, on } => Ask::Maintenance(device, on, origin),
        Call::Pause { device, on } => Ask::Pause(device, on, origin),
        Call::FrameLog { .. }
        | Call::Frames { .. }
        | Call::Reload { .. }
        | Call::PluginRestart { .. }
        | Call::PluginUpgrade { .. }
        | Call::Ready { .. }
        | Call::Points { .. }
        | Call::Devices {}
        | Call::Plugins {}
        | Call::Parked { .. }
        | Call::DecideParked { .. }
        | Call::ClearState { .. }
        | Call::Sinks {} => return None,
    })
}

/// Names that do not exist are the caller's mistake, with the names that do.
fn known(core: &Core, call: &Call) -> Result<(), String> {
    match call {
        Call::Read { device, points, .. } => {
            known_device(core, device)?;
            points.iter().try_for_each(|point| known_point(core, &format!("{device}/{point}")))
        }
        Call::Browse { device, .. }
        | Call::Maintenance { device, .. }
        | Call::Pause { device, .. }
        | Call::FrameLog { device, .. } => known_device(core, device),
        Call::Command { point, .. }
        | Call::Block { point }
        | Call::Unblock { point }
        | Call::Substitute { point, .. } => known_point(core, point),
        _ => Ok(()),
    }
}

fn known_device(core: &Core, device: &str) -> Result<(), String> {
    let names: Vec<&str> = core.devices().into_iter().map(|device| device.name).collect();
    if names.contains(&device) {
        return Ok(());
    }
    Err(format!("expected the name of a configured device, found {device}; {}", listed(&names)))
}

fn known_point(core: &Core, point: &str) -> Result<(), String> {
    let Some((device, name)) = point.split_once('/') else {
        return Err(format!("expected DEVICE/POINT, found {point}"));
    };
    known_device(core, device)?;
    let devices = &core.site().devices;
    let points = devices.iter().find(|known| known.name == device).map_or(&[][..], |device| &device.points);
    let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("expected a point of {device}, found {name}; {}", listed(&names)))
}

/// Names shown in a message.
const LISTED: usize = 12;

fn listed(names: &[&str]) -> String {
    match names.len() {
        0 => "there are none".to_owned(),
        count if count > LISTED => {
            let first: Vec<&str> = names.iter().take(LISTED).copied().collect();
            format!("there are {count}: {}, ...", first.join(", "))
        }
        _ => format!("there are: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_names_are_cut() {
        assert_eq!(listed(&[]), "there are none");
        assert_eq!(listed(&["a", "b"]), "there are: a, b");
        assert!(listed(&["x"; 500]).len() < 80);
    }
}
