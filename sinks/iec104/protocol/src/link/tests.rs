//! Every transition of the link.

use super::*;
use crate::apci::{Decoded, decode};

const S: fn(u64) -> Duration = Duration::from_secs;
const START: Input<'_> = Input::Frame(Apdu::Unnumbered(Unnumbered::StartAct));
const STOP: Input<'_> = Input::Frame(Apdu::Unnumbered(Unnumbered::StopAct));

fn link(role: Role) -> Link {
    Link::new(role, Parameters { k: 3, w: 2, ..Parameters::default() }, S(0))
}

fn started() -> Link {
    let mut link = link(Role::Controlled);
    assert_eq!(step(&mut link, 0, START), [con(Unnumbered::StartCon), Output::Started]);
    link
}

fn step(link: &mut Link, now: u64, input: Input<'_>) -> Vec<Output> {
    let mut out = Vec::new();
    link.step(S(now), input, &mut out);
    out
}

fn send(link: &mut Link, now: u64) -> (u16, u16) {
    let mut out = Vec::new();
    assert!(link.send(S(now), &[1], &mut out));
    let [Output::Transmit(bytes)] = &out[..] else { panic!("{out:?}") };
    let Ok(Decoded::Frame { apdu: Apdu::Information { send, receive, .. }, .. }) = decode(bytes) else {
        panic!("{bytes:?}")
    };
    (send.value(), receive.value())
}

fn con(function: Unnumbered) -> Output {
    Output::Transmit(function.frame().to_vec())
}

fn u(function: Unnumbered) -> Input<'static> {
    Input::Frame(Apdu::Unnumbered(function))
}

fn ack(receive: u16) -> Input<'static> {
    Input::Frame(Apdu::Supervision { receive: Seq::new(receive) })
}

fn data(send: u16, receive: u16) -> Input<'static> {
    Input::Frame(Apdu::Information { send: Seq::new(send), receive: Seq::new(receive), asdu: &[7] })
}

fn s(receive: u16) -> Output {
    Output::Transmit(supervision(Seq::new(receive)).to_vec())
}

fn closed(link: &mut Link, now: u64, input: Input<'_>, fault: Fault) {
    assert_eq!(step(link, now, input), [Output::Close(fault)]);
    assert_eq!(link.phase(), Phase::Closed);
    assert_eq!(step(link, now, u(Unnumbered::TestAct)), [], "nothing comes out after the end");
    assert_eq!((link.room(), link.deadline()), (0, None));
}

#[test]
fn nothing_is_sent_before_startdt_and_after_stopdt() {
    let mut link = link(Role::Controlled);
    assert_eq!(link.room(), 0);
    assert!(!link.send(S(0), &[1], &mut Vec::new()));
    step(&mut link, 0, START);
    assert_eq!(link.room(), 3);
    assert_eq!(step(&mut link, 1, START), [con(Unnumbered::StartCon)], "confirmed again, begun once");
    assert_eq!(step(&mut link, 1, STOP), [con(Unnumbered::StopCon), Output::Stopped]);
    assert_eq!(link.room(), 0);
    assert_eq!(step(&mut link, 1, STOP), [con(Unnumbered::StopCon)]);
}

#[test]
fn numbers_go_on_through_stop_and_start() {
    let mut link = started();
    assert_eq!(send(&mut link, 0), (0, 0));
    assert_eq!(step(&mut link, 0, ack(1)), [Output::Acknowledged(1)]);
    step(&mut link, 0, STOP);
    step(&mut link, 0, START);
    assert_eq!(send(&mut link, 0), (1, 0));
}

#[test]
fn stopdt_is_confirmed_when_everything_is_acknowledged() {
    let mut link = started();
    send(&mut link, 0);
    send(&mut link, 0);
    step(&mut link, 0, data(0, 0));
    assert_eq!(step(&mut link, 1, STOP), [s(1)], "own acknowledgement first, no confirmation yet");
    assert_eq!((link.phase(), link.room()), (Phase::Stopping, 0));
    assert_eq!(step(&mut link, 1, STOP), []);
    assert_eq!(step(&mut link, 2, ack(1)), [Output::Acknowledged(1)]);
    let end = [Output::Acknowledged(1), con(Unnumbered::StopCon), Output::Stopped];
    assert_eq!(step(&mut link, 2, ack(2)), end);
}

