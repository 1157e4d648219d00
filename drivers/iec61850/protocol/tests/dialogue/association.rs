//! Associating, asking, answering late, ending.

use std::time::Duration;

use busbar_iec61850::error::Error;
use busbar_iec61850::limits::MAX_WAITING;
use busbar_iec61850::request::{Answer, Identity, Listing};
use busbar_iec61850::session::{Event, Secret, Session, Settings};
use busbar_iec61850::{Name, Request};
use iec61850_rs::proto::mms::ConfirmedResponse;
use iec61850_rs::proto::mms::association::AssociationConfig;

use crate::peer::Pair;

fn pair() -> Pair {
    Pair::established(Session::new(Settings::default()), AssociationConfig::default())
}

fn identity() -> ConfirmedResponse<'static> {
    ConfirmedResponse::Identify { vendor: "v", model: "m", revision: "1" }
}

#[test]
fn the_first_packet_is_the_connection_request_of_the_standard() {
    let mut session = Session::new(Settings::default());
    session.start(Duration::ZERO);
    // RFC 1006, ISO 8073 13.3: class 0, source 1, TPDU size 8192, selectors 0001.
    let expected = [3, 0, 0, 22, 17, 0xe0, 0, 0, 0, 1, 0, 0xc0, 1, 13, 0xc1, 2, 0, 1, 0xc2, 2, 0, 1];
    assert_eq!(session.transmit().as_deref(), Some(&expected[..]));
    assert_eq!(session.transmit(), None);
}

#[test]
fn sizes_are_negotiated_down() {
    let config = AssociationConfig { max_pdu: 8_000, max_outstanding: 2, ..Default::default() };
    let mut pair = Pair::new(Session::new(Settings::default()), config);
    pair.session.start(pair.now);
    pair.pump();
    assert_eq!(pair.events, [Event::Established { max_pdu: 8_000, outstanding: 2 }]);
}

#[test]
fn no_more_is_outstanding_than_the_device_allows() {
    let config = AssociationConfig { max_outstanding: 2, ..Default::default() };
    let mut pair = Pair::established(Session::new(Settings::default()), config);
    let tickets: Vec<_> = (0..5).map(|_| pair.session.submit(pair.now, Request::Identify).unwrap()).collect();
    pair.pump();
    assert_eq!(pair.requests.len(), 2);
    let mut answered = 0;
    while let Some((id, _)) = pair.requests.pop() {
        pair.peer.respond(id, &identity()).unwrap();
        pair.pump();
        answered += 1;
    }
    assert_eq!(answered, 5);
    let mut got: Vec<_> = pair
        .events
        .iter()
        .map(|event| match event {
            Event::Answered { ticket, outcome: Ok(Answer::Identity(identity)), .. } => {
                assert_eq!(
                    identity,
                    &Identity { vendor: "v".into(), model: "m".into(), revision: "1".into() }
                );
                *ticket
            }
            other => panic!("{other:?}"),
        })
        .collect();
    got.sort();
    assert_eq!(got, tickets);
}

#[test]
fn a_late_answer_is_nobodys() {
    let mut pair = pair();
    pair.session.submit(pair.now, Request::Identify).unwrap();
    pair.pump();
    let (late, _) = pair.requests.remove(0);
    assert_eq!(pair.session.next_deadline(), Some(pair.now + Settings::default().response_timeout));
    pair.tick(Settings::default().response_timeout);
    assert!(matches!(&pair.events[..], [Event::Answered { outcome: Err(Error::NoAnswer { .. }), .. }]));
    pair.events.clear();

    let second = pair.session.submit(pair.now, Request::Identify).unwrap();
    pair.pump();
    let stale = ConfirmedResponse::Identify { vendor: "stale", model: "m", revision: "1" };
    pair.peer.respond(late, &stale).unwrap();
    pair.peer.respond(4711, &stale).unwrap();
    pair.pump();
    assert_eq!(pair.events, []);
    assert_eq!(pair.session.counters().strays, 2);
    let (id, _) = pair.requests.remove(0);
    pair.peer.respond(id, &identity()).unwrap();
    pair.pump();
    assert!(
        matches!(&pair.events[..], [Event::Answered { ticket, outcome: Ok(_), .. }] if *ticket == second)
    );
}

#[test]
fn a_device_that_never_completes_the_association_is_left() {
    let mut session = Session::new(Settings::default());
    session.start(Duration::from_secs(5));
    assert_eq!(session.next_deadline(), Some(Duration::from_secs(15)));
    session.tick(Duration::from_secs(15));
    let reason = "the device did not complete the association in time".to_owned();
    assert_eq!(session.event(Duration::from_secs(15)), Some(Event::Closed(reason)));
    assert_eq!(session.event(Duration::from_secs(15)), None);
    assert!(matches!(session.submit(Duration::ZERO, Request::Identify), Err(Error::SessionOver(_))));
}

