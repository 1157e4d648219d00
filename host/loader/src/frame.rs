//! Frames between the host and a worker process. Pure codec.
//!
//! `u32 len | u8 type | u64 instance | payload`, little-endian; `len` counts everything after itself. A batch is
//! `u64 id | u32 op | u32 flags | u32 count | count x 24 bytes | blob`, a sample's 24 bytes as in memory on a
//! little-endian machine. The worker is outside the trust boundary: every length is checked, and memory grows with
//! the bytes that arrive, not with the length that a header claims.

use std::io::{self, Read};

use busbar_abi::{Batch, Sample};
use busbar_contract::{Malformed, batch};

/// Largest frame: the largest batch with its header.
pub(crate) const MAX_FRAME: usize = HEADER + BATCH_HEADER + batch::MAX_SAMPLES * SAMPLE + batch::MAX_BLOB;

const HEADER: usize = 9;
const BATCH_HEADER: usize = 20;
const SAMPLE: usize = 24;

const INIT: u8 = 1;
const OPEN: u8 = 2;
const CONTROL: u8 = 3;
const SHUTDOWN: u8 = 4;
const SUBMIT: u8 = 5;
const DELIVER: u8 = 6;
const STOP: u8 = 7;
const CLOSE: u8 = 8;
const PRESSURE: u8 = 9;
const REPLY: u8 = 33;
const PUSH: u8 = 34;
const EVENT: u8 = 35;
const LOG: u8 = 36;

/// One frame. `call` numbers pair a question with its [`Frame::Reply`].
#[derive(Debug)]
pub(crate) enum Frame {
    /// Host: load the plugin and start its runtime.
    Init { call: u64, options: Vec<u8> },
    /// Host: open an instance.
    Open { inst: u64, call: u64, config: Vec<u8> },
    /// Host: ask.
    Control { call: u64, op: u32, body: Vec<u8> },
    /// Host: stop the runtime and end.
    Shutdown { call: u64, deadline_ms: u64 },
    /// Host: request.
    Submit { inst: u64, op: u32, req: u64, body: Vec<u8> },
    /// Host: records for a sink.
    Deliver { inst: u64, batch: Batch },
    /// Host: stop an instance.
    Stop { inst: u64, deadline_ms: u64 },
    /// Host: drop an instance.
    Close { inst: u64 },
    /// Host: this instance pushes faster than the host takes.
    Pressure { inst: u64 },
    /// Worker: answer to a call.
    Reply { call: u64, result: Result<Vec<u8>, String> },
    /// Worker: samples.
    Push { inst: u64, batch: Batch },
    /// Worker: event.
    Event { inst: u64, op: u32, req: u64, body: Vec<u8> },
    /// Worker: a log record as JSON.
    Log { inst: u64, entry: Vec<u8> },
}

