//! JSON forms of points, devices, plugins and sinks: the same for the API, the control socket and `--json`.

use busbar_contract::{Flags, Quality, Sample, Value, value::rfc3339};
use busbar_core::{
    Core,
    input::Reading,
    model::{Isolation, Order, Queue, Sync},
    view::{DeviceView, PluginState, PluginView, PointView, SinkView},
};
use busbar_queue::Parked;
use serde_json::{Map, Value as Json, json};

use crate::edge::{
    Left, PluginFacts,
    upgrade::{
        Board, Versions,
        active::{self, Failed},
    },
};

/// Nanoseconds per millisecond.
const NS_PER_MS: i64 = 1_000_000;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// Points of one device, or all; system points too when they are named or all are asked for with `system`.
#[must_use]
pub fn points(core: &Core, device: Option<&str>, system: bool) -> Vec<Json> {
    let plain = core.points(device).map(|view| point(&view));
    let of_system = core
        .system_points()
        .filter(|view| system && device.is_none_or(|device| device == view.device))
        .map(|view| point(&view));
    plain.chain(of_system).collect()
}

/// One point.
#[must_use]
pub fn point(view: &PointView<'_>) -> Json {
    let mut row = value_row(
        &format!("{}/{}", view.device, view.name),
        &view.value,
        view.quality,
        view.ts_ns,
        view.gateway_time,
        view.unit,
    );
    if view.value_ts_ns != view.ts_ns && view.value_ts_ns != 0 {
        row.insert("value_ts".into(), json!(view.value_ts_ns.div_euclid(NS_PER_MS)));
    }
    if view.writable {
        row.insert("writable".into(), Json::Bool(true));
    }
    if !view.metadata.is_null() {
        row.insert("metadata".into(), view.metadata.clone());
    }
    Json::Object(row)
}

/// A fresh value.
#[must_use]
pub fn reading(reading: &Reading) -> Json {
    let Reading { point, value, quality, ts_ns, gateway_time, unit } = reading;
    Json::Object(value_row(point, value, *quality, *ts_ns, *gateway_time, unit))
}

fn value_row(
    point: &str,
    value: &Value,
    quality: Quality,
    ts_ns: i64,
    gateway_time: bool,
    unit: &str,
) -> Map<String, Json> {
    let mut row = Map::new();
    row.insert("point".into(), json!(point));
    row.insert("value".into(), value.to_json());
    row.insert("quality".into(), json!(quality.to_string()));
    // A point that was never touched has no time: null, not 1970.
    let ts = if ts_ns == 0 { Json::Null } else { json!(ts_ns.div_euclid(NS_PER_MS)) };
    row.insert("ts".into(), ts);
    if gateway_time {
        row.insert("gateway_time".into(), Json::Bool(true));
    }
    if !unit.is_empty() {
        row.insert("unit".into(), json!(unit));
    }
    row
}

/// Devices in the order of the configuration.
#[must_use]
pub fn devices(core: &Core) -> Vec<Json> {
    let row = |view: &DeviceView<'_>| with_lost_state(core, &format!("device/{}", view.name), device(view));
    core.devices().iter().map(row).collect()
}

/// `"state_lost": {KEY: REASON}` where stored state of the plugin could not be read.
fn with_lost_state(core: &Core, owner: &str, mut row: Json) -> Json {
    let lost: Map<String, Json> =
        core.lost_state(owner).map(|(key, reason)| (key.to_owned(), json!(reason))).collect();
    if let (false, Some(row)) = (lost.is_empty(), row.as_object_mut()) {
        row.insert("state_lost".into(), Json::Object(lost));
    }
    row
}

fn device(view: &DeviceView<'_>) -> Json {
    let counters = view.counters;
    let labels = view.labels.iter().map(|(key, value)| (key.clone(), json!(value)));
    json!({
        "name": view.name,
        "description": view.description,
        "labels": Json::Object(labels.collect()),
        "driver": view.driver,
        "endpoint": view.endpoint,
        "state": view.state.as_str(),
        "reason": view.reason,
        "since": time(view.since_ns),
        "peer": view.peer,
        "points": view.points,
        "counters": {
            "polls_due": counters.polls_due,
            "polls_started": counters.polls_started,
            "polls_done": counters.polls_done,
            "polls_skipped": counters.polls_skipped,
            "polls_failed": counters.polls_failed,
            "samples": counters.samples,
            "connects": counters.connects,
            "losses": counters.losses,
            "foreign_samples": counters.foreign_samples,
            "missing_samples": counters.missing_samples,
            "late_samples": counters.late_samples,
            "skewed_samples": counters.skewed_samples,
        },
    })
}

