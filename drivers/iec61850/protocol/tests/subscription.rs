//! Control blocks: choosing, taking, giving back, following, feeding points.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

use std::collections::BTreeMap;

use busbar_iec61850::error::{AccessError, Error};
use busbar_iec61850::kind::{Kind, Member};
use busbar_iec61850::model::{DataSet, Group, LogicalDevice, LogicalNode, Model, Signature};
use busbar_iec61850::point::{Cause, Point, Scalar, resolve};
use busbar_iec61850::quality::Quality;
use busbar_iec61850::report::{Entry, OptFlds, ReasonCode, Report, TrgOps};
use busbar_iec61850::request::{Answer, Identity};
use busbar_iec61850::subscription::{
    Availability, Block, Feed, Follower, Gap, Outcome, Resume, Subscribe, Subscription, Taken, Wishes, choose,
};
use busbar_iec61850::{Address, Fc, Name, Request, Value};

fn s(members: &[(&str, Kind)]) -> Kind {
    let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
    Kind::Structure(members.iter().map(member).collect())
}

fn sps() -> Kind {
    s(&[("stVal", Kind::Boolean), ("q", Kind::Bits(-13)), ("t", Kind::Time)])
}

fn block_kind(buffered: bool) -> Kind {
    let mut members = vec![
        ("RptID", Kind::Text(-129)),
        ("RptEna", Kind::Boolean),
        ("DatSet", Kind::Text(-129)),
        ("ConfRev", Kind::Unsigned(32)),
        ("OptFlds", Kind::Bits(-10)),
        ("BufTm", Kind::Unsigned(32)),
        ("SqNum", Kind::Unsigned(if buffered { 16 } else { 8 })),
        ("TrgOps", Kind::Bits(-6)),
        ("IntgPd", Kind::Unsigned(32)),
        ("GI", Kind::Boolean),
    ];
    if buffered {
        members.push(("PurgeBuf", Kind::Boolean));
        members.push(("EntryID", Kind::Octets(8)));
        members.push(("ResvTms", Kind::Integer(16)));
    } else {
        members.insert(2, ("Resv", Kind::Boolean));
    }
    s(&members)
}

/// A device with one control block, whose attributes are written and read back.
struct Device {
    name: Name,
    kind: Kind,
    values: BTreeMap<String, Value>,
    refuses: Vec<&'static str>,
    written: Vec<String>,
}

impl Device {
    fn new(buffered: bool) -> Self {
        let kind = block_kind(buffered);
        let values = kind.members().iter().map(|member| {
            let value = match (member.name.as_str(), &member.kind) {
                ("DatSet", _) => Value::VisibleString("LD/LLN0$ds".into()),
                ("OptFlds", _) => OptFlds::NONE.to_value(),
                ("TrgOps", _) => TrgOps::NONE.to_value(),
                (_, Kind::Boolean) => Value::Boolean(false),
                (_, Kind::Text(_)) => Value::VisibleString(String::new()),
                (_, Kind::Octets(_)) => Value::OctetString(vec![0; 8]),
                (_, Kind::Integer(_)) => Value::Integer(0),
                _ => Value::Unsigned(1),
            };
            (member.name.clone(), value)
        });
        let item = if buffered { "LLN0$BR$b01" } else { "LLN0$RP$u01" };
        Self { name: Name::new("LD", item), values: values.collect(), kind, refuses: vec![], written: vec![] }
    }

