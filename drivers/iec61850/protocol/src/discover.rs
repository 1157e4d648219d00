//! Finding out what a device has, as a state machine: requests come out, answers go in.
//!
//! First every name (name lists with their continuations) and the configuration revisions: they give the
//! signature. If a kept model has the same one, it is used and the device is not asked further. Otherwise one
//! request per logical node for its type (IEC 61850-8-1 7.3.2) and one per data set for its members.
//!
//! A node whose type is refused as a whole (some are larger than a PDU) is asked for by functional constraint, then
//! by object. What is refused even then is left out and counted, so that one odd object does not cost the model.
//! A large device has hundreds of nodes, a configuration uses some: [`Discovery::of`] asks for the types of the nodes
//! named, and of those with report control blocks. Several requests may be under way at once; answers may come in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::data;
use crate::error::{Consequence, Error};
use crate::kind::Kind;
use crate::limits::{MAX_DISCOVERY_REQUESTS, MAX_DOMAINS, MAX_NAMES};
use crate::model::{DataSet, LogicalDevice, LogicalNode, Model, Signature, Signer};
use crate::name::{Address, Fc, Name};
use crate::request::{Answer, Identity, Listing, Request};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Names,
    Revisions,
    Types,
    Done,
}

#[derive(Debug, Default)]
struct Found {
    variables: Vec<String>,
    data_sets: Vec<String>,
    revision: String,
    nodes: BTreeMap<String, LogicalNode>,
    members: BTreeMap<String, Vec<Option<Name>>>,
}

/// One run of discovery.
#[derive(Debug)]
pub struct Discovery {
    phase: Phase,
    queue: VecDeque<Request>,
    under_way: usize,
    asked: usize,
    identity: Identity,
    domains: BTreeMap<String, Found>,
    kept: Option<Model>,
    /// Domains and nodes whose types are wanted; `None` for all.
    wanted: Option<BTreeSet<(String, String)>>,
    signature: Option<Signature>,
    left_out: usize,
}

impl Discovery {
    /// A run that may end early with `kept`, a model from before.
    #[must_use]
    pub fn new(kept: Option<Model>) -> Self {
        let domains = Request::NameList { listing: Listing::Domains, domain: String::new(), after: None };
        Self {
            phase: Phase::Names,
            queue: [Request::Identify, domains].into(),
            under_way: 0,
            asked: 0,
            identity: Identity::default(),
            domains: BTreeMap::new(),
            kept,
            wanted: None,
            signature: None,
            left_out: 0,
        }
    }