/// Plugins in the order of the configuration; `facts` by the same index.
#[must_use]
pub fn plugins(core: &Core, facts: &[PluginFacts], board: &Board) -> Vec<Json> {
    let unknown = PluginFacts::default();
    core.plugins()
        .iter()
        .map(|view| {
            let versions = board.of(&active::key(view.kind, view.name)).unwrap_or_default();
            plugin(view, facts.get(view.index).unwrap_or(&unknown), &versions)
        })
        .collect()
}

fn plugin(view: &PluginView<'_>, facts: &PluginFacts, versions: &Versions) -> Json {
    let (state, reason) = match (&versions.adrift, view.state) {
        // It serves, but it is not the version that was accepted.
        (Some(failed), PluginState::Running) => (PluginState::Degraded, adrift(failed)),
        (_, state) => (state, view.reason.clone()),
    };
    json!({
        "upgrade": upgrade(versions),
        "versions": versions,
        "name": view.name,
        "kind": view.kind.as_str(),
        "version": view.version,
        "abi": facts.abi,
        "description": facts.description,
        "file": facts.file.display().to_string(),
        "sha256": facts.sha256,
        "isolation": match view.isolation {
            Isolation::InProcess => "in-process",
            Isolation::Process => "process",
        },
        "state": state.as_str(),
        "reason": reason,
        "instances": view.instances,
        "worker_pid": facts.worker_pid,
        "memory_bytes": facts.worker_memory,
        "memory_limit": facts.memory_limit,
        "restarts": facts.restarts,
        "last_death": facts.last_death.as_ref().map(|(at, reason)| {
            json!({ "at": time(at.saturating_mul(NS_PER_SECOND)), "reason": reason })
        }),
        "boundary": facts.boundary,
    })
}

/// One sentence about versions, where there is something to say.
fn upgrade(versions: &Versions) -> String {
    match (&versions.trial, &versions.adrift, &versions.failed) {
        (Some(trial), ..) => format!("trial of {}: {}", named(&trial.version, &trial.sha256), trial.step),
        (None, Some(failed), _) => adrift(failed),
        (None, None, Some(failed)) => {
            format!(
                "{} failed at {}: {}",
                named(&failed.version, &failed.sha256),
                failed.since,
                failed.reason
            )
        }
        (None, None, None) => versions.note.clone(),
    }
}

fn adrift(failed: &Failed) -> String {
    let name = named(&failed.version, &failed.sha256);
    format!("{name} failed and could not be taken back; it runs until the restart: {}", failed.reason)
}

fn named(version: &str, sha256: &str) -> String {
    let short = sha256.get(..12).unwrap_or(sha256);
    if version.is_empty() { short.to_owned() } else { format!("{version} ({short})") }
}

/// A record that the far side refused.
#[must_use]
pub fn parked(parked: &Parked) -> Json {
    let Parked { number, age_ms, reason, detail, name, entry } = parked;
    let mut row = match (name, entry) {
        (Some(name), Some(entry)) => {
            let blob = entry.blob.as_deref().unwrap_or_default();
            let value = Value::decode(entry.sample.kind, entry.sample.bits, blob).unwrap_or(Value::None);
            let point = format!("{}/{}", name.device, name.point);
            let stamped = Flags(entry.sample.flags).gateway_time();
            let Sample { quality, ts_ns, .. } = entry.sample;
            value_row(&point, &value, Quality(quality), ts_ns, stamped, &name.unit)
        }
        _ => Map::from_iter([("point".to_owned(), Json::Null), ("value".to_owned(), Json::Null)]),
    };
    row.insert("number".into(), json!(number));
    row.insert("age_seconds".into(), json!(*age_ms as f64 / 1e3));
    row.insert("reason".into(), json!(reason));
    if detail != reason {
        row.insert("detail".into(), json!(detail));
    }
    Json::Object(row)
}

/// Sinks in the order of the configuration.
#[must_use]
pub fn sinks(core: &Core) -> Vec<Json> {
    let configured = |name: &str| core.site().sinks.iter().find(|sink| sink.name == name);
    let row = |view: &SinkView<'_>| {
        let row = sink(view, configured(view.name).map(|sink| &sink.queue));
        with_lost_state(core, &format!("sink/{}", view.name), row)
    };
    core.sinks().iter().map(row).collect()
}

