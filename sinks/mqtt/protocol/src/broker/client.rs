//! One connection to the broker: reads packets, answers, forwards what others publish.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::core::{Core, ToClient};
use super::packet::{self, Connect, In, Publish};
use super::{Config, Credentials};

/// Time for a client to say CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to read what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes written at once.
const WRITE_CHUNK: usize = 64 * 1024;
/// Open QoS 2 handshakes of one client.
const MAX_QOS2: usize = 1024;

pub(super) fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Client<S> {
    stream: S,
    core: Arc<Mutex<Core>>,
    input: BytesMut,
    out: BytesMut,
    v5: bool,
    id: String,
    serial: u64,
    packets: u32,
    next_id: u16,
    /// Ids of QoS 2 messages between PUBREC and PUBREL.
    received: Vec<u16>,
}

/// Why a connection ended; the last will is published unless the client said DISCONNECT.
enum End {
    Disconnect { publish_will: bool },
    Abrupt,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Abrupt
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, core: Arc<Mutex<Core>>, config: Arc<Config>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Client {
        stream,
        core,
        input: BytesMut::new(),
        out: BytesMut::new(),
        v5: false,
        id: String::new(),
        serial: 0,
        packets: 0,
        next_id: 0,
        received: Vec::new(),
    };
    let Ok(Ok(connect)) = tokio::time::timeout(CONNECT_TIMEOUT, client.connect(&config)).await else {
        return;
    };
    let Some((connect, receiver)) = connect else {
        // Refused; the answer is written.
        let _ = client.stream.shutdown().await;
        return;
    };
    let end = client.run(&connect, receiver).await;
    let mut core = lock(&client.core);
    core.leave(&client.id, client.serial);
    if let (Err(End::Abrupt | End::Disconnect { publish_will: true }), Some(will)) = (&end, &connect.will) {
        core.publish(&client.id, will);
    }
}

