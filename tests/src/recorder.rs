//! A far side that can be trusted with counting: takes MQTT 3.1.1 connections, writes down every PUBLISH *before* it
//! confirms it, and can be taken down at any moment, also between the two.
//!
//! A real broker confirms what it has not passed on yet, so a subscriber behind a broker that is killed cannot tell what
//! the gateway lost from what the broker lost. That the gateway speaks MQTT properly is shown with mosquitto.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{self, ConnAck, ConnectReturnCode, Packet, PubAck, SubAck, SubscribeReasonCode};
use serde_json::Value;

/// Largest packet.
const MAX_PACKET: usize = 1 << 20;

/// One message, as it was written down.
#[derive(Debug, Clone)]
pub struct Written {
    /// When.
    pub at: Instant,
    /// Topic.
    pub topic: String,
    /// Payload as JSON, or what was made of it; null when it is none.
    pub payload: Value,
}

/// What is kept of a payload.
type Digest = fn(Value) -> Value;

type Shared = Arc<Mutex<State>>;

#[derive(Debug)]
struct State {
    digest: Digest,
    written: Vec<Written>,
    open: Vec<TcpStream>,
    /// Set while it is down: nothing more is written down.
    down: bool,
}

/// The far side; stopped on drop.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens while it is up; the same over all its lives.
    pub address: SocketAddr,
    state: Shared,
    listener: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        Self::with_digest(|payload| payload)
    }

    /// Starts one that keeps only what `digest` makes of each payload: for millions of records.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn with_digest(digest: Digest) -> Self {
        let address = ([127, 0, 0, 1], crate::ports::free()).into();
        let state = State { digest, written: Vec::new(), open: Vec::new(), down: false };
        let mut recorder = Self { address, state: Arc::new(Mutex::new(state)), listener: None };
        recorder.up();
        recorder
    }

    /// Takes connections again.
    ///
    /// # Panics
    /// When its port was taken by somebody else.
    pub fn up(&mut self) {
        if self.listener.is_some() {
            return;
        }
        self.state.lock().unwrap().down = false;
        let listener = TcpListener::bind(self.address).unwrap();
        let state = Arc::clone(&self.state);
        self.listener = Some(std::thread::spawn(move || listen(&listener, &state)));
    }

    /// Gone at once: whatever is not written down never came, whatever is not confirmed never will be.
    ///
    /// # Panics
    /// When one of its threads panicked.
    pub fn down(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.down = true;
        for stream in state.open.drain(..) {
            // An error says that it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        if let Some(listener) = self.listener.take() {
            // Wakes the thread; an error says that it has ended.
            let _ = TcpStream::connect(self.address);
            listener.join().unwrap();
        }
    }

    /// Everything so far, in order.
    ///
    /// # Panics
    /// When one of its threads panicked.
    #[must_use]
    pub fn written(&self) -> Vec<Written> {
        self.state.lock().unwrap().written.clone()
    }

    /// How many messages so far.
    ///
    /// # Panics
    /// When one of its threads panicked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().written.len()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.down();
        }
    }
}

/// Until a connection finds it down; [`Recorder::down`] makes one.
fn listen(listener: &TcpListener, state: &Shared) {
    while let Ok((stream, _)) = listener.accept() {
        let mut guard = state.lock().unwrap();
        if guard.down {
            return;
        }
        guard.open.push(stream.try_clone().unwrap());
        drop(guard);
        let state = Arc::clone(state);
        std::thread::spawn(move || serve(stream, &state));
    }
}

/// One connection, until it ends in whatever way.
fn serve(mut stream: TcpStream, state: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut input = bytes::BytesMut::new();
    let mut chunk = [0_u8; 65536];
    loop {
        let mut output = bytes::BytesMut::new();
        loop {
            match Packet::read(&mut input, MAX_PACKET) {
                Ok(packet) => answer(packet, state, &mut output)?,
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => break,
                Err(_) => return None,
            }
        }
        if !output.is_empty() {
            stream.write_all(&output).ok()?;
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        input.extend_from_slice(&chunk[..count]);
    }
}

fn answer(packet: Packet, state: &Shared, output: &mut bytes::BytesMut) -> Option<()> {
    match packet {
        Packet::Connect(_) => {
            ConnAck::new(ConnectReturnCode::Success, false).write(output).ok()?;
        }
        Packet::Publish(publish) => {
            let payload = serde_json::from_slice(&publish.payload).unwrap_or(Value::Null);
            let mut state = state.lock().unwrap();
            if state.down {
                return None;
            }
            let payload = (state.digest)(payload);
            state.written.push(Written { at: Instant::now(), topic: publish.topic.clone(), payload });
            drop(state);
            if publish.qos != QoS::AtMostOnce {
                PubAck::new(publish.pkid).write(output).ok()?;
            }
        }
        Packet::Subscribe(subscribe) => {
            let codes =
                subscribe.filters.iter().map(|filter| SubscribeReasonCode::Success(filter.qos)).collect();
            SubAck::new(subscribe.pkid, codes).write(output).ok()?;
        }
        Packet::PingReq => {
            v4::PingResp.write(output).ok()?;
        }
        Packet::Disconnect => return None,
        _ => {}
    }
    Some(())
}