#[test]
fn a_stop_can_be_taken_back_and_can_time_out() {
    let mut link = started();
    send(&mut link, 0);
    step(&mut link, 1, STOP);
    assert_eq!(step(&mut link, 1, START), [con(Unnumbered::StartCon), Output::Started]);
    step(&mut link, 2, STOP);
    closed(&mut link, 15, Input::Tick, Fault::Unacknowledged(1));
}

#[test]
fn the_window_is_k() {
    let mut link = started();
    for number in 0..3 {
        assert_eq!(send(&mut link, 0), (number, 0));
    }
    assert_eq!((link.room(), link.unacknowledged()), (0, 3));
    assert!(!link.send(S(0), &[1], &mut Vec::new()));
    assert_eq!(step(&mut link, 1, ack(2)), [Output::Acknowledged(2)]);
    assert_eq!(link.room(), 2);
    assert_eq!(step(&mut link, 1, ack(2)), [], "the same acknowledgement again");
}

#[test]
fn an_asdu_that_fits_no_frame_is_not_sent() {
    let mut link = started();
    assert!(!link.send(S(0), &[], &mut Vec::new()));
    assert!(!link.send(S(0), &[0; 250], &mut Vec::new()));
    assert_eq!(send(&mut link, 0), (0, 0));
}

#[test]
fn w_and_t2_send_acknowledgements() {
    let mut link = started();
    assert_eq!(step(&mut link, 1, data(0, 0)), [Output::Deliver(vec![7])]);
    assert_eq!(step(&mut link, 1, data(1, 0)), [Output::Deliver(vec![7]), s(2)]);
    step(&mut link, 3, data(2, 0));
    assert_eq!(link.deadline(), Some(S(13)));
    assert_eq!(step(&mut link, 12, Input::Tick), []);
    assert_eq!(step(&mut link, 13, Input::Tick), [s(3)]);
    step(&mut link, 14, data(3, 0));
    assert_eq!(send(&mut link, 14), (0, 4), "an I frame acknowledges too");
    assert_eq!(step(&mut link, 24, Input::Tick), []);
}

#[test]
fn t1_of_the_oldest_asdu_closes() {
    let mut link = started();
    send(&mut link, 1);
    send(&mut link, 5);
    assert_eq!(link.deadline(), Some(S(16)));
    step(&mut link, 15, ack(1));
    assert_eq!(step(&mut link, 19, Input::Tick), [], "each has its own time");
    closed(&mut link, 20, Input::Tick, Fault::Unacknowledged(1));
}

#[test]
fn t3_tests_also_a_connection_that_stands_by() {
    for started in [false, true] {
        let mut link = link(Role::Controlled);
        if started {
            step(&mut link, 0, START);
        }
        assert_eq!(link.deadline(), Some(S(20)));
        assert_eq!(step(&mut link, 20, Input::Tick), [con(Unnumbered::TestAct)]);
        assert_eq!(step(&mut link, 21, Input::Tick), [], "one at a time");
        assert_eq!(step(&mut link, 22, u(Unnumbered::TestCon)), []);
        assert_eq!(link.deadline(), Some(S(42)));
        assert_eq!(step(&mut link, 42, Input::Tick), [con(Unnumbered::TestAct)]);
        closed(&mut link, 57, Input::Tick, Fault::Unanswered(Unnumbered::TestAct));
    }
}

#[test]
fn tests_are_answered_and_foreign_confirmations_ignored() {
    let mut link = link(Role::Controlled);
    assert_eq!(step(&mut link, 19, u(Unnumbered::TestAct)), [con(Unnumbered::TestCon)]);
    assert_eq!(link.deadline(), Some(S(39)), "what came restarts t3");
    assert_eq!(step(&mut link, 19, u(Unnumbered::TestCon)), []);
}

#[test]
fn wrong_numbers_close() {
    closed(&mut started(), 0, data(1, 0), Fault::Sequence { expected: 0, found: 1 });
    let outside = |last, found| Fault::Acknowledgement { first: 0, last, found };
    closed(&mut started(), 0, data(0, 1), outside(0, 1));
    let mut link = started();
    send(&mut link, 0);
    closed(&mut link, 0, ack(2), outside(1, 2));
    let mut link = started();
    closed(&mut link, 0, ack(32_767), outside(0, 32_767));
    let mut link = started();
    step(&mut link, 0, data(0, 0));
    closed(&mut link, 0, data(0, 0), Fault::Sequence { expected: 1, found: 0 });
}

