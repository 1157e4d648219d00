//! Many Modbus TCP servers in this process, for load and timing: it answers function 3 from a formula and writes down
//! when each request came.
//!
//! A server by the same hands as the client proves nothing about the protocol; what arrives with which meaning is shown
//! with pymodbus. This one is here because fifty pymodbus servers would themselves be late on a small machine, and
//! because the time at which a request reaches the device can only be read at the device.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Most registers of one answer (Modbus Application Protocol V1.1b3, 6.3).
const MAX_REGISTERS: u16 = 125;

/// How one simulated device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Every float32 at an even address holds the number of the request: newer answers have larger values.
    Counting,
    /// The float32 at address 0 holds the number of the request, the others what [`measured`] says: values that look
    /// measured and are known to whoever knows the number.
    Measuring,
    /// Takes connections and requests, never answers.
    Hanging,
}

/// What one device saw. Times are kept for the first [`KEPT`] requests.
#[derive(Debug)]
pub struct Seen {
    begin: Instant,
    requests: AtomicU64,
    connections: AtomicU64,
    /// Arrival, and how many registers were asked for.
    answered: Mutex<Vec<(Instant, u16)>>,
}

/// Bound of the kept times per device: an hour at 100 ms.
pub const KEPT: usize = 40_000;

impl Seen {
    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections taken so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Arrival time of every request.
    ///
    /// # Panics
    /// Never in practice: the lock is not held across a panic.
    #[must_use]
    pub fn times(&self) -> Vec<Instant> {
        self.answered.lock().unwrap().iter().map(|(time, _)| *time).collect()
    }

    /// Arrival of request `number` (from 1, as carried in the values).
    ///
    /// # Panics
    /// Never in practice: the lock is not held across a panic.
    #[must_use]
    pub fn time(&self, number: u64) -> Option<Instant> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.answered.lock().unwrap().get(index).map(|(time, _)| *time)
    }

    /// How many registers request `number` (from 1) asked for: a probe of the session asks for fewer than a poll.
    ///
    /// # Panics
    /// Never in practice: the lock is not held across a panic.
    #[must_use]
    pub fn registers(&self, number: u64) -> Option<u16> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.answered.lock().unwrap().get(index).map(|(_, registers)| *registers)
    }

    /// When the device was started.
    #[must_use]
    pub const fn begin(&self) -> Instant {
        self.begin
    }

    fn request(&self, registers: u16) -> u64 {
        let mut times = self.answered.lock().unwrap();
        if times.len() < KEPT {
            times.push((Instant::now(), registers));
        }
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One simulated device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it saw.
    pub seen: Arc<Seen>,
}

/// All devices of one test on one thread; stopped on drop.
#[derive(Debug)]
pub struct Devices {
    /// In the order of the manners.
    pub list: Vec<Device>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Devices {
    /// Starts one device per manner.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(manners: &[Manner]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut listeners = Vec::new();
        let mut list = Vec::new();
        for manner in manners {
            let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
            let seen = Arc::new(Seen {
                begin: Instant::now(),
                requests: AtomicU64::new(0),
                connections: AtomicU64::new(0),
                answered: Mutex::new(Vec::new()),
            });
            list.push(Device { address: listener.local_addr().unwrap(), seen: Arc::clone(&seen) });
            listeners.push((listener, *manner, seen));
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                for (listener, manner, seen) in listeners {
                    tokio::spawn(listen(listener, manner, seen));
                }
                let _ = stopped.await;
            });
        });
        Self { list, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen(listener: TcpListener, manner: Manner, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(stream, manner, Arc::clone(&seen)));
    }
}

