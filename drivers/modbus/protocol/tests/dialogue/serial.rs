//! A real pseudo-terminal: settings, exclusive use, and a device behind it.

use std::fs::File;
use std::time::Duration;

use busbar_modbus::simulator::{Bank, Simulator};
use busbar_modbus::{Carrier, Parity, SerialPath, SerialSettings, Session, Table, Timing};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A pseudo-terminal: the master side and the path of the other.
fn terminal() -> (File, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    (File::from(master), path)
}

fn settings(path: &str) -> SerialSettings {
    SerialSettings {
        path: path.to_owned(),
        baud_rate: 19_200,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
    }
}

/// Carries bytes between the master side and a stream the simulator serves.
fn wire(master: File, simulator: &Simulator) {
    let (near, far) = tokio::io::duplex(4096);
    simulator.serve_rtu(far);
    let (mut from_simulator, mut to_simulator) = tokio::io::split(near);
    let mut reader = tokio::fs::File::from_std(master.try_clone().unwrap());
    let mut writer = tokio::fs::File::from_std(master);
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if to_simulator.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = from_simulator.read(&mut buffer).await {
            if writer.write_all(&buffer[..count]).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    });
}

#[tokio::test]
async fn a_device_behind_a_terminal() {
    let (master, path) = terminal();
    let simulator = Simulator::builder()
        .unit(1, Bank::new().holding(0, &[11, 12, 13]))
        .unit(2, Bank::new().holding(0, &[21, 22, 23]).without_diagnostics())
        .build();
    let settings = settings(&path);
    let timing =
        Timing { response_timeout: Duration::from_secs(10), retries: 0, frame_gap: settings.frame_gap() };
    let mut session = Session::new(Box::new(SerialPath::new(settings)), Carrier::Serial, timing);
    session.open().await.unwrap();
    wire(master, &simulator);
    for _ in 0..20 {
        assert_eq!(session.read_words(1, Table::Holding, 0, 3).await, Ok(vec![11, 12, 13]));
        assert_eq!(session.read_words(2, Table::Holding, 1, 2).await, Ok(vec![22, 23]));
    }
    assert_eq!(session.counters().connections, 1);
}

#[tokio::test]
async fn a_port_belongs_to_one_program() {
    let (_master, path) = terminal();
    let open = settings(&path).open().unwrap();
    let error = settings(&path).open().unwrap_err();
    let expected = format!("{path} is in use by this gateway itself (process {})", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    drop(open);
    assert!(settings(&path).open().is_ok());
}

#[tokio::test]
async fn a_port_that_is_not_there_says_so() {
    let mut session = Session::new(
        Box::new(SerialPath::new(settings("/dev/ttyNOTHERE"))),
        Carrier::Serial,
        Timing { response_timeout: Duration::from_secs(1), retries: 0, frame_gap: Duration::ZERO },
    );
    let error = session.read_words(1, Table::Holding, 0, 1).await.unwrap_err().to_string();
    assert!(error.contains("/dev/ttyNOTHERE") && error.contains("No such file"), "{error}");
}
