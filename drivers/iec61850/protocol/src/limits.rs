//! Every bound of this crate, with its reason. What a peer sends can cost at most what is written here.

/// Largest MMS PDU offered to the peer, in octets (what most IEDs and test tools settle on).
pub const MAX_PDU: u32 = 64_000;

/// Smallest MMS PDU a peer may negotiate, in octets: below that not even one long name fits a request.
pub const MIN_PDU: usize = 512;

/// Largest TSDU that is reassembled: the largest PDU plus the headers of session, presentation and ACSE.
pub const MAX_TSDU: usize = 72_000;

/// Received octets that may wait for [`crate::session::Session::event`] at once: two of the largest packets.
pub const MAX_RECEIVED: usize = 2 * 65_535;

/// Requests that may wait for a place among those the peer accepts at once.
pub const MAX_WAITING: usize = 1_024;

/// Requests offered to be outstanding at once, if the configuration says nothing.
pub const OUTSTANDING: u8 = 5;

/// Events one packet may cause. More than that in one packet is no 61850 peer.
pub const MAX_EVENTS_PER_PACKET: usize = 64;

/// Nesting depth of MMS data and types. The deepest of IEC 61850-7-3 are 6 below the logical node.
pub const MAX_DEPTH: usize = 16;

/// Members of one structure, array, data set or variable list.
pub const MAX_MEMBERS: usize = 4_096;

/// Octets of one string or octet string.
pub const MAX_PRIMITIVE: usize = 4_096;

/// Names of one page of a name list.
pub const MAX_NAMES_PER_PAGE: usize = 16_384;

/// Names of one logical device over all pages. Large IEDs have some 30,000.
pub const MAX_NAMES: usize = 262_144;

/// Logical devices of one IED.
pub const MAX_DOMAINS: usize = 512;

/// Octets of a domain name or an item name (IEC 61850-8-1 allows 64 and 129; some devices exceed it).
pub const MAX_NAME: usize = 255;

/// Requests of one model discovery, so that a peer that always says "more follows" is left.
pub const MAX_DISCOVERY_REQUESTS: usize = 65_536;

/// Data set members one report may bring over all its segments.
pub const MAX_REPORT_ENTRIES: usize = MAX_MEMBERS;
