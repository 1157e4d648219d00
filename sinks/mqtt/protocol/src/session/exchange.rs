//! One exchange with the socket. Cancel safe: what is read or written is in the session's buffers before anything waits.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Event, MAX_EVENTS, MAX_OUT, MAX_REPLIES, Session};

/// What one exchange with the socket brought.
pub(super) enum Turn {
    /// Bytes are in `input`.
    Read,
    /// Everything is written, and QoS 0 messages are confirmed by that.
    Written,
    /// Time to look at the clock.
    Tick,
}

impl<T> Session<T> {
    pub(super) async fn exchange(&mut self) -> io::Result<Turn> {
        poll_fn(|cx| self.poll_exchange(cx)).await
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        // Reading first: what the broker said before it closed is worth more than the error of a write.
        if self.paused && self.pause.as_mut().poll(cx).is_ready() {
            self.paused = false;
        }
        if let Poll::Ready(result) = self.poll_input(cx) {
            return Poll::Ready(result);
        }
        let held = !self.may_reply();
        let written = self.poll_write(cx);
        if held && let Poll::Ready(Ok(turn)) = self.poll_input(cx) {
            // Nobody else would wake us for it.
            return Poll::Ready(Ok(turn));
        }
        if let Poll::Ready(result) = written {
            if let Err(error) = result {
                return match std::mem::take(&mut self.paused) {
                    true => self.poll_read(cx).map(|read| read.map(|()| Turn::Read).map_err(|_| error)),
                    false => Poll::Ready(Err(error)),
                };
            }
            if !self.written.is_empty() {
                self.events.extend(self.written.drain(..).map(Event::Delivered));
                return Poll::Ready(Ok(Turn::Written));
            }
        }
        self.tick.as_mut().poll(cx).map(|()| Ok(Turn::Tick))
    }

    /// Reads, where there is room for what that makes us say and for what it tells the owner.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        match !self.paused && self.events.len() < MAX_EVENTS && self.may_reply() {
            true => self.poll_read(cx).map(|result| result.map(|()| Turn::Read)),
            false => Poll::Pending,
        }
    }

    fn may_reply(&self) -> bool {
        self.out.len() < MAX_OUT + self.max_packet + MAX_REPLIES
    }

    /// Ready when everything is on the socket.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.flush = true;
        }
        if self.flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}