type Accepted = (Connect, mpsc::Receiver<ToClient>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn connect(&mut self, config: &Config) -> Result<Option<Accepted>, End> {
        let In::Connect(connect) = self.packet().await? else { return Err(End::Abrupt) };
        let mut connect = *connect;
        self.v5 = connect.level == 5;
        let script = lock(&self.core).script.clone();
        if script.mute {
            std::future::pending::<()>().await;
        }
        let code = match script.refuse {
            Some(code) => code,
            None if !matches!(connect.level, 4 | 5) => 1,
            None if !config.admits(&connect) => 4,
            None => 0,
        };
        if code != 0 {
            let code = if self.v5 { reason_v5(code) } else { code };
            packet::connack(&mut self.out, self.v5, code, false, &[]);
            self.write().await?;
            return Ok(None);
        }
        let (serial, receiver) = {
            let mut core = lock(&self.core);
            if connect.client_id.is_empty() {
                connect.client_id = format!("anonymous-{}", core.connects);
            }
            core.join(&connect.client_id)
        };
        (self.serial, self.id) = (serial, connect.client_id.clone());
        packet::connack(&mut self.out, self.v5, 0, false, &script.connack_properties());
        self.write().await?;
        Ok(Some((connect, receiver)))
    }

    async fn run(&mut self, connect: &Connect, mut receiver: mpsc::Receiver<ToClient>) -> Result<(), End> {
        // One and a half keep-alive periods (3.1.2.10); none: a day.
        let patience = match connect.keep_alive {
            0 => Duration::from_secs(86_400),
            seconds => Duration::from_millis(u64::from(seconds) * 1500),
        };
        loop {
            tokio::select! {
                told = receiver.recv() => self.told(told, &mut receiver).await?,
                packet = tokio::time::timeout(patience, self.packet()) => match packet {
                    Ok(packet) => self.handle(packet?).await?,
                    Err(_) => return Err(End::Abrupt),
                },
            }
        }
    }

    /// The next packet. Cancel safe: bytes stay in `input`.
    async fn packet(&mut self) -> Result<In, End> {
        loop {
            match packet::read(&mut self.input, self.v5) {
                Ok(Some(packet)) => {
                    self.packets = self.packets.saturating_add(1);
                    return Ok(packet);
                }
                Ok(None) => {}
                Err(text) => {
                    tracing::debug!(client = self.id, "closed for {text}");
                    return Err(End::Abrupt);
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(End::Abrupt);
            }
        }
    }

    async fn told(
        &mut self,
        told: Option<ToClient>,
        receiver: &mut mpsc::Receiver<ToClient>,
    ) -> Result<(), End> {
        let mut next = told;
        loop {
            match next {
                Some(ToClient::Publish(message)) => self.forward(message),
                Some(ToClient::TakenOver) => {
                    if self.v5 {
                        // Session taken over.
                        packet::disconnect(&mut self.out, 0x8e);
                        self.write().await?;
                    }
                    return Err(End::Abrupt);
                }
                Some(ToClient::Cut) | None => return Err(End::Abrupt),
            }
            if self.out.len() >= WRITE_CHUNK {
                break;
            }
            match receiver.try_recv() {
                Ok(more) => next = Some(more),
                Err(_) => break,
            }
        }
        self.write().await
    }

    fn forward(&mut self, mut message: Publish) {
        if message.qos > 0 {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            message.id = self.next_id;
        }
        packet::write_publish(&mut self.out, self.v5, &message);
    }

    /// Handles a packet and all others that are here already, then answers them at once.
    async fn handle(&mut self, packet: In) -> Result<(), End> {
        self.one(packet).await?;
        while self.out.len() < WRITE_CHUNK {
            match packet::read(&mut self.input, self.v5) {
                Ok(Some(packet)) => {
                    self.packets = self.packets.saturating_add(1);
                    self.one(packet).await?;
                }
                Ok(None) => break,
                Err(_) => return Err(End::Abrupt),
            }
        }
        self.write().await
    }

    async fn one(&mut self, packet: In) -> Result<(), End> {
        self.misbehave().await?;
        match packet {
            In::Connect(_) => return Err(End::Abrupt),
            In::Publish(message) => self.publish(message)?,
            In::PubAck => {}
            In::PubRel { id } => {
                self.received.retain(|known| *known != id);
                packet::ack(&mut self.out, 7, id);
            }
            In::Subscribe { id, filters } => self.subscribe(id, &filters),
            In::Unsubscribe { id, filters } => {
                let mut core = lock(&self.core);
                filters.iter().for_each(|filter| core.unsubscribe(&self.id, filter));
                packet::suback(&mut self.out, self.v5, 11, id, &vec![0; filters.len()]);
            }
            In::PingReq => {
                if !lock(&self.core).script.ignore_pings {
                    self.out.put_slice(&[0xd0, 0]);
                }
            }
            In::Disconnect { publish_will } => return Err(End::Disconnect { publish_will }),
        }
        Ok(())
    }

    async fn misbehave(&mut self) -> Result<(), End> {
        let (close, garbage) = {
            let core = lock(&self.core);
            (core.script.close_after, core.script.garbage_after)
        };
        if close.is_some_and(|after| self.packets > after) {
            // What was handled before is answered: the close comes between two packets.
            self.write().await?;
            return Err(End::Abrupt);
        }
        if garbage.is_some_and(|after| self.packets > after) {
            self.out.put_slice(b"\xf0\xff\xff\xff\xff GET / HTTP/1.1\r\n\r\n");
            self.write().await?;
        }
        Ok(())
    }

    fn publish(&mut self, message: Publish) -> Result<(), End> {
        let mut core = lock(&self.core);
        let script = &core.script;
        if script.swallow {
            return Ok(());
        }
        let (withhold, twice, reason) = (script.withhold_acks, script.double_acks, script.puback_reason);
        let refused = self.v5 && reason.is_some_and(|reason| reason >= 0x80);
        // QoS 2: a repeated PUBLISH before PUBREL is not routed again (4.3.3).
        let repeated = message.qos == 2 && self.received.contains(&message.id);
        if !refused && !repeated {
            core.publish(&self.id, &message);
        }
        drop(core);
        if message.qos == 2 && !repeated {
            if self.received.len() >= MAX_QOS2 {
                return Err(End::Abrupt);
            }
            self.received.push(message.id);
        }
        if withhold {
            return Ok(());
        }
        for _ in 0..=u8::from(twice) {
            match (message.qos, reason) {
                (0, _) => {}
                (1, Some(reason)) if self.v5 => packet::puback_reason(&mut self.out, message.id, reason),
                (1, _) => packet::ack(&mut self.out, 4, message.id),
                _ => packet::ack(&mut self.out, 5, message.id),
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, id: u16, filters: &[(String, u8)]) {
        let mut codes = Vec::with_capacity(filters.len());
        let mut retained = Vec::new();
        {
            let mut core = lock(&self.core);
            let refuse = core.script.refuse_subscriptions;
            for (filter, qos) in filters {
                let (code, messages) = match refuse {
                    true => (0x80, Vec::new()),
                    false => core.subscribe(&self.id, self.serial, filter, *qos),
                };
                codes.push(code);
                retained.extend(messages);
            }
        }
        packet::suback(&mut self.out, self.v5, 9, id, &codes);
        retained.into_iter().for_each(|message| self.forward(message));
    }

    async fn write(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all_buf(&mut self.out).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, written).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(End::Abrupt),
        }
    }
}

impl Config {
    fn admits(&self, connect: &Connect) -> bool {
        self.credentials.is_empty()
            || self.credentials.iter().any(|Credentials { username, password }| {
                connect.username.as_deref() == Some(username)
                    && connect.password.as_deref() == Some(password.as_bytes())
            })
    }
}

/// Return code of MQTT 3.1.1 -> reason code of MQTT 5 (3.2.2.2).
const fn reason_v5(code: u8) -> u8 {
    match code {
        1 => 0x84,
        2 => 0x85,
        3 => 0x88,
        4 => 0x86,
        5 => 0x87,
        _ => 0x80,
    }
}
