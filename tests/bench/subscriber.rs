//! A subscriber that costs as little as possible: MQTT 3.1.1 with QoS 0, read straight from the socket.
//!
//! A client library would take more CPU than the gateway it watches. What it reads: the device number from the topic
//! (`busbar/site/d17[/p3]`) and the first value of the payload, which is the number of the request that read it.

use std::io::{BufReader, Read, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One message as measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) device: u32,
    /// Number of the request at the device.
    pub(crate) number: u64,
    /// Points in the message.
    pub(crate) points: u32,
    pub(crate) at: Instant,
}

/// Bound of the kept arrivals, far above a measurement.
const MAX_ARRIVALS: usize = 4_000_000;

pub(crate) struct Subscriber {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Subscriber {
    pub(crate) fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        // CONNECT: protocol MQTT level 4, clean session, keep-alive 0, client id "bench".
        stream.write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench").unwrap();
        // SUBSCRIBE: packet 1, filter busbar/#, QoS 0.
        stream.write_all(b"\x82\x0d\x00\x01\x00\x08busbar/#\x00").unwrap();
        let arrivals = Arc::new(Mutex::new(Vec::with_capacity(1 << 20)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (arrivals, stop) = (Arc::clone(&arrivals), Arc::clone(&stop));
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            std::thread::spawn(move || read(stream, &arrivals, &stop))
        };
        Self { arrivals, stop, thread: Some(thread) }
    }

    /// What arrived within the window.
    pub(crate) fn between(&self, begin: Instant, end: Instant) -> Vec<Arrival> {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().filter(|arrival| (begin..end).contains(&arrival.at)).copied().collect()
    }

    /// Devices from which something arrived.
    pub(crate) fn devices(&self) -> usize {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().map(|arrival| arrival.device).collect::<std::collections::HashSet<_>>().len()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Retries reads that only timed out, so that a stop is seen.
struct Patient<'a>(TcpStream, &'a AtomicBool);

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(into) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.1.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

fn read(stream: TcpStream, arrivals: &Mutex<Vec<Arrival>>, stop: &AtomicBool) {
    let mut reader = BufReader::with_capacity(1 << 18, Patient(stream, stop));
    let mut body = Vec::new();
    while let Some(kind) = packet(&mut reader, &mut body) {
        if kind >> 4 != 3 {
            continue;
        }
        if let Some(arrival) = arrival(&body) {
            let mut arrivals = arrivals.lock().unwrap();
            if arrivals.len() < MAX_ARRIVALS {
                arrivals.push(arrival);
            }
        }
    }
}

/// One control packet (MQTT 3.1.1, 2.2): its first byte; the rest in `body`.
fn packet(reader: &mut impl Read, body: &mut Vec<u8>) -> Option<u8> {
    let mut byte = [0_u8];
    reader.read_exact(&mut byte).ok()?;
    let kind = byte[0];
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21] {
        reader.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7F) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    body.resize(length, 0);
    reader.read_exact(body).ok()?;
    Some(kind)
}

fn arrival(body: &[u8]) -> Option<Arrival> {
    let at = Instant::now();
    let topic_length = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let topic = std::str::from_utf8(body.get(2..2 + topic_length)?).ok()?;
    let device = topic.split('/').nth(2)?.strip_prefix('d')?.parse().ok()?;
    let payload = body.get(2 + topic_length..)?;
    const KEY: &[u8] = b"\"value\":";
    let from = find(payload, KEY)? + KEY.len();
    let text = &payload[from..];
    let end = text.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b' '))?;
    let number: f64 = std::str::from_utf8(&text[..end]).ok()?.trim().parse().ok()?;
    Some(Arrival { device, number: number as u64, points: count(payload, KEY), at })
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// Occurrences of the key; a quote is looked at closely only where the letter after it fits.
fn count(text: &[u8], word: &[u8]) -> u32 {
    let mut found = 0;
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(|byte| *byte == b'v') {
        at += next;
        if at > 0 && text[at - 1..].starts_with(word) {
            found += 1;
            at += word.len() - 1;
        } else {
            at += 1;
        }
        if at >= text.len() {
            break;
        }
    }
    found
}
