//! What the dialogue tests share.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod authority;

use std::net::SocketAddr;
use std::time::Duration;

use busbar_mqtt::broker::{Broker, Observed};
use busbar_mqtt::{Event, Message, Options, Qos, SendError, Session, Status, Url, Version};
use tokio::sync::mpsc;

/// Far longer than anything here takes; only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

pub(crate) fn options(address: SocketAddr, version: Version) -> Options {
    let url = Url { host: address.ip().to_string(), port: address.port(), tls: false };
    let status = Status { topic: "busbar/h/status".into(), qos: Qos::AtLeastOnce };
    Options { version, status: Some(status), ..Options::new(url, "client-1") }
}

pub(crate) async fn connect(broker: &Broker, version: Version) -> Session<u32> {
    Session::connect(&options(broker.address(), version), PATIENCE).await.unwrap()
}

pub(crate) fn message(payload: &str) -> Message<'_> {
    Message { topic: "busbar/h/d/p", payload: payload.as_bytes(), qos: Qos::AtLeastOnce, retain: false }
}

/// Sends all tokens in order, as the glue of a sink does; returns the tokens that were confirmed on the way. Stops
/// with the error when the session ends.
pub(crate) async fn send_all(
    session: &mut Session<u32>,
    tokens: &[u32],
    confirmed: &mut Vec<u32>,
) -> Result<(), busbar_mqtt::Error> {
    for token in tokens {
        while !session.has_room() {
            take(session.next().await?, confirmed);
        }
        match session.send(&message(&token.to_string()), *token) {
            Ok(()) => {}
            Err(SendError::Full(_) | SendError::TooLarge { .. }) => panic!("no room for {token}"),
        }
    }
    while session.unconfirmed() > 0 {
        take(session.next().await?, confirmed);
    }
    while let Some(event) = session.ready() {
        take(event, confirmed);
    }
    Ok(())
}

pub(crate) fn take(event: Event<u32>, confirmed: &mut Vec<u32>) {
    match event {
        Event::Delivered(token) => confirmed.push(token),
        other => panic!("expected a confirmation, found {other:?}"),
    }
}

/// The error that ends the session; confirmations before it are collected.
pub(crate) async fn end(session: &mut Session<u32>, confirmed: &mut Vec<u32>) -> busbar_mqtt::Error {
    loop {
        match tokio::time::timeout(PATIENCE, session.next()).await.expect("the session must end") {
            Ok(event) => take(event, confirmed),
            Err(error) => return error,
        }
    }
}

pub(crate) async fn received(seen: &mut mpsc::Receiver<Observed>) -> Observed {
    tokio::time::timeout(PATIENCE, seen.recv())
        .await
        .expect("a message must arrive")
        .expect("the broker runs")
}
