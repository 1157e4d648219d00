//! Polling planned points: a failure stays where it happened, refusals are learned.

use std::time::Duration;

use busbar_modbus::scan::{Scanner, parse_range};
use busbar_modbus::simulator::{Bank, Reaction, Simulator, Wave};
use busbar_modbus::{
    Address, Answer, Carrier, Error, Exception, Field, FieldSpec, Limits, Once, Order, Poller, Session,
    Table, Timing, Type, Value,
};

fn field(table: Table, offset: u16, kind: Type) -> Field {
    let address = Address { table, offset };
    Field::new(&FieldSpec { address, kind: Some(kind), order: None, bit: None, length: None }).unwrap()
}

fn words(offsets: &[u16]) -> Vec<Field> {
    offsets.iter().map(|offset| field(Table::Holding, *offset, Type::UInt16)).collect()
}

fn session(simulator: &Simulator) -> Session {
    let (near, far) = tokio::io::duplex(4096);
    simulator.serve_tcp(far);
    let timing =
        Timing { response_timeout: Duration::from_millis(500), retries: 0, frame_gap: Duration::ZERO };
    Session::new(Box::new(Once::new(near)), Carrier::Tcp, timing)
}

async fn read(poller: &mut Poller, session: &mut Session, count: usize) -> Vec<Option<Result<Value, Error>>> {
    let mut found = vec![None; count];
    let mut receive =
        |index: usize, value: Result<Value, &Error>| found[index] = Some(value.map_err(Clone::clone));
    poller.read(session, &mut receive).await.unwrap();
    found
}

fn good(value: u16) -> Option<Result<Value, Error>> {
    Some(Ok(Value::UInt(u64::from(value))))
}

fn refused(value: &Option<Result<Value, Error>>, code: u8) -> bool {
    matches!(value, Some(Err(Error::Refused { exception, .. })) if *exception == Exception(code))
}

