//! The task of one connection: it owns the socket and nothing else. Bytes that come go to the server, frames of the
//! server go out, several in one write.
//!
//! Reading waits while the server is busy, writing while the master does not read; neither waits for the other. The
//! server never waits for a socket: a master whose frames pile up is cut off. When the server lets go (`kill` is
//! dropped), what was queued has [`CLOSE_GRACE`] to go out.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{mpsc, oneshot};

use super::Incoming;
use crate::station::ConnectionId;

/// Bytes read at once: some dozen frames.
const READ: usize = 4096;
/// Bytes gathered into one write.
const WRITE: usize = 16 * 1024;
/// How long queued frames may take to go out after the end.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

pub(super) async fn serve<S: AsyncRead + AsyncWrite>(
    stream: S,
    id: ConnectionId,
    server: mpsc::Sender<Incoming>,
    mut frames: mpsc::Receiver<Vec<u8>>,
    kill: oneshot::Receiver<()>,
) {
    let (mut input, mut output) = split(stream);
    let read = async {
        let mut buffer = vec![0; READ];
        loop {
            match input.read(&mut buffer).await {
                Ok(0) => return "the master closed the connection".to_owned(),
                Err(error) => return format!("the connection broke: {error}"),
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                    if server.send(Incoming::Bytes(id, bytes)).await.is_err() {
                        return String::new();
                    }
                }
            }
        }
    };
    let write = async {
        let mut buffer = Vec::with_capacity(WRITE);
        while let Some(frame) = frames.recv().await {
            buffer.clear();
            buffer.extend_from_slice(&frame);
            while buffer.len() < WRITE
                && let Ok(frame) = frames.try_recv()
            {
                buffer.extend_from_slice(&frame);
            }
            if let Err(error) = write_all(&mut output, &buffer).await {
                return format!("the connection broke: {error}");
            }
        }
        // The far side learns of the end; whether it takes note does not matter any more.
        let _ = output.shutdown().await;
        String::new()
    };
    let killed = async {
        let _ = kill.await;
        tokio::time::sleep(CLOSE_GRACE).await;
        String::new()
    };
    let reason = tokio::select! {
        reason = read => reason,
        reason = write => reason,
        reason = killed => reason,
    };
    let _ = server.send(Incoming::Closed(id, reason)).await;
}

async fn write_all<W: AsyncWrite + Unpin>(output: &mut W, bytes: &[u8]) -> std::io::Result<()> {
    output.write_all(bytes).await?;
    output.flush().await
}
