//! Operators, stored state, the clock (SEMANTICS 4, 7, 9).

use busbar_contract::{Event, Origin, Request, Value, event::StateEntry, request::AnswerTo};
use busbar_core::{
    Core, Input, Output, Switches,
    input::{Ask, Operator},
    output::{Reply, StoreAction},
};
use serde_json::json;

use crate::bench::{Bench, site};

impl Bench {
    fn operator(&mut self, ask: Ask) -> Vec<Output> {
        self.step(Input::Operator(Operator { id: 3, ask }));
        self.take()
    }
}

fn stored(outputs: &[Output]) -> Switches {
    outputs
        .iter()
        .find_map(|output| match output {
            Output::Store { owner, key, action: StoreAction::Put(bytes), .. } => {
                assert_eq!((owner.as_str(), key.as_str()), ("host", "switches"));
                Some(Switches::parse(bytes).unwrap())
            }
            _ => None,
        })
        .expect("it is stored")
}

#[test]
fn a_lock_is_audited_stored_and_holds_after_a_restart() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let outputs = bench.operator(Ask::Lock(Origin::default()));
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Audit { line, .. } if line["event"] == "lock"))
    );
    let again = Core::new(site(1), stored(&outputs), 1, bench.now);
    assert!(again.commands_locked());
    assert_eq!(again.point("@host/commands_locked").unwrap().value, Value::Bool(true));
}

#[test]
fn a_blocked_point_keeps_its_value_and_shows_the_device_again_when_unblocked() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let outputs = bench.operator(Ask::Block("d0/p1".into(), Origin::default()));
    assert_eq!(stored(&outputs).blocked.len(), 1);
    bench.push_as(1, 0, &[1], 9, busbar_contract::Cause::Integrity, 0, crate::bench::WALL + 1_000_000_000);
    let view = bench.core.point("d0/p1").unwrap();
    assert_eq!((view.quality.to_string().as_str(), view.value), ("invalid|operator_blocked", Value::Int(5)));
    bench.operator(Ask::Unblock("d0/p1".into(), Origin::default()));
    assert_eq!(bench.core.point("d0/p1").unwrap().value, Value::Int(9));
}

#[test]
fn a_substituted_value_is_shown_as_such() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.operator(Ask::Substitute("d0/p1".into(), json!(12), Origin::default()));
    let view = bench.core.point("d0/p1").unwrap();
    assert_eq!((view.quality.to_string().as_str(), view.value), ("good|substituted", Value::Int(12)));
    let outputs = bench.operator(Ask::Substitute("d0/p1".into(), json!("x"), Origin::default()));
    assert!(outputs.iter().any(|output| matches!(output, Output::Reply { reply: Reply::Failed(_), .. })));
}

#[test]
fn maintenance_ends_polling_and_blocks_the_points() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.operator(Ask::Maintenance("d0".into(), true, Origin::default()));
    assert_eq!(
        (bench.state(0), bench.quality("d0/p0").as_str()),
        ("maintenance", "invalid|operator_blocked")
    );
    bench.pass(10_000);
    assert!(bench.requests().is_empty());
    bench.operator(Ask::Maintenance("d0".into(), false, Origin::default()));
    bench.pass(100);
    let mut answered = 0;
    while bench.state(0) != "online" && answered < 20 {
        bench.step(Input::Tick);
        bench.pass(1000);
        bench.bring_up();
        answered += 1;
    }
    assert_eq!(bench.quality("d0/p0"), "good");
}

#[test]
fn a_fresh_read_answers_with_all_points_or_fails() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let ask = || Ask::Read { device: "d0".into(), points: vec!["p1".into()], deadline_ms: 400 };
    bench.step(Input::Operator(Operator { id: 3, ask: ask() }));
    let (instance, request, _) = bench.requests()[0].clone();
    bench.push(instance, request, &[0, 1], 33);
    let readings = bench.take().into_iter().find_map(|output| match output {
        Output::Reply { id: 3, reply: Reply::Readings(readings) } => Some(readings),
        _ => None,
    });
    assert_eq!(readings.unwrap()[0].value, Value::Int(33));
    bench.step(Input::Operator(Operator { id: 3, ask: ask() }));
    bench.pass(800);
    assert!(bench.out.iter().any(|output| matches!(output, Output::Reply { reply: Reply::Failed(_), .. })));
}

#[test]
fn a_driver_reaches_only_the_stored_state_of_its_own_devices() {
    let (mut bench, _) = Bench::running(site(2), None, true);
    let entry = |device| StateEntry { device: Some(device), key: "k".into(), value: Some("0a".into()) };
    bench.event(0, 1, 21, Event::StatePut(entry(0)));
    let Some(Output::Store { store, owner, action, .. }) = bench.out.pop() else { panic!() };
    assert_eq!((owner.as_str(), action), ("device/d0", StoreAction::Put(vec![10])));
    bench.step(Input::Stored { store, result: Ok(None) });
    let answered = |bench: &mut Bench| match bench.requests().pop() {
        Some((1, 21, Request::Answer(AnswerTo::StatePut { error }))) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(answered(&mut bench), "", "answered after it is on disk");
    bench.event(0, 1, 21, Event::StatePut(entry(1)));
    assert!(answered(&mut bench).contains("not served"));
}

#[test]
fn without_a_synchronised_clock_gateway_times_say_so_and_nothing_else_changes() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.step(Input::Clock { synchronised: false });
    assert_eq!(bench.quality("d0/p0"), "good");
    assert_eq!(bench.core.point("@host/clock_synced").unwrap().value, Value::Bool(false));
    bench.push_as(1, 0, &[0], 6, busbar_contract::Cause::Integrity, 0, 0);
    let view = bench.core.point("d0/p0").unwrap();
    assert_eq!((view.quality.to_string().as_str(), view.gateway_time), ("good|clock_unsynced", true));
}
