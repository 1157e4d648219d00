//! The late-answer regression: a thousand reads of changing registers with delays on both sides of the
//! time-out, against the simulator. Every register holds its own address, so a value of another register
//! shows at once.

use std::time::Duration;

use busbar_modbus::simulator::{Bank, Query, Reaction, Simulator};
use busbar_modbus::{Carrier, Connect, Error, Once, Prefer, Session, Table, TcpHosts, Timing};

const READS: u32 = 1_000;
const TIMEOUT: Duration = Duration::from_millis(10);

/// Reproducible pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// `latest`: how late an answer may be.
fn simulator(latest: Duration) -> Simulator {
    let values: Vec<u16> = (0..2_000).collect();
    // One request in four is answered late, or nearly so.
    let latest = u64::try_from(latest.as_micros()).unwrap();
    let react = move |query: &Query| {
        let mut random = Random(query.number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.below(7);
        if query.function != 8 && random.below(4) == 0 {
            Reaction::After(TIMEOUT / 2 + Duration::from_micros(random.below(latest)))
        } else {
            Reaction::Answer
        }
    };
    Simulator::builder().unit_reacting(1, Bank::new().holding(0, &values).input(0, &values), react).build()
}

async fn never_another_register(connect: Box<dyn Connect>, carrier: Carrier) {
    let timing = Timing { response_timeout: TIMEOUT, retries: 1, frame_gap: Duration::ZERO };
    let mut session = Session::new(connect, carrier, timing);
    let mut random = Random(0x5EED);
    let (mut good, mut silent) = (0, 0);
    for _ in 0..READS {
        let start = random.below(1_900) as u16;
        let count = 1 + random.below(4) as u16;
        let table = if random.below(2) == 0 { Table::Holding } else { Table::Input };
        match session.read_words(1, table, start, count).await {
            Ok(words) => {
                assert_eq!(words, (start..start + count).collect::<Vec<u16>>(), "asked for {start}");
                good += 1;
            }
            Err(Error::Refused { exception, .. }) => panic!("{exception}"),
            Err(_) => silent += 1,
        }
    }
    assert!(good > READS / 10, "only {good} reads were answered");
    assert!(silent > 0 || session.counters().timeouts > 0, "no answer was late: nothing was shown");
}

#[tokio::test]
async fn on_tcp() {
    let simulator = simulator(TIMEOUT * 4);
    let address = simulator.bind_tcp("127.0.0.1:0").await.unwrap();
    let hosts =
        TcpHosts::new(vec!["127.0.0.1".into()], address.port(), Prefer::First, Duration::from_secs(5));
    never_another_register(Box::new(hosts), Carrier::Tcp).await;
}

#[tokio::test]
async fn on_rtu_over_tcp() {
    let simulator = simulator(TIMEOUT * 4);
    let address = simulator.bind_rtu_over_tcp("127.0.0.1:0").await.unwrap();
    let hosts =
        TcpHosts::new(vec!["127.0.0.1".into()], address.port(), Prefer::First, Duration::from_secs(5));
    never_another_register(Box::new(hosts), Carrier::RtuOverTcp).await;
}

#[tokio::test(start_paused = true)]
async fn on_a_serial_line() {
    // Later than any silence the session could wait for.
    let simulator = simulator(TIMEOUT * 200);
    let (near, far) = tokio::io::duplex(4096);
    simulator.serve_rtu(far);
    never_another_register(Box::new(Once::new(near)), Carrier::Serial).await;
}