fn sink(view: &SinkView<'_>, queue: Option<&Queue>) -> Json {
    let ledger = &view.ledger;
    let counts = |list: &mut dyn Iterator<Item = (String, u64)>| {
        Json::Object(list.map(|(reason, count)| (reason, json!(count))).collect())
    };
    json!({
        "name": view.name,
        "plugin": view.plugin,
        "connected": view.connected,
        "reason": view.reason,
        "since": time(view.since_ns),
        "points": view.points,
        "accepted": ledger.accepted,
        "delivered": ledger.delivered,
        "pending": ledger.pending,
        "parked": counts(&mut ledger.parked.iter().map(|(reason, count)| (reason.clone(), *count))),
        "dropped": counts(&mut ledger.dropped.iter().map(|(reason, count)| (reason.clone(), *count))),
        "pending_bytes": view.pending_bytes,
        "oldest_age_seconds": view.oldest_age_ns as f64 / 1e9,
        "overflow": view.overflow,
        "unwritten": view.unwritten,
        "queue": view.queue_reason,
        "queue_settings": queue.map(queue_settings),
    })
}

/// A queue file that no sink owns, in the form of a sink.
pub(crate) fn left_queue(left: &Left) -> Json {
    let (ledger, bytes) = left.holds.clone().unwrap_or_default();
    json!({
        "name": left.name,
        "configured": false,
        "connected": false,
        "reason": left.advice(),
        "accepted": ledger.accepted,
        "delivered": ledger.delivered,
        "pending": ledger.pending,
        "parked": ledger.parked,
        "dropped": ledger.dropped,
        "pending_bytes": bytes,
        "queue": "",
        "queue_settings": { "on_disk": true },
        "file": left.path.display().to_string(),
    })
}

fn queue_settings(queue: &Queue) -> Json {
    let mut settings = json!({
        "on_disk": queue.on_disk,
        "max_bytes": queue.max_bytes,
        "max_age_seconds": queue.max_age.as_secs_f64(),
        "order": match queue.order {
            Order::Fifo => "fifo",
            Order::LiveFirst => "live-first",
        },
        "replay_rate": queue.replay_rate,
    });
    if let (true, Some(settings)) = (queue.on_disk, settings.as_object_mut()) {
        settings.insert("flush_every_seconds".into(), json!(queue.flush_every.as_secs_f64()));
        settings.insert("flush_records".into(), json!(queue.flush_records));
        let sync = match queue.sync {
            Sync::Commit => "commit",
            Sync::Checkpoint => "checkpoint",
        };
        settings.insert("sync".into(), json!(sync));
    }
    settings
}

fn time(ns: i64) -> Json {
    if ns == 0 { Json::Null } else { Json::String(rfc3339(ns)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_could_not_be_taken_back_is_degraded_and_named() {
        let mut view = PluginView {
            base: 0,
            index: 0,
            name: "modbus",
            kind: busbar_core::model::PluginKind::Driver,
            version: "2",
            isolation: Isolation::Process,
            state: PluginState::Running,
            reason: String::new(),
            instances: 1,
        };
        let failed = Failed { version: "2".into(), reason: "no answer".into(), ..Failed::default() };
        let versions = Versions { adrift: Some(failed.clone()), failed: Some(failed), ..Versions::default() };
        let row = plugin(&view, &PluginFacts::default(), &versions);
        assert_eq!(row["state"], "degraded");
        for text in [&row["reason"], &row["upgrade"]] {
            assert!(text.as_str().unwrap().contains("until the restart: no answer"), "{row}");
        }
        view.state = PluginState::Failed;
        assert_eq!(plugin(&view, &PluginFacts::default(), &versions)["state"], "failed");
        view.state = PluginState::Running;
        assert_eq!(plugin(&view, &PluginFacts::default(), &Versions::default())["state"], "running");
    }

    #[test]
    fn a_reading_has_the_documented_form() {
        let mut value = Reading {
            point: "meter-01/voltage_l1".into(),
            value: Value::Float32(231.4),
            quality: Quality::GOOD,
            ts_ns: 1_767_225_600_123_999_999,
            gateway_time: false,
            unit: "V".into(),
        };
        assert_eq!(
            reading(&value).to_string(),
            r#"{"point":"meter-01/voltage_l1","value":231.4,"quality":"good","ts":1767225600123,"unit":"V"}"#
        );
        value.value = Value::None;
        value.ts_ns = 0;
        value.gateway_time = true;
        value.unit.clear();
        value.quality = Quality::INVALID.with(Quality::COMM_LOST);
        assert_eq!(
            reading(&value).to_string(),
            r#"{"point":"meter-01/voltage_l1","value":null,"quality":"invalid|comm_lost","ts":null,"gateway_time":true}"#
        );
    }
}
