//! From settings to a live session.

use std::time::Duration;

use busbar_driver_api::{Error, Link, Result, Secret};
use busbar_mqtt::options::Options;
use busbar_mqtt::topic::{Names, SET};
use busbar_mqtt::{Qos, Session, Status, Url, Version};
use busbar_sink_kit::settings::{Prefer, duration, size};

use crate::check::Topics;
use crate::memory::Shared;
use crate::settings::{Settings, Version as Configured};
use crate::sink::Mqtt;
use crate::verdict::Span;

/// For all brokers of a list together: below the host's own limit for a connect, so that the reason is ours.
const CONNECT_LIMIT: Duration = Duration::from_secs(25);
/// At least this long for each.
const MIN_LIMIT: Duration = Duration::from_secs(3);

/// The configured templates; CHECK has refused what fails here.
pub(crate) fn topics(settings: &Settings) -> Result<Topics> {
    Topics::parse(settings).map_err(|problems| {
        let texts =
            problems.iter().map(|p| format!("{}: expected {}, found {}", p.pointer, p.expected, p.found));
        Error::configuration(texts.collect::<Vec<_>>().join("; "))
    })
}

/// Tries the brokers in order.
pub(crate) async fn connect(link: &Link<Mqtt>, topics: &Topics, memory: &Shared) -> Result<Session<Span>> {
    let (first, default_id) = {
        let memory = memory.lock();
        let first = if link.settings.prefer == Prefer::LastGood { memory.last_good } else { 0 };
        (first, memory.client_id.clone())
    };
    let urls = link.settings.url.list();
    let count = urls.len().max(1);
    let limit = (CONNECT_LIMIT / u32::try_from(count).unwrap_or(u32::MAX)).max(MIN_LIMIT);
    let mut failures = Vec::new();
    for turn in 0..urls.len() {
        let at = (first + turn) % count;
        let Some((_, url)) = urls.get(at) else { continue };
        let options = options(link, topics, url, &default_id)?;
        match Session::connect(&options, limit).await {
            Ok(session) => {
                memory.lock().last_good = at;
                return Ok(session);
            }
            Err(error) => failures.push(error),
        }
    }
    let text = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(match failures.iter().all(|failure| matches!(failure, busbar_mqtt::Error::Configuration(_))) {
        true => Error::configuration(text),
        false if failures.iter().all(busbar_mqtt::Error::needs_change) => Error::refused(text),
        false => Error::session(text),
    })
}

fn options(link: &Link<Mqtt>, topics: &Topics, url: &str, default_id: &str) -> Result<Options> {
    let settings = &link.settings;
    let bad = |key: &str| Error::configuration(format!("{key}: expected a time or size with unit"));
    let names = Names { host: &link.host, ..Names::default() };
    let qos = qos(settings);
    let id = settings.client_id.clone().unwrap_or_else(|| default_id.to_owned());
    Ok(Options {
        version: match settings.version {
            Configured::V3_1_1 => Version::V3_1_1,
            Configured::V5 => Version::V5,
        },
        username: settings.username.clone(),
        password: settings.password.as_ref().map(Secret::expose).map(str::to_owned),
        tls: settings.tls.clone().unwrap_or_default().into(),
        keep_alive: duration(&settings.keep_alive).ok_or_else(|| bad("keep_alive"))?,
        ack_timeout: duration(&settings.ack_timeout).ok_or_else(|| bad("ack_timeout"))?,
        max_packet: size(&settings.max_packet).ok_or_else(|| bad("max_packet"))?,
        qos,
        status: Some(Status { topic: topics.status.render(&names), qos }),
        subscribe: settings.commands.then(|| topics.value.filter(&link.host, SET)),
        ..Options::new(Url::parse(url).map_err(Error::configuration)?, id)
    })
}

/// The configured quality of service.
pub(crate) fn qos(settings: &Settings) -> Qos {
    Qos::from_number(settings.qos).unwrap_or(Qos::AtLeastOnce)
}
