//! Packets of both MQTT versions behind one small set of types.
//!
//! `rumqttc` encodes and decodes the packets. Two frequent ones are done here, straight on the buffers: PUBLISH is
//! written without building an owned packet, PUBACK without properties is read without one. A test compares the bytes
//! with those of `rumqttc`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::{self as common, v4};
use rumqttc::v5::mqttbytes::{self as common5, v5};

use crate::options::{Options, Qos, Version};

/// Largest packet accepted from the broker, bytes: commands are small.
pub(crate) const MAX_INCOMING: usize = 64 * 1024;
/// Longest remaining length (MQTT 2.2.3), bytes.
const MAX_REMAINING: usize = 268_435_455;

/// What the broker sends, as far as a session cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck { id: u16, error: Option<PublishError> },
    PubRec { id: u16, error: Option<PublishError> },
    PubComp { id: u16 },
    SubAck { id: u16, refused: Option<String> },
    PingResp,
    Disconnect { taken_over: bool, text: String },
}

/// The broker's answer to CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConnAck {
    /// `None`: accepted.
    pub refused: Option<String>,
    /// The broker cannot serve now; trying again helps.
    pub busy: bool,
    /// The broker speaks another version.
    pub wrong_version: bool,
    pub receive_maximum: Option<u16>,
    pub max_packet: Option<u32>,
    pub max_qos: Option<u8>,
    pub no_retain: bool,
    pub keep_alive: Option<u16>,
}

/// An incoming message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub id: u16,
}

/// MQTT 5: the broker did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// This client may not publish on this topic.
    NotAuthorized,
    /// The broker does not like the topic.
    TopicNameInvalid,
    /// A limit was exceeded; later it may work.
    QuotaExceeded,
    /// Something else.
    Other,
}

/// One message as it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: Qos,
    pub retain: bool,
    /// 0 for QoS 0.
    pub id: u16,
}

/// Size of the PUBLISH packet, bytes; `None` when MQTT cannot carry it.
pub(crate) fn publish_size(version: Version, qos: Qos, topic: usize, payload: usize) -> Option<usize> {
    let remaining = remaining(version, qos, topic, payload)?;
    Some(1 + length_bytes(remaining) + remaining)
}

fn remaining(version: Version, qos: Qos, topic: usize, payload: usize) -> Option<usize> {
    if topic > usize::from(u16::MAX) {
        return None;
    }
    let id = if qos == Qos::AtMostOnce { 0 } else { 2 };
    let properties = if version == Version::V5 { 1 } else { 0 };
    let remaining = payload.checked_add(2 + topic + id + properties)?;
    (remaining <= MAX_REMAINING).then_some(remaining)
}

