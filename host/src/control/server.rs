//! The host's side of the control socket. Lives on the services thread; everything is bounded: connections, line
//! lengths, idle time, time to read an answer.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use busbar_contract::Origin;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{
    SOCKET_FILE,
    protocol::{Call, Line, MAX_CALL},
    service, short,
};
use crate::edge::CoreHandle;

/// Connections at the same time; a further one is told so and closed.
const MAX_CONNECTIONS: usize = 16;
/// A connection without a call is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// A client must take an answer within this.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Mode of the socket: owner and group may operate the gateway.
const MODE: u32 = 0o660;
/// Pause after a failed accept (no descriptors left), so that the error does not become a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The socket is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: std::path::PathBuf,
    // Keeps a shortened path valid.
    _dir: Option<fs::File>,
}

impl ControlSocket {
    /// Makes the socket. The caller holds the lock of `data_dir`, so one that is there is a leftover.
    pub fn bind(data_dir: &Path) -> Result<Self, String> {
        Self::bind_inner(data_dir).map_err(|error| {
            format!("{}: the control socket could not be made: {error}", data_dir.join(SOCKET_FILE).display())
        })
    }

    fn bind_inner(data_dir: &Path) -> io::Result<Self> {
        let (dir, keep) = short(data_dir)?;
        let (temporary, path) = (dir.join(".control.tmp"), dir.join(SOCKET_FILE));
        for leftover in [&temporary, &path] {
            match fs::remove_file(leftover) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Nobody can connect before the mode is right: it gets its name afterwards.
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(MODE))?;
        fs::rename(&temporary, &path)?;
        Ok(Self { listener, path, _dir: keep })
    }

    /// Serves until `stop` says so.
    pub async fn serve(self, core: CoreHandle, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (core, places, mut stop) = (core.clone(), Arc::clone(&places), stop.clone());
                    tokio::spawn(async move {
                        let place = places.try_acquire();
                        tokio::select! {
                            () = connection(stream, core, place.is_ok()) => {}
                            _ = stop.wait_for(|stop| *stop) => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("the control socket could not take a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn connection(stream: UnixStream, core: CoreHandle, admitted: bool) {
    let origin = origin(&stream);
    let (read, mut write) = stream.into_split();
    if !admitted {
        let text = format!("expected at most {MAX_CONNECTIONS} connections at once: try again later");
        let _ = send(&mut write, &Line::failed(text)).await;
        return;
    }
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than allowed tells a long line from one that just fits.
        let mut bounded = (&mut read).take(MAX_CALL as u64 + 1);
        match timeout(IDLE, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(length)) if length > 0 => {}
            // Closed, broken or idle: nobody is left to tell.
            _ => return,
        }
        let keep = match parse(&line) {
            Ok(call) => serve_call(&mut write, &core, call, origin.clone()).await.is_ok(),
            Err(text) => {
                // What follows a line that is too long cannot be told apart any more.
                send(&mut write, &Line::usage(text)).await.is_ok() && line.len() <= MAX_CALL
            }
        };
        if !keep {
            return;
        }
    }
}

fn parse(line: &[u8]) -> Result<Call, String> {
    if line.len() > MAX_CALL {
        return Err(format!("expected a line of at most {MAX_CALL} bytes, found more"));
    }
    serde_json::from_slice(line)
        .map_err(|error| format!("expected a call as one line of JSON, found: {error}"))
}

async fn serve_call(
    write: &mut OwnedWriteHalf,
    core: &CoreHandle,
    call: Call,
    origin: Origin,
) -> io::Result<()> {
    let mut running = service::start(core, call, origin).await;
    while let Some(line) = running.next().await {
        send(write, &line).await?;
    }
    Ok(())
}

async fn send(write: &mut OwnedWriteHalf, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
    text.push(b'\n');
    timeout(WRITE_TIME, write.write_all(&text)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn origin(stream: &UnixStream) -> Origin {
    let client = stream.peer_cred().map_or_else(|_| "?".to_owned(), |cred| super::user::name(cred.uid()));
    let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
    let ident = pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
    Origin { sink: "cli".into(), client, category: 0, ident }
}

/// Who works directly on a command line.
#[must_use]
pub fn local_origin() -> Origin {
    let uid = fs::metadata("/proc/self")
        .map_or(u32::MAX, |metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    let ident = format!("pid {}", std::process::id());
    Origin { sink: "cli".into(), client: super::user::name(uid), category: 0, ident }
}
