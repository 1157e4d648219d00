//! Frame logging that can be switched while a session runs.

use std::io;
use std::pin::Pin;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::hint::{Direction, hint};
use crate::link::BoxStream;

/// A switch shared by the session and whoever operates it.
#[derive(Debug, Clone, Default)]
pub struct FrameLog(Arc<AtomicBool>);

impl FrameLog {
    /// Uses a switch that exists elsewhere.
    #[must_use]
    pub const fn new(switch: Arc<AtomicBool>) -> Self {
        Self(switch)
    }

    /// Switches logging.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    fn log(&self, mbap: bool, direction: Direction, bytes: &[u8]) {
        if self.0.load(Ordering::Relaxed) && !bytes.is_empty() {
            let frame: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let (hint, bytes) = (hint(mbap, direction, bytes), bytes.len());
            let direction = if direction == Direction::Tx { "tx" } else { "rx" };
            tracing::info!(target: "frame", direction, bytes, frame, hint, "frame");
        }
    }
}

/// A stream whose traffic is logged while the switch is on.
#[derive(Debug)]
pub(crate) struct Tap {
    io: BoxStream,
    log: FrameLog,
    /// Frames have the header of Modbus TCP.
    mbap: bool,
}

impl Tap {
    pub(crate) const fn new(io: BoxStream, log: FrameLog, mbap: bool) -> Self {
        Self { io, log, mbap }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.log.log(self.mbap, Direction::Rx, buf.filled().get(before..).unwrap_or(&[]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.log.log(self.mbap, Direction::Tx, buf.get(..written).unwrap_or(&[]));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
