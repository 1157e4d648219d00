//! What the session costs: `load ADDRESS [MESSAGES_PER_SECOND] [SECONDS] [BYTES] [VERSION]` publishes with QoS 1 in bursts
//! every 20 ms, as polls do, and reports CPU seconds per million messages of this process.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a developer's tool")]

use std::time::{Duration, Instant};

use busbar_mqtt::{Message, Options, Qos, Session, Url, Version};

const TICK: Duration = Duration::from_millis(20);

/// User and system time of this process, seconds (proc(5), fields 14 and 15, at 100 ticks per second).
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    (fields[11] / 100.0, fields[12] / 100.0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (rate, seconds, bytes) = (number(1, 5000), number(2, 10), number(3, 95));
    let mut options = Options::new(Url::parse(&format!("mqtt://{}", arguments[0])).unwrap(), "load");
    if number(4, 3) == 5 {
        options.version = Version::V5;
    }
    let mut session = Session::<u64>::connect(&options, Duration::from_secs(5)).await.unwrap();
    let payload = vec![b'x'; usize::try_from(bytes).unwrap()];
    let message = Message {
        topic: "busbar/site-7/meter-01/voltage_l1",
        payload: &payload,
        qos: Qos::AtLeastOnce,
        retain: false,
    };
    let burst = rate * u64::try_from(TICK.as_millis()).unwrap() / 1000;
    let (before, started) = (cpu(), Instant::now());
    let mut ticks = tokio::time::interval(TICK);
    let (mut sent, mut confirmed) = (0_u64, 0_u64);
    while started.elapsed() < Duration::from_secs(seconds) {
        tokio::select! {
            biased;
            event = session.next() => {
                event.unwrap();
                confirmed += 1;
            }
            _ = ticks.tick() => for _ in 0..burst {
                while !session.has_room() {
                    session.next().await.unwrap();
                    confirmed += 1;
                }
                session.send(&message, sent).unwrap();
                sent += 1;
            }
        }
    }
    let after = cpu();
    let per_million = |part: f64| part * 1e6 / confirmed as f64;
    println!(
        "{confirmed} of {sent} confirmed; CPU s per million: user {:.2}, system {:.2}",
        per_million(after.0 - before.0),
        per_million(after.1 - before.1)
    );
}
