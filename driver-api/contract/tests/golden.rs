//! Every message of every release parses for ever, and encodes to what that release understood.
//!
//! `driver-api/golden/RELEASE-{requests,events,bodies,batches}.json` are never edited after their release. A later release may
//! add keys when it encodes again; it may neither lose nor change one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use busbar_contract::{
    CheckInput, Describe, Endpoint, Event, Kind, Problem, Quality, Request, Sample, Samples, batch,
    describe::{InitOptions, Open},
    op,
    value::{hex, unhex},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};

/// The release whose files must name every operation and re-encode exactly.
const CURRENT: &str = env!("CARGO_PKG_VERSION");

#[derive(serde::Deserialize)]
struct Row {
    op: u32,
    name: String,
    body: Json,
}

fn golden(kind: &str) -> Vec<(String, PathBuf)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let suffix = format!("-{kind}.json");
    let named = files.filter_map(|file| {
        let name = file.file_name()?.to_str()?.to_owned();
        Some((name.strip_suffix(&suffix)?.to_owned(), file))
    });
    let found: Vec<_> = named.collect();
    assert!(found.iter().any(|(release, _)| release == CURRENT), "no golden {kind} of {CURRENT}");
    found
}

/// `{ "hex": ... }` stands for bytes, anything else for JSON.
fn bytes(body: &Json) -> Vec<u8> {
    match body.get("hex").and_then(Json::as_str) {
        Some(text) => unhex(text).unwrap(),
        None => body.to_string().into_bytes(),
    }
}

fn same(release: &str, what: &str, golden: &Json, again: &[u8]) {
    let again = match golden.get("hex") {
        Some(_) => json!({ "hex": hex(again) }),
        None => serde_json::from_slice(again).unwrap(),
    };
    if release == CURRENT {
        assert_eq!(&again, golden, "{what}");
    } else {
        assert!(covers(&again, golden), "{what} of {release}: {again} lost something of {golden}");
    }
}

/// Every key of `old` is in `new` with the same value.
fn covers(new: &Json, old: &Json) -> bool {
    match (new, old) {
        (Json::Object(new), Json::Object(old)) => {
            old.iter().all(|(key, old)| new.get(key).is_some_and(|new| covers(new, old)))
        }
        (Json::Array(new), Json::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| covers(new, old))
        }
        (new, old) => new == old,
    }
}

fn rows(kind: &str, check: impl Fn(&str, &Row)) -> BTreeSet<u32> {
    let mut current = BTreeSet::new();
    for (release, file) in golden(kind) {
        let rows: Vec<Row> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for row in rows {
            check(&release, &row);
            if release == CURRENT {
                current.insert(row.op);
            }
        }
    }
    current
}

#[test]
fn every_message_of_every_release_parses_and_encodes_again() {
    let mut known = rows("requests", |release, row| {
        let request = Request::decode(row.op, &bytes(&row.body))
            .unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(request.op(), row.op);
        same(release, &row.name, &row.body, &request.encode());
    });
    known.extend(rows("events", |release, row| {
        let event =
            Event::decode(row.op, &bytes(&row.body)).unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(event.op(), row.op);
        same(release, &row.name, &row.body, &event.encode());
    }));
    let all: BTreeSet<u32> = op::ALL.into_iter().collect();
    assert_eq!(known, all, "every operation of this release has a golden message");
}

#[test]
fn unknown_keys_of_later_releases_are_ignored() {
    rows("requests", |_, row| {
        let later = with_a_later_key(&row.body);
        assert_eq!(
            Request::decode(row.op, &bytes(&later)),
            Request::decode(row.op, &bytes(&row.body)),
            "{}",
            row.name
        );
    });
    rows("events", |_, row| {
        let later = with_a_later_key(&row.body);
        assert_eq!(
            Event::decode(row.op, &bytes(&later)),
            Event::decode(row.op, &bytes(&row.body)),
            "{}",
            row.name
        );
    });
}