impl Frame {
    /// The bytes, length first.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Init { call, options } => build(INIT, 0, &[&call.to_le_bytes(), options]),
            Self::Open { inst, call, config } => build(OPEN, *inst, &[&call.to_le_bytes(), config]),
            Self::Control { call, op, body } => {
                build(CONTROL, 0, &[&call.to_le_bytes(), &op.to_le_bytes(), body])
            }
            Self::Shutdown { call, deadline_ms } => {
                build(SHUTDOWN, 0, &[&call.to_le_bytes(), &deadline_ms.to_le_bytes()])
            }
            Self::Submit { inst, op, req, body } => {
                build(SUBMIT, *inst, &[&op.to_le_bytes(), &req.to_le_bytes(), body])
            }
            Self::Deliver { inst, batch } => encode_batch(DELIVER, *inst, batch),
            Self::Stop { inst, deadline_ms } => build(STOP, *inst, &[&deadline_ms.to_le_bytes()]),
            Self::Close { inst } => build(CLOSE, *inst, &[]),
            Self::Pressure { inst } => build(PRESSURE, *inst, &[]),
            Self::Reply { call, result } => {
                let (ok, bytes) = match result {
                    Ok(bytes) => (1u8, bytes.as_slice()),
                    Err(text) => (0, text.as_bytes()),
                };
                build(REPLY, 0, &[&call.to_le_bytes(), &[ok], bytes])
            }
            Self::Push { inst, batch } => encode_batch(PUSH, *inst, batch),
            Self::Event { inst, op, req, body } => {
                build(EVENT, *inst, &[&op.to_le_bytes(), &req.to_le_bytes(), body])
            }
            Self::Log { inst, entry } => build(LOG, *inst, &[entry]),
        }
    }

    /// Reads what follows the length.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Cursor(bytes);
        let kind = rest.u8()?;
        let inst = rest.u64()?;
        Ok(match kind {
            INIT => Self::Init { call: rest.u64()?, options: rest.all() },
            OPEN => Self::Open { inst, call: rest.u64()?, config: rest.all() },
            CONTROL => Self::Control { call: rest.u64()?, op: rest.u32()?, body: rest.all() },
            SHUTDOWN => Self::Shutdown { call: rest.u64()?, deadline_ms: rest.u64()? },
            SUBMIT => Self::Submit { inst, op: rest.u32()?, req: rest.u64()?, body: rest.all() },
            DELIVER => Self::Deliver { inst, batch: decode_batch(rest)? },
            STOP => Self::Stop { inst, deadline_ms: rest.u64()? },
            CLOSE => Self::Close { inst },
            PRESSURE => Self::Pressure { inst },
            REPLY => {
                let (call, ok) = (rest.u64()?, rest.u8()?);
                let bytes = rest.all();
                let result =
                    if ok == 1 { Ok(bytes) } else { Err(String::from_utf8_lossy(&bytes).into_owned()) };
                Self::Reply { call, result }
            }
            PUSH => Self::Push { inst, batch: decode_batch(rest)? },
            EVENT => Self::Event { inst, op: rest.u32()?, req: rest.u64()?, body: rest.all() },
            LOG => Self::Log { inst, entry: rest.all() },
            other => return Err(Malformed::new("frame type", "1 to 9 or 33 to 36", other.to_string())),
        })
    }
}

/// Reads one frame; `None` at a clean end between frames.
pub(crate) fn read_frame(input: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut length = [0u8; 4];
    let mut have = 0;
    while let Some(rest) = length.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if !(HEADER..=MAX_FRAME).contains(&length) {
        let what = Malformed::new("frame length", format!("{HEADER} to {MAX_FRAME}"), length.to_string());
        return Err(invalid(what));
    }
    let mut bytes = Vec::new();
    input.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Frame::decode(&bytes).map(Some).map_err(invalid)
}

fn invalid(what: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn build(kind: u8, inst: u64, parts: &[&[u8]]) -> Vec<u8> {
    let size = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = start(kind, inst, size);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

fn start(kind: u8, inst: u64, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 4);
    // A frame beyond 4 GiB cannot be built: batches and bodies are bounded before they get here, and the reader
    // refuses everything beyond MAX_FRAME.
    out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&inst.to_le_bytes());
    out
}

fn encode_batch(kind: u8, inst: u64, batch: &Batch) -> Vec<u8> {
    let (samples, blob) = (batch.samples.as_slice(), batch.blob.as_slice());
    let mut out = start(kind, inst, HEADER + BATCH_HEADER + samples.len() * SAMPLE + blob.len());
    out.extend_from_slice(&batch.id.to_le_bytes());
    out.extend_from_slice(&batch.op.to_le_bytes());
    out.extend_from_slice(&batch.flags.to_le_bytes());
    out.extend_from_slice(&u32::try_from(samples.len()).unwrap_or(u32::MAX).to_le_bytes());
    for sample in samples {
        out.extend_from_slice(&encode_sample(sample));
    }
    out.extend_from_slice(blob);
    out
}

fn encode_sample(sample: &Sample) -> [u8; SAMPLE] {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = sample.ts_ns.to_le_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = sample.bits.to_le_bytes();
    let [p0, p1, p2, p3] = sample.point.to_le_bytes();
    let [q0, q1] = sample.quality.to_le_bytes();
    let (kind, flags) = (sample.kind, sample.flags);
    [t0, t1, t2, t3, t4, t5, t6, t7, b0, b1, b2, b3, b4, b5, b6, b7, p0, p1, p2, p3, q0, q1, kind, flags]
}

fn decode_sample(bytes: &[u8; SAMPLE]) -> Sample {
    let [t0, t1, t2, t3, t4, t5, t6, t7, b0, b1, b2, b3, b4, b5, b6, b7, p0, p1, p2, p3, q0, q1, kind, flags] =
        *bytes;
    Sample {
        ts_ns: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        bits: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        point: u32::from_le_bytes([p0, p1, p2, p3]),
        quality: u16::from_le_bytes([q0, q1]),
        kind,
        flags,
    }
}

