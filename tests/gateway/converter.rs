//! A serial converter: the answer that was late on the serial side reaches whoever is connected by then.
//!
//! RTU carries no transaction number, so an answer of the right unit, function and length cannot be told from the one
//! that is expected. Closing the TCP connection is therefore not enough: the late answer of the serial line comes out of
//! the next connection. A master must let the line fall silent before it asks again. No library server behaves like this,
//! so this one is written here; the frames are those of the Modbus over Serial Line specification V1.02, 2.5.1.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Place, until};
use serde_json::json;

use crate::shared::{device, mqtt_sink, quality, topic};

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(200);
/// How late the late answers are: beyond the time-out, within the silence a careful master keeps.
const LATE: Duration = Duration::from_millis(270);
const ADDRESSES: [u16; 2] = [0, 300];

/// The converter: every `every`-th answer is late.
struct Converter {
    address: SocketAddr,
    late: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

type Current = Arc<Mutex<Option<TcpStream>>>;

impl Converter {
    fn start(every: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (late, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let current: Current = Arc::default();
        let (line, requests) = std::sync::mpsc::sync_channel::<Vec<u8>>(64);
        let serial = {
            let (current, late) = (Arc::clone(&current), Arc::clone(&late));
            std::thread::spawn(move || serial_side(&requests, &current, &late, every))
        };
        let network = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    *current.lock().unwrap() = stream.try_clone().ok();
                    network_side(stream, &line);
                }
            })
        };
        Self { address, late, stop, threads: vec![serial, network] }
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The accepting thread sees the flag when one more connection comes.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Requests of one connection go onto the line; function 3 requests are eight bytes.
fn network_side(mut stream: TcpStream, line: &std::sync::mpsc::SyncSender<Vec<u8>>) {
    let mut frame = [0_u8; 8];
    while stream.read_exact(&mut frame).is_ok() {
        if line.send(frame.to_vec()).is_err() {
            return;
        }
    }
}

/// The device behind the line answers every request in its own time; the answer goes to who is connected then.
fn serial_side(
    requests: &std::sync::mpsc::Receiver<Vec<u8>>,
    current: &Current,
    late: &AtomicU64,
    every: u64,
) {
    for (number, request) in (1_u64..).zip(requests.iter()) {
        let taken = Instant::now();
        if number % every == 0 {
            late.fetch_add(1, Ordering::Relaxed);
            while taken.elapsed() < LATE {
                std::thread::park_timeout(LATE - taken.elapsed().min(LATE));
            }
        }
        let value = u16::from_be_bytes([request[2], request[3]]) + 1;
        let [high, low] = value.to_be_bytes();
        let mut answer = vec![request[0], request[1], 2, high, low];
        let [c0, c1] = crc(&answer).to_le_bytes();
        answer.extend([c0, c1]);
        if let Some(stream) = current.lock().unwrap().as_mut() {
            let _ = stream.write_all(&answer);
        }
    }
}

/// CRC-16 of Modbus, polynomial 0xA001 reflected, start 0xFFFF.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 })
    })
}

#[test]
fn a_late_answer_on_the_next_connection_is_not_taken() {
    // The check value of the algorithm's catalogue entry CRC-16/MODBUS.
    assert_eq!(crc(b"123456789"), 0x4B37);
    let converter = Converter::start(5);
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let points: Vec<String> = ADDRESSES
        .iter()
        .map(|a| format!("{{ name = \"r{a}\", address = \"holding:{a}\", type = \"uint16\" }}"))
        .collect();
    let keys = format!(
        "poll_interval = \"100ms\"\nresponse_timeout = \"{}ms\"\nreconnect = {{ initial = \"20ms\", max = \"50ms\" }}",
        RESPONSE_TIMEOUT.as_millis()
    );
    let connection = Place::Tcp(converter.address).connection("rtu-over-tcp", 1);
    let _gateway =
        Gateway::start(&(device("meter", &connection, &keys, &points) + &mqtt_sink(&broker.url())));
    until("thirty late answers", 3 * PATIENCE, || {
        (converter.late.load(Ordering::Relaxed) >= 30).then_some(())
    });
    let mut right = 0;
    for message in observer.all() {
        for address in ADDRESSES {
            if message.topic == topic("meter", &format!("r{address}")) && !message.payload["value"].is_null()
            {
                assert_eq!(
                    message.payload["value"],
                    json!(address + 1),
                    "a value of another register: {message:?}"
                );
                right += i32::from(quality(&message.payload) == "good");
            }
        }
    }
    assert!(right > 30, "only {right} good values: the test has shown nothing");
}
