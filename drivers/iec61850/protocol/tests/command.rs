//! Commands over all control models: what leaves, in which order, and what is said about it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

use std::time::Duration;

use busbar_iec61850::control::{
    Action, AddCause, ApplError, Command, Conditions, Control, ControlModel, Progress, Reason, Setting,
};
use busbar_iec61850::error::{AccessError, Error};
use busbar_iec61850::kind::{Kind, Member};
use busbar_iec61850::model::{Group, LogicalDevice, LogicalNode, Model, Signature};
use busbar_iec61850::request::{Answer, Identity};
use busbar_iec61850::unsolicited::Unsolicited;
use busbar_iec61850::{Address, Fc, Name, Request, Value};

fn s(members: &[(&str, Kind)]) -> Kind {
    let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
    Kind::Structure(members.iter().map(member).collect())
}

fn model() -> Model {
    let origin = s(&[("orCat", Kind::Integer(8)), ("orIdent", Kind::Octets(-64))]);
    let base = [
        ("ctlVal", Kind::Boolean),
        ("origin", origin),
        ("ctlNum", Kind::Unsigned(8)),
        ("T", Kind::Time),
        ("Test", Kind::Boolean),
    ];
    let oper = s(&[&base[..], &[("Check", Kind::Bits(-2))]].concat());
    let pos = s(&[("SBO", Kind::Text(-129)), ("SBOw", oper.clone()), ("Oper", oper), ("Cancel", s(&base))]);
    let node = LogicalNode {
        name: "CSWI1".into(),
        groups: vec![
            Group { fc: Fc::CO, objects: s(&[("Pos", pos)]) },
            Group { fc: Fc::CF, objects: s(&[("Pos", s(&[("ctlModel", Kind::Integer(8))]))]) },
            Group { fc: Fc::ST, objects: s(&[("Loc", s(&[("stVal", Kind::Boolean)]))]) },
        ],
    };
    let device = LogicalDevice { name: "LD".into(), nodes: vec![node], data_sets: vec![] };
    Model { signature: Signature("0".into()), identity: Identity::default(), devices: vec![device] }
}

fn control() -> Control {
    Control::resolve(&model(), &Address::parse("LD/CSWI1.Pos.stVal").unwrap()).unwrap()
}

fn conditions() -> Conditions {
    Conditions {
        category: 3,
        ident: b"bb".to_vec(),
        ctl_num: 9,
        time_ns: 1,
        synchronised: true,
        test: false,
        synchro_check: false,
        interlock_check: true,
    }
}

fn command(model: ControlModel, action: Action) -> Result<Command, (Reason, String)> {
    Command::new(control(), model, Setting::DoublePoint(2), conditions(), action)
}

fn yes() -> Result<Answer, Error> {
    Ok(Answer::Written(vec![Ok(())]))
}

fn no() -> Result<Answer, Error> {
    Ok(Answer::Written(vec![Err(AccessError(3))]))
}

fn silence() -> Result<Answer, Error> {
    Err(Error::NoAnswer { service: "Write", after: Duration::from_secs(3) })
}

/// Last component of what is asked for, and the command value written.
fn asked(command: &mut Command) -> Option<(String, Option<Value>)> {
    Some(match command.next_request()? {
        Request::Read(names) => (names[0].components().last().unwrap().to_owned(), None),
        Request::Write(writes) => {
            let value = writes[0].1.member(0).unwrap().clone();
            (writes[0].0.components().last().unwrap().to_owned(), Some(value))
        }
        other => panic!("{other:?}"),
    })
}

fn written(name: &str) -> Option<(String, Option<Value>)> {
    Some((name.to_owned(), Some(Value::Boolean(true))))
}

fn end(ctl_num: u8, cause: Option<i64>) -> Unsolicited {
    let object = Name::new("LD", "CSWI1$CO$Pos$Oper");
    let echo = Value::Structure(vec![
        Value::Boolean(true),
        Value::Structure(vec![]),
        Value::Unsigned(ctl_num.into()),
    ]);
    let error = cause.map(|cause| ApplError {
        object: object.to_string(),
        error: 0,
        ctl_num,
        cause: AddCause(cause),
    });
    Unsolicited::Terminated { object, request: Some(echo), error }
}

#[test]
fn direct_normal_is_one_write() {
    let mut command = command(ControlModel::DirectNormal, Action::SelectAndOperate).unwrap();
    assert!(!command.may_have_moved());
    assert_eq!(asked(&mut command), written("Oper"));
    assert!(command.may_have_moved());
    assert_eq!(asked(&mut command), None, "never twice");
    assert_eq!(command.answer(yes()), Some(Progress::Finished));
    assert_eq!(asked(&mut command), None);
    assert!(!command.may_have_moved());
}

#[test]
fn select_before_operate_reads_and_then_writes() {
    let mut command = command(ControlModel::SboNormal, Action::SelectAndOperate).unwrap();
    assert_eq!(asked(&mut command), Some(("SBO".to_owned(), None)));
    let selected = Ok(Answer::Values(vec![Ok(Value::VisibleString("LD/CSWI1$CO$Pos".into()))]));
    assert_eq!(command.answer(selected), Some(Progress::Selected));
    assert_eq!(asked(&mut command), written("Oper"));
    assert_eq!(command.answer(yes()), Some(Progress::Finished));
}

#[test]
fn an_empty_selection_is_a_refusal_and_nothing_is_operated() {
    let mut command = command(ControlModel::SboNormal, Action::SelectAndOperate).unwrap();
    command.next_request().unwrap();
    let empty = Ok(Answer::Values(vec![Ok(Value::VisibleString(String::new()))]));
    let text = "the device did not select the object".to_owned();
    assert_eq!(command.answer(empty), Some(Progress::Refused(Reason::DeviceRefused, text)));
    assert_eq!(command.next_request(), None);
}

