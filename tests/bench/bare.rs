//! The floor: tokio-modbus polled in a loop, values decoded and forgotten. Runs as a process of its own.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_modbus::client::{Reader as _, tcp};
use tokio_modbus::slave::Slave;

/// `bare-loop SECONDS POINTS PORT...`, until killed.
pub(crate) fn run(words: &[String]) {
    let interval = Duration::from_secs_f64(words[0].parse().unwrap());
    let points: u16 = words[1].parse().unwrap();
    let ports: Vec<u16> = words[2..].iter().map(|word| word.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Phases are spread as a gateway spreads them: polled all at once, a hundred devices share one wake-up, which no
        // site allows for long.
        for (number, port) in (0_u32..).zip(&ports) {
            let phase = interval * number / u32::try_from(ports.len()).unwrap();
            tokio::spawn(poll(([127, 0, 0, 1], *port).into(), phase, interval, points));
        }
        std::future::pending::<()>().await;
    });
}

async fn poll(device: SocketAddr, phase: Duration, interval: Duration, points: u16) {
    let mut client = tcp::connect_slave(device, Slave(1)).await.unwrap();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + phase, interval);
    loop {
        ticks.tick().await;
        let registers = client.read_holding_registers(0, points * 2).await.unwrap().unwrap();
        for pair in registers.chunks_exact(2) {
            black_box(f32::from_bits(u32::from(pair[0]) << 16 | u32::from(pair[1])));
        }
    }
}
