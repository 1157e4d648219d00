//! Octets no device should send: refused with a reason, never a panic, never memory without bound.

use std::time::Duration;

use busbar_iec61850::limits::MAX_RECEIVED;
use busbar_iec61850::request::Listing;
use busbar_iec61850::session::{Event, Session, Settings};
use busbar_iec61850::unsolicited::Unsolicited;
use busbar_iec61850::{Name, Request};
use iec61850_rs::proto::mms::association::AssociationConfig;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::peer::Pair;

fn pair() -> Pair {
    Pair::established(Session::new(Settings::default()), AssociationConfig::default())
}

fn end(pair: &Pair) -> String {
    match pair.events.last() {
        Some(Event::Closed(reason)) => reason.clone(),
        other => panic!("expected the end, got {other:?}"),
    }
}

#[test]
fn another_protocol_is_told_at_once() {
    let mut pair = pair();
    pair.deliver(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(end(&pair), "expected a TPKT packet (version 3), got octet 0x48");
    assert!(!pair.session.is_established());
}

#[test]
fn octets_nobody_looks_at_are_bounded() {
    let mut session = Session::new(Settings::default());
    session.start(Duration::ZERO);
    for _ in 0..4 {
        session.receive(&[3; 65_535]);
    }
    let Some(Event::Closed(reason)) = session.event(Duration::ZERO) else { panic!("not closed") };
    assert_eq!(reason, format!("{} octets received are waiting to be looked at", 3 * 65_535));
    const { assert!(MAX_RECEIVED < 3 * 65_535) };
}

#[test]
fn a_message_that_never_ends_is_refused() {
    let mut pair = pair();
    // Data TPDU without the end mark, again and again.
    let mut packet = vec![3, 0, 0x20, 0, 2, 0xf0, 0];
    packet.resize(0x2000, 0);
    for _ in 0..20 {
        pair.deliver(&packet);
    }
    assert!(matches!(pair.events.last(), Some(Event::Closed(_))), "{:?}", pair.events);
}

#[test]
fn nesting_beyond_the_bound_is_refused() {
    // structure in structure in structure ...
    let mut value = vec![0x83, 1, 1];
    for _ in 0..40 {
        let mut outer = vec![0xa2, u8::try_from(value.len()).unwrap()];
        outer.extend(&value);
        value = outer;
    }
    let mut list = vec![0xa1, u8::try_from(value.len()).unwrap()];
    list.extend(&value);
    let mut service = vec![0xa4, u8::try_from(list.len()).unwrap()];
    service.extend(&list);
    let mut pdu = vec![0xa1, u8::try_from(service.len() + 3).unwrap(), 2, 1, 1];
    pdu.extend(&service);
    let error = Request::Read(vec![Name::new("LD", "A")]).answer(&pdu).unwrap_err();
    assert!(error.to_string().contains("max_depth"), "{error}");
}

/// One element with the contents `parts`, lengths below 128 only.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let mut out = vec![tag, u8::try_from(contents.len()).unwrap()];
    assert!(out[1] < 128);
    out.extend(contents);
    out
}

/// A confirmed response with invoke id 1.
fn response(service: &[u8]) -> Vec<u8> {
    element(0xa1, &[&[2, 1, 1], service])
}

/// PDUs of every kind this client reads, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let e = element;
    let domain_name = e(0xa1, &[&e(0x1a, &[b"LD"]), &e(0x1a, &[b"G$ST$I"])]);
    let time_type = e(0x30, &[&e(0x80, &[b"t"]), &e(0xa1, &[&e(0x91, &[])])]);
    let quality_type = e(0x30, &[&e(0x80, &[b"q"]), &e(0xa1, &[&e(0x84, &[&[0xf3]])])]);
    let kind = e(0xa2, &[&e(0xa2, &[&e(0xa1, &[&quality_type, &time_type])])]);
    let variable = e(0x30, &[&e(0xa0, &[&domain_name])]);
    let report_values =
        [e(0x8a, &[b"r"]), e(0x84, &[&[6, 0, 0]]), e(0x84, &[&[7, 0x80]]), e(0x83, &[&[1]])].concat();
    let report = e(0xa0, &[&e(0xa1, &[&e(0x80, &[b"RPT"])]), &e(0xa0, &[&report_values])]);
    let reason = e(
        0xa2,
        &[
            &e(0x8a, &[b"LD/C$CO$P"]),
            &e(0x85, &[&[0]]),
            &e(0xa2, &[&e(0x85, &[&[3]]), &e(0x89, &[])]),
            &e(0x86, &[&[4]]),
            &e(0x85, &[&[10]]),
        ],
    );
    let reason_name = e(0x30, &[&e(0xa0, &[&e(0x80, &[b"LastApplError"])])]);
    let end = e(0xa0, &[&e(0xa0, &[&reason_name]), &e(0xa0, &[&reason])]);
    vec![
        response(&e(0xa2, &[&e(0x80, &[b"v"]), &e(0x81, &[b"m"]), &e(0x82, &[b"1"])])),
        response(&e(0xa1, &[&e(0xa0, &[&e(0x1a, &[b"LLN0"]), &e(0x1a, &[b"A1"])]), &e(0x81, &[&[1]])])),
        response(&e(0xa6, &[&e(0x80, &[&[0]]), &kind])),
        response(&e(0xac, &[&e(0x80, &[&[0]]), &e(0xa1, &[&variable])])),
        response(&e(0xa4, &[&e(0xa1, &[&e(0x83, &[&[1]])])])),
        response(&e(0xa5, &[&e(0x81, &[])])),
        e(0xa2, &[&e(0x80, &[&[1]]), &e(0xa2, &[&e(0xa0, &[&e(0x87, &[&[2]])])])]),
        e(0xa3, &[&report]),
        e(0xa3, &[&end]),
    ]
}