const fn length_bytes(remaining: usize) -> usize {
    match remaining {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// Appends a PUBLISH (MQTT 3.1.1 and 5.0, section 3.3). False: the message is too large for MQTT, nothing is written.
pub(crate) fn write_publish(out: &mut BytesMut, version: Version, message: &Outgoing<'_>) -> bool {
    let Some(mut remaining) = remaining(version, message.qos, message.topic.len(), message.payload.len())
    else {
        return false;
    };
    out.reserve(5 + remaining);
    out.put_u8(0x30 | ((message.qos as u8) << 1) | u8::from(message.retain));
    while remaining >= 128 {
        out.put_u8((remaining % 128) as u8 | 0x80);
        remaining /= 128;
    }
    out.put_u8(remaining as u8);
    out.put_u16(message.topic.len() as u16);
    out.put_slice(message.topic.as_bytes());
    if message.qos != Qos::AtMostOnce {
        out.put_u16(message.id);
    }
    if version == Version::V5 {
        out.put_u8(0);
    }
    out.put_slice(message.payload);
    true
}

/// Appends CONNECT: always a clean session (see [`crate::ledger`]).
pub(crate) fn write_connect(out: &mut BytesMut, options: &Options) -> Result<(), String> {
    let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let will = options.status.as_ref();
    let (user, password) = (options.username.clone(), options.password.clone());
    match options.version {
        Version::V3_1_1 => {
            let mut connect = v4::Connect::new(options.client_id.as_str());
            connect.keep_alive = keep_alive;
            connect.clean_session = true;
            connect.last_will =
                will.map(|status| v4::LastWill::new(status.topic.as_str(), OFFLINE, qos4(status.qos), true));
            connect.login =
                user.map(|username| v4::Login { username, password: password.unwrap_or_default() });
            v4::Packet::Connect(connect).write(out, usize::MAX).map_err(|error| error.to_string())?;
        }
        Version::V5 => {
            let properties = v5::ConnectProperties {
                max_packet_size: u32::try_from(MAX_INCOMING).ok(),
                topic_alias_max: Some(0),
                ..v5::ConnectProperties::new()
            };
            let connect = v5::Connect {
                keep_alive,
                client_id: options.client_id.clone(),
                clean_start: true,
                properties: Some(properties),
            };
            let will = will.map(|status| {
                v5::LastWill::new(status.topic.as_str(), OFFLINE, qos5(status.qos), true, None)
            });
            let login = user.map(|username| v5::Login { username, password: password.unwrap_or_default() });
            v5::Packet::Connect(connect, will, login).write(out, None).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Payload of the last will and of the status before a disconnect.
pub const OFFLINE: &str = "offline";
/// Payload of the status while connected.
pub const ONLINE: &str = "online";

/// Appends SUBSCRIBE with QoS 1.
pub(crate) fn write_subscribe(
    out: &mut BytesMut,
    version: Version,
    id: u16,
    filter: &str,
) -> Result<(), String> {
    match version {
        Version::V3_1_1 => {
            let mut packet = v4::Subscribe::new(filter, common::QoS::AtLeastOnce);
            packet.pkid = id;
            v4::Packet::Subscribe(packet).write(out, usize::MAX).map_err(|error| error.to_string())?;
        }
        Version::V5 => {
            // The broker keeps the retain flag of live messages, so that a retained command is always known as one.
            let filter =
                v5::Filter { preserve_retain: true, ..v5::Filter::new(filter, common5::QoS::AtLeastOnce) };
            let packet = v5::Subscribe { pkid: id, ..v5::Subscribe::new(filter, None) };
            v5::Packet::Subscribe(packet).write(out, None).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Appends PUBACK: the same bytes in both versions.
pub(crate) fn write_puback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

/// Appends PUBREL: the same bytes in both versions.
pub(crate) fn write_pubrel(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x62, 2]);
    out.put_u16(id);
}

/// Appends PINGREQ.
pub(crate) fn write_ping(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

/// Appends DISCONNECT, reason 0 in MQTT 5.
pub(crate) fn write_disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xe0, 0]);
}

/// What stands at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// Something for [`read`].
    Packet,
    /// Perhaps a PUBLISH that is too large; more bytes are needed to know its id.
    Unknown,
    /// A PUBLISH beyond [`MAX_INCOMING`]: whoever may publish on the subscription must not be able to end the session,
    /// so it is skipped, and acknowledged where it has an id.
    TooLarge { length: usize, id: Option<u16> },
}

/// Looks at the fixed header, and at topic and id of a PUBLISH that is too large.
pub(crate) fn front(input: &[u8]) -> Front {
    let Some((first, rest)) = input.split_first() else { return Front::Packet };
    if first >> 4 != 3 {
        return Front::Packet;
    }
    let (mut remaining, mut header) = (0_usize, 1);
    for (index, byte) in rest.iter().take(4).enumerate() {
        header += 1;
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        if remaining <= MAX_INCOMING {
            return Front::Packet;
        }
        let length = header + remaining;
        if first & 0b0110 == 0 {
            return Front::TooLarge { length, id: None };
        }
        let Some(Ok(topic)) = input.get(header..header + 2).map(<[u8; 2]>::try_from) else {
            return Front::Unknown;
        };
        let at = header + 2 + usize::from(u16::from_be_bytes(topic));
        let Some(Ok(id)) = input.get(at..at + 2).map(<[u8; 2]>::try_from) else { return Front::Unknown };
        return Front::TooLarge { length, id: Some(u16::from_be_bytes(id)) };
    }
    // Not complete, or longer than four bytes: `read` says so.
    Front::Packet
}

/// Takes the next packet out of `input`; `Ok(None)`: more bytes are needed.
pub(crate) fn read(input: &mut BytesMut, version: Version) -> Result<Option<Packet>, String> {
    if let [0x40, 2, high, low, ..] = input.as_ref() {
        let id = u16::from_be_bytes([*high, *low]);
        input.advance(4);
        return Ok(Some(Packet::PubAck { id, error: None }));
    }
    match version {
        Version::V3_1_1 => {
            let before = input.len();
            match v4::Packet::read(input, MAX_INCOMING) {
                Ok(packet) => from_v4(packet).map(Some),
                Err(common::Error::InsufficientBytes(_)) if input.len() == before => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        }
        Version::V5 => {
            if let Some(packet) = short_disconnect(input) {
                return Ok(Some(packet));
            }
            let before = input.len();
            match v5::Packet::read(input, u32::try_from(MAX_INCOMING).ok()) {
                Ok(packet) => from_v5(packet).map(Some),
                // Also raised inside a whole packet that is too short for its fields; that one is consumed.
                Err(common5::Error::InsufficientBytes(_)) if input.len() == before => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// DISCONNECT of MQTT 5 without reason, or without the length of its properties: legal (MQTT 5.0, 3.14.2.1 and
/// 3.14.2.2.1), sent by brokers, and unknown to `rumqttc`.
fn short_disconnect(input: &mut BytesMut) -> Option<Packet> {
    const SESSION_TAKEN_OVER: u8 = 0x8e;
    let (length, reason) = match input.as_ref() {
        [0xe0, 0, ..] => (2, 0),
        [0xe0, 1, reason, ..] => (3, *reason),
        _ => return None,
    };
    input.advance(length);
    Some(Packet::Disconnect {
        taken_over: reason == SESSION_TAKEN_OVER,
        text: format!("reason code {reason:#04x} of MQTT 5"),
    })
}

fn from_v4(packet: v4::Packet) -> Result<Packet, String> {
    use v4::Packet as P;
    Ok(match packet {
        P::ConnAck(ack) => Packet::ConnAck(connack4(ack.code)),
        P::Publish(p) => Packet::Publish(Publish {
            topic: p.topic,
            payload: p.payload,
            qos: p.qos as u8,
            retain: p.retain,
            id: p.pkid,
        }),
        P::PubAck(ack) => Packet::PubAck { id: ack.pkid, error: None },
        P::PubRec(rec) => Packet::PubRec { id: rec.pkid, error: None },
        P::PubComp(comp) => Packet::PubComp { id: comp.pkid },
        P::SubAck(ack) => {
            let failed = ack.return_codes.iter().any(|code| matches!(code, v4::SubscribeReasonCode::Failure));
            Packet::SubAck { id: ack.pkid, refused: failed.then(|| "the broker gives no reason".to_owned()) }
        }
        P::PingResp => Packet::PingResp,
        other => return Err(format!("a packet that only clients send: {}", kind(&format!("{other:?}")))),
    })
}

fn from_v5(packet: v5::Packet) -> Result<Packet, String> {
    use v5::Packet as P;
    Ok(match packet {
        P::ConnAck(ack) => Packet::ConnAck(connack5(&ack)),
        P::Publish(p) => {
            let topic =
                String::from_utf8(p.topic.to_vec()).map_err(|_| "a topic that is not UTF-8".to_owned())?;
            if topic.is_empty() {
                return Err("a topic alias that was not offered".to_owned());
            }
            Packet::Publish(Publish {
                topic,
                payload: p.payload,
                qos: p.qos as u8,
                retain: p.retain,
                id: p.pkid,
            })
        }
        P::PubAck(ack) => Packet::PubAck { id: ack.pkid, error: puback_error(ack.reason) },
        P::PubRec(rec) => Packet::PubRec { id: rec.pkid, error: pubrec_error(rec.reason) },
        P::PubComp(comp) => Packet::PubComp { id: comp.pkid },
        P::SubAck(ack) => {
            let refused =
                ack.return_codes.iter().find(|code| !matches!(code, v5::SubscribeReasonCode::Success(_)));
            Packet::SubAck { id: ack.pkid, refused: refused.map(|code| format!("{code:?}")) }
        }
        P::PingResp(_) => Packet::PingResp,
        P::Disconnect(bye) => {
            let words = bye.properties.and_then(|properties| properties.reason_string).unwrap_or_default();
            Packet::Disconnect {
                taken_over: bye.reason_code == v5::DisconnectReasonCode::SessionTakenOver,
                text: format!("{:?} {words}", bye.reason_code).trim_end().to_owned(),
            }
        }
        other => return Err(format!("a packet that only clients send: {}", kind(&format!("{other:?}")))),
    })
}

/// The name of a packet out of its debug form, without its content.
fn kind(debug: &str) -> String {
    debug.chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn connack4(code: v4::ConnectReturnCode) -> ConnAck {
    use v4::ConnectReturnCode as C;
    let refused = match code {
        C::Success => None,
        C::RefusedProtocolVersion => Some("it does not speak MQTT 3.1.1"),
        C::BadClientId => Some("it does not accept the client id"),
        C::ServiceUnavailable => Some("it cannot serve now"),
        C::BadUserNamePassword => Some("wrong user name or password"),
        C::NotAuthorized => Some("not authorised: check user name, password and rights"),
    };
    ConnAck {
        refused: refused.map(str::to_owned),
        busy: code == C::ServiceUnavailable,
        wrong_version: code == C::RefusedProtocolVersion,
        ..ConnAck::default()
    }
}

fn connack5(ack: &v5::ConnAck) -> ConnAck {
    use v5::ConnectReturnCode as C;
    let refused = match ack.code {
        C::Success => None,
        C::RefusedProtocolVersion | C::UnsupportedProtocolVersion => {
            Some("it does not speak MQTT 5".to_owned())
        }
        C::BadClientId | C::ClientIdentifierNotValid => Some("it does not accept the client id".to_owned()),
        C::BadUserNamePassword => Some("wrong user name or password".to_owned()),
        C::NotAuthorized => Some("not authorised: check user name, password and rights".to_owned()),
        other => Some(format!("{other:?}")),
    };
    let busy = matches!(
        ack.code,
        C::ServiceUnavailable
            | C::ServerUnavailable
            | C::ServerBusy
            | C::ConnectionRateExceeded
            | C::QuotaExceeded
            | C::UnspecifiedError
    );
    let wrong_version = matches!(ack.code, C::RefusedProtocolVersion | C::UnsupportedProtocolVersion);
    let mut out = ConnAck { refused, busy, wrong_version, ..ConnAck::default() };
    if let Some(properties) = &ack.properties {
        out.receive_maximum = properties.receive_max;
        out.max_packet = properties.max_packet_size;
        out.max_qos = properties.max_qos;
        out.no_retain = properties.retain_available == Some(0);
        out.keep_alive = properties.server_keep_alive;
        if let (Some(refused), Some(words)) = (&mut out.refused, &properties.reason_string) {
            refused.push_str(": ");
            refused.push_str(words);
        }
    }
    out
}

fn puback_error(reason: v5::PubAckReason) -> Option<PublishError> {
    use v5::PubAckReason as R;
    match reason {
        R::Success | R::NoMatchingSubscribers => None,
        R::NotAuthorized => Some(PublishError::NotAuthorized),
        R::TopicNameInvalid => Some(PublishError::TopicNameInvalid),
        R::QuotaExceeded => Some(PublishError::QuotaExceeded),
        _ => Some(PublishError::Other),
    }
}

fn pubrec_error(reason: v5::PubRecReason) -> Option<PublishError> {
    use v5::PubRecReason as R;
    match reason {
        R::Success | R::NoMatchingSubscribers => None,
        R::NotAuthorized => Some(PublishError::NotAuthorized),
        R::TopicNameInvalid => Some(PublishError::TopicNameInvalid),
        R::QuotaExceeded => Some(PublishError::QuotaExceeded),
        _ => Some(PublishError::Other),
    }
}

const fn qos4(qos: Qos) -> common::QoS {
    match qos {
        Qos::AtMostOnce => common::QoS::AtMostOnce,
        Qos::AtLeastOnce => common::QoS::AtLeastOnce,
        Qos::ExactlyOnce => common::QoS::ExactlyOnce,
    }
}

const fn qos5(qos: Qos) -> common5::QoS {
    match qos {
        Qos::AtMostOnce => common5::QoS::AtMostOnce,
        Qos::AtLeastOnce => common5::QoS::AtLeastOnce,
        Qos::ExactlyOnce => common5::QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_bytes_are_those_of_rumqttc() {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for (topic, size, retain) in [("a", 0, false), ("busbar/h/d/p", 113, true), ("t", 20_000, false)]
            {
                let payload = vec![b'x'; size];
                let id = if qos == Qos::AtMostOnce { 0 } else { 517 };
                let message = Outgoing { topic, payload: &payload, qos, retain, id };

                let mut ours = BytesMut::new();
                assert!(write_publish(&mut ours, Version::V3_1_1, &message));
                let mut packet = v4::Publish::new(topic, qos4(qos), payload.clone());
                (packet.pkid, packet.retain) = (id, retain);
                let mut theirs = BytesMut::new();
                v4::Packet::Publish(packet).write(&mut theirs, usize::MAX).unwrap();
                assert_eq!(ours, theirs);
                assert_eq!(publish_size(Version::V3_1_1, qos, topic.len(), size), Some(theirs.len()));

                let mut ours = BytesMut::new();
                assert!(write_publish(&mut ours, Version::V5, &message));
                let mut packet = v5::Publish::new(topic, qos5(qos), payload.clone(), None);
                (packet.pkid, packet.retain) = (id, retain);
                let mut theirs = BytesMut::new();
                v5::Packet::Publish(packet).write(&mut theirs, None).unwrap();
                assert_eq!(ours, theirs);
                assert_eq!(publish_size(Version::V5, qos, topic.len(), size), Some(theirs.len()));
            }
        }
        assert_eq!(publish_size(Version::V5, Qos::AtMostOnce, 70_000, 0), None);
        assert_eq!(publish_size(Version::V5, Qos::AtMostOnce, 7, usize::MAX), None);
    }

    #[test]
    fn small_packets_are_those_of_rumqttc() {
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        write_puback(&mut ours, 0x1234);
        write_pubrel(&mut ours, 0x1234);
        write_ping(&mut ours);
        write_disconnect(&mut ours);
        v4::Packet::PubAck(v4::PubAck::new(0x1234)).write(&mut theirs, usize::MAX).unwrap();
        v4::Packet::PubRel(v4::PubRel::new(0x1234)).write(&mut theirs, usize::MAX).unwrap();
        v4::Packet::PingReq.write(&mut theirs, usize::MAX).unwrap();
        v4::Packet::Disconnect.write(&mut theirs, usize::MAX).unwrap();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn packets_arrive_in_pieces_and_in_heaps() {
        for version in [Version::V3_1_1, Version::V5] {
            let mut all = BytesMut::new();
            write_puback(&mut all, 7);
            all.put_slice(&[0xd0, 0]);
            write_publish(
                &mut all,
                version,
                &Outgoing { topic: "t", payload: b"p", qos: Qos::AtLeastOnce, retain: true, id: 9 },
            );
            let mut input = BytesMut::new();
            let mut found = Vec::new();
            for byte in &all {
                input.put_u8(*byte);
                while let Some(packet) = read(&mut input, version).unwrap() {
                    found.push(packet);
                }
            }
            let publish =
                Publish { topic: "t".into(), payload: Bytes::from_static(b"p"), qos: 1, retain: true, id: 9 };
            assert_eq!(
                found,
                [Packet::PubAck { id: 7, error: None }, Packet::PingResp, Packet::Publish(publish)]
            );
        }
    }

    #[test]
    fn a_publish_that_is_too_large_is_seen_from_its_first_bytes() {
        let payload = vec![b'x'; MAX_INCOMING + 1];
        for (qos, id, enough) in [(Qos::AtMostOnce, None, 4), (Qos::AtLeastOnce, Some(7), 4 + 2 + 5 + 2)] {
            let mut out = BytesMut::new();
            let message = Outgoing {
                topic: "topic",
                payload: &payload,
                qos,
                retain: false,
                id: id.unwrap_or_default(),
            };
            assert!(write_publish(&mut out, Version::V3_1_1, &message));
            let whole = Front::TooLarge { length: out.len(), id };
            for cut in 0..100 {
                let expected = if cut >= enough {
                    whole
                } else if cut >= 4 {
                    Front::Unknown
                } else {
                    Front::Packet
                };
                assert_eq!(front(&out[..cut]), expected, "{cut}");
            }
        }
        assert_eq!(front(&[0x40, 0xff, 0xff, 0xff, 0x7f]), Front::Packet);
        assert_eq!(front(&[0x30, 0xff, 0xff, 0xff, 0xff, 0xff]), Front::Packet);
    }

    #[test]
    fn every_form_of_disconnect() {
        for (bytes, expected) in [
            (&[0xe0, 0][..], false),
            (&[0xe0, 1, 0x8e][..], true),
            (&[0xe0, 1, 0x8b][..], false),
            (&[0xe0, 2, 0x8e, 0][..], true),
            (&[0xe0, 7, 0x8e, 5, 0x1f, 0, 2, b'h', b'i'][..], true),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(read(&mut BytesMut::from(&bytes[..cut]), Version::V5), Ok(None), "{bytes:02x?}");
            }
            match read(&mut BytesMut::from(bytes), Version::V5) {
                Ok(Some(Packet::Disconnect { taken_over, .. })) => assert_eq!(taken_over, expected),
                other => panic!("{bytes:02x?} {other:?}"),
            }
        }
    }

    #[test]
    fn a_whole_packet_that_is_too_short_is_an_error() {
        // SUBACK of MQTT 5 whose properties claim more than the packet has.
        assert!(read(&mut BytesMut::from(&[0x90, 3, 0, 1, 0x80][..]), Version::V5).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic_and_never_stall() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let kinds = [0x20, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0, 0xe0, 0xf0];
        for round in 0..400_000_u64 {
            let length = (random() % 40) as usize;
            let mut bytes: Vec<u8> = (0..length).map(|_| (random() % 256) as u8).collect();
            if round % 4 != 0 && length > 2 {
                // A frame that is whole, so that the inside is reached; small numbers look like property ids.
                bytes[0] = kinds[(random() % kinds.len() as u64) as usize];
                bytes[1] = (length - 2) as u8;
                if round % 3 == 0 {
                    bytes[2..].iter_mut().for_each(|byte| *byte %= 44);
                }
            }
            for version in [Version::V3_1_1, Version::V5] {
                let mut input = BytesMut::from(bytes.as_slice());
                while !input.is_empty() {
                    let before = input.len();
                    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&mut input, version)))
                    {
                        Ok(Ok(Some(_))) => assert!(input.len() < before),
                        Ok(Ok(None) | Err(_)) => break,
                        Err(_) => panic!("{version:?} {bytes:02x?}"),
                    }
                }
            }
        }
    }
}