#[test]
fn the_end_answers_everything_that_is_open() {
    let config = AssociationConfig { max_outstanding: 1, ..Default::default() };
    let mut pair = Pair::established(Session::new(Settings::default()), config);
    let sent = pair.session.submit(pair.now, Request::Identify).unwrap();
    let waiting = pair.session.submit(pair.now, Request::Identify).unwrap();
    pair.pump();
    pair.peer.abort();
    pair.pump();
    let [
        Event::Answered { ticket: first, outcome: Err(Error::SessionOver(_)), .. },
        Event::Answered { ticket: second, outcome: Err(Error::NotSent(_)), .. },
        Event::Closed(reason),
    ] = &pair.events[..]
    else {
        panic!("{:?}", pair.events)
    };
    assert_eq!((*first, *second), (sent, waiting));
    assert!(reason.contains("aborted"), "{reason}");
}

#[test]
fn a_release_is_confirmed() {
    let mut pair = pair();
    pair.session.release(pair.now);
    pair.pump();
    assert_eq!(pair.events, [Event::Closed("released".to_owned())]);
}

#[test]
fn waiting_requests_are_bounded() {
    let config = AssociationConfig { max_outstanding: 1, ..Default::default() };
    let mut pair = Pair::established(Session::new(Settings::default()), config);
    for _ in 0..=MAX_WAITING {
        pair.session.submit(pair.now, Request::Identify).unwrap();
    }
    let error = pair.session.submit(pair.now, Request::Identify).unwrap_err();
    assert_eq!(error.to_string(), format!("{MAX_WAITING} requests are waiting already"));
}

#[test]
fn a_request_larger_than_the_device_takes_is_not_sent() {
    let config = AssociationConfig { max_pdu: 600, ..Default::default() };
    let mut pair = Pair::established(Session::new(Settings::default()), config);
    let names = (0..40).map(|i| Name::new("LD", format!("GGIO1$ST$Ind{i}"))).collect();
    pair.session.submit(pair.now, Request::Read(names)).unwrap();
    pair.pump();
    assert!(pair.requests.is_empty());
    let event = pair.session.event(pair.now);
    assert!(matches!(&event, Some(Event::Answered { outcome: Err(Error::NotSent(_)), .. })), "{event:?}");
}

#[test]
fn segmented_answers_are_put_together() {
    // 128 octets per TPDU: a long name list arrives in many.
    let config = AssociationConfig { tpdu_size_exp: 7, ..Default::default() };
    let mut pair = Pair::established(Session::new(Settings::default()), config);
    let request = Request::NameList { listing: Listing::Variables, domain: "LD".into(), after: None };
    pair.session.submit(pair.now, request).unwrap();
    pair.pump();
    let names: Vec<String> = (0..500).map(|i| format!("GGIO1$ST$Ind{i}")).collect();
    let identifiers = names.iter().map(String::as_str).collect();
    let (id, _) = pair.requests.remove(0);
    pair.peer.respond(id, &ConfirmedResponse::GetNameList { identifiers, more_follows: true }).unwrap();
    pair.pump();
    let [Event::Answered { outcome: Ok(answer), .. }] = &pair.events[..] else { panic!("{:?}", pair.events) };
    assert_eq!(answer, &Answer::Names { names, more: true });
}

#[test]
fn a_password_travels_and_is_never_printed() {
    let settings = Settings { password: Some(Secret("geheim".into())), ..Default::default() };
    assert!(!format!("{settings:?}").contains("geheim"));
    let session = Session::new(settings);
    assert!(!format!("{session:?}").contains("geheim"));
    let mut pair = Pair::new(session, AssociationConfig::default());
    pair.session.start(pair.now);
    let request = pair.session.transmit().unwrap();
    pair.peer.on_bytes(crate::peer::instant(pair.now), &request);
    let confirm = pair.peer.poll_transmit().unwrap().to_vec();
    pair.deliver(&confirm);
    let associate = pair.session.transmit().unwrap();
    // Mechanism 2.2.3.1 (password) and the value as GraphicString, ISO 8650.
    let mechanism = [0x8b, 3, 0x52, 3, 1];
    let value = [&[0xac_u8, 8, 0x80, 6][..], b"geheim"].concat();
    for part in [&mechanism[..], &value[..]] {
        assert!(associate.windows(part.len()).any(|window| window == part), "{associate:02x?}");
    }
}

#[test]
fn a_connection_closed_instead_of_an_association_names_the_password() {
    let mut session = Session::new(Settings::default());
    session.start(Duration::ZERO);
    session.disconnected("connection closed");
    let reason = "connection closed before it was associated; check the password and the selectors";
    assert_eq!(session.event(Duration::ZERO), Some(Event::Closed(reason.to_owned())));

    // Nor where a device ends a release by closing.
    let mut pair = pair();
    pair.session.release(pair.now);
    pair.session.disconnected("connection closed");
    assert_eq!(pair.session.event(pair.now), Some(Event::Closed("connection closed".to_owned())));
}
