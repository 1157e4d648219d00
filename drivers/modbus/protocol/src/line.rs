//! The stream that tokio-modbus gets to see on an RTU line: only the verified answer, nothing else.
//!
//! tokio-modbus takes the first frame with a valid checksum for the answer, whoever sent it and whenever it
//! was asked for. So its client reads through a [`Line`], which holds back everything until
//! [`crate::rtu::scan`] has found the one answer that was expected, and delivers exactly that frame. The
//! session keeps a second handle to the same line, to discard, to wait for silence, and for echoes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::link::BoxStream;
use crate::rtu::{Expect, Fault, MAX_FRAME, Scan, hex, scan, scan_late};

/// Bytes without an answer after which a line is called noisy. Four frames: more than all late answers
/// that a line can deliver within one exchange.
const MAX_NOISE: usize = 4 * MAX_FRAME;

/// What is expected of the line right now.
#[derive(Debug, Clone)]
pub(crate) struct Armed {
    pub(crate) expect: Expect,
    /// Units and functions whose answers are late and skipped.
    pub(crate) late: Vec<(u8, u8)>,
}

#[derive(Debug)]
struct Inner {
    io: BoxStream,
    received: Vec<u8>,
    armed: Option<Armed>,
    answer: Option<(usize, usize)>,
    /// Late answers seen since they were last taken: unit and function.
    late: Vec<(u8, u8)>,
    fault: Option<String>,
    /// When the last byte went in either direction: the silent interval counts from here.
    last_byte: Instant,
    /// Something arrived that nobody expected; the line must fall silent before the next request.
    dirty: bool,
}

/// A shared handle to one RTU line.
#[derive(Debug, Clone)]
pub(crate) struct Line(Arc<Mutex<Inner>>);

impl Line {
    pub(crate) fn new(io: BoxStream) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            io,
            received: Vec::with_capacity(MAX_FRAME),
            armed: None,
            answer: None,
            late: Vec::new(),
            fault: None,
            last_byte: Instant::now(),
            dirty: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything received and expects this answer.
    pub(crate) fn arm(&self, armed: Armed) {
        let mut inner = self.lock();
        inner.received.clear();
        inner.answer = None;
        inner.fault = None;
        inner.armed = Some(armed);
    }

    /// Why the last exchange was broken off, if it was.
    pub(crate) fn fault(&self) -> Option<String> {
        self.lock().fault.take()
    }

    /// What was received instead of an answer, as text.
    pub(crate) fn leftover(&self) -> Option<String> {
        let inner = self.lock();
        (!inner.received.is_empty()).then(|| hex(&inner.received))
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.lock().dirty
    }

    pub(crate) fn soil(&self) {
        self.lock().dirty = true;
    }