fn requests() -> Vec<Request> {
    let name = Name::new("LD", "A");
    vec![
        Request::Identify,
        Request::NameList { listing: Listing::Variables, domain: "LD".into(), after: None },
        Request::TypeOf(name.clone()),
        Request::DataSet(name.clone()),
        Request::Read(vec![name.clone()]),
        Request::Write(vec![(name, busbar_iec61850::Value::Boolean(true))]),
    ]
}

#[test]
fn the_seeds_are_whole() {
    let seeds = seeds();
    for (request, seed) in requests().iter().zip(&seeds) {
        let answer = request.answer(seed);
        assert!(answer.is_ok(), "{request:?}: {answer:?}");
    }
    let refused = Request::Identify.answer(&seeds[6]).unwrap_err();
    assert_eq!(refused.to_string(), "refused Identify: service error access/2 (object non-existent)");
    let Ok(Unsolicited::Report(report)) = Unsolicited::read(&seeds[7]) else { panic!("no report") };
    assert_eq!((report.id.as_str(), report.members), ("r", 1));
    let Ok(Unsolicited::Reason(reason)) = Unsolicited::read(&seeds[8]) else { panic!("no reason") };
    assert_eq!(reason.cause.to_string(), "AddCause 10 (blocked-by-interlocking)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(61850), ..ProptestConfig::default() })]

    /// Damaged PDUs are an answer or an error for every request, and never a panic.
    #[test]
    fn damaged_pdus_are_answers_or_errors(
        seed in 0_usize..9,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut pdu = seeds()[seed].clone();
        for (place, octet) in damage {
            let place = place.index(pdu.len());
            pdu[place] = octet;
        }
        pdu.truncate(1 + cut.index(pdu.len()));
        for request in requests() {
            let _ = request.answer(&pdu);
        }
        let _ = Unsolicited::read(&pdu);
    }

    /// Damaged dialogues end or go on; what was asked has exactly one end either way.
    #[test]
    fn damaged_dialogues_end_or_go_on(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        step in 1_usize..64,
        which in 0_usize..6,
    ) {
        let mut pair = pair();
        let request = requests().swap_remove(which);
        pair.session.submit(pair.now, request).unwrap();
        pair.pump();
        let (id, _) = pair.requests.remove(0);
        let mut pdu = seeds()[which].clone();
        if let Some(place) = pdu.windows(2).position(|w| w == [2, 1]) {
            pdu[place + 2] = u8::try_from(id).unwrap();
        }
        pair.peer.send_encoded(&pdu).unwrap();
        let mut stream = Vec::new();
        while let Some(packet) = pair.peer.poll_transmit() {
            stream.extend_from_slice(packet);
        }
        for (place, octet) in damage {
            let place = place.index(stream.len());
            stream[place] = octet;
        }
        for part in stream.chunks(step) {
            pair.deliver(part);
        }
        pair.tick(Settings::default().response_timeout);
        pair.session.abort("done");
        while let Some(event) = pair.session.event(pair.now) {
            pair.events.push(event);
        }
        let ends = pair.events.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
        prop_assert_eq!(ends, 1, "{:?}", pair.events);
        prop_assert!(matches!(pair.events.last(), Some(Event::Closed(_))));
    }

    /// Anything at all during the handshake.
    #[test]
    fn noise_instead_of_a_handshake(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut session = Session::new(Settings::default());
        session.start(Duration::ZERO);
        let mut framed = vec![3, 0];
        framed.extend(u16::try_from(noise.len() + 4).unwrap().to_be_bytes());
        framed.extend(noise);
        session.receive(&framed);
        while session.event(Duration::ZERO).is_some() {}
    }
}