/// One failing block in the middle leaves exactly its own values bad; the blocks behind it are not shifted.
/// A read that the caller gives up (its deadline passed) must not cost the plan: the next poll reads everything again.
#[tokio::test(start_paused = true)]
async fn a_dropped_read_leaves_the_plan_behind() {
    let simulator = Simulator::builder()
        .unit_reacting(1, Bank::new().holding(0, &[7; 400]), |_| Reaction::Silent)
        .build();
    let mut poller = Poller::new(1, words(&[0, 200]), Limits::default());
    let mut given_up = session(&simulator);
    let mut ignore = |_: usize, _: Result<Value, &Error>| {};
    let read_once = poller.read(&mut given_up, &mut ignore);
    assert!(tokio::time::timeout(Duration::from_millis(100), read_once).await.is_err());
    simulator.behave(1);
    let mut session = session(&simulator);
    assert_eq!(read(&mut poller, &mut session, 2).await, [good(7), good(7)]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_block_spoils_only_its_own_points() {
    let values: Vec<u16> = (0..400).collect();
    let simulator = Simulator::builder()
        .unit_reacting(1, Bank::new().holding(0, &values), |query| {
            if query.start == 100 { Reaction::Exception(4) } else { Reaction::Answer }
        })
        .build();
    let mut session = session(&simulator);
    let offsets = [0, 1, 100, 101, 200, 201, 300];
    let mut poller = Poller::new(1, words(&offsets), Limits::default());
    assert_eq!(poller.requests(), 4);
    for _ in 0..3 {
        let found = read(&mut poller, &mut session, offsets.len()).await;
        for (index, offset) in offsets.iter().enumerate() {
            if (100..200).contains(offset) {
                assert!(refused(&found[index], 4), "{found:?}");
            } else {
                assert_eq!(found[index], good(*offset));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_found_split_around_and_remembered() {
    let bank = Bank::new().holding(0, &[0, 1, 2]).holding(6, &[6, 7]).holding(10, &[10]);
    let simulator = Simulator::builder().unit(1, bank).build();
    let mut session = session(&simulator);
    let offsets = [0, 2, 6, 7, 10];
    let mut poller = Poller::new(1, words(&offsets), Limits::default());
    assert_eq!(poller.requests(), 1);
    // Also the poll that meets the hole delivers every value.
    let found = read(&mut poller, &mut session, offsets.len()).await;
    assert_eq!(found, offsets.map(good).to_vec());
    assert_eq!(simulator.requests(1), 6);
    let found = read(&mut poller, &mut session, offsets.len()).await;
    assert_eq!(found, offsets.map(good).to_vec());
    assert_eq!(simulator.requests(1), 6 + poller.requests() as u64);
    assert_eq!(poller.requests(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refused_point_is_asked_rarely_and_comes_back() {
    let simulator = Simulator::builder().unit(1, Bank::new().holding(0, &[0, 1])).build();
    let mut session = session(&simulator);
    let offsets = [0, 1, 2];
    let mut poller = Poller::new(1, words(&offsets), Limits::default());
    for _ in 0..5 {
        let found = read(&mut poller, &mut session, 3).await;
        assert_eq!(found[..2], [good(0), good(1)]);
        assert!(refused(&found[2], 2));
    }
    // Once merged, three times singly; then the refused one alone, four times the other two.
    assert_eq!(simulator.requests(1), 1 + 3 + 4 + 1 - 1);
    simulator.set_unit(1, Bank::new().holding(0, &[0, 1, 2]));
    tokio::time::advance(busbar_modbus::poll::REFUSED_FOR).await;
    assert_eq!(read(&mut poller, &mut session, 3).await[2], good(2));
    read(&mut poller, &mut session, 3).await;
    assert_eq!(poller.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_small_device_gets_small_requests() {
    let values: Vec<u16> = (0..100).collect();
    let simulator = Simulator::builder().unit(1, Bank::new().holding(0, &values).at_most(30)).build();
    let mut session = session(&simulator);
    let mut poller = Poller::new(1, words(&values), Limits::default());
    for _ in 0..6 {
        let found = read(&mut poller, &mut session, values.len()).await;
        assert!(found.iter().enumerate().all(|(index, value)| *value == good(index as u16)));
    }
    assert_eq!(poller.requests(), 4);
}

#[tokio::test(start_paused = true)]
async fn tables_types_and_bits_in_one_poll() {
    let power = Address { table: Table::Input, offset: 100 };
    let bank = Bank::new()
        .coils(0, &[true, false, true])
        .discretes(8, &[true; 9])
        .value(power, Type::Float32, Order::Abcd, &Value::Float32(220.5))
        .input(102, &[0x8001]);
    let simulator = Simulator::builder().unit(1, bank).build();
    let mut session = session(&simulator);
    let bit = FieldSpec {
        address: Address { table: Table::Input, offset: 102 },
        kind: None,
        order: None,
        bit: Some(15),
        length: None,
    };
    let fields = vec![
        field(Table::Coil, 2, Type::Bool),
        field(Table::Coil, 1, Type::Bool),
        field(Table::Discrete, 16, Type::Bool),
        field(Table::Input, 100, Type::Float32),
        Field::new(&bit).unwrap(),
    ];
    let mut poller = Poller::new(1, fields, Limits::default());
    assert_eq!(poller.requests(), 3);
    let found = read(&mut poller, &mut session, 5).await;
    let expected =
        [Value::Bool(true), Value::Bool(false), Value::Bool(true), Value::Float32(220.5), Value::Bool(true)];
    assert_eq!(found, expected.map(|value| Some(Ok(value))).to_vec());
}

#[tokio::test(start_paused = true)]
async fn a_silent_device_ends_the_poll() {
    let simulator = Simulator::builder()
        .unit_reacting(1, Bank::new().holding(0, &[0; 200]), |query| {
            if query.start < 50 { Reaction::Answer } else { Reaction::Silent }
        })
        .build();
    let mut session = session(&simulator);
    let mut poller = Poller::new(1, words(&[0, 60, 120]), Limits::default());
    let mut seen = Vec::new();
    let mut receive = |index: usize, _: Result<Value, &Error>| seen.push(index);
    let error = poller.read(&mut session, &mut receive).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }));
    assert_eq!(seen, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_scan_finds_what_is_there() {
    let bank = Bank::new().holding(5, &[50, 51, 52]).holding(200, &[1]);
    let simulator = Simulator::builder().unit(1, bank).build();
    let mut session = session(&simulator);
    let mut scanner =
        Scanner::new(1, &[parse_range("holding:0-255").unwrap(), parse_range("input:0-255").unwrap()]);
    let mut found = Vec::new();
    while let Some(piece) = scanner.next(&mut session).await.unwrap() {
        let Answer::Words(words) = piece.answer else { panic!("registers") };
        found.extend(
            words.iter().enumerate().map(|(index, word)| (piece.address.offset + index as u16, *word)),
        );
    }
    assert_eq!(found, [(5, 50), (6, 51), (7, 52), (200, 1)]);
}

#[tokio::test(start_paused = true)]
async fn simulated_values_move() {
    let address = Address { table: Table::Holding, offset: 0 };
    let wave = Wave { centre: 230.0, amplitude: 5.0, period: Duration::from_secs(60) };
    let bank = Bank::new().wave(address, Type::Float32, Order::Cdab, wave);
    let simulator = Simulator::builder().unit(1, bank).build();
    let spec =
        FieldSpec { address, kind: Some(Type::Float32), order: Some(Order::Cdab), bit: None, length: None };
    let mut session = session(&simulator);
    let mut poller = Poller::new(1, vec![Field::new(&spec).unwrap()], Limits::default());
    assert_eq!(read(&mut poller, &mut session, 1).await[0], Some(Ok(Value::Float32(230.0))));
    tokio::time::advance(Duration::from_secs(15)).await;
    let Some(Ok(Value::Float32(top))) = read(&mut poller, &mut session, 1).await[0] else {
        panic!("a value")
    };
    assert!((top - 235.0).abs() < 0.01, "{top}");
}
