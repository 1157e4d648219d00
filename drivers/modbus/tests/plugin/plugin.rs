use std::time::Duration;

use busbar_contract::describe::{CheckInput, Severity};
use busbar_contract::request::{BlockWrite, Browse, PointValue};
use busbar_contract::{Action, FailureKind, Origin, Reason, Request, Stage, Value};
use busbar_modbus::simulator::{Bank, Reaction, Simulator};
use busbar_modbus::{Address, Order, Table, Type};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use crate::rig::{PATIENT, Rig, check, command};

/// A simulator on its own runtime, as Modbus TCP.
struct Devices {
    simulator: Simulator,
    port: u16,
    _runtime: Runtime,
}

fn devices(simulator: Simulator) -> Devices {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = runtime.block_on(simulator.bind_tcp("127.0.0.1:0")).unwrap();
    Devices { simulator, port: address.port(), _runtime: runtime }
}

impl Devices {
    fn connection(&self, unit: u8) -> Json {
        json!({ "host": "127.0.0.1", "port": self.port, "unit_id": unit })
    }
}

fn good(value: Value) -> (Value, String) {
    (value, "good".to_owned())
}

#[test]
fn every_type_arrives_with_quality() {
    let at = |offset| Address { table: Table::Holding, offset };
    let bank = Bank::new()
        .value(at(0), Type::Float32, Order::Cdab, &busbar_modbus::Value::Float32(231.4))
        .value(at(10), Type::Int64, Order::Abcd, &busbar_modbus::Value::Int(-5))
        .value(at(20), Type::Float64, Order::Dcba, &busbar_modbus::Value::Float64(0.1))
        .value(at(30), Type::Text, Order::Abcd, &busbar_modbus::Value::Text("METER".into()))
        .holding(40, &[0x8001])
        .coils(3, &[true]);
    let devices = devices(Simulator::builder().unit(1, bank).build());
    let mut rig = Rig::start();
    let points = json!([
        { "address": "holding:0", "type": "float32", "order": "CDAB" },
        { "address": 40011, "type": "int64" },
        { "address": "holding:0x14", "type": "float64", "order": "DCBA" },
        { "address": "holding:30", "type": "string", "length": 8 },
        { "address": "holding:40", "bit": 15 },
        { "address": "coil:3" },
        { "address": "holding:40", "type": "uint16" },
        { "address": "holding:9999" },
    ]);
    let instance = rig.open(&[(devices.connection(1), points)], PATIENT);
    rig.connect(&instance, 1).unwrap();
    for _ in 0..3 {
        let found = rig.read(&instance, 1).unwrap();
        assert_eq!(
            found,
            [
                good(Value::Float32(231.4)),
                good(Value::Int(-5)),
                good(Value::Float64(0.1)),
                good(Value::Text("METER".into())),
                good(Value::Bool(true)),
                good(Value::Bool(true)),
                good(Value::Uint(0x8001)),
                (Value::None, "invalid|bad_reference".to_owned()),
            ]
        );
    }
    rig.probe(&instance, 1).unwrap();
    rig.end();
}

#[test]
fn two_devices_on_one_connection_do_not_mix_and_one_silent_does_not_hurt_the_other() {
    let simulator = Simulator::builder()
        .unit(1, Bank::new().holding(0, &[11]))
        .unit(2, Bank::new().holding(0, &[22]))
        .build();
    let devices = devices(simulator);
    let mut rig = Rig::start();
    let points = json!([{ "address": "holding:0" }]);
    let instance =
        rig.open(&[(devices.connection(1), points.clone()), (devices.connection(2), points)], PATIENT);
    rig.connect(&instance, 1).unwrap();
    rig.connect(&instance, 2).unwrap();
    assert_eq!(devices.simulator.connections(), 1);
    assert_eq!(rig.read(&instance, 1).unwrap(), [good(Value::Uint(11))]);
    assert_eq!(rig.read(&instance, 2).unwrap(), [good(Value::Uint(22))]);
    // A gateway says that unit 2 is silent: that device is lost, the session and the other device are not.
    devices.simulator.react(2, |_| Reaction::Exception(11));
    assert_eq!(rig.read(&instance, 2).unwrap_err().kind, FailureKind::NoAnswer);
    assert_eq!(rig.read(&instance, 1).unwrap(), [good(Value::Uint(11))]);
    assert_eq!(devices.simulator.connections(), 1);
    rig.end();
}

