//! Breaks the contract at run time, or looks at how the host answers; the group of READ says how. It refuses
//! FRAME_LOG and lane 9, and does not know BROWSE.

use busbar_bad_common::{
    Bad, Host,
    busbar_abi::{ACCEPTED, Batch, CONGESTED, LogField, LogRecord, Message, REFUSED, Sample, UNSUPPORTED},
    busbar_contract::{Answer, Event, Stage, batch, binary::Read, event::Done, op, value::Kind},
    export_bad,
};
use std::{thread, time::Duration};

static BAD: Bad = Bad {
    submit: |request| match request.op {
        op::request::BROWSE => UNSUPPORTED,
        op::request::FRAME_LOG => REFUSED,
        _ => ACCEPTED,
    },
    deliver: |batch| if batch.op == 9 { REFUSED } else { ACCEPTED },
    handle,
    ..Bad::well_behaved("bad-contract")
};

export_bad!(BAD);

const POINT: Sample = Sample { ts_ns: 1, bits: 1, point: 7, quality: 0, kind: Kind::Uint64 as u8, flags: 0 };

fn handle(host: &Host<'_>, request: &Message) {
    let group = Read::decode(&request.body).map_or(u32::MAX, |read| read.group);
    if request.op != op::request::READ {
        return host.done(request.req);
    }
    match group {
        0 => malformed_samples(host, request.req),
        1 => {
            let samples = vec![POINT; batch::MAX_SAMPLES + 1].into();
            let blob = Vec::new().into();
            host.raw_push(host.inst, Batch { id: request.req, op: 0, flags: batch::LAST, samples, blob });
        }
        2 => {
            host.raw_event(host.inst, request.req, op::event::DONE, b"not json".to_vec());
        }
        3 => {
            // Codes instead of an answer: what became of each.
            let other = host.inst + 1000;
            let codes = [
                host.raw_event(host.inst, request.req, 9999, Vec::new()),
                host.raw_event(host.inst, request.req, op::request::READ, Vec::new()),
                host.raw_event(other, request.req, op::event::DONE, Vec::new()),
                host.raw_push(other, one(0)),
                host.raw_push(0, one(0)),
            ];
            host.raw_push(host.inst, answer(request.req, &codes));
        }
        4 => {
            host.raw_event(host.inst, 0, op::event::STOPPED, Vec::new());
            host.raw_push(host.inst, one(request.req));
        }
        5 => {
            // Until the host says "slow down".
            let congested = (0..TRIES).any(|_| {
                thread::park_timeout(Duration::from_millis(1));
                host.raw_push(host.inst, one(0)) == CONGESTED
            });
            host.raw_push(host.inst, answer(request.req, &[u32::from(congested)]));
        }
        6 => {
            // Until the host takes no more; the completion must still get through.
            let refused = (0..TRIES).any(|_| host.raw_push(host.inst, large()) == REFUSED);
            let stage = if refused { Stage::Finished } else { Stage::Unknown };
            let done = Done { answer: Some(Answer::stage(stage)), ..Done::default() };
            host.event(request.req, &Event::Done(done));
        }
        7 => {
            log(host);
            host.done(request.req);
        }
        8 => {
            let blob = vec![0; batch::MAX_BLOB + (1 << 20)].into();
            host.raw_push(host.inst, Batch { blob, ..one(request.req) });
        }
        9 => {
            let body = vec![b' '; 32 << 20];
            host.raw_event(host.inst, request.req, op::event::DONE, body);
        }
        _ => {
            host.raw_push(host.inst, one(request.req));
        }
    }
}

const TRIES: u32 = 10_000;

fn large() -> Batch {
    Batch { blob: vec![0; 1 << 20].into(), ..one(0) }
}

fn log(host: &Host<'_>) {
    let field = |name: &'static str, kind, bits, text: &'static str| LogField {
        name: name.into(),
        kind,
        bits,
        text: text.into(),
    };
    let fields = [
        field("text", 0, 0, "a b"),
        field("ok", 1, 1, ""),
        field("int", 2, (-5i64).cast_unsigned(), ""),
        field("uint", 3, u64::MAX, ""),
        field("ratio", 4, 0.5f64.to_bits(), ""),
        field("nan", 4, f64::NAN.to_bits(), ""),
    ];
    host.log(&LogRecord {
        level: 2,
        line: 30,
        device: 4,
        target: "bad::poll".into(),
        file: "src/lib.rs".into(),
        message: "poll failed".into(),
        fields: fields.as_slice().into(),
    });
}

/// One good sample among bad ones, unknown bits everywhere.
fn malformed_samples(host: &Host<'_>, req: u64) {
    let text = Kind::Text as u8;
    let samples = vec![
        POINT,
        Sample { kind: 99, ..POINT },
        Sample { kind: text, bits: u64::MAX, ..POINT },
        Sample { kind: text, bits: 2, ..POINT },
        Sample { kind: text, bits: (2 << 32) | 2, ..POINT },
        Sample { kind: Kind::DoublePoint as u8, bits: 4, ..POINT },
        Sample { kind: Kind::Json as u8, bits: 2, ..POINT },
        Sample { quality: 0x8002, flags: 0x80, ..POINT },
    ];
    let blob = vec![0xff, 0xfe, b'o', b'k'].into();
    let flags = batch::LAST | 1 << 31;
    host.raw_push(host.inst, Batch { id: req, op: 0, flags, samples: samples.into(), blob });
}

fn one(id: u64) -> Batch {
    Batch { id, op: 0, flags: batch::LAST, samples: vec![POINT].into(), blob: Vec::new().into() }
}

fn answer(id: u64, codes: &[u32]) -> Batch {
    let samples: Vec<Sample> = codes.iter().map(|code| Sample { bits: u64::from(*code), ..POINT }).collect();
    Batch { id, op: 0, flags: batch::LAST, samples: samples.into(), blob: Vec::new().into() }
}
