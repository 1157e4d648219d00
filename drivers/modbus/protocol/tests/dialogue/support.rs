//! A scripted peer: the test reads requests and writes answers byte by byte.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use busbar_modbus::link::Connecting;
use busbar_modbus::{BoxStream, Carrier, Connect, LineMemory, Session, Timing, rtu};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// Hands out prepared streams, one per connection.
#[derive(Debug)]
pub(crate) struct Streams(pub(crate) VecDeque<DuplexStream>);

impl Connect for Streams {
    fn peer(&self) -> String {
        "scripted".to_owned()
    }

    fn connect(&mut self) -> Connecting<'_> {
        let stream = self.0.pop_front().map(|stream| Box::new(stream) as BoxStream);
        Box::pin(async { stream.ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionRefused, "refused")) })
    }
}

/// A session and the far ends of the connections it will open.
pub(crate) fn session(carrier: Carrier, connections: usize, retries: u32) -> (Session, Vec<DuplexStream>) {
    let (near, far): (VecDeque<_>, Vec<_>) = (0..connections).map(|_| tokio::io::duplex(4096)).unzip();
    let gap = if carrier == Carrier::Serial { Duration::from_millis(4) } else { Duration::ZERO };
    let timing = Timing { response_timeout: TIMEOUT, retries, frame_gap: gap };
    let session = Session::new(Box::new(Streams(near)), carrier, timing).with_memory(LineMemory::default());
    (session, far)
}

pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    rtu::seal(&mut frame);
    frame
}

/// Reads exactly these bytes.
pub(crate) async fn expect(stream: &mut DuplexStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    stream.read_exact(&mut found).await.unwrap();
    assert_eq!(found, bytes, "expected {bytes:02X?}, the session sent {found:02X?}");
}

pub(crate) async fn send(stream: &mut DuplexStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

/// Answers the echo request that teaches the session whether the unit knows function 8.
pub(crate) async fn echo(stream: &mut DuplexStream) {
    let mut frame = [0; 8];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[1..4], [8, 0, 0], "expected an echo request, the session sent {frame:02X?}");
    stream.write_all(&frame).await.unwrap();
}
