//! The idempotency key of a batch: a UUID (version 8, RFC 9562 section 5.8) made of the SHA-256 of what is in it.
//!
//! So the same records sent again have the same key, in this process and in the next one, and different records never
//! share one. Record numbers are part of it: two records with equal content (same device, same time, same values) are
//! still two. The numbers of a queue in memory start again with each start of the host; times and values keep such
//! batches apart.

use sha2::{Digest, Sha256};

use crate::body::Record;

/// Keeps keys of another layout apart.
const LAYOUT: &[u8] = b"busbar ems batch 1";

/// The key of `records` for this gateway and sink, as `xxxxxxxx-xxxx-8xxx-xxxx-xxxxxxxxxxxx`.
#[must_use]
pub fn batch_id<'a>(gateway: &str, sink: &str, records: impl IntoIterator<Item = &'a Record>) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(LAYOUT);
    part(gateway.as_bytes());
    part(sink.as_bytes());
    for record in records {
        part(&record.first.to_le_bytes());
        part(&record.count.to_le_bytes());
        part(&record.ts_ns.to_le_bytes());
        part(&record.body);
    }
    uuid(&hash.finalize())
}

fn uuid(hash: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in hash.iter().take(16).enumerate() {
        let byte = match at {
            6 => (byte & 0x0f) | 0x80,
            8 => (byte & 0x3f) | 0x80,
            _ => *byte,
        };
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(first: u64, body: &str) -> Record {
        Record { first, count: 2, device: "m".into(), ts_ns: 5, body: body.into() }
    }

    #[test]
    fn the_same_records_have_the_same_key_and_no_others() {
        let key = |gateway: &str, sink: &str, records: &[Record]| batch_id(gateway, sink, records);
        let records = [record(1, "a"), record(3, "b")];
        let first = key("g", "s", &records);
        assert_eq!(first, key("g", "s", &records.clone()));
        assert_eq!(first.len(), 36);
        assert_eq!(first.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(first.as_bytes()[14], b'8');
        assert!(matches!(first.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        let mut later = records.clone();
        later[0].ts_ns += 1;
        for other in [
            key("g2", "s", &records),
            key("g", "s2", &records),
            key("g", "s", &records[..1]),
            key("g", "s", &[record(1, "a"), record(4, "b")]),
            key("g", "s", &[record(1, "ab"), record(3, "")]),
            key("g", "s", &later),
        ] {
            assert_ne!(first, other);
        }
    }

    /// Keys outlive versions of the plugin: a batch that was sent before an upgrade keeps its key.
    #[test]
    fn the_layout_is_frozen() {
        assert_eq!(batch_id("site-7", "ems", &[record(1, "{}")]), "8c838afc-8df9-8320-a7d7-822b079a5d24");
    }
}
