//! Commands at every stage.

use std::time::Duration;

use busbar_iec104::asdu::{Command, CommandValue, Cp56Time2a, Element, Reason, Stamp, Tag, TypeId};
use busbar_iec104::link::Input;
use busbar_iec104::station::{
    Action, CommandPoint, Config, ConnectionId, Note, Output, Progress, Refusal, Request, SelectMode,
};

use crate::bench::{Bench, UTC, answered, asdu, command, config, tagged};

const DIRECT: u32 = 10;
const SELECT: u32 = 11;
const STAMPED: u32 = 12;
const PULSE: u32 = 13;
const FLOAT: u32 = 14;

fn points() -> Config {
    let mut config = config(2);
    config.commands = vec![
        command(DIRECT, TypeId::C_DC_NA_1),
        CommandPoint { select: SelectMode::Required, ..command(SELECT, TypeId::C_DC_NA_1) },
        command(STAMPED, TypeId::C_SC_TA_1),
        CommandPoint { qualifier: Some(1), ..command(PULSE, TypeId::C_SC_NA_1) },
        command(FLOAT, TypeId::C_SE_NC_1),
    ];
    config
}

fn double(ioa: u32, state: u8, select: bool) -> Vec<u8> {
    let element = Element::Command(Command { value: CommandValue::Double(state), qualifier: 0, select });
    asdu(TypeId::C_DC_NA_1, Reason::ACTIVATION, 1, ioa, element)
}

fn cancel(request: &[u8]) -> Vec<u8> {
    answered(request, Reason::DEACTIVATION, false)
}

/// The command that the host was asked for, and nothing else.
fn asked(bench: &mut Bench) -> Request {
    let host = std::mem::take(&mut bench.host);
    let [Output::Command(request)] = host[..] else { panic!("{host:?}") };
    request
}

fn refused(bench: &mut Bench) -> Refusal {
    let host = std::mem::take(&mut bench.host);
    let Some(Output::Note { note: Note::Refused { refusal, .. }, .. }) = host.last() else {
        panic!("{host:?}")
    };
    *refusal
}

fn progress(bench: &mut Bench, id: u64, progress: Progress) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let now = bench.now();
    bench.station.progress(now, id, progress, &mut out);
    bench.deliver(out);
    bench.take(1)
}

fn con(request: &[u8], negative: bool) -> Vec<u8> {
    answered(request, Reason::ACTIVATION_CON, negative)
}

fn term(request: &[u8], negative: bool) -> Vec<u8> {
    answered(request, Reason::ACTIVATION_TERM, negative)
}

#[test]
fn a_confirmation_waits_for_the_device() {
    let mut bench = Bench::started(points());
    let on = double(DIRECT, 2, false);
    assert_eq!(bench.ask(1, &on), [] as [Vec<u8>; 0], "nothing before the host answered");
    let request = asked(&mut bench);
    let expected = Request {
        id: 1,
        connection: ConnectionId(1),
        originator: 7,
        command: 0,
        action: Action::Operate,
        value: CommandValue::Double(2),
        qualifier: 0,
        test: false,
        issued: None,
        deadline: Duration::from_secs(30),
    };
    assert_eq!(request, expected);
    assert_eq!(progress(&mut bench, 1, Progress::Accepted), [con(&on, false)]);
    assert_eq!(progress(&mut bench, 1, Progress::Finished), [term(&on, false)]);
    assert_eq!(progress(&mut bench, 1, Progress::Finished), [] as [Vec<u8>; 0], "it is over");
}