    fn whole(&self) -> Value {
        Value::Structure(self.kind.members().iter().map(|m| self.values[&m.name].clone()).collect())
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Error> {
        Ok(match request {
            Request::Read(names) if names[0] == self.name => Answer::Values(vec![Ok(self.whole())]),
            Request::Read(names) => {
                let attribute = names[0].components().last().unwrap();
                Answer::Values(vec![Ok(self.values[attribute].clone())])
            }
            Request::DataSet(name) => {
                assert_eq!(name, &Name::new("LD", "LLN0$ds"));
                Answer::Members(vec![Some(Name::new("LD", "GGIO1$ST$Ind1"))])
            }
            Request::Write(writes) => {
                let attribute = writes[0].0.components().last().unwrap().to_owned();
                self.written.push(attribute.clone());
                if self.refuses.contains(&attribute.as_str()) {
                    return Ok(Answer::Written(vec![Err(AccessError(3))]));
                }
                self.values.insert(attribute, writes[0].1.clone());
                Answer::Written(vec![Ok(())])
            }
            other => panic!("{other:?}"),
        })
    }

    fn subscribe(&mut self, wishes: Wishes) -> Outcome {
        let mut machine = Subscribe::new(self.name.clone(), self.kind.clone(), wishes);
        for _ in 0..40 {
            let answer = self.answer(&machine.request());
            if let Some(outcome) = machine.answer(answer).unwrap() {
                return outcome;
            }
        }
        panic!("no outcome after {:?}", self.written)
    }

    fn subscribed(&mut self, wishes: Wishes) -> Subscription {
        match self.subscribe(wishes) {
            Outcome::Subscribed(subscription) => *subscription,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unbuffered_block_is_reserved_set_enabled_and_interrogated() {
    let mut device = Device::new(false);
    let subscription = device.subscribed(Wishes::default());
    assert_eq!(device.written, ["Resv", "OptFlds", "TrgOps", "IntgPd", "RptEna", "GI"]);
    assert!(subscription.interrogated && subscription.refused.is_empty());
    assert_eq!(subscription.block.id, "LD/LLN0$RP$u01", "an empty RptID means the reference");
    assert_eq!(subscription.block.integrity_ms, 60_000);
    assert_eq!(subscription.block.sequence_bits, 8);
    assert!(subscription.block.triggers.quality_change() && subscription.block.options.segmentation());
    assert!(!subscription.block.options.entry_id());
    assert_eq!(subscription.members, [Some(Name::new("LD", "GGIO1$ST$Ind1"))]);

    let first = Report { id: subscription.block.id.clone(), members: 1, ..report(0) };
    assert!(matches!(Follower::of(&subscription).take(first), Taken::Complete(_, None)));
    let probe = device.answer(&subscription.probe()).unwrap();
    assert!(Subscription::lives(&probe));
    device.written.clear();
    for request in subscription.release() {
        device.answer(&request).unwrap();
    }
    assert_eq!(device.written, ["RptEna", "Resv"]);
    assert!(!Subscription::lives(&device.answer(&subscription.probe()).unwrap()));
}

#[test]
fn a_buffered_block_goes_on_after_its_entry() {
    let mut device = Device::new(true);
    let wishes = Wishes { resume: Resume::After(vec![1, 2, 3, 4, 5, 6, 7, 8]), ..Wishes::default() };
    let subscription = device.subscribed(wishes.clone());
    assert_eq!(
        device.written,
        ["ResvTms", "OptFlds", "TrgOps", "IntgPd", "EntryID", "RptEna", "GI"],
        "the entry before enabling, or the device sends everything"
    );
    assert_eq!(subscription.resumed, Some(true));
    assert!(subscription.block.options.entry_id() && subscription.block.options.buffer_overflow());
    assert_eq!(device.values["EntryID"], Value::OctetString(vec![1, 2, 3, 4, 5, 6, 7, 8]));

    let mut unknown = Device::new(true);
    unknown.refuses = vec!["EntryID"];
    assert_eq!(unknown.subscribed(wishes).resumed, Some(false), "an unknown entry is a gap");

    let mut purging = Device::new(true);
    purging.subscribed(Wishes { resume: Resume::Purge, buffer_ms: Some(100), ..Wishes::default() });
    assert!(purging.written.contains(&"PurgeBuf".to_owned()));
    assert_eq!(purging.values["BufTm"], Value::Unsigned(100));
    let mut plain = Device::new(true);
    assert_eq!(plain.subscribed(Wishes::default()).resumed, None);
    assert!(!plain.written.contains(&"PurgeBuf".to_owned()), "never purged unasked");
}

#[test]
fn what_is_taken_is_left_alone() {
    let mut enabled = Device::new(true);
    enabled.values.insert("RptEna".into(), Value::Boolean(true));
    assert_eq!(enabled.subscribe(Wishes::default()), Outcome::Busy);
    assert!(enabled.written.is_empty());

    let mut reserved = Device::new(false);
    reserved.values.insert("Resv".into(), Value::Boolean(true));
    assert_eq!(reserved.subscribe(Wishes::default()), Outcome::Busy);
    assert!(reserved.written.is_empty());

    // Between our read and our write somebody was faster.
    let mut lost = Device::new(true);
    lost.refuses = vec!["ResvTms"];
    assert_eq!(lost.subscribe(Wishes::default()), Outcome::Busy);
    assert_eq!(lost.written, ["ResvTms"]);
}

#[test]
fn what_cannot_be_used_is_given_back() {
    let mut fixed = Device::new(false);
    fixed.refuses = vec!["TrgOps", "IntgPd"];
    let Outcome::Unusable(reason) = fixed.subscribe(Wishes::default()) else { panic!() };
    assert_eq!(reason, "its triggers are fixed without data change");
    assert_eq!(fixed.values["RptEna"], Value::Boolean(false));
    assert_eq!(fixed.values["Resv"], Value::Boolean(false));

    let mut engineered = Device::new(false);
    engineered.refuses = vec!["TrgOps", "IntgPd"];
    engineered.values.insert("TrgOps".into(), TrgOps::NONE.with_data_change(true).to_value());
    let subscription = engineered.subscribed(Wishes::default());
    assert_eq!(subscription.refused, ["TrgOps", "IntgPd"]);
    assert!(!subscription.interrogated, "its triggers do not interrogate: the points must be read");

    let mut refusing = Device::new(false);
    refusing.refuses = vec!["RptEna"];
    let Outcome::Unusable(reason) = refusing.subscribe(Wishes::default()) else { panic!() };
    assert_eq!(reason, "the device does not enable it: data access error 3 (object access denied)");
    assert_eq!(refusing.values["Resv"], Value::Boolean(false));

    let mut empty = Device::new(false);
    empty.values.insert("DatSet".into(), Value::VisibleString(String::new()));
    assert_eq!(empty.subscribe(Wishes::default()), Outcome::Unusable("it has no data set".to_owned()));
}

fn model() -> Model {
    let ggio = LogicalNode {
        name: "GGIO1".into(),
        groups: vec![Group { fc: Fc::ST, objects: s(&[("Ind1", sps()), ("Ind2", sps()), ("Ind10", sps())]) }],
    };
    let set = |name: &str, members: &[&str]| DataSet {
        name: Name::new("LD", name),
        members: members.iter().map(|item| Some(Name::new("LD", *item))).collect(),
    };
    let data_sets = vec![
        set("LLN0$small", &["GGIO1$ST$Ind1"]),
        set("GGIO1$large", &["GGIO1$ST$Ind1$stVal", "GGIO1$ST$Ind1$q", "GGIO1$ST$Ind10"]),
        set("LLN0$bare", &["GGIO1$ST$Ind2$stVal"]),
    ];
    let device = LogicalDevice { name: "LD".into(), nodes: vec![ggio], data_sets };
    Model { signature: Signature("0".into()), identity: Identity::default(), devices: vec![device] }
}

fn points() -> Vec<Point> {
    ["Ind1", "Ind2", "Ind10"]
        .iter()
        .map(|object| {
            resolve(&model(), &Address::parse(&format!("LD/GGIO1.{object}")).unwrap(), None).unwrap()
        })
        .collect()
}

fn block(item: &str, set: &str, change: impl FnOnce(&mut Device)) -> Block {
    let mut device = Device::new(item.contains("$BR$"));
    device.values.insert("DatSet".into(), Value::VisibleString(format!("LD/{set}")));
    change(&mut device);
    Block::read(&Name::new("LD", item), &device.kind, &device.whole()).unwrap()
}

#[test]
fn data_sets_are_chosen_by_what_they_serve() {
    let busy = |device: &mut Device| {
        device.values.insert("RptEna".into(), Value::Boolean(true));
    };
    let preassigned = |device: &mut Device| {
        device.values.insert("ResvTms".into(), Value::Integer(-1));
    };
    let blocks = [
        block("LLN0$BR$small01", "LLN0$small", |_| {}),
        block("GGIO1$RP$large01", "GGIO1$large", |_| {}),
        block("GGIO1$BR$large01", "GGIO1$large", busy),
        block("GGIO1$BR$large02", "GGIO1$large", preassigned),
        block("GGIO1$BR$large03", "GGIO1$large", |_| {}),
        block("LLN0$RP$bare01", "LLN0$bare", |_| {}),
    ];
    assert_eq!(blocks[2].availability(), Availability::Busy);
    let choices = choose(&model(), &blocks, &points());
    assert_eq!(choices.len(), 1, "Ind2 comes without its quality and is polled: {choices:?}");
    assert_eq!(choices[0].data_set.item, "GGIO1$large");
    assert_eq!(choices[0].points, [0, 2]);
    let items: Vec<_> = choices[0].blocks.iter().map(|name| name.item.as_str()).collect();
    assert_eq!(items, ["GGIO1$BR$large03", "GGIO1$RP$large01", "GGIO1$BR$large02"]);

    let all_busy = [block("GGIO1$BR$large01", "GGIO1$large", busy)];
    let choices = choose(&model(), &all_busy, &points());
    assert!(choices[0].blocks.is_empty(), "known, and to be tried later");
}

fn report(sequence: u32) -> Report {
    Report {
        id: "r".into(),
        options: OptFlds::NONE,
        sequence: Some(sequence),
        time_of_entry_ms: Some(7_000),
        data_set: None,
        overflow: false,
        entry_id: None,
        revision: Some(1),
        segment: None,
        more: false,
        members: 3,
        entries: vec![],
    }
}

fn entry(index: usize, value: Value) -> Entry {
    Entry { index, reference: None, value: Ok(value), reason: Some(ReasonCode::NONE.with_data_change(true)) }
}

fn segment(sequence: u32, segment: u32, more: bool) -> Report {
    let entries = vec![entry(usize::try_from(segment).unwrap() % 3, Value::Boolean(true))];
    Report { segment: Some(segment), more, entries, ..report(sequence) }
}

fn gap(taken: Taken) -> Option<Gap> {
    match taken {
        Taken::Complete(_, gap) => gap,
        Taken::Lost(gap) => Some(gap),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_of_reports_are_followed_over_their_wrap() {
    let mut follower = Follower::new("r", Some(&Name::new("LD", "LLN0$ds")), 3, Some(1), 8);
    for sequence in [254, 255, 0, 1] {
        assert_eq!(gap(follower.take(report(sequence))), None, "{sequence}");
    }
    assert_eq!(gap(follower.take(report(4))), Some(Gap::Sequence { expected: 2, got: 4 }));
    assert_eq!(gap(follower.take(report(5))), None);
    assert_eq!(gap(follower.take(report(5))), Some(Gap::Sequence { expected: 6, got: 5 }));
    let overflow = Report { overflow: true, ..report(6) };
    assert_eq!(gap(follower.take(overflow)), Some(Gap::Overflow));
    let mut wide = Follower::new("r", Some(&Name::new("LD", "LLN0$ds")), 3, Some(1), 16);
    wide.take(report(255));
    assert_eq!(gap(wide.take(report(256))), None);
    wide.take(report(65_534));
    wide.take(report(65_535));
    assert_eq!(gap(wide.take(report(1))), None, "some devices begin again with 1");
}

#[test]
fn reports_of_others_and_of_another_engineering_are_not_used() {
    let mut follower = Follower::new("r", Some(&Name::new("LD", "LLN0$ds")), 3, Some(1), 8);
    let other = Report { id: "r2".into(), ..report(0) };
    assert_eq!(follower.take(other.clone()), Taken::NotMine(other));
    let same_name = Report { data_set: Some("LD/LLN0$ds2".into()), members: 9, ..report(0) };
    assert_eq!(follower.take(same_name.clone()), Taken::NotMine(same_name));
    assert_eq!(gap(follower.take(Report { data_set: Some("LD/LLN0$ds".into()), ..report(0) })), None);
    let revised = gap(follower.take(Report { revision: Some(2), ..report(0) })).unwrap();
    assert_eq!(revised, Gap::Revision { expected: 1, got: 2 });
    assert!(revised.needs_subscription());
    let longer = gap(follower.take(Report { members: 4, ..report(0) })).unwrap();
    assert_eq!(longer, Gap::Members { expected: 3, got: 4 });
}

#[test]
fn segments_are_put_together_or_dropped() {
    let mut follower = Follower::new("r", Some(&Name::new("LD", "LLN0$ds")), 3, Some(1), 8);
    assert_eq!(follower.take(segment(9, 0, true)), Taken::Partial);
    assert_eq!(follower.take(segment(9, 1, true)), Taken::Partial);
    let Taken::Complete(whole, None) = follower.take(segment(9, 2, false)) else { panic!() };
    assert_eq!(whole.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 1, 2]);

    assert_eq!(gap(follower.take(segment(10, 1, false))), Some(Gap::Segments), "the end alone is no report");
    assert_eq!(follower.take(segment(11, 0, true)), Taken::Partial);
    assert_eq!(gap(follower.take(segment(11, 2, true))), Some(Gap::Segments), "one is missing");
    assert_eq!(follower.take(segment(12, 0, true)), Taken::Partial);
    assert_eq!(gap(follower.take(segment(13, 0, false))), Some(Gap::Segments), "the end never came");
    assert_eq!(follower.take(segment(14, 0, true)), Taken::Partial);
    assert_eq!(gap(follower.take(report(15))), Some(Gap::Segments));
}

#[test]
fn a_report_without_end_is_bounded() {
    let mut follower = Follower::new("r", Some(&Name::new("LD", "LLN0$ds")), 3, Some(1), 8);
    let mut lost = 0;
    for number in 0..20_000 {
        if let Taken::Lost(Gap::Segments) = follower.take(segment(1, number, true)) {
            lost += 1;
        }
    }
    assert!(lost > 0);
}

#[test]
fn members_feed_their_points_and_no_other() {
    let model = model();
    let members = model.data_set(&Name::new("LD", "GGIO1$large")).unwrap().members.clone();
    let (mut feed, left_out) = Feed::new(members, points().into_iter().enumerate());
    assert_eq!(left_out, [1]);
    let quality = |octet| Value::BitString { unused: 3, bytes: vec![octet, 0] };
    let whole = Report {
        entries: vec![
            entry(0, Value::Boolean(true)),
            entry(1, quality(0)),
            entry(2, Value::Structure(vec![Value::Boolean(false), quality(0x40), Value::Boolean(true)])),
        ],
        ..report(0)
    };
    let arrivals = feed.apply(&whole);
    assert_eq!(arrivals.len(), 2);
    assert_eq!((arrivals[0].point, arrivals[1].point), (0, 2));
    assert_eq!(arrivals[0].reading.value, Some(Scalar::Bool(true)));
    assert_eq!(arrivals[0].cause, Some(Cause::DataChange));
    assert_eq!(arrivals[0].reading.time.unwrap().unix_ns, 7_000_000_000, "the data set brings no t");
    assert_eq!(
        (arrivals[1].reading.value.clone(), arrivals[1].reading.quality),
        (Some(Scalar::Bool(false)), Quality(1))
    );

    // Quality alone, of one point.
    let mut alone = entry(1, quality(0x40));
    alone.reason = Some(ReasonCode::NONE.with_quality_change(true));
    let arrivals = feed.apply(&Report { entries: vec![alone], ..report(1) });
    assert_eq!(arrivals.len(), 1);
    assert_eq!(
        (arrivals[0].reading.value.clone(), arrivals[0].reading.quality),
        (Some(Scalar::Bool(true)), Quality(1))
    );
    assert_eq!(arrivals[0].cause, Some(Cause::QualityChange));

    // Integrity: a time of entry says nothing about the value.
    let mut again = entry(0, Value::Boolean(true));
    again.reason = Some(ReasonCode::NONE.with_integrity(true));
    let arrivals = feed.apply(&Report { entries: vec![again], ..report(2) });
    assert_eq!((arrivals[0].cause, arrivals[0].reading.time), (Some(Cause::Integrity), None));

    // A member the device could not read.
    let failed = Entry { value: Err(AccessError(1)), ..entry(0, Value::Boolean(true)) };
    let arrivals = feed.apply(&Report { entries: vec![failed], ..report(3) });
    assert_eq!(arrivals[0].reading.value, None);

    // A place beyond the data set feeds nothing.
    assert_eq!(feed.apply(&Report { entries: vec![entry(99, Value::Boolean(true))], ..report(4) }), []);
}