#[test]
fn silence_is_no_answer_and_a_dead_host_ends_the_session() {
    let devices = devices(Simulator::builder().unit(1, Bank::new().holding(0, &[1])).build());
    let mut rig = Rig::start();
    let instance = rig.open(&[(devices.connection(1), json!([{ "address": "holding:0" }]))], 100);
    rig.connect(&instance, 1).unwrap();
    devices.simulator.react(1, |_| Reaction::Silent);
    let failure = rig.read(&instance, 1).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoAnswer);
    assert!(failure.text.contains("did not answer function 3 within 100 ms"), "{failure:?}");
    assert_eq!(rig.connect(&instance, 1).unwrap_err().kind, FailureKind::NoAnswer);
    devices.simulator.behave(1);
    rig.connect(&instance, 1).unwrap();
    assert_eq!(rig.read(&instance, 1).unwrap(), [good(Value::Uint(1))]);
    let port = devices.port;
    drop(devices);
    let failure = rig.read(&instance, 1).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Session);
    assert!(failure.text.contains(&format!("127.0.0.1:{port}")), "{failure:?}");
    rig.end();
}

#[test]
fn commands() {
    let bank = Bank::new().holding(0, &[0; 8]).coils(0, &[false]).input(0, &[7]);
    let devices = devices(Simulator::builder().unit(1, bank).build());
    let mut rig = Rig::start();
    let points = json!([
        { "address": "coil:0" },
        { "address": "holding:0", "type": "int16" },
        { "address": "holding:2", "type": "float32", "order": "CDAB" },
        { "address": "holding:4", "bit": 3 },
        { "address": "holding:100" },
        { "address": "input:0" },
    ]);
    let instance = rig.open(&[(devices.connection(1), points)], PATIENT);
    rig.connect(&instance, 1).unwrap();
    let simulator = &devices.simulator;
    simulator.set_words(1, Table::Holding, 4, &[0x8001]);
    for (point, value) in [
        (100, Value::Bool(true)),
        (101, Value::Int(-5)),
        (102, Value::Float64(220.5)),
        (103, Value::Bool(true)),
    ] {
        assert_eq!(rig.write(&instance, point, value).stage, Stage::Finished, "{point}");
    }
    assert_eq!(simulator.bits(1, Table::Coil, 0, 1), Some(vec![true]));
    assert_eq!(simulator.words(1, Table::Holding, 0, 5), Some(vec![0xFFFB, 0, 0x8000, 0x435C, 0x8009]));

    let before = simulator.requests(1);
    let no_number = rig.write(&instance, 101, Value::Bool(true));
    assert_eq!((no_number.stage, no_number.reason), (Stage::Refused, Some(Reason::OutOfRange)));
    let too_large = rig.write(&instance, 101, Value::Int(40_000));
    assert_eq!((too_large.stage, too_large.reason), (Stage::Refused, Some(Reason::OutOfRange)));
    let text = rig.write(&instance, 101, Value::Text("on".into()));
    assert_eq!((text.stage, text.reason), (Stage::Refused, Some(Reason::OutOfRange)));
    let read_only = rig.write(&instance, 105, Value::Int(1));
    assert_eq!((read_only.stage, read_only.reason), (Stage::Refused, Some(Reason::NotWritable)));
    assert_eq!(simulator.requests(1), before, "nothing left for the device");

    let refused = rig.write(&instance, 104, Value::Int(1));
    assert_eq!((refused.stage, refused.reason), (Stage::Refused, Some(Reason::DeviceRefused)));
    assert!(refused.text.contains("illegal data address"), "{refused:?}");
    rig.end();
}

#[test]
fn a_command_without_an_answer_is_unknown_and_never_repeated() {
    let devices = devices(Simulator::builder().unit(1, Bank::new().holding(0, &[0])).build());
    let mut rig = Rig::start();
    let instance = rig.open(&[(devices.connection(1), json!([{ "address": "holding:0" }]))], 200);
    rig.connect(&instance, 1).unwrap();
    devices.simulator.react(1, |query| if query.function == 6 { Reaction::Silent } else { Reaction::Answer });
    let before = devices.simulator.requests(1);
    let answer = rig.answer(&instance, &command(100, Value::Int(1)));
    assert_eq!(answer.stage, Stage::Unknown, "{answer:?}");
    assert_eq!(devices.simulator.requests(1), before + 1);
    rig.end();
}

fn block(values: &[(u32, Value)], commit: Option<(u32, Value)>) -> Request {
    let entry = |(point, value): &(u32, Value)| PointValue { point: *point, value: value.clone() };
    Request::BlockWrite(BlockWrite {
        device: 1,
        values: values.iter().map(entry).collect(),
        commit: commit.as_ref().map(entry),
        origin: Origin::default(),
        deadline_ms: 60_000,
    })
}

