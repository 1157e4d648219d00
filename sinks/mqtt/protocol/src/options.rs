//! What a session needs to know.

use std::fmt;
use std::time::Duration;

use busbar_kit::tls::TlsFiles;

use crate::ledger::MAX_WINDOW;

/// Default of [`Options::window`].
pub const DEFAULT_WINDOW: u16 = 1024;
/// Default of [`Options::keep_alive`].
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Default of [`Options::ack_timeout`].
pub const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// Default of [`Options::max_packet`].
pub const DEFAULT_MAX_PACKET: usize = 256 * 1024;
/// Longest client id, bytes.
pub const MAX_CLIENT_ID: usize = 128;

/// Version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// MQTT 3.1.1
    #[default]
    V3_1_1,
    /// MQTT 5.0
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// At most once: what is on its way when the connection breaks is lost.
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once within one connection; a broken connection may double a message.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            2 => Self::ExactlyOnce,
            _ => return None,
        })
    }
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `mqtts://`
    pub tls: bool,
}

impl Url {
    /// Reads `mqtt://host[:port]` (1883) or `mqtts://host[:port]` (8883). The error says what was expected and found.
    pub fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "mqtt://host:port or mqtts://host:port";
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("expected {SHAPE}, found {text}"))?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(format!("expected {SHAPE}, found {other}://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err("expected no user and password in the URL: use username and password".to_owned());
        }
        if authority.contains(['/', '?', '#']) {
            return Err(format!("expected {SHAPE} and nothing after the port, found {text}"));
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("expected a port of 1 to 65535, found {port}"))?,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(format!("expected {SHAPE}, found no host in {text}"));
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .filter(|(host, _)| host.parse::<std::net::Ipv6Addr>().is_ok())
            .ok_or_else(|| format!("expected an IPv6 address in brackets, found {authority}"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("expected [address]:port, found {authority}")),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err(format!("expected an IPv6 address in brackets, found {authority}"))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

/// The retained status of this client: `online` after connect, `offline` as last will and before disconnect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Topic.
    pub topic: String,
    /// Quality of service.
    pub qos: Qos,
}

/// Everything about one session.
#[derive(Clone)]
pub struct Options {
    /// The broker.
    pub url: Url,
    /// Version of MQTT.
    pub version: Version,
    /// Must be unique at the broker, 1 to 128 bytes.
    pub client_id: String,
    /// User name.
    pub username: Option<String>,
    /// Password; never printed.
    pub password: Option<String>,
    /// Used when the URL says `mqtts`.
    pub tls: TlsFiles,
    /// Ping after this much silence; whole seconds, 1 to 65535.
    pub keep_alive: Duration,
    /// Most unacknowledged messages, 1 to [`MAX_WINDOW`].
    pub window: u16,
    /// An unacknowledged message older than this ends the session.
    pub ack_timeout: Duration,
    /// Largest packet that is sent, bytes; the broker may allow less (MQTT 5).
    pub max_packet: usize,
    /// Highest quality of service that will be asked for; a broker that allows less is refused (MQTT 5).
    pub qos: Qos,
    /// Status topic, if any.
    pub status: Option<Status>,
    /// Subscribed with QoS 1 before [`crate::Session::connect`] returns.
    pub subscribe: Option<String>,
}

impl Options {
    /// The defaults for a broker and a client id.
    #[must_use]
    pub fn new(url: Url, client_id: impl Into<String>) -> Self {
        Self {
            url,
            version: Version::default(),
            client_id: client_id.into(),
            username: None,
            password: None,
            tls: TlsFiles::default(),
            keep_alive: DEFAULT_KEEP_ALIVE,
            window: DEFAULT_WINDOW.min(MAX_WINDOW),
            ack_timeout: DEFAULT_ACK_TIMEOUT,
            max_packet: DEFAULT_MAX_PACKET,
            qos: Qos::AtLeastOnce,
            status: None,
            subscribe: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// A client id that no other process has: `busbar-HOST-SINK-` and eight random hex digits, new at every start.
///
/// New at every start is right because sessions at the broker are never resumed; so a configuration copied to a second
/// gateway does not make the two throw each other out. A site whose broker grants rights by client id configures one.
#[must_use]
pub fn default_client_id(host: &str, sink: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    const MAX_NAMES: usize = 64;
    // The keys of RandomState come from the operating system.
    let random = RandomState::new().hash_one(std::process::id()) & 0xffff_ffff;
    let names = format!("busbar-{host}-{sink}");
    let names: String = names
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' })
        .take(MAX_NAMES)
        .collect();
    format!("{names}-{random:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, host, port, tls) in [
            ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884, false),
            ("mqtt://broker", "broker", 1883, false),
            ("mqtts://broker.example/", "broker.example", 8883, true),
            ("mqtt://[::1]:1884", "::1", 1884, false),
            ("mqtts://[fe80::1]", "fe80::1", 8883, true),
        ] {
            assert_eq!(Url::parse(text), Ok(Url { host: host.to_owned(), port, tls }), "{text}");
        }
        assert_eq!(Url::parse("mqtt://[::1]:1884").unwrap().to_string(), "mqtt://[::1]:1884");
    }

    #[test]
    fn bad_urls_say_what_was_expected_and_never_show_a_password() {
        for (text, words) in [
            ("broker:1883", "expected mqtt://host:port or mqtts://host:port"),
            ("tcp://broker", "found tcp://"),
            ("mqtt://", "no host"),
            ("mqtt://:1883", "no host"),
            ("mqtt://b:0", "expected a port of 1 to 65535, found 0"),
            ("mqtt://b:99999", "found 99999"),
            ("mqtt://b:x", "found x"),
            ("mqtt://b/path", "nothing after the port"),
            ("mqtt://::1", "in brackets"),
            ("mqtt://[::1", "in brackets"),
            ("mqtt://[nonsense]:1", "in brackets"),
            ("mqtt://user:hunter2@b", "use username and password"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let mut options = Options::new(Url::parse("mqtt://b").unwrap(), "c");
        options.password = Some("hunter2".into());
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn default_client_ids_differ_and_are_plain() {
        let (a, b) = (default_client_id("site 7/é", "broker"), default_client_id("site 7/é", "broker"));
        assert_ne!(a, b);
        assert!(a.starts_with("busbar-site_7__-broker-"), "{a}");
        assert!(default_client_id(&"x".repeat(500), "s").len() <= MAX_CLIENT_ID);
    }
}