#[test]
fn enhanced_security_waits_for_its_own_termination() {
    let mut command = command(ControlModel::SboEnhanced, Action::SelectAndOperate).unwrap();
    assert_eq!(asked(&mut command), written("SBOw"));
    assert_eq!(command.answer(yes()), Some(Progress::Selected));
    assert_eq!(asked(&mut command), written("Oper"));
    assert_eq!(command.answer(yes()), Some(Progress::Accepted));
    assert_eq!(command.unsolicited(&end(8, None)), None, "of another command");
    let Unsolicited::Terminated { request, error, .. } = end(9, None) else { panic!() };
    let other = Unsolicited::Terminated { object: Name::new("LD2", "CSWI1$CO$Pos$Oper"), request, error };
    assert_eq!(command.unsolicited(&other), None, "of another device");
    assert_eq!(command.unsolicited(&end(9, None)), Some(Progress::Finished));
    assert_eq!(command.unsolicited(&end(9, None)), None, "once");
}

#[test]
fn a_negative_termination_names_its_cause() {
    let mut command = command(ControlModel::DirectEnhanced, Action::Operate).unwrap();
    command.next_request().unwrap();
    assert_eq!(command.answer(yes()), Some(Progress::Accepted));
    let text = "AddCause 16 (time-limit-over)".to_owned();
    assert_eq!(command.unsolicited(&end(9, Some(16))), Some(Progress::Failed(Reason::Timeout, text)));
}

#[test]
fn a_termination_may_overtake_the_answer() {
    let mut command = command(ControlModel::DirectEnhanced, Action::Operate).unwrap();
    command.next_request().unwrap();
    assert_eq!(command.unsolicited(&end(9, None)), Some(Progress::Finished));
    assert_eq!(command.answer(no()), None);
}

#[test]
fn a_refusal_has_the_reason_that_came_before_it() {
    let mut command = command(ControlModel::DirectNormal, Action::Operate).unwrap();
    command.next_request().unwrap();
    let reason = |ctl_num, cause| {
        let object = "LD/CSWI1$CO$Pos$Oper".to_owned();
        Unsolicited::Reason(ApplError { object, error: 0, ctl_num, cause: AddCause(cause) })
    };
    assert_eq!(command.unsolicited(&reason(8, 2)), None, "of another command");
    assert_eq!(command.unsolicited(&reason(9, 10)), None);
    let text = "AddCause 10 (blocked-by-interlocking); data access error 3 (object access denied)".to_owned();
    assert_eq!(command.answer(no()), Some(Progress::Refused(Reason::Interlocked, text)));
}

#[test]
fn silence_after_operate_is_unknown_and_after_select_a_refusal() {
    let mut operated = command(ControlModel::DirectNormal, Action::Operate).unwrap();
    operated.next_request().unwrap();
    assert!(matches!(operated.answer(silence()), Some(Progress::Unknown(_))));

    let mut selected = command(ControlModel::SboEnhanced, Action::SelectAndOperate).unwrap();
    selected.next_request().unwrap();
    assert!(matches!(selected.answer(silence()), Some(Progress::Refused(Reason::Timeout, _))));
    assert_eq!(selected.next_request(), None, "nothing is operated after it");

    let mut waiting = command(ControlModel::DirectEnhanced, Action::Operate).unwrap();
    assert!(matches!(waiting.expired(), Progress::Refused(Reason::Timeout, _)), "it never left");
    let mut waiting = command(ControlModel::DirectEnhanced, Action::Operate).unwrap();
    waiting.next_request().unwrap();
    waiting.answer(yes());
    assert!(matches!(waiting.expired(), Progress::Unknown(_)));
}

#[test]
fn cancel_is_the_same_without_check() {
    let mut command = command(ControlModel::SboEnhanced, Action::Cancel).unwrap();
    let Some(Request::Write(writes)) = command.next_request() else { panic!() };
    assert_eq!(writes[0].0.item, "CSWI1$CO$Pos$Cancel");
    assert_eq!(writes[0].1.members().unwrap().len(), 5);
    assert_eq!(command.answer(yes()), Some(Progress::Finished));
}

#[test]
fn what_the_model_forbids_never_leaves() {
    let (reason, text) = command(ControlModel::StatusOnly, Action::Operate).unwrap_err();
    assert_eq!(
        (reason, text.as_str()),
        (Reason::Unsupported, "LD/CSWI1$CO$Pos: its ctlModel is status-only")
    );
    assert!(command(ControlModel::DirectNormal, Action::Select).is_err());
    for state in [0, 3] {
        let bad = Command::new(
            control(),
            ControlModel::DirectNormal,
            Setting::DoublePoint(state),
            conditions(),
            Action::Operate,
        );
        assert_eq!(bad.unwrap_err().1, format!("expected 1 (off) or 2 (on), got {state}"));
    }
    let error = Control::resolve(&model(), &Address::parse("LD/CSWI1.Loc").unwrap()).unwrap_err();
    assert!(error.contains("expected a controllable object"), "{error}");
}

#[test]
fn the_control_model_is_read_from_the_device() {
    assert_eq!(control().model_name, Some(Name::new("LD", "CSWI1$CF$Pos$ctlModel")));
    assert_eq!(Control::control_model(Some(&Value::Integer(4))), Ok(ControlModel::SboEnhanced));
    assert_eq!(Control::control_model(None), Ok(ControlModel::DirectNormal));
    assert!(Control::control_model(Some(&Value::Integer(7))).is_err());
}
