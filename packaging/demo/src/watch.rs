//! What a subscriber sees: an ordinary MQTT client on the broker, and the image of what it was told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use busbar_mqtt::{Event, Options, Session, Url};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::task::JoinHandle;

/// Time to connect to a broker in the same process.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// One point as the broker last heard of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) value: Json,
    pub(crate) quality: String,
    pub(crate) unit: String,
    /// Messages.
    pub(crate) messages: u64,
    /// Messages with another value than the one before.
    pub(crate) changes: u64,
}

impl Point {
    /// Without what it says about time: on a machine whose clock is not synchronised every gateway time carries
    /// `clock_unsynced`, and the value is none the worse for it.
    pub(crate) fn of_value(&self) -> String {
        self.quality.split('|').filter(|part| *part != "clock_unsynced").collect::<Vec<_>>().join("|")
    }

    pub(crate) fn is_good(&self) -> bool {
        self.of_value() == "good"
    }
}

/// One device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// `online`, `offline`; empty before the first word.
    pub(crate) status: String,
    /// In the order of the configuration; `None` before the first word.
    pub(crate) points: Vec<(String, Option<Point>)>,
}

/// Everything heard so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(crate) devices: Vec<Device>,
    pub(crate) messages: u64,
    /// Why the subscriber hears nothing any more.
    pub(crate) broken: Option<String>,
}

/// Payload of `format = "json"`.
#[derive(Deserialize)]
struct Payload {
    value: Json,
    quality: String,
    #[serde(default)]
    unit: String,
}

impl Image {
    fn new(expected: &[(&'static str, Vec<String>)]) -> Self {
        let device = |(name, points): &(&'static str, Vec<String>)| Device {
            name: (*name).to_owned(),
            status: String::new(),
            points: points.iter().map(|point| (point.clone(), None)).collect(),
        };
        Self { devices: expected.iter().map(device).collect(), ..Self::default() }
    }

    /// Takes one message; `topic` is what follows `busbar/HOST/`.
    fn take(&mut self, topic: &str, payload: &[u8]) {
        let Some((device, point)) = topic.split_once('/') else { return };
        let Some(device) = self.devices.iter_mut().find(|known| known.name == device) else { return };
        if point == "status" {
            device.status = String::from_utf8_lossy(payload).into_owned();
            return;
        }
        let Some((_, place)) = device.points.iter_mut().find(|(name, _)| name == point) else { return };
        let Ok(payload) = serde_json::from_slice::<Payload>(payload) else { return };
        self.messages += 1;
        let known = place.get_or_insert_with(Point::default);
        known.changes += u64::from(known.messages > 0 && known.value != payload.value);
        known.messages += 1;
        known.value = payload.value;
        known.quality = payload.quality;
        known.unit = payload.unit;
    }
}

/// The subscriber.
pub(crate) struct Watch {
    image: Arc<Mutex<Image>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Subscribes to everything of one gateway. `expected`: devices and their points.
    pub(crate) async fn start(
        url: &str,
        host: &str,
        expected: &[(&'static str, Vec<String>)],
    ) -> Result<Self, String> {
        let prefix = format!("busbar/{host}/");
        let mut options = Options::new(Url::parse(url)?, "busbar-demo-watcher");
        options.subscribe = Some(format!("{prefix}#"));
        let mut session: Session<()> = Session::connect(&options, CONNECT_TIME)
            .await
            .map_err(|error| format!("the demo's own subscriber: {error}"))?;
        let image = Arc::new(Mutex::new(Image::new(expected)));
        let shared = Arc::clone(&image);
        let task = tokio::spawn(async move {
            loop {
                let event = session.next().await;
                let mut image = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(Event::Received { topic, payload, .. }) => {
                        if let Some(topic) = topic.strip_prefix(&prefix) {
                            image.take(topic, &payload);
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        image.broken = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(Self { image, task })
    }

    /// What was heard so far.
    pub(crate) fn image(&self) -> Image {
        self.image.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A device for tests that make their own image.
#[cfg(test)]
pub(crate) fn device_of(name: &str, status: &str, points: &[(&str, Json, &str)]) -> Device {
    let point = |(name, value, quality): &(&str, Json, &str)| {
        let (value, quality) = (value.clone(), (*quality).to_owned());
        ((*name).to_owned(), Some(Point { value, quality, unit: String::new(), messages: 2, changes: 1 }))
    };
    Device { name: name.into(), status: status.into(), points: points.iter().map(point).collect() }
}

/// Values by point name.
pub(crate) fn values(device: &Device) -> HashMap<String, Json> {
    let value = |(name, point): &(String, Option<Point>)| Some((name.clone(), point.as_ref()?.value.clone()));
    device.points.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_an_image() {
        let mut image = Image::new(&[("m", vec!["a".into(), "b".into()])]);
        image.take("m/status", b"online");
        image.take("m/a", br#"{"ts":1,"value":1.5,"quality":"good","unit":"V"}"#);
        image.take("m/a", br#"{"ts":2,"value":1.5,"quality":"good","unit":"V"}"#);
        image.take("m/a", br#"{"ts":3,"value":2,"quality":"invalid|comm_lost","unit":"V"}"#);
        for (topic, payload) in
            [("m/x", "{}"), ("x/a", "{}"), ("m", "{}"), ("status", "online"), ("m/b", "nonsense")]
        {
            image.take(topic, payload.as_bytes());
        }
        let device = &image.devices[0];
        let a = device.points[0].1.as_ref().unwrap();
        assert_eq!(
            (a.messages, a.changes, a.quality.as_str(), device.status.as_str()),
            (3, 1, "invalid|comm_lost", "online")
        );
        assert_eq!(device.points[1].1, None);
        assert_eq!(image.messages, 3);
    }
}