    /// When the next frame may start at the earliest.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.lock().last_byte
    }

    /// Reads until nothing comes for `silence` and keeps nothing but the notice of late answers. Returns the
    /// number of bytes received.
    ///
    /// # Errors
    /// The stream ended, or it does not fall silent within `at_most`.
    pub(crate) async fn discard(
        &self,
        silence: Duration,
        at_most: Duration,
        late: &[(u8, u8)],
    ) -> io::Result<usize> {
        let end = Instant::now() + at_most;
        let mut received = 0;
        while let Ok(count) = timeout(silence, std::future::poll_fn(|cx| self.lock().poll_fill(cx))).await {
            match count? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received += count,
            }
            let mut inner = self.lock();
            while let Some(found) = inner.next_late(late) {
                inner.late.push(found);
            }
            if Instant::now() > end {
                let text =
                    format!("the line does not fall silent, {received} bytes in {} ms", at_most.as_millis());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
        let mut inner = self.lock();
        inner.received.clear();
        inner.dirty = false;
        Ok(received)
    }

    /// Reads until then and keeps nothing but late answers of these units and functions; ends early when
    /// `enough(unit, function)` says so for one of them. Returns the number of bytes received.
    pub(crate) async fn listen_until(
        &self,
        end: Instant,
        late: &[(u8, u8)],
        mut enough: impl FnMut(u8, u8) -> bool + Send,
    ) -> io::Result<usize> {
        let mut received = 0;
        while let Ok(count) = timeout_at(end, std::future::poll_fn(|cx| self.lock().poll_fill(cx))).await {
            match count? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received += count,
            }
            let mut inner = self.lock();
            while let Some((unit, function)) = inner.next_late(late) {
                if enough(unit, function) {
                    return Ok(received);
                }
            }
        }
        self.lock().received.clear();
        Ok(received)
    }

    /// Late answers that were skipped during the last exchange.
    pub(crate) fn take_late(&self) -> Vec<(u8, u8)> {
        std::mem::take(&mut self.lock().late)
    }

    /// Sends a sealed frame and waits for the answer it was armed for.
    pub(crate) async fn exchange(&self, frame: &[u8], armed: Armed) -> io::Result<()> {
        self.arm(armed);
        let mut handle = self.clone();
        handle.write_all(frame).await?;
        handle.flush().await?;
        let mut answer = [0; MAX_FRAME];
        let count = handle.read(&mut answer).await?;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Inner {
    /// Reads what is there into `received`; 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0; MAX_FRAME];
        let mut buf = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        self.received.extend_from_slice(buf.filled());
        self.last_byte = Instant::now();
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Cuts the next late answer out of what was received; what cannot become one is dropped.
    fn next_late(&mut self, late: &[(u8, u8)]) -> Option<(u8, u8)> {
        let found = scan_late(&self.received, &|unit, function| late.contains(&(unit, function)));
        if let Some((end, unit, function)) = found {
            self.received.drain(..end);
            return Some((unit, function));
        }
        if self.received.len() > MAX_NOISE {
            self.received.clear();
        }
        None
    }

    fn look(&mut self) -> Result<Option<(usize, usize)>, String> {
        let Some(armed) = &self.armed else { return Err("the line was read without a request".to_owned()) };
        let late = |unit, function| armed.late.contains(&(unit, function));
        let mut found = scan(&self.received, &armed.expect, &late);
        while let Scan::Late { end, unit, function } = found {
            self.received.drain(..end);
            self.late.push((unit, function));
            found = scan(&self.received, &armed.expect, &late);
        }
        match found {
            Scan::Answer { start, end } => Ok(Some((start, end))),
            Scan::Late { .. } => Ok(None),
            Scan::More if self.received.len() > MAX_NOISE => {
                Err(format!("{} bytes without an answer: {}", self.received.len(), hex(&self.received)))
            }
            Scan::More => Ok(None),
            Scan::Fault(Fault::Checksum) => Err("a frame with a wrong checksum".to_owned()),
            Scan::Fault(Fault::Mismatch(frame)) => {
                Err(format!("an answer to another request: {}", hex(&frame)))
            }
            Scan::Fault(Fault::Foreign(frame)) => Err(format!(
                "a frame of another unit or function: {}; is a second master on the line?",
                hex(&frame)
            )),
            Scan::Fault(Fault::OwnRequest) => {
                Err("our own request; switch off the local echo of the converter".to_owned())
            }
        }
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let Some((start, end)) = self.answer else { return };
        let stop = end.min(start + buf.remaining());
        buf.put_slice(self.received.get(start..stop).unwrap_or(&[]));
        self.answer = (stop < end).then_some((stop, end));
        if self.answer.is_none() {
            // What follows an answer was not asked for: harmless glitches mostly, but let the line settle.
            self.dirty |= self.received.len() > end;
            self.received.clear();
            self.armed = None;
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        loop {
            if inner.answer.is_some() {
                inner.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            match inner.look() {
                Ok(Some(found)) => inner.answer = Some(found),
                Ok(None) => {
                    if ready!(inner.poll_fill(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(fault) => {
                    inner.fault = Some(fault.clone());
                    inner.dirty = true;
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let written = ready!(Pin::new(&mut inner.io).poll_write(cx, buf));
        inner.last_byte = Instant::now();
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_shutdown(cx)
    }
}