fn with_a_later_key(body: &Json) -> Json {
    let mut later = body.clone();
    if body.get("hex").is_none() {
        later.as_object_mut().unwrap().insert("added_later".to_owned(), json!({ "x": [1] }));
    }
    later
}

#[test]
fn hostile_bodies_are_refused_and_never_panic() {
    for code in 0..130 {
        for body in [&b""[..], b"{", b"[]", b"null", b"{\"device\":-1}", &[0xff; 40]] {
            let _ = (Request::decode(code, body), Event::decode(code, body));
        }
        assert!(
            op::ALL.contains(&code)
                || (Request::decode(code, b"{}").is_err() && Event::decode(code, b"{}").is_err())
        );
    }
}

#[test]
fn bodies_of_calls_parse_and_encode_again() {
    fn each<T: DeserializeOwned + Serialize>(release: &str, what: &str, golden: &Json) {
        for body in golden[what].as_array().unwrap_or_else(|| panic!("{what} of {release}")) {
            let parsed: T =
                serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
            same(release, what, body, &serde_json::to_vec(&parsed).unwrap());
        }
    }
    for (release, file) in golden("bodies") {
        let golden: Json = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        each::<Endpoint>(&release, "endpoint", &golden);
        each::<CheckInput>(&release, "check_input", &golden);
        each::<Problem>(&release, "problem", &golden);
        each::<InitOptions>(&release, "init_options", &golden);
        each::<Open>(&release, "open", &golden);
        each::<Describe>(&release, "describe", &golden);
    }
}

#[derive(serde::Deserialize)]
struct GoldenBatch {
    name: String,
    flags: u32,
    /// 24 bytes each: `i64 ts, u64 bits, u32 point, u16 quality, u8 kind, u8 flags`, little-endian.
    samples: Vec<String>,
    blob: String,
    values: Vec<Json>,
    quality: Vec<String>,
    cause: Vec<u8>,
    times: Vec<(u32, i64)>,
}

fn sample(text: &str) -> Sample {
    let bytes = unhex(text).unwrap();
    assert_eq!(bytes.len(), size_of::<Sample>());
    Sample {
        ts_ns: i64::from_le_bytes(bytes[..8].try_into().unwrap()),
        bits: u64::from_le_bytes(bytes[8..16].try_into().unwrap()),
        point: u32::from_le_bytes(bytes[16..20].try_into().unwrap()),
        quality: u16::from_le_bytes(bytes[20..22].try_into().unwrap()),
        kind: bytes[22],
        flags: bytes[23],
    }
}

#[test]
fn batches_keep_their_meaning() {
    for (_, file) in golden("batches") {
        let batches: Vec<GoldenBatch> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for golden in batches {
            let name = golden.name;
            let samples = golden.samples.iter().map(|text| sample(text)).collect();
            let mut batch = Samples { samples, blob: unhex(&golden.blob).unwrap() };
            let whole = batch.blob.clone();
            if golden.flags & batch::TIMES != 0 {
                assert_eq!(batch.take_times().unwrap(), golden.times, "{name}");
            }
            for (index, sample) in batch.samples.iter().enumerate() {
                let value = batch.value(sample).unwrap();
                assert_eq!(serde_json::to_value(&value).unwrap(), golden.values[index], "{name} {index}");
                assert_eq!(Quality(sample.quality).to_string(), golden.quality[index], "{name} {index}");
                assert_eq!(batch::cause(sample) as u8, golden.cause[index], "{name} {index}");
                let mut blob = batch.blob[..batch.blob.len().min((sample.bits >> 32) as usize)].to_vec();
                let step_mark = if sample.kind == Kind::Step as u8 { sample.bits & 0x100 } else { 0 };
                assert_eq!(value.encode(&mut blob) | step_mark, sample.bits, "{name} {index} encodes again");
            }
            if !golden.times.is_empty() {
                batch.append_times(&golden.times);
                assert_eq!(batch.blob, whole, "{name}");
            }
        }
    }
}