#[test]
fn a_block_is_written_read_back_and_committed() {
    let bank = Bank::new().holding(0, &[0; 10]).coils(0, &[false; 4]);
    let devices = devices(Simulator::builder().unit(1, bank).build());
    let mut rig = Rig::start();
    let points = json!([
        { "address": "holding:1", "type": "uint32" },
        { "address": "holding:3" },
        { "address": "coil:1" },
        { "address": "coil:2" },
        { "address": "holding:0" },
    ]);
    let instance = rig.open(&[(devices.connection(1), points)], PATIENT);
    rig.connect(&instance, 1).unwrap();
    let before = devices.simulator.requests(1);
    let values = [
        (100, Value::Uint(0x0001_0002)),
        (101, Value::Uint(3)),
        (102, Value::Bool(true)),
        (103, Value::Bool(true)),
    ];
    let answer = rig.answer(&instance, &block(&values, Some((104, Value::Uint(1)))));
    assert_eq!(answer.stage, Stage::Finished, "{answer:?}");
    assert_eq!(devices.simulator.words(1, Table::Holding, 0, 4), Some(vec![1, 1, 2, 3]));
    assert_eq!(devices.simulator.bits(1, Table::Coil, 0, 4), Some(vec![false, true, true, false]));
    // Two writes, two readings, the commit point.
    assert_eq!(devices.simulator.requests(1), before + 5);
    let found = rig.block_read(&instance, &[100, 101, 104]).unwrap();
    assert_eq!(found, [good(Value::Uint(0x0001_0002)), good(Value::Uint(3)), good(Value::Uint(1))]);

    // One that cannot be verified is not committed.
    devices.simulator.set_words(1, Table::Holding, 0, &[0]);
    devices
        .simulator
        .react(1, |query| if query.function == 3 { Reaction::Exception(4) } else { Reaction::Answer });
    let answer = rig.answer(&instance, &block(&values, Some((104, Value::Uint(1)))));
    assert_eq!(answer.stage, Stage::Unknown, "{answer:?}");
    assert_eq!(devices.simulator.words(1, Table::Holding, 0, 1), Some(vec![0]));
    rig.end();
}

/// Two runs: the coils are taken, the registers refused. Something moved, so nobody may call the block refused.
#[test]
fn a_block_written_in_part_is_unknown_and_not_committed() {
    let bank = Bank::new().holding(0, &[0; 10]).coils(0, &[false; 4]);
    let devices = devices(Simulator::builder().unit(1, bank).build());
    let simulator = &devices.simulator;
    let mut rig = Rig::start();
    let points = json!([{ "address": "coil:1" }, { "address": "holding:3" }, { "address": "holding:0" }]);
    let instance = rig.open(&[(devices.connection(1), points)], PATIENT);
    rig.connect(&instance, 1).unwrap();
    let values = [(100, Value::Bool(true)), (101, Value::Uint(3))];
    let commit = |value| block(&values, Some((102, value)));

    // A commit value that cannot be written is found before anything leaves.
    let before = simulator.requests(1);
    let refused = rig.answer(&instance, &commit(Value::Uint(70_000)));
    assert_eq!((refused.stage, refused.reason), (Stage::Refused, Some(Reason::OutOfRange)));
    assert_eq!(simulator.requests(1), before);

    simulator.react(1, |query| if query.function == 16 { Reaction::Exception(4) } else { Reaction::Answer });
    let answer = rig.answer(&instance, &commit(Value::Uint(1)));
    assert_eq!((answer.stage, answer.reason), (Stage::Unknown, Some(Reason::DeviceRefused)), "{answer:?}");
    assert!(answer.text.contains("a part of the block was written"), "{answer:?}");
    assert_eq!(simulator.bits(1, Table::Coil, 1, 1), Some(vec![true]));
    assert_eq!(simulator.words(1, Table::Holding, 0, 4), Some(vec![0; 4]));

    // The first run refused: nothing was written, that is a refusal.
    simulator.react(1, |query| if query.function == 15 { Reaction::Exception(4) } else { Reaction::Answer });
    let answer = rig.answer(&instance, &commit(Value::Uint(1)));
    assert_eq!(answer.stage, Stage::Refused, "{answer:?}");

    // The commit point refused: the values are at the device.
    simulator.react(1, |query| if query.function == 6 { Reaction::Exception(4) } else { Reaction::Answer });
    let answer = rig.answer(&instance, &commit(Value::Uint(1)));
    assert_eq!(answer.stage, Stage::Unknown, "{answer:?}");
    assert_eq!(simulator.words(1, Table::Holding, 0, 4), Some(vec![0, 0, 0, 3]));
    rig.end();
}

