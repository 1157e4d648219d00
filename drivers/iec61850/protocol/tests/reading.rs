//! Polling in groups, and listing what a device offers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

use std::collections::BTreeMap;

use busbar_iec61850::error::{AccessError, Error, Refusal};
use busbar_iec61850::kind::{Kind, Member};
use busbar_iec61850::listing::list;
use busbar_iec61850::model::{Group, LogicalDevice, LogicalNode, Model, Signature};
use busbar_iec61850::point::{Cdc, Point, Scalar, resolve};
use busbar_iec61850::poll::{Poll, Polled};
use busbar_iec61850::request::{Answer, Identity};
use busbar_iec61850::{Address, Fc, Request, Value};
use iec61850_rs::{TimeQuality, UtcTime};

fn s(members: &[(&str, Kind)]) -> Kind {
    let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
    Kind::Structure(members.iter().map(member).collect())
}

fn with_qt(value: &[(&str, Kind)]) -> Kind {
    s(&[value, &[("q", Kind::Bits(-13)), ("t", Kind::Time)]].concat())
}

fn node(name: &str, groups: Vec<(Fc, Kind)>) -> LogicalNode {
    let groups = groups.into_iter().map(|(fc, objects)| Group { fc, objects }).collect();
    LogicalNode { name: name.into(), groups }
}

fn model() -> Model {
    let inds: Vec<(String, Kind)> =
        (0..100).map(|i| (format!("Ind{i}"), with_qt(&[("stVal", Kind::Boolean)]))).collect();
    let inds: Vec<(&str, Kind)> = inds.iter().map(|(name, kind)| (name.as_str(), kind.clone())).collect();
    let cmv = with_qt(&[("cVal", s(&[("mag", s(&[("f", Kind::Float32)]))]))]);
    let pos = with_qt(&[("stVal", Kind::Bits(2))]);
    let odd = with_qt(&[
        ("hst", Kind::Array { count: 3, element: Box::new(Kind::Integer(32)) }),
        ("num", Kind::Integer(32)),
    ]);
    let nodes = vec![
        node("GGIO1", vec![(Fc::ST, s(&inds))]),
        node(
            "CSWI1",
            vec![
                (Fc::ST, s(&[("Pos", pos), ("Odd", odd)])),
                (Fc::CO, s(&[("Pos", s(&[("Oper", s(&[("ctlVal", Kind::Boolean)]))]))])),
            ],
        ),
        node("MMXU1", vec![(Fc::MX, s(&[("A", s(&[("phsA", cmv.clone()), ("phsB", cmv)]))]))]),
    ];
    let device = LogicalDevice { name: "LD".into(), nodes, data_sets: vec![] };
    Model { signature: Signature("0".into()), identity: Identity::default(), devices: vec![device] }
}

fn point(address: &str) -> Point {
    resolve(&model(), &Address::parse(address).unwrap(), None).unwrap()
}

fn inds(count: usize) -> impl Iterator<Item = (usize, Point)> {
    let model = model();
    (0..count).map(move |i| {
        let address = Address::parse(&format!("LD/GGIO1.Ind{i}")).unwrap();
        (1_000 + i, resolve(&model, &address, None).unwrap())
    })
}

fn on() -> Value {
    Value::Structure(vec![
        Value::Boolean(true),
        Value::BitString { unused: 3, bytes: vec![0, 0] },
        Value::UtcTime(UtcTime::from_unix(1, 0, TimeQuality::SYNCHRONIZED)),
    ])
}

/// Runs one round; the number of requests, and what became of every point.
fn round(
    poll: &mut Poll,
    mut answer: impl FnMut(&Request) -> Result<Answer, Error>,
) -> (usize, BTreeMap<usize, Polled>) {
    let (mut round, mut requests, mut given) = (poll.round(), 0, BTreeMap::new());
    while !round.is_complete() {
        let request = round.next_request().unwrap();
        requests += 1;
        for (number, polled) in round.answer(&request, answer(&request)).unwrap() {
            assert!(given.insert(number, polled).is_none(), "{number} came twice");
        }
    }
    (requests, given)
}

fn names(request: &Request) -> usize {
    let Request::Read(names) = request else { panic!() };
    names.len()
}

