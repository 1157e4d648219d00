//! The connect phase: CONNECT, CONNACK, SUBSCRIBE, SUBACK. Each packet has its place, and the caller's limit bounds it all.

use std::time::{Duration, Instant};

use super::Session;
use crate::error::Error;
use crate::wire::{self, ConnAck, ONLINE, Packet};

/// The SUBSCRIBE of the connect phase; no PUBLISH is open then.
const SUBSCRIBE_ID: u16 = 1;

impl<T> Session<T> {
    pub(super) async fn handshake(&mut self) -> Result<(), Error> {
        wire::write_connect(&mut self.out, &self.options).map_err(Error::Configuration)?;
        let ack = match self.packet().await? {
            Packet::ConnAck(ack) => ack,
            other => return Err(self.nonsense(&format!("expected CONNACK, found {other:?}"))),
        };
        self.accept(&ack)?;
        if let Some(filter) = self.options.subscribe.clone() {
            wire::write_subscribe(&mut self.out, self.options.version, SUBSCRIBE_ID, &filter)
                .map_err(Error::Configuration)?;
            self.subscribed(&filter).await?;
        }
        self.announce(ONLINE);
        self.arm(Instant::now());
        Ok(())
    }

    async fn subscribed(&mut self, filter: &str) -> Result<(), Error> {
        loop {
            match self.packet().await? {
                Packet::SubAck { refused: None, .. } => return Ok(()),
                Packet::SubAck { refused: Some(reason), .. } => {
                    return Err(Error::Refused(format!(
                        "{} refuses the subscription to {filter} ({reason}): check the rights of this user",
                        self.options.url
                    )));
                }
                // Retained messages may come before SUBACK.
                other => self.take(other)?,
            }
        }
    }

    fn accept(&mut self, ack: &ConnAck) -> Result<(), Error> {
        let url = &self.options.url;
        if let Some(reason) = &ack.refused {
            return Err(match (ack.busy, ack.wrong_version) {
                (true, _) => Error::Unreachable(format!("{url} refuses the connection for now: {reason}")),
                (_, true) => Error::Refused(format!(
                    "{url} refuses the connection: {reason}: set version to the other one"
                )),
                _ => Error::Refused(format!(
                    "{url} refuses the connection of client id {}: {reason}",
                    self.options.client_id
                )),
            });
        }
        if let Some(max) = ack.max_qos.filter(|max| *max < self.options.qos as u8) {
            let wanted = self.options.qos as u8;
            return Err(Error::Refused(format!(
                "{url} allows qos {max} at most, expected {wanted}: lower qos"
            )));
        }
        if let Some(max) = ack.receive_maximum {
            self.ledger.narrow(max);
        }
        if let Some(max) = ack.max_packet {
            self.max_packet = self.max_packet.min(max as usize);
        }
        match ack.keep_alive {
            Some(0) | None => {}
            Some(seconds) => self.keep_alive = Duration::from_secs(seconds.into()),
        }
        self.no_retain = ack.no_retain;
        if ack.no_retain {
            tracing::warn!(
                "{url} keeps no retained messages: later subscribers see status and values only with the next message"
            );
        }
        self.next_ping = Instant::now() + self.keep_alive;
        Ok(())
    }

    /// The next packet; only while connecting, where each packet has its place.
    async fn packet(&mut self) -> Result<Packet, Error> {
        loop {
            if let Some(packet) = self.parse()? {
                return Ok(packet);
            }
            if let Err(error) = self.exchange().await {
                return Err(match self.broken(&error) {
                    Error::Closed(_) => Error::Closed(format!(
                        "{} closed the connection instead of answering: check version, client id and rights",
                        self.options.url
                    )),
                    other => other,
                });
            }
            // The clock is not looked at: the whole handshake has a limit.
            self.arm(Instant::now());
        }
    }
}
