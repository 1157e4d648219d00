//! The broker's side of the packets, both versions: pure functions on buffers. Properties of MQTT 5 are read over.
//!
//! Written from MQTT 3.1.1 and 5.0 section 3, independently of the client side in [`crate::session`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest packet accepted, bytes.
pub(super) const MAX_PACKET: usize = 1024 * 1024;
/// Most filters in one SUBSCRIBE or UNSUBSCRIBE.
const MAX_FILTERS: usize = 256;

/// A client that breaks the protocol; the text says how.
pub(super) type Bad = &'static str;

/// What clients send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum In {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck,
    PubRel { id: u16 },
    Subscribe { id: u16, filters: Vec<(String, u8)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect { publish_will: bool },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Connect {
    pub level: u8,
    pub client_id: String,
    pub keep_alive: u16,
    pub will: Option<Publish>,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
}

/// Takes the next packet out of `input`; `v5` is known after CONNECT. `Ok(None)`: more bytes are needed.
pub(super) fn read(input: &mut BytesMut, v5: bool) -> Result<Option<In>, Bad> {
    let Some((first, body)) = frame(input)? else { return Ok(None) };
    let mut body = Body(body);
    Ok(Some(match (first >> 4, first & 15) {
        (1, 0) => In::Connect(Box::new(connect(&mut body)?)),
        (3, flags) => In::Publish(publish(&mut body, flags, v5)?),
        // Acknowledgements of our QoS 1 messages; QoS 2 is never sent.
        (4, 0) => In::PubAck,
        (6, 2) => In::PubRel { id: body.id()? },
        (8, 2) => subscribe(&mut body, v5)?,
        (10, 2) => unsubscribe(&mut body, v5)?,
        (12, 0) => In::PingReq,
        (14, 0) => In::Disconnect { publish_will: v5 && body.u8().unwrap_or(0) == 4 },
        _ => return Err("a packet type or flags that a client may not send"),
    }))
}

fn frame(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, Bad> {
    let Some((first, rest)) = input.split_first() else { return Ok(None) };
    let (first, mut length, mut header) = (*first, 0_usize, 1);
    for (index, byte) in rest.iter().take(4).enumerate() {
        header += 1;
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if length > MAX_PACKET {
                return Err("a packet that is too large");
            }
            if input.len() < header + length {
                return Ok(None);
            }
            input.advance(header);
            return Ok(Some((first, input.split_to(length).freeze())));
        }
    }
    if rest.len() >= 4 { Err("a length of more than four bytes") } else { Ok(None) }
}

fn connect(body: &mut Body) -> Result<Connect, Bad> {
    if body.text()? != "MQTT" {
        return Err("another protocol than MQTT");
    }
    let level = body.u8()?;
    let flags = body.u8()?;
    let keep_alive = body.u16()?;
    if flags & 1 != 0 {
        return Err("the reserved flag of CONNECT");
    }
    let v5 = level == 5;
    body.properties(v5)?;
    let client_id = body.text()?;
    let will = if flags & 4 == 0 {
        None
    } else {
        body.properties(v5)?;
        let topic = body.text()?;
        let payload = body.bytes()?;
        let qos = ((flags >> 3) & 3).min(2);
        Some(Publish { topic, payload, qos, retain: flags & 0x20 != 0, ..Publish::default() })
    };
    let username = if flags & 0x80 == 0 { None } else { Some(body.text()?) };
    let password = if flags & 0x40 == 0 { None } else { Some(body.bytes()?.to_vec()) };
    Ok(Connect { level, client_id, keep_alive, will, username, password })
}

fn publish(body: &mut Body, flags: u8, v5: bool) -> Result<Publish, Bad> {
    let qos = (flags >> 1) & 3;
    if qos == 3 {
        return Err("QoS 3");
    }
    let topic = body.text()?;
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err("a topic that is empty or has wildcards");
    }
    let id = if qos == 0 { 0 } else { body.id()? };
    body.properties(v5)?;
    let payload = body.0.split_off(0);
    Ok(Publish { topic, payload, qos, retain: flags & 1 != 0, dup: flags & 8 != 0, id })
}

fn subscribe(body: &mut Body, v5: bool) -> Result<In, Bad> {
    let id = body.id()?;
    body.properties(v5)?;
    let mut filters = Vec::new();
    while body.0.has_remaining() {
        let filter = body.text()?;
        let qos = body.u8()? & 3;
        if qos == 3 || filters.len() >= MAX_FILTERS {
            return Err("a subscription with QoS 3 or too many filters");
        }
        filters.push((filter, qos));
    }
    if filters.is_empty() {
        return Err("a SUBSCRIBE without filter");
    }
    Ok(In::Subscribe { id, filters })
}

fn unsubscribe(body: &mut Body, v5: bool) -> Result<In, Bad> {
    let id = body.id()?;
    body.properties(v5)?;
    let mut filters = Vec::new();
    while body.0.has_remaining() && filters.len() < MAX_FILTERS {
        filters.push(body.text()?);
    }
    Ok(In::Unsubscribe { id, filters })
}

/// A cursor that never reads past the end.
struct Body(Bytes);

impl Body {
    fn u8(&mut self) -> Result<u8, Bad> {
        self.0.try_get_u8().map_err(|_| "a packet that is too short")
    }

    fn u16(&mut self) -> Result<u16, Bad> {
        self.0.try_get_u16().map_err(|_| "a packet that is too short")
    }