#[test]
fn points_of_one_object_share_one_variable() {
    let points = ["LD/GGIO1.Ind1", "LD/GGIO1.Ind1.q", "LD/GGIO1.Ind1.t"].map(point).into_iter().enumerate();
    let mut poll = Poll::new(points, 64_000);
    let (requests, given) = round(&mut poll, |request| {
        assert_eq!(names(request), 1);
        Ok(Answer::Values(vec![Ok(on())]))
    });
    assert_eq!((requests, given.len()), (1, 3));
    let Polled::Reading(reading) = &given[&0] else { panic!() };
    assert_eq!(reading.value, Some(Scalar::Bool(true)));
}

#[test]
fn requests_fit_the_device_and_one_refused_object_costs_itself() {
    let mut poll = Poll::new(inds(100), 64_000);
    assert_eq!(poll.requests(), 3);
    let mut small = Poll::new(inds(100), 512);
    let (_, given) = round(&mut small, |request| {
        let bytes: usize = match request {
            Request::Read(names) => names.iter().map(|n| n.domain.len() + n.item.len() + 20).sum(),
            _ => panic!(),
        };
        assert!(bytes <= 512);
        Ok(Answer::Values(vec![Ok(on()); names(request)]))
    });
    assert_eq!(given.len(), 100);

    let (requests, given) = round(&mut poll, |request| {
        let mut values = vec![Ok(on()); names(request)];
        values[0] = Err(AccessError(10));
        Ok(Answer::Values(values))
    });
    assert_eq!((requests, given.len()), (3, 100));
    let refused: Vec<_> =
        given.values().filter(|polled| matches!(polled, Polled::Refused { permanent: true, .. })).collect();
    assert_eq!(refused.len(), 3);
}

#[test]
fn a_request_refused_whole_is_halved_and_remembered() {
    let mut poll = Poll::new(inds(16), 64_000);
    let refuse = |request: &Request| {
        let Request::Read(names) = request else { panic!() };
        if names.iter().any(|name| name.item.ends_with("$Ind7")) {
            let found = "an unreadable string".to_owned();
            return Err(Error::Nonsense { service: "Read", expected: "a readable PDU".to_owned(), found });
        }
        Ok(Answer::Values(vec![Ok(on()); names.len()]))
    };
    let (first, given) = round(&mut poll, refuse);
    assert_eq!(given.len(), 16);
    assert!(matches!(&given[&1_007], Polled::Refused { permanent: false, .. }));
    assert_eq!(given.values().filter(|polled| matches!(polled, Polled::Reading(_))).count(), 15);
    let (second, given) = round(&mut poll, refuse);
    assert!(second < first, "{first}, then {second}");
    assert_eq!((second, given.len()), (poll.requests(), 16));

    let mut gone = Poll::new(inds(1), 64_000);
    let refusal = Refusal::Service { class: 7, code: 2 };
    let (_, given) = round(&mut gone, |_| Err(Error::Refused { service: "Read", refusal }));
    assert!(matches!(&given[&1_000], Polled::Refused { permanent: true, .. }));
}

#[test]
fn a_silent_device_ends_the_round_and_nothing_is_learnt() {
    let mut poll = Poll::new(inds(4), 64_000);
    let mut first = poll.round();
    let request = first.next_request().unwrap();
    let over = Err(Error::SessionOver("gone".to_owned()));
    assert!(matches!(first.answer(&request, over), Err(Error::SessionOver(_))));
    let (requests, given) = round(&mut poll, |request| Ok(Answer::Values(vec![Ok(on()); names(request)])));
    assert_eq!((requests, given.len()), (1, 4));
}

#[test]
fn everything_with_a_value_is_listed_once() {
    let offers = list(&model());
    let found = |address: &str| offers.iter().find(|offer| offer.address == address);
    assert_eq!(offers.len(), 100 + 2 + 2);
    assert_eq!(found("LD/GGIO1.Ind10").unwrap().cdc, Some(Cdc::Sps));
    let pos = found("LD/CSWI1.Pos").unwrap();
    assert_eq!((pos.name.as_str(), pos.cdc, pos.controllable), ("CSWI1.Pos", Some(Cdc::Dpc), true));
    assert_eq!(found("LD/MMXU1.A.phsB").unwrap().cdc, Some(Cdc::Cmv));
    assert!(found("LD/MMXU1.A").is_none(), "several values: its phases are listed");
    assert_eq!(found("LD/CSWI1.Odd.num").unwrap().cdc, None);
    assert!(found("LD/CSWI1.Odd.hst").is_none());
    let mut names: Vec<_> = offers.iter().map(|offer| offer.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), offers.len());
    for offer in &offers {
        assert_eq!(point(&offer.address), offer.point);
        assert!(offer.name.len() <= 64);
    }
}