#[test]
fn every_end_has_its_confirmation() {
    for (stages, expected) in [
        (&[Progress::Finished][..], &[(7, false), (10, false)][..]),
        (&[Progress::Refused], &[(7, true)]),
        (&[Progress::Unknown], &[(7, true)]),
        (&[Progress::Accepted, Progress::Refused], &[(7, false), (10, true)]),
        (&[Progress::Accepted, Progress::Unknown], &[(7, false), (10, true)]),
        (&[Progress::Selected, Progress::Accepted, Progress::Finished], &[(7, false), (10, false)]),
    ] {
        let mut bench = Bench::started(points());
        let on = double(DIRECT, 2, false);
        bench.ask(1, &on);
        let id = asked(&mut bench).id;
        let answers: Vec<_> = stages.iter().flat_map(|stage| progress(&mut bench, id, *stage)).collect();
        let wanted: Vec<_> =
            expected.iter().map(|(reason, no)| answered(&on, Reason(*reason), *no)).collect();
        assert_eq!(answers, wanted, "{stages:?}");
        bench.ask(1, &on);
        assert_eq!(asked(&mut bench).id, id + 1, "the point is free again");
    }
}

#[test]
fn select_before_operate() {
    let mut bench = Bench::started(points());
    let (select, execute) = (double(SELECT, 1, true), double(SELECT, 1, false));
    assert_eq!(bench.ask(1, &execute), [con(&execute, true)]);
    assert_eq!(refused(&mut bench), Refusal::NotSelected);
    bench.ask(1, &select);
    let request = asked(&mut bench);
    assert_eq!((request.action, request.value), (Action::Select, CommandValue::Double(1)));
    assert_eq!(bench.ask(1, &execute), [con(&execute, true)], "the device has not answered yet");
    assert_eq!(refused(&mut bench), Refusal::Busy);
    assert_eq!(progress(&mut bench, request.id, Progress::Selected), [con(&select, false)]);
    bench.ask(1, &execute);
    let request = asked(&mut bench);
    assert_eq!(request.action, Action::Operate);
    assert_eq!(
        progress(&mut bench, request.id, Progress::Finished),
        [con(&execute, false), term(&execute, false)]
    );
    assert_eq!(bench.ask(1, &execute), [con(&execute, true)], "a selection holds for one execution");
}

fn selected(bench: &mut Bench) -> Vec<u8> {
    let select = double(SELECT, 2, true);
    bench.ask(1, &select);
    let id = asked(bench).id;
    assert_eq!(progress(bench, id, Progress::Selected), [con(&select, false)]);
    select
}

#[test]
fn a_refused_selection_is_none() {
    for end in [Progress::Refused, Progress::Unknown] {
        let mut bench = Bench::started(points());
        let select = double(SELECT, 2, true);
        bench.ask(1, &select);
        let id = asked(&mut bench).id;
        assert_eq!(progress(&mut bench, id, end), [con(&select, true)]);
        let execute = double(SELECT, 2, false);
        assert_eq!(bench.ask(1, &execute), [con(&execute, true)]);
    }
}

#[test]
fn a_selection_times_out_and_is_cancelled_at_the_device() {
    let mut bench = Bench::started(points());
    selected(&mut bench);
    bench.pass(Duration::from_secs(10));
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.host, []);
    bench.pass(Duration::from_secs(10));
    let request = asked(&mut bench);
    assert_eq!(request.action, Action::Cancel);
    let execute = double(SELECT, 2, false);
    assert_eq!(bench.ask(1, &execute), [con(&execute, true)]);
    assert_eq!(refused(&mut bench), Refusal::Busy);
    assert_eq!(
        progress(&mut bench, request.id, Progress::Finished),
        [] as [Vec<u8>; 0],
        "nobody asked for it"
    );
    bench.ask(1, &execute);
    assert_eq!(refused(&mut bench), Refusal::NotSelected);
}

#[test]
fn a_selection_belongs_to_its_connection() {
    let mut bench = Bench::started(points());
    bench.open(2, 1);
    bench.start(2);
    bench.host.clear();
    let select = selected(&mut bench);
    let execute = double(SELECT, 2, false);
    assert_eq!(bench.ask(2, &execute), [con(&execute, true)]);
    assert_eq!(refused(&mut bench), Refusal::Busy);
    assert_eq!(bench.ask(2, &select), [con(&select, true)]);
    let end = cancel(&select);
    assert_eq!(bench.ask(2, &end), [answered(&end, Reason::DEACTIVATION_CON, true)]);
    bench.host.clear();
    bench.cut(1);
    let request = asked(&mut bench);
    assert_eq!((request.action, request.connection), (Action::Cancel, ConnectionId(1)));
}

