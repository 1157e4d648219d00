//! Listeners and connections of the simulator.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::frame::{Cut, Request, cut_rtu, cut_tcp, wrap_rtu, wrap_tcp};
use super::{Query, Reaction, Shared};
use crate::link::Stream;

/// A request is at most 260 bytes; anything longer without a request in it is garbage.
const MAX_BUFFER: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Tcp,
    Rtu,
}

/// Accepts connections for ever; off line the port is closed and all connections are dropped.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    framing: Framing,
) {
    let mut online = shared.online.subscribe();
    let mut listener = Some(listener);
    loop {
        if online.wait_for(|online| *online).await.is_err() {
            return;
        }
        let bound = match listener.take() {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(address).await,
        };
        let Ok(bound) = bound else {
            tracing::warn!(%address, "the simulator cannot bind its port again");
            return;
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                changed = online.wait_for(|online| !*online) => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                accepted = bound.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    let _small_answers_go_at_once = stream.set_nodelay(true);
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move { connection(&shared, stream, framing).await });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Serves one stream until it ends.
pub(super) async fn connection(shared: &Shared, mut stream: impl Stream, framing: Framing) -> io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(MAX_BUFFER);
    let mut scratch = [0; 512];
    loop {
        let cut = if framing == Framing::Tcp { cut_tcp(&buffer) } else { cut_rtu(&buffer) };
        match cut {
            Cut::Request(request, length) => {
                buffer.drain(..length);
                if !answer(shared, &mut stream, framing, &request).await? {
                    return Ok(());
                }
            }
            Cut::Garbage if framing == Framing::Tcp => return Ok(()),
            Cut::Garbage => {
                buffer.drain(..1);
            }
            Cut::More if buffer.len() > MAX_BUFFER => return Ok(()),
            Cut::More => {
                let count = stream.read(&mut scratch).await?;
                if count == 0 {
                    return Ok(());
                }
                buffer.extend_from_slice(scratch.get(..count).unwrap_or(&[]));
            }
        }
    }
}

fn query(request: &Request) -> Query {
    let word = |index: usize| match (request.pdu.get(index), request.pdu.get(index + 1)) {
        (Some(high), Some(low)) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let function = request.pdu.first().copied().unwrap_or(0);
    let count = if matches!(function, 5 | 6) { 1 } else { word(3) };
    Query { unit: request.unit, function, start: word(1), count, number: 0 }
}

/// Answers one request; `false` closes the connection.
async fn answer(
    shared: &Shared,
    stream: &mut impl Stream,
    framing: Framing,
    request: &Request,
) -> io::Result<bool> {
    let Some(reaction) = shared.reaction(query(request)) else {
        // Nobody has this unit id: a line stays silent, a gateway says so (exception 11).
        if framing == Framing::Tcp {
            let function = request.pdu.first().copied().unwrap_or(0);
            stream.write_all(&wrap_tcp(request.transaction, request.unit, &[function | 0x80, 11])).await?;
        }
        return Ok(true);
    };
    let mut unit = request.unit;
    let mut transaction = request.transaction;
    let mut spoil = false;
    let mut bytes = Vec::new();
    match &reaction {
        Reaction::Silent => return Ok(true),
        Reaction::Disconnect => return Ok(false),
        Reaction::Garbage(garbage) => {
            stream.write_all(garbage).await?;
            return Ok(true);
        }
        Reaction::After(delay) => tokio::time::sleep(*delay).await,
        Reaction::Prefixed(prefix) => bytes.extend_from_slice(prefix),
        Reaction::WrongUnit => unit = unit.wrapping_add(1),
        Reaction::Spoiled => {
            transaction = transaction.wrapping_add(1);
            spoil = true;
        }
        Reaction::Answer | Reaction::Exception(_) | Reaction::WrongFunction | Reaction::WrongLength => {}
    }
    let pdu = response(shared, request, &reaction);
    bytes.extend(match framing {
        Framing::Tcp => wrap_tcp(transaction, unit, &pdu),
        Framing::Rtu => wrap_rtu(unit, &pdu),
    });
    if spoil
        && framing == Framing::Rtu
        && let Some(last) = bytes.last_mut()
    {
        *last ^= 0x55;
    }
    // Unit 0 on a line is a broadcast: executed, never answered (MODBUS over Serial Line 2.1).
    if framing == Framing::Tcp || request.unit != 0 {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
    }
    Ok(true)
}

fn response(shared: &Shared, request: &Request, reaction: &Reaction) -> Vec<u8> {
    let function = request.pdu.first().copied().unwrap_or(0);
    if let Reaction::Exception(code) = reaction {
        return vec![function | 0x80, *code];
    }
    let mut pdu = shared.execute(request.unit, &request.pdu);
    match reaction {
        Reaction::WrongFunction => {
            if let Some(first) = pdu.first_mut() {
                *first = if function == 3 { 4 } else { 3 };
            }
        }
        Reaction::WrongLength if pdu.len() > 3 && matches!(function, 1..=4) => {
            pdu.truncate(pdu.len() - 2);
            if let Some(count) = pdu.get_mut(1) {
                *count = count.saturating_sub(2);
            }
        }
        _ => {}
    }
    pdu
}