    /// A run for the nodes of these addresses, and those with report control blocks. `kept` is used if it has them.
    #[must_use]
    pub fn of<'a>(kept: Option<Model>, addresses: impl IntoIterator<Item = &'a Address>) -> Self {
        let wanted = addresses.into_iter().map(|address| (address.domain.clone(), address.node.clone()));
        Self { wanted: Some(wanted.collect()), ..Self::new(kept) }
    }

    /// The next request, if one can be made now. Each must come back through [`Self::answer`].
    pub fn next_request(&mut self) -> Option<Request> {
        let request = self.queue.pop_front()?;
        self.under_way += 1;
        Some(request)
    }

    /// Objects whose type the device refused, left out of the model.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Takes the answer to a request made here. The model, once it is complete.
    ///
    /// # Errors
    /// What ends the discovery: a lost device, or a device that contradicts itself.
    pub fn answer(
        &mut self,
        request: &Request,
        outcome: Result<Answer, Error>,
    ) -> Result<Option<Model>, Error> {
        self.under_way = self.under_way.saturating_sub(1);
        match outcome {
            Ok(answer) => self.learn(request, answer)?,
            Err(error) if error.consequence() == Consequence::RequestOnly => self.refused(request, error)?,
            Err(error) => return Err(error),
        }
        while self.queue.is_empty() && self.under_way == 0 && self.phase != Phase::Done {
            if let Some(model) = self.advance() {
                return Ok(Some(model));
            }
        }
        Ok(None)
    }

    fn ask(&mut self, request: Request) -> Result<(), Error> {
        self.asked += 1;
        if self.asked > MAX_DISCOVERY_REQUESTS {
            return Err(nonsense(
                "an end of the model",
                format!("more after {MAX_DISCOVERY_REQUESTS} requests"),
            ));
        }
        self.queue.push_back(request);
        Ok(())
    }

    fn learn(&mut self, request: &Request, answer: Answer) -> Result<(), Error> {
        match (request, answer) {
            (Request::Identify, Answer::Identity(identity)) => self.identity = identity,
            (Request::NameList { listing, domain, after }, Answer::Names { names, more }) => {
                self.page(*listing, domain, after.as_deref(), names, more)?;
            }
            (Request::Read(names), Answer::Values(values)) => {
                for (name, value) in names.iter().zip(values) {
                    if let (Some(found), Ok(value)) = (self.domains.get_mut(&name.domain), value) {
                        found.revision = data::text(&value).unwrap_or_default().to_owned();
                    }
                }
            }
            (Request::TypeOf(name), Answer::Type(kind)) => self.type_of(name, kind),
            (Request::DataSet(name), Answer::Members(members)) => {
                if let Some(found) = self.domains.get_mut(&name.domain) {
                    found.members.insert(name.item.clone(), members);
                }
            }
            (request, _) => {
                return Err(nonsense(
                    "an answer to the request",
                    format!("another to {}", request.service()),
                ));
            }
        }
        Ok(())
    }

    fn page(
        &mut self,
        listing: Listing,
        domain: &str,
        after: Option<&str>,
        names: Vec<String>,
        more: bool,
    ) -> Result<(), Error> {
        let last = names.last().cloned();
        if more && (last.is_none() || last.as_deref() == after) {
            return Err(nonsense("further names", "a page that does not go on".to_owned()));
        }
        let count = match listing {
            Listing::Domains => {
                for name in names {
                    self.domains.entry(name).or_default();
                }
                self.domains.len() * (MAX_NAMES / MAX_DOMAINS)
            }
            Listing::Variables | Listing::DataSets => {
                let Some(found) = self.domains.get_mut(domain) else { return Ok(()) };
                let list =
                    if listing == Listing::Variables { &mut found.variables } else { &mut found.data_sets };
                list.extend(names);
                list.len()
            }
        };
        if count > MAX_NAMES {
            return Err(nonsense(&format!("at most {MAX_NAMES} names"), "more".to_owned()));
        }
        if more {
            return self.ask(Request::NameList { listing, domain: domain.to_owned(), after: last });
        }
        if listing == Listing::Domains {
            let domains: Vec<String> = self.domains.keys().cloned().collect();
            for domain in domains {
                for listing in [Listing::Variables, Listing::DataSets] {
                    self.ask(Request::NameList { listing, domain: domain.clone(), after: None })?;
                }
            }
        }
        Ok(())
    }

    fn refused(&mut self, request: &Request, error: Error) -> Result<(), Error> {
        match request {
            Request::NameList { listing: Listing::Domains | Listing::Variables, .. } => Err(error),
            Request::TypeOf(name) => self.split(name),
            Request::DataSet(name) => {
                self.left_out += 1;
                if let Some(found) = self.domains.get_mut(&name.domain) {
                    found.data_sets.retain(|item| *item != name.item);
                }
                Ok(())
            }
            // Identity, data sets, revisions: a device may do without.
            _ => Ok(()),
        }
    }

    /// Asks for the parts of a variable whose type was refused.
    fn split(&mut self, name: &Name) -> Result<(), Error> {
        let depth = name.components().count();
        let Some(found) = self.domains.get(&name.domain) else { return Ok(()) };
        // Node, constraint, object: deeper there is nothing to gain.
        if depth >= 3 {
            self.left_out += 1;
            return Ok(());
        }
        let parts: Vec<Name> = found
            .variables
            .iter()
            .map(|item| Name::new(name.domain.clone(), item.clone()))
            .filter(|part| part.components().count() == depth + 1 && name.contains(part))
            .collect();
        if parts.is_empty() {
            self.left_out += 1;
        }
        parts.into_iter().try_for_each(|part| self.ask(Request::TypeOf(part)))
    }

    fn type_of(&mut self, name: &Name, kind: Kind) {
        let Some(found) = self.domains.get_mut(&name.domain) else { return };
        let mut parts = name.components();
        let Some(node_name) = parts.next() else { return };
        let node = found.nodes.entry(node_name.to_owned()).or_default();
        node.name = node_name.to_owned();
        match parts.next().map(Fc::parse) {
            None => {
                let Kind::Structure(groups) = kind else { return };
                for group in groups {
                    match Fc::parse(&group.name) {
                        Some(fc) => node.insert(fc, &[], group.kind),
                        None => self.left_out += 1,
                    }
                }
            }
            Some(Some(fc)) => node.insert(fc, &parts.collect::<Vec<_>>(), kind),
            Some(None) => self.left_out += 1,
        }
    }

    /// Nothing is under way: the next phase, or the model.
    fn advance(&mut self) -> Option<Model> {
        match self.phase {
            Phase::Names => {
                self.phase = Phase::Revisions;
                let revisions = self.domains.iter().filter_map(|(domain, found)| {
                    let item = "LLN0$DC$NamPlt$configRev";
                    found.variables.iter().any(|name| name == item).then(|| Name::new(domain.clone(), item))
                });
                self.queue.extend(revisions.map(|name| Request::Read(vec![name])));
                None
            }
            Phase::Revisions => {
                let signature = self.sign();
                if let Some(kept) = self.kept.take().filter(|kept| self.suffices(kept, &signature)) {
                    self.phase = Phase::Done;
                    return Some(kept);
                }
                self.signature = Some(signature);
                self.phase = Phase::Types;
                self.queue_types();
                None
            }
            Phase::Types => {
                self.phase = Phase::Done;
                Some(self.build())
            }
            Phase::Done => None,
        }
    }

    /// A kept model has the signature and every node that is wanted and there.
    fn suffices(&self, kept: &Model, signature: &Signature) -> bool {
        kept.signature == *signature
            && self.domains.iter().all(|(domain, found)| {
                let device = kept.device(domain);
                self.nodes(domain, found).all(|node| device.is_some_and(|device| device.node(node).is_some()))
            })
    }

    /// Nodes of a domain whose types are wanted.
    fn nodes<'a>(&'a self, domain: &'a str, found: &'a Found) -> impl Iterator<Item = &'a str> {
        let mut reporting = BTreeSet::new();
        if self.wanted.is_some() {
            for name in &found.variables {
                let mut parts = name.split('$');
                if let (Some(node), Some("RP" | "BR")) = (parts.next(), parts.next()) {
                    reporting.insert(node);
                }
            }
        }
        let nodes = found.variables.iter().map(String::as_str).filter(|name| !name.contains('$'));
        nodes.filter(move |node| {
            let named = |wanted: &BTreeSet<(String, String)>| {
                reporting.contains(node) || wanted.contains(&(domain.to_owned(), (*node).to_owned()))
            };
            self.wanted.as_ref().is_none_or(named)
        })
    }

    fn queue_types(&mut self) {
        let mut queue = VecDeque::new();
        for (domain, found) in &self.domains {
            let nodes = self.nodes(domain, found);
            queue.extend(nodes.map(|node| Request::TypeOf(Name::new(domain.clone(), node))));
            let sets = found.data_sets.iter();
            queue.extend(sets.map(|set| Request::DataSet(Name::new(domain.clone(), set.clone()))));
        }
        self.queue = queue;
    }

    fn sign(&self) -> Signature {
        let mut signer = Signer::default();
        for text in [&self.identity.vendor, &self.identity.model, &self.identity.revision] {
            signer.line('I', text);
        }
        for (domain, found) in &self.domains {
            signer.line('D', domain);
            signer.line('R', &found.revision);
            found.variables.iter().for_each(|name| signer.line('V', name));
            found.data_sets.iter().for_each(|name| signer.line('S', name));
        }
        signer.finish()
    }

    fn build(&mut self) -> Model {
        let devices = std::mem::take(&mut self.domains)
            .into_iter()
            .map(|(domain, mut found)| {
                let data_sets = found.data_sets.iter().filter_map(|item| {
                    let members = found.members.remove(item)?;
                    Some(DataSet { name: Name::new(domain.clone(), item.clone()), members })
                });
                let data_sets = data_sets.collect();
                LogicalDevice { name: domain, nodes: found.nodes.into_values().collect(), data_sets }
            })
            .collect();
        let signature = self.signature.take().unwrap_or_else(|| self.sign());
        Model { signature, identity: std::mem::take(&mut self.identity), devices }
    }
}

fn nonsense(expected: &str, found: String) -> Error {
    Error::Nonsense { service: "model discovery", expected: expected.to_owned(), found }
}