/// One connection: MBAP header of 7 bytes, then the PDU (Modbus Messaging on TCP/IP V1.0b, 3.1.3).
async fn serve(mut stream: TcpStream, manner: Manner, seen: Arc<Seen>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut head = [0_u8; 12];
    loop {
        stream.read_exact(&mut head).await.ok()?;
        let number = seen.request(u16::from_be_bytes([head[10], head[11]]));
        if manner == Manner::Hanging {
            continue;
        }
        let [t0, t1, 0, 0, 0, 6, unit, 3, a0, a1, c0, c1] = head else { return None };
        let (address, count) =
            (u16::from_be_bytes([a0, a1]), u16::from_be_bytes([c0, c1]).min(MAX_REGISTERS));
        let bytes = u8::try_from(count * 2).ok()?;
        let mut answer = vec![t0, t1, 0, 0, 0, 3 + bytes, unit, 3, bytes];
        for register in address..address.saturating_add(count) {
            let at = if manner == Manner::Measuring { register & !1 } else { 0 };
            let [b0, b1, b2, b3] = measured(number, at).to_be_bytes();
            answer.extend(if register % 2 == 0 { [b0, b1] } else { [b2, b3] });
        }
        stream.write_all(&answer).await.ok()?;
    }
}

/// The float32 at an even address in the answer to request `number`: the number itself at 0, elsewhere some 230 V or 50 Hz
/// with noise in all lower digits, as meters answer.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "request numbers stay far below 2^24")]
pub fn measured(number: u64, address: u16) -> f32 {
    if address == 0 {
        return number as f32;
    }
    // Upper bits of a multiplicative hash; 16 of them are noise of one part in a thousand.
    let hash = (number << 16 | u64::from(address)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    (230.0 + f32::from(address)) * (1.0 + hash as f32 / 65_536_000.0)
}

/// A port on which nobody listens: connections are refused at once.
#[must_use]
pub fn refusing() -> SocketAddr {
    ([127, 0, 0, 1], crate::ports::free()).into()
}

/// How the requests that reached one device lie on its grid.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    /// Polls that should have come between the first and the last, both included.
    pub due: u64,
    /// Polls that came.
    pub came: u64,
    /// Delay of each against the grid.
    pub delays: Vec<Duration>,
}

impl Grid {
    /// Lays a grid of `interval` under the arrivals. Its phase is that of the earliest arrival relative to the grid,
    /// so that no delay is flattered.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive count")]
    pub fn of(times: &[Instant], interval: Duration) -> Self {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Self::default() };
        let steps = |time: &Instant| time.duration_since(*first).as_secs_f64() / interval.as_secs_f64();
        // Distance of each arrival from the grid through the first one, within half an interval.
        let offsets: Vec<f64> = times.iter().map(|time| steps(time) - steps(time).round()).collect();
        let earliest = offsets.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            due: steps(last).round() as u64 + 1,
            came: times.len() as u64,
            delays: offsets.iter().map(|offset| interval.mul_f64(offset - earliest)).collect(),
        }
    }

    /// Adds another device.
    pub fn add(&mut self, other: Self) {
        self.due += other.due;
        self.came += other.came;
        self.delays.extend(other.delays);
    }

    /// Share of the due polls that came.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "small counts")]
    pub fn kept(&self) -> f64 {
        self.came as f64 / self.due as f64
    }

    /// The 99th percentile of the delays.
    ///
    /// # Panics
    /// When nothing came.
    #[must_use]
    pub fn p99(&mut self) -> Duration {
        self.delays.sort();
        self.delays[(self.delays.len() - 1) * 99 / 100]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_sees_missing_and_late_polls() {
        let (begin, interval) = (Instant::now(), Duration::from_millis(100));
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut steady = Grid::of(&(0..100).map(|i| at(i * 100)).collect::<Vec<_>>(), interval);
        assert_eq!((steady.kept(), steady.p99()), (1.0, Duration::ZERO));
        let missing =
            Grid::of(&(0..100).filter(|i| i % 10 != 5).map(|i| at(i * 100)).collect::<Vec<_>>(), interval);
        assert!((missing.kept() - 0.9).abs() < 0.001);
        let late: Vec<_> = (0..100).map(|i| at(i * 100 + if i % 10 == 5 { 30 } else { 0 })).collect();
        assert!(Grid::of(&late, interval).p99() >= Duration::from_millis(29));
        // A first arrival that was late itself must not make the others look early.
        let first: Vec<_> = (0..100).map(|i| at(if i == 0 { 40 } else { i * 100 })).collect();
        assert!(Grid::of(&first, interval).delays[0] >= Duration::from_millis(39));
    }
}
