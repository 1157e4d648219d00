//! Misbehaviour on purpose, for tests.

/// How the broker misbehaves; the default is not at all. A change acts on running connections, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Answers CONNECT with this return code of MQTT 3.1.1 (1 to 5); MQTT 5 clients get the same meaning.
    pub refuse: Option<u8>,
    /// Never answers CONNECT.
    pub mute: bool,
    /// Takes messages, routes them, and never acknowledges.
    pub withhold_acks: bool,
    /// Acknowledges every message twice.
    pub double_acks: bool,
    /// Takes messages, neither routes nor acknowledges them: what a crash loses.
    pub swallow: bool,
    /// Never answers PINGREQ.
    pub ignore_pings: bool,
    /// Takes so many packets of the client (CONNECT is the first) and closes when the next one arrives.
    pub close_after: Option<u32>,
    /// Sends bytes that are not MQTT when the client has sent more packets than this.
    pub garbage_after: Option<u32>,
    /// MQTT 5: acknowledges with this reason code instead of 0.
    pub puback_reason: Option<u8>,
    /// MQTT 5: receive maximum in CONNACK.
    pub receive_maximum: Option<u16>,
    /// MQTT 5: largest packet in CONNACK.
    pub max_packet: Option<u32>,
    /// MQTT 5: highest QoS in CONNACK.
    pub max_qos: Option<u8>,
    /// Refuses every subscription.
    pub refuse_subscriptions: bool,
}

impl Script {
    /// The properties of CONNACK (MQTT 5.0, 3.2.2.3).
    pub(super) fn connack_properties(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(max) = self.receive_maximum {
            out.push(0x21);
            out.extend_from_slice(&max.to_be_bytes());
        }
        if let Some(max) = self.max_qos {
            out.extend_from_slice(&[0x24, max]);
        }
        if let Some(max) = self.max_packet {
            out.push(0x27);
            out.extend_from_slice(&max.to_be_bytes());
        }
        out
    }
}
