//! How an association is opened: addressing within the OSI layers, password, times.

use std::fmt;
use std::time::Duration;

use iec61850_rs::proto::mms::association::{AssociationConfig, Selectors};
use iec61850_rs::proto::osi::cotp;

use crate::limits::{MAX_EVENTS_PER_PACKET, MAX_PDU, MAX_TSDU, OUTSTANDING};
use crate::request::LIMITS;

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How one end is addressed within the OSI layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Transport selector.
    pub transport: Vec<u8>,
    /// Session selector.
    pub session: Vec<u8>,
    /// Presentation selector.
    pub presentation: Vec<u8>,
    /// Application process title, as arcs of an object identifier.
    pub ap_title: Option<Vec<u32>>,
    /// Application entity qualifier.
    pub ae_qualifier: Option<i64>,
}

impl Default for Selector {
    /// What devices are delivered with: 0001, 0001, 00000001, no title.
    fn default() -> Self {
        Self {
            transport: vec![0, 1],
            session: vec![0, 1],
            presentation: vec![0, 0, 0, 1],
            ap_title: None,
            ae_qualifier: None,
        }
    }
}

impl Selector {
    fn to_codec(&self) -> Selectors {
        Selectors {
            t_sel: self.transport.clone(),
            s_sel: self.session.clone(),
            p_sel: self.presentation.clone(),
            ap_title: self.ap_title.clone(),
            ae_qualifier: self.ae_qualifier,
        }
    }
}

/// How the association is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// ACSE password (IEC 61850-8-1 25.2), where the device asks for one.
    pub password: Option<Secret>,
    /// From the first packet to the association.
    pub connect_timeout: Duration,
    /// From a request to its answer.
    pub response_timeout: Duration,
    /// Requests outstanding at once, at most; the device may allow fewer.
    pub outstanding: u8,
    /// This end.
    pub local: Selector,
    /// The device.
    pub remote: Selector,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            password: None,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(3),
            outstanding: OUTSTANDING,
            local: Selector::default(),
            remote: Selector::default(),
        }
    }
}

impl Settings {
    /// The association's configuration, with the bounds of this crate. It holds the password in clear: never print it.
    pub(super) fn to_codec(&self) -> AssociationConfig {
        AssociationConfig {
            local: self.local.to_codec(),
            remote: self.remote.to_codec(),
            max_pdu: MAX_PDU,
            tpdu_size_exp: cotp::TPDU_SIZE_MAX_EXP,
            max_outstanding: self.outstanding.max(1),
            password: self.password.as_ref().map(|secret| secret.0.clone()),
            connect_timeout_ms: millis(self.connect_timeout),
            request_timeout_ms: millis(self.response_timeout),
            max_tsdu: MAX_TSDU,
            limits: LIMITS,
            event_capacity: MAX_EVENTS_PER_PACKET,
        }
    }
}

/// Zero would mean "never" to the association.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