/// Not an answer but an error of kind unsupported: at it the gateway keeps the selection by itself.
#[test]
fn select_and_cancel_are_not_there() {
    let devices = devices(Simulator::builder().unit(1, Bank::new().holding(0, &[0])).build());
    let mut rig = Rig::start();
    let instance = rig.open(&[(devices.connection(1), json!([{ "address": "holding:0" }]))], PATIENT);
    rig.connect(&instance, 1).unwrap();
    let before = devices.simulator.requests(1);
    for wanted in [Action::Select, Action::Cancel] {
        let mut request = command(100, Value::Uint(1));
        if let Request::Command(body) = &mut request {
            body.action = wanted;
        }
        let failure = rig.failure(&instance, &request);
        assert_eq!(failure.kind, FailureKind::Unsupported, "{failure:?}");
    }
    assert_eq!(devices.simulator.requests(1), before, "nothing left for the device");
    assert_eq!(rig.write(&instance, 100, Value::Uint(1)).stage, Stage::Finished);
    rig.end();
}

/// The gateway must know the kind of a point that was never read, to convert a command for it.
#[test]
fn a_connect_tells_the_kind_of_every_point() {
    let devices = devices(Simulator::builder().unit(1, Bank::new().holding(0, &[0; 40])).build());
    let mut rig = Rig::start();
    let points = json!([
        { "address": "coil:0" },
        { "address": "holding:0", "bit": 3 },
        { "address": "holding:1" },
        { "address": "holding:2", "type": "int16" },
        { "address": "holding:3", "type": "int32" },
        { "address": "holding:5", "type": "uint64" },
        { "address": "holding:9", "type": "float32" },
        { "address": "holding:11", "type": "float64" },
        { "address": "holding:15", "type": "string", "length": 2 },
    ]);
    let instance = rig.open(&[(devices.connection(1), points)], PATIENT);
    rig.connect(&instance, 1).unwrap();
    let kinds = ["bool", "bool", "uint64", "int64", "int64", "uint64", "float32", "float64", "text"];
    let expected: Vec<(u32, Json)> =
        (100..).zip(kinds).map(|(point, kind)| (point, json!({ "kind": kind }))).collect();
    assert_eq!(rig.metadata, expected);
    rig.end();
}

#[test]
fn browse_prints_points() {
    let bank = Bank::new().holding(5, &[50, 51]).coils(2, &[true]);
    let devices = devices(Simulator::builder().unit(1, bank).build());
    let mut rig = Rig::start();
    let instance = rig.open(&[(devices.connection(1), json!([]))], PATIENT);
    rig.connect(&instance, 1).unwrap();
    let browse = |arguments: &[&str]| {
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        Request::Browse(Browse { device: 1, arguments, deadline_ms: 60_000 })
    };
    rig.done(&instance, &browse(&["holding:0-20", "coil:0-9"]));
    assert_eq!(
        rig.pages,
        [
            json!({ "name": "holding_5", "address": "holding:5", "type": "uint16", "value": 50 }),
            json!({ "name": "holding_6", "address": "holding:6", "type": "uint16", "value": 51 }),
            json!({ "name": "coil_2", "address": "coil:2", "type": "bool", "value": true }),
        ]
    );
    rig.end();
}

#[test]
fn check_lists_everything_with_pointers() {
    let input = CheckInput {
        connection: json!({ "host": "10.0.0.5:502", "unit_id": 300, "prot": 1 }),
        device: json!({}),
        points: vec![
            json!({ "name": "a", "address": "holding:1", "type": "float", "writable": true, "unit": "V" }),
            json!({ "name": "b", "address": "holding:70000" }),
            json!({ "name": "c", "address": "holding:40003" }),
        ],
        ..CheckInput::default()
    };
    let problems = check(&input);
    let found: Vec<(&str, Severity)> =
        problems.iter().map(|problem| (problem.pointer.as_str(), problem.severity)).collect();
    for expected in [
        ("/connection/prot", Severity::Error),
        ("/connection/unit_id", Severity::Error),
        ("/points/0/type", Severity::Error),
        ("/points/1/address", Severity::Error),
        ("/points/2/address", Severity::Warning),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {problems:#?}");
    }
}

#[test]
fn a_slow_device_is_waited_for() {
    let devices = devices(Simulator::builder().unit(1, Bank::new().holding(0, &[1])).build());
    devices.simulator.react(1, |_| Reaction::After(Duration::from_millis(300)));
    let mut rig = Rig::start();
    let instance = rig.open(&[(devices.connection(1), json!([{ "address": "holding:0" }]))], PATIENT);
    rig.connect(&instance, 1).unwrap();
    assert_eq!(rig.read(&instance, 1).unwrap(), [good(Value::Uint(1))]);
    rig.end();
}
