//! Breaks the contract at run time; the group of READ says how.

use busbar_bad_common::{
    Bad, Host,
    busbar_abi::{Batch, Message, Sample},
    busbar_contract::{batch, binary::Read, op, value::Kind},
    export_bad,
};

static BAD: Bad = Bad { handle, ..Bad::well_behaved("bad-contract") };

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
        _ => {
            host.raw_push(host.inst, one(request.req));
        }
    }
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
