//! Discovery against a scripted device: pages, refusals, contradictions, a kept model.

use std::collections::BTreeMap;

use busbar_iec61850::discover::Discovery;
use busbar_iec61850::error::{AccessError, Error, Refusal};
use busbar_iec61850::kind::{Kind, Member};
use busbar_iec61850::model::Model;
use busbar_iec61850::request::{Answer, Identity, Listing};
use busbar_iec61850::{Address, Name, Request, Value};

fn structure(members: &[(&str, Kind)]) -> Kind {
    let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
    Kind::Structure(members.iter().map(member).collect())
}

fn sps() -> Kind {
    structure(&[("stVal", Kind::Boolean), ("q", Kind::Bits(-13)), ("t", Kind::Time)])
}

struct Device {
    domains: BTreeMap<&'static str, Vec<&'static str>>,
    sets: Vec<&'static str>,
    page: usize,
    /// Types; everything else is refused.
    kinds: BTreeMap<&'static str, Kind>,
    revision: &'static str,
    stuck: bool,
    asked: Vec<Request>,
}

impl Device {
    fn new() -> Self {
        let names = vec![
            "GGIO1",
            "GGIO1$ST",
            "GGIO1$ST$Ind1",
            "GGIO1$ST$Ind10",
            "LLN0",
            "LLN0$DC",
            "LLN0$DC$NamPlt",
            "LLN0$DC$NamPlt$configRev",
        ];
        let ggio = structure(&[("ST", structure(&[("Ind1", sps()), ("Ind10", sps())]))]);
        let plate =
            structure(&[("DC", structure(&[("NamPlt", structure(&[("configRev", Kind::Text(-255))]))]))]);
        Self {
            domains: [("LD1", names.clone()), ("LD2", names)].into(),
            sets: vec!["LLN0$ds"],
            page: 3,
            kinds: [("GGIO1", ggio), ("LLN0", plate)].into(),
            revision: "1",
            stuck: false,
            asked: Vec::new(),
        }
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Error> {
        self.asked.push(request.clone());
        let refusal = Refusal::Service { class: 7, code: 2 };
        let refused = Err(Error::Refused { service: "GetVariableAccessAttributes", refusal });
        match request {
            Request::Identify => Ok(Answer::Identity(Identity::default())),
            Request::NameList { listing: Listing::Domains, .. } => {
                Ok(Answer::Names { names: self.domains.keys().map(|s| (*s).into()).collect(), more: false })
            }
            Request::NameList { listing: Listing::Variables, domain, after } => {
                let all = &self.domains[domain.as_str()];
                let from = match after {
                    Some(after) if !self.stuck => all.iter().position(|n| n == after).unwrap() + 1,
                    _ => 0,
                };
                let names = all[from..].iter().take(self.page).map(|s| (*s).into()).collect();
                Ok(Answer::Names { names, more: from + self.page < all.len() })
            }
            Request::NameList { .. } => {
                Ok(Answer::Names { names: self.sets.iter().map(|s| (*s).into()).collect(), more: false })
            }
            Request::Read(names) => Ok(Answer::Values(
                names.iter().map(|_| Ok(Value::VisibleString(self.revision.into()))).collect(),
            )),
            Request::TypeOf(name) => match self.kinds.get(name.item.as_str()) {
                Some(kind) => Ok(Answer::Type(kind.clone())),
                None => refused,
            },
            Request::DataSet(name) => {
                Ok(Answer::Members(vec![Some(Name::new(name.domain.clone(), "GGIO1$ST$Ind1")), None]))
            }
            Request::Write(writes) => {
                Ok(Answer::Written(writes.iter().map(|_| Err(AccessError(3))).collect()))
            }
        }
    }

    fn discover(&mut self, kept: Option<Model>) -> Result<(Model, usize), Error> {
        self.run(Discovery::new(kept))
    }

    fn run(&mut self, mut run: Discovery) -> Result<(Model, usize), Error> {
        let mut under_way = Vec::new();
        loop {
            while let Some(request) = run.next_request() {
                under_way.push(request);
            }
            // Newest first: answers may come in any order.
            let request = under_way.pop().unwrap();
            let outcome = self.answer(&request);
            if let Some(model) = run.answer(&request, outcome)? {
                assert!(under_way.is_empty());
                return Ok((model, run.left_out()));
            }
        }
    }
}

#[test]
fn everything_is_found_over_all_pages() {
    let mut device = Device::new();
    let (model, left_out) = device.discover(None).unwrap();
    assert_eq!(left_out, 0);
    assert_eq!(model.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["LD1", "LD2"]);
    let ind10 = Name::new("LD2", "GGIO1$ST$Ind10");
    assert_eq!(model.kind(&ind10), Some(&sps()));
    assert_eq!(model.kind(&ind10.child("stVal")), Some(&Kind::Boolean));
    assert_eq!(model.kind(&Name::new("LD2", "GGIO1$ST$Ind100")), None);
    let set = model.data_set(&Name::new("LD1", "LLN0$ds")).unwrap();
    assert_eq!(set.members, [Some(Name::new("LD1", "GGIO1$ST$Ind1")), None]);
}

#[test]
fn a_kept_model_is_used_while_the_signature_is_the_same() {
    let mut device = Device::new();
    let (model, _) = device.discover(None).unwrap();
    let text = serde_json::to_string(&model).unwrap();
    let kept: Model = serde_json::from_str(&text).unwrap();
    assert_eq!(kept, model);
    device.asked.clear();
    assert_eq!(device.discover(Some(kept.clone())).unwrap().0, model);
    assert!(!device.asked.iter().any(|request| matches!(request, Request::TypeOf(_))));

    device.revision = "2";
    let (changed, _) = device.discover(Some(kept.clone())).unwrap();
    assert_ne!(changed.signature, model.signature);
    assert!(device.asked.iter().any(|request| matches!(request, Request::TypeOf(_))));

    let mut renamed = Device::new();
    renamed.domains.get_mut("LD1").unwrap()[3] = "GGIO1$ST$Ind11";
    assert_ne!(renamed.discover(Some(kept)).unwrap().0.signature, model.signature);
}

#[test]
fn a_node_too_large_is_found_in_parts() {
    let mut device = Device::new();
    device.kinds.remove("GGIO1");
    device.kinds.insert("GGIO1$ST$Ind1", sps());
    let (model, left_out) = device.discover(None).unwrap();
    // Ind10 is refused even alone, in both logical devices.
    assert_eq!(left_out, 2);
    assert_eq!(model.kind(&Name::new("LD1", "GGIO1$ST$Ind1")), Some(&sps()));
    assert_eq!(model.kind(&Name::new("LD1", "GGIO1$ST$Ind10")), None);
    assert!(model.kind(&Name::new("LD1", "LLN0$DC$NamPlt")).is_some());
}

#[test]
fn a_list_that_goes_in_circles_ends() {
    let mut device = Device::new();
    device.stuck = true;
    let error = device.discover(None).unwrap_err();
    assert_eq!(error.to_string(), "model discovery: expected further names, got a page that does not go on");
}

#[test]
fn a_lost_device_ends_the_discovery() {
    let mut run = Discovery::new(None);
    let request = run.next_request().unwrap();
    let lost = Err(Error::SessionOver("gone".to_owned()));
    assert!(matches!(run.answer(&request, lost), Err(Error::SessionOver(_))));
}

#[test]
fn only_what_is_configured_is_asked_for() {
    let mut device = Device::new();
    device.domains.insert("LD3", vec!["LLN0", "LLN0$RP", "LLN0$RP$urcb01", "GGIO1"]);
    let address = Address::parse("LD1/GGIO1.Ind1").unwrap();
    let types = |device: &Device| -> Vec<String> {
        let asked = device.asked.iter().filter_map(|request| match request {
            Request::TypeOf(name) => Some(name.to_string()),
            _ => None,
        });
        let mut asked: Vec<String> = asked.collect();
        asked.sort();
        asked
    };
    let (model, _) = device.run(Discovery::of(None, [&address])).unwrap();
    assert_eq!(types(&device), ["LD1/GGIO1", "LD3/LLN0"], "the node configured, and one that reports");
    assert!(model.kind(&Name::new("LD1", "GGIO1$ST$Ind1")).is_some());

    // The same nodes again: nothing to ask. One more: the kept model does not suffice.
    device.asked.clear();
    assert_eq!(device.run(Discovery::of(Some(model.clone()), [&address])).unwrap().0, model);
    assert!(types(&device).is_empty());
    let other = Address::parse("LD2/GGIO1.Ind1").unwrap();
    let (more, _) = device.run(Discovery::of(Some(model.clone()), [&address, &other])).unwrap();
    assert_eq!(types(&device), ["LD1/GGIO1", "LD2/GGIO1", "LD3/LLN0"]);
    assert_eq!(more.signature, model.signature);
    // A node the device does not have is no reason to ask again.
    device.asked.clear();
    let absent = Address::parse("LD1/XCBR9.Pos").unwrap();
    device.run(Discovery::of(Some(model), [&address, &absent])).unwrap();
    assert!(types(&device).is_empty());
}