    fn id(&mut self) -> Result<u16, Bad> {
        match self.u16()? {
            0 => Err("packet id 0"),
            id => Ok(id),
        }
    }

    fn bytes(&mut self) -> Result<Bytes, Bad> {
        let length = usize::from(self.u16()?);
        if length > self.0.len() {
            return Err("a text longer than its packet");
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<String, Bad> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| "a text that is not UTF-8")
    }

    fn properties(&mut self, v5: bool) -> Result<(), Bad> {
        if !v5 {
            return Ok(());
        }
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if length > self.0.len() {
                    return Err("properties longer than their packet");
                }
                self.0.advance(length);
                return Ok(());
            }
        }
        Err("a property length of more than four bytes")
    }
}

/// Appends CONNACK; `properties` are raw MQTT 5 properties.
pub(super) fn connack(out: &mut BytesMut, v5: bool, code: u8, session_present: bool, properties: &[u8]) {
    // The properties written here are far below 100 bytes: one length byte each.
    let extra = if v5 { 1 + properties.len() } else { 0 };
    out.put_slice(&[0x20, (2 + extra) as u8, u8::from(session_present), code]);
    if v5 {
        out.put_u8(properties.len() as u8);
        out.put_slice(properties);
    }
}

/// Appends PUBACK (4), PUBREC (5) or PUBCOMP (7).
pub(super) fn ack(out: &mut BytesMut, kind: u8, id: u16) {
    out.put_slice(&[kind << 4, 2]);
    out.put_u16(id);
}

/// Appends PUBACK of MQTT 5 with a reason code.
pub(super) fn puback_reason(out: &mut BytesMut, id: u16, reason: u8) {
    out.put_slice(&[0x40, 3]);
    out.put_u16(id);
    out.put_u8(reason);
}

/// Appends SUBACK (9) or UNSUBACK (11; MQTT 3.1.1 has no codes there).
pub(super) fn suback(out: &mut BytesMut, v5: bool, kind: u8, id: u16, codes: &[u8]) {
    let codes = if kind == 11 && !v5 { &[] } else { codes };
    let length = 2 + usize::from(v5) + codes.len();
    out.put_u8(kind << 4);
    put_length(out, length);
    out.put_u16(id);
    if v5 {
        out.put_u8(0);
    }
    out.put_slice(codes);
}

/// Appends PUBLISH.
pub(super) fn write_publish(out: &mut BytesMut, v5: bool, message: &Publish) {
    let id = if message.qos == 0 { 0 } else { 2 };
    out.put_u8(0x30 | (u8::from(message.dup) << 3) | (message.qos << 1) | u8::from(message.retain));
    put_length(out, 2 + message.topic.len() + id + usize::from(v5) + message.payload.len());
    out.put_u16(message.topic.len() as u16);
    out.put_slice(message.topic.as_bytes());
    if id != 0 {
        out.put_u16(message.id);
    }
    if v5 {
        out.put_u8(0);
    }
    out.put_slice(&message.payload);
}

/// Appends DISCONNECT of MQTT 5.
pub(super) fn disconnect(out: &mut BytesMut, reason: u8) {
    out.put_slice(&[0xe0, 1, reason]);
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 128 {
        out.put_u8((length % 128) as u8 | 0x80);
        length /= 128;
    }
    out.put_u8(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_with_everything() {
        // MQTT 3.1.1 section 3.1.2, table 3.1.
        let bytes: &[u8] = &[
            0x10,
            32,
            0,
            4,
            b'M',
            b'Q',
            b'T',
            b'T',
            4,
            0b1110_1110,
            0,
            10,
            0,
            1,
            b'c',
            0,
            3,
            b's',
            b'/',
            b't',
            0,
            3,
            b'o',
            b'f',
            b'f',
            0,
            2,
            b'm',
            b'e',
            0,
            2,
            b'p',
            b'w',
        ];
        let mut input = BytesMut::from(bytes);
        input[1] = (bytes.len() - 2) as u8;
        let Ok(Some(In::Connect(connect))) = read(&mut input, false) else { panic!("{input:?}") };
        assert_eq!((connect.level, connect.client_id.as_str(), connect.keep_alive), (4, "c", 10));
        assert_eq!(
            (connect.username.as_deref(), connect.password.as_deref()),
            (Some("me"), Some(&b"pw"[..]))
        );
        let will = connect.will.unwrap();
        assert_eq!((will.topic.as_str(), will.qos, will.retain), ("s/t", 1, true));
    }

    #[test]
    fn broken_packets_are_refused() {
        let cases: [&[u8]; 9] = [
            &[0x00, 0],
            &[0x10, 6, 0, 4, b'H', b'T', b'T', b'P'],
            &[0x36, 5, 0, 1, b'a', 0, 1],
            &[0x32, 5, 0, 1, b'a', 0, 0],
            &[0x30, 3, 0, 9, b'a'],
            &[0x30, 3, 0, 1, b'#'],
            &[0x82, 2, 0, 1],
            &[0x30, 0xff, 0xff, 0xff, 0x7f],
            &[0x30, 0xff, 0xff, 0xff, 0xff],
        ];
        for case in cases {
            assert!(read(&mut BytesMut::from(case), false).is_err(), "{case:02x?}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 0x1234_5678_9abc_def1_u64;
        for _ in 0..200_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    (seed % 251) as u8
                })
                .collect();
            for v5 in [false, true] {
                let mut input = BytesMut::from(bytes.as_slice());
                while let Ok(Some(_)) = read(&mut input, v5) {}
            }
        }
    }
}