#[test]
fn the_end_of_its_connection_ends_a_selection_under_way() {
    for stop in [false, true] {
        let mut bench = Bench::started(points());
        bench.ask(1, &double(SELECT, 2, true));
        let id = asked(&mut bench).id;
        if stop {
            bench.link(1, Input::Stop);
            bench.start(1);
        } else {
            bench.cut(1);
            bench.open(1, 0);
            bench.start(1);
        }
        bench.host.clear();
        assert_eq!(progress(&mut bench, id, Progress::Selected), [] as [Vec<u8>; 0]);
        assert_eq!(asked(&mut bench).action, Action::Cancel);
    }
}

#[test]
fn cancelling() {
    for (end, negative) in [(Progress::Finished, false), (Progress::Refused, true), (Progress::Unknown, true)]
    {
        let mut bench = Bench::started(points());
        let select = selected(&mut bench);
        let request = cancel(&select);
        assert_eq!(bench.ask(1, &request), [] as [Vec<u8>; 0]);
        let asked = asked(&mut bench);
        assert_eq!(asked.action, Action::Cancel);
        let answer = answered(&select, Reason::DEACTIVATION_CON, negative);
        assert_eq!(progress(&mut bench, asked.id, end), [answer]);
    }
    let mut bench = Bench::started(points());
    let request = cancel(&double(SELECT, 2, true));
    let no = answered(&request, Reason::DEACTIVATION_CON, true);
    assert_eq!(bench.ask(1, &request), std::slice::from_ref(&no), "nothing is selected");
    bench.ask(1, &double(DIRECT, 2, false));
    let request = cancel(&double(DIRECT, 2, false));
    let no = answered(&request, Reason::DEACTIVATION_CON, true);
    assert_eq!(bench.ask(1, &request), [no], "what was executed cannot be taken back");
}

#[test]
fn another_value_than_the_selected_one_ends_the_selection() {
    let mut bench = Bench::started(points());
    selected(&mut bench);
    let off = double(SELECT, 1, false);
    assert_eq!(bench.ask(1, &off), [con(&off, true)]);
    let host = std::mem::take(&mut bench.host);
    let [Output::Command(request), Output::Note { .. }] = host[..] else { panic!("{host:?}") };
    assert_eq!((request.action, request.value), (Action::Cancel, CommandValue::Double(2)));
}

#[test]
fn one_command_at_a_time() {
    let mut bench = Bench::started(points());
    let on = double(DIRECT, 2, false);
    bench.ask(1, &on);
    asked(&mut bench);
    assert_eq!(bench.ask(1, &on), [con(&on, true)]);
    assert_eq!(refused(&mut bench), Refusal::Busy);
    let other = double(SELECT, 1, true);
    bench.ask(1, &other);
    assert_eq!(asked(&mut bench).command, 1, "other points are free");
}

#[test]
fn a_host_that_does_not_answer_is_a_no() {
    let mut bench = Bench::started(points());
    let on = double(DIRECT, 2, false);
    bench.ask(1, &on);
    let id = asked(&mut bench).id;
    bench.pass(Duration::from_secs(15));
    bench.pass(Duration::from_secs(15));
    assert_eq!(bench.take(1), [con(&on, true)]);
    assert_eq!(progress(&mut bench, id, Progress::Accepted), [] as [Vec<u8>; 0], "too late");
}

