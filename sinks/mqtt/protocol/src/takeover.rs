//! Finds out that another client uses our client id.
//!
//! A broker that sees a client id a second time throws the first client out (MQTT 3.1.4). Two gateways with one id throw
//! each other out for ever, and data arrives in bursts. MQTT 5 says so when it closes ("session taken over");
//! MQTT 3.1.1 only closes. So: several sessions in a row that the broker closed soon after they began.

use std::time::Duration;

/// A session that the broker closes within this time is short.
pub const SHORT: Duration = Duration::from_secs(90);
/// So many short sessions in a row make a warning.
pub const IN_A_ROW: u32 = 3;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The broker said that another client took over.
    TakenOver,
    /// The broker closed without a word.
    ByPeer,
    /// Anything else: our own disconnect, a time-out, nonsense.
    Otherwise,
}

/// Counts suspicious ends.
#[derive(Debug, Default)]
pub struct TakeOver {
    short: u32,
}

impl TakeOver {
    /// A session that lived for `lived` has ended; returns a warning for the operator when it is time for one.
    pub fn ended(&mut self, how: Ended, lived: Duration, client_id: &str) -> Option<String> {
        match how {
            Ended::TakenOver => self.short += 1,
            Ended::ByPeer if lived < SHORT => self.short += 1,
            Ended::ByPeer | Ended::Otherwise => {
                self.short = 0;
                return None;
            }
        }
        let sure = how == Ended::TakenOver;
        // Again after as many as it took for the first one: a standing fault is not forgotten and does not flood.
        let first = sure && self.short == 1;
        if !first && !self.short.is_multiple_of(IN_A_ROW) {
            return None;
        }
        Some(if sure {
            format!(
                "another client uses the client id {client_id}: the broker gave the session to it; \
                 give every gateway and sink its own client_id"
            )
        } else {
            format!(
                "the broker closed {} sessions in a row soon after they began: probably another client uses the client \
                 id {client_id}; give every gateway and sink its own client_id, or look into the broker's log",
                self.short
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    #[test]
    fn three_short_sessions_in_a_row_warn_and_name_the_id() {
        let mut watch = TakeOver::default();
        assert_eq!(watch.ended(Ended::ByPeer, SOON, "c1"), None);
        assert_eq!(watch.ended(Ended::ByPeer, SOON, "c1"), None);
        let text = watch.ended(Ended::ByPeer, SOON, "c1").unwrap();
        assert!(text.contains("c1") && text.contains("3 sessions"), "{text}");
        assert_eq!(watch.ended(Ended::ByPeer, SOON, "c1"), None);
    }

    #[test]
    fn a_long_session_or_another_end_starts_again() {
        let mut watch = TakeOver::default();
        for how in [(Ended::ByPeer, SHORT), (Ended::Otherwise, SOON)] {
            assert_eq!(watch.ended(Ended::ByPeer, SOON, "c"), None);
            assert_eq!(watch.ended(Ended::ByPeer, SOON, "c"), None);
            assert_eq!(watch.ended(how.0, how.1, "c"), None);
        }
    }

    #[test]
    fn mqtt_5_tells_at_once() {
        let mut watch = TakeOver::default();
        assert!(watch.ended(Ended::TakenOver, SHORT * 9, "c").unwrap().contains("another client uses"));
        assert_eq!(watch.ended(Ended::TakenOver, SOON, "c"), None);
        assert!(watch.ended(Ended::TakenOver, SOON, "c").is_some());
    }
}