#[test]
fn data_while_stopped_closes() {
    closed(&mut link(Role::Controlled), 0, data(0, 0), Fault::NotStarted);
    let mut link = started();
    send(&mut link, 0);
    step(&mut link, 0, STOP);
    closed(&mut link, 0, data(0, 0), Fault::NotStarted);
}

#[test]
fn functions_of_the_other_role_close() {
    for function in [Unnumbered::StartCon, Unnumbered::StopCon] {
        closed(&mut started(), 0, u(function), Fault::Unexpected(function));
        closed(&mut link(Role::Controlling), 0, u(function), Fault::Unexpected(function));
    }
    for function in [Unnumbered::StartAct, Unnumbered::StopAct] {
        closed(&mut link(Role::Controlling), 0, u(function), Fault::Unexpected(function));
    }
}

#[test]
fn standing_by_keeps_the_connection() {
    let mut link = started();
    send(&mut link, 0);
    assert_eq!(step(&mut link, 1, Input::StandBy), [Output::Stopped]);
    assert_eq!(step(&mut link, 1, Input::StandBy), []);
    assert_eq!(link.room(), 0);
    assert_eq!(step(&mut link, 2, ack(1)), [Output::Acknowledged(1)], "a late acknowledgement is no fault");
    step(&mut link, 3, START);
    assert_eq!(send(&mut link, 3), (1, 0));
    assert_eq!(step(&mut link, 4, STOP), []);
    assert_eq!(step(&mut link, 4, Input::StandBy), [con(Unnumbered::StopCon), Output::Stopped]);
}

#[test]
fn the_controlling_side_starts_stops_and_times_out() {
    let mut link = link(Role::Controlling);
    assert_eq!(step(&mut link, 0, Input::Stop), []);
    assert_eq!(step(&mut link, 0, Input::Start), [con(Unnumbered::StartAct)]);
    assert_eq!((link.phase(), link.room()), (Phase::Starting, 0));
    assert_eq!(step(&mut link, 1, u(Unnumbered::StartCon)), [Output::Started]);
    step(&mut link, 1, data(0, 0));
    assert_eq!(step(&mut link, 2, Input::Stop), [s(1), con(Unnumbered::StopAct)]);
    assert_eq!(step(&mut link, 2, data(1, 0)), [Output::Deliver(vec![7])], "still under way");
    assert_eq!(step(&mut link, 3, u(Unnumbered::StopCon)), [s(2), Output::Stopped]);
    step(&mut link, 4, Input::Start);
    assert_eq!(step(&mut link, 5, Input::StandBy), [], "only the controlled side stands by");
    closed(&mut link, 19, Input::Tick, Fault::Unanswered(Unnumbered::StartAct));
}

#[test]
fn numbers_wrap_at_32768() {
    let mut link = started();
    for number in 0..70_000_u32 {
        let number = (number % 32_768) as u16;
        assert_eq!(send(&mut link, 0).0, number);
        assert_eq!(step(&mut link, 0, ack((number + 1) % 32_768)), [Output::Acknowledged(1)]);
        let delivered = step(&mut link, 0, data(number, (number + 1) % 32_768));
        assert_eq!(delivered[0], Output::Deliver(vec![7]));
    }
}

#[test]
fn parameters_are_checked() {
    let good = Parameters::default();
    assert_eq!(good.check(), Ok(()));
    assert_eq!(Parameters { k: 0, ..good }.check(), Err(ParameterError::Window("k", 0)));
    assert_eq!(Parameters { w: 32_768, ..good }.check(), Err(ParameterError::Window("w", 32_768)));
    assert_eq!(
        Parameters { t2: S(15), ..good }.check(),
        Err(ParameterError::Acknowledge { t1: S(15), t2: S(15) })
    );
    let t1 = ParameterError::Timeout("t1", 255, S(256));
    assert_eq!(Parameters { t1: S(256), ..good }.check(), Err(t1));
    assert!(Parameters { t3: Duration::ZERO, ..good }.check().is_err());
}