#[test]
fn states_that_are_not_permitted_and_other_qualifiers() {
    let mut bench = Bench::started(points());
    for state in [0, 3] {
        let request = double(DIRECT, state, false);
        assert_eq!(bench.ask(1, &request), [con(&request, true)]);
        assert_eq!(refused(&mut bench), Refusal::Value);
    }
    let float = |v| Element::Command(Command { value: CommandValue::Float(v), qualifier: 0, select: false });
    let nan = asdu(TypeId::C_SE_NC_1, Reason::ACTIVATION, 1, FLOAT, float(f32::NAN));
    assert_eq!(bench.ask(1, &nan), [con(&nan, true)]);
    let pulse = |qualifier| {
        let element =
            Element::Command(Command { value: CommandValue::Single(true), qualifier, select: false });
        asdu(TypeId::C_SC_NA_1, Reason::ACTIVATION, 1, PULSE, element)
    };
    bench.host.clear();
    assert_eq!(bench.ask(1, &pulse(2)), [con(&pulse(2), true)]);
    assert_eq!(refused(&mut bench), Refusal::Qualifier);
    bench.ask(1, &pulse(1));
    assert_eq!(asked(&mut bench).qualifier, 1);
    let two = [46, 2, 6, 7, 1, 0, 10, 0, 0, 2, 11, 0, 0, 2];
    assert_eq!(bench.ask(1, &two), [con(&two, true)]);
    assert_eq!(refused(&mut bench), Refusal::Structure);
}

#[test]
fn a_stale_time_tag_is_refused() {
    let on = |seconds: i64, invalid| {
        let stamp = Stamp { invalid, ..Stamp::utc(UTC + seconds * 1_000_000_000) };
        let element =
            Element::Command(Command { value: CommandValue::Single(true), qualifier: 0, select: false });
        let tag = Tag::Cp56(Cp56Time2a::new(stamp));
        tagged(TypeId::C_SC_TA_1, Reason::ACTIVATION, 1, STAMPED, element, tag)
    };
    let mut impossible = on(0, false);
    impossible[15] = 0;
    for request in [on(-11, false), on(11, false), on(0, true), impossible] {
        let mut bench = Bench::started(points());
        assert_eq!(bench.ask(1, &request), [con(&request, true)]);
        assert_eq!(refused(&mut bench), Refusal::Stale);
    }
    for seconds in [-10, 0, 10] {
        let mut bench = Bench::started(points());
        bench.ask(1, &on(seconds, false));
        assert_eq!(asked(&mut bench).issued, Some(UTC + seconds * 1_000_000_000));
    }
    // The object takes commands with time only; one of a type without time takes both.
    let mut bench = Bench::started(points());
    let bare = asdu(
        TypeId::C_SC_NA_1,
        Reason::ACTIVATION,
        1,
        STAMPED,
        Element::Command(Command { value: CommandValue::Single(true), qualifier: 0, select: false }),
    );
    assert_eq!(bench.ask(1, &bare), [answered(&bare, Reason::UNKNOWN_TYPE, true)]);
    let element = Element::Command(Command { value: CommandValue::Double(2), qualifier: 0, select: false });
    let tag = Tag::Cp56(Cp56Time2a::new(Stamp::utc(UTC)));
    bench.host.clear();
    bench.ask(1, &tagged(TypeId::C_DC_TA_1, Reason::ACTIVATION, 1, DIRECT, element, tag));
    assert_eq!(asked(&mut bench).issued, Some(UTC));
}

#[test]
fn a_master_without_permission_commands_nothing() {
    let mut config = points();
    config.lanes[0].commands = false;
    let mut bench = Bench::started(config);
    for request in [double(DIRECT, 2, false), double(SELECT, 2, true)] {
        assert_eq!(bench.ask(1, &request), [con(&request, true)]);
        assert_eq!(refused(&mut bench), Refusal::NotPermitted);
    }
}

#[test]
fn the_test_bit_reaches_the_host() {
    let mut bench = Bench::started(points());
    let mut request = double(DIRECT, 1, false);
    request[2] |= 0x80;
    bench.ask(1, &request);
    assert!(asked(&mut bench).test);
}