fn decode_batch(mut rest: Cursor<'_>) -> Result<Batch, Malformed> {
    let (id, op, flags, count) = (rest.u64()?, rest.u32()?, rest.u32()?, rest.u32()? as usize);
    let short =
        || Malformed::new("batch frame", format!("{count} samples"), format!("{} bytes", rest.0.len()));
    let (samples, blob) =
        count.checked_mul(SAMPLE).and_then(|size| rest.0.split_at_checked(size)).ok_or_else(short)?;
    let (chunks, _) = samples.as_chunks::<SAMPLE>();
    let samples: Vec<Sample> = chunks.iter().map(decode_sample).collect();
    Ok(Batch { id, op, flags, samples: samples.into(), blob: blob.to_vec().into() })
}

/// Reads fields off the front.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let have = self.0.len();
        let (chunk, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| Malformed::new("frame", format!("{N} more bytes"), have.to_string()))?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let sample = Sample { ts_ns: -2, bits: 1 << 40, point: 7, quality: 0x4001, kind: 9, flags: 0x81 };
        Batch { id: 9, op: 3, flags: 1, samples: vec![sample; 3].into(), blob: b"text".to_vec().into() }
    }

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Init { call: 1, options: b"{}".to_vec() },
            Frame::Open { inst: 5, call: 2, config: b"{}".to_vec() },
            Frame::Control { call: 3, op: 203, body: b"debug".to_vec() },
            Frame::Shutdown { call: 4, deadline_ms: 300 },
            Frame::Submit { inst: 5, op: 6, req: 77, body: vec![1; 12] },
            Frame::Deliver { inst: 6, batch: batch() },
            Frame::Stop { inst: 5, deadline_ms: 1000 },
            Frame::Close { inst: 5 },
            Frame::Pressure { inst: 5 },
            Frame::Reply { call: 4, result: Ok(vec![1]) },
            Frame::Reply { call: 4, result: Err("no".into()) },
            Frame::Push { inst: 5, batch: batch() },
            Frame::Event { inst: 5, op: 118, req: 0, body: vec![] },
            Frame::Log { inst: 0, entry: b"{}".to_vec() },
        ]
    }

    #[test]
    fn every_frame_survives() {
        let bytes: Vec<u8> = frames().iter().flat_map(Frame::encode).collect();
        let mut input = bytes.as_slice();
        for frame in frames() {
            let back = read_frame(&mut input).unwrap().unwrap();
            assert_eq!(format!("{back:?}"), format!("{frame:?}"));
        }
        assert!(read_frame(&mut input).unwrap().is_none());
    }

    #[test]
    fn the_bytes_of_a_batch_are_as_documented() {
        let bytes = Frame::Push { inst: 5, batch: batch() }.encode();
        assert_eq!(bytes.len(), 4 + 9 + 20 + 3 * 24 + 4);
        assert_eq!(bytes[..13], [105, 0, 0, 0, 34, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes[33..57],
            [254, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 1, 0, 0, 7, 0, 0, 0, 1, 0x40, 9, 0x81]
        );
        assert_eq!(&bytes[bytes.len() - 4..], b"text");
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..state % 64)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            state = state.wrapping_add(1);
            let _ = Frame::decode(&bytes);
            let _ = read_frame(&mut bytes.as_slice());
        }
    }

    #[test]
    fn cut_and_hostile_frames_are_refused() {
        for frame in frames() {
            let bytes = frame.encode();
            for end in 1..bytes.len() {
                assert!(read_frame(&mut &bytes[..end]).is_err(), "{frame:?} cut at {end}");
            }
        }
        assert!(read_frame(&mut &[0xff; 64][..]).is_err());
        assert!(read_frame(&mut &[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..]).is_err());
        let mut many = Frame::Push { inst: 1, batch: batch() }.encode();
        many[29..33].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read_frame(&mut many.as_slice()).is_err());
        let mut unknown = Frame::Close { inst: 1 }.encode();
        unknown[4] = 200;
        assert!(read_frame(&mut unknown.as_slice()).is_err());
    }
}
