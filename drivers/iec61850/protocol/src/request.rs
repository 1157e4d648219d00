//! MMS services this client uses, as owned requests and answers (ISO 9506-2, IEC 61850-8-1 table 3).
//!
//! Encoding and decoding are pure. An answer is read against the request it belongs to: another service, or
//! another number of values than asked for, is [`Error::Nonsense`] and never becomes a value of some point.

use iec61850_rs::Limits;
use iec61850_rs::ber::{Cursor, Encoder, Tlv};
use iec61850_rs::proto::data::DataView;
pub use iec61850_rs::proto::data::Value;
use iec61850_rs::proto::mms::{
    AccessResult, ConfirmedRequest, ConfirmedResponse, Mms, ObjectName, ObjectScope, ServiceError,
    VariableAccess, VariableSpecification, WriteResult, object_class,
};

use crate::error::{AccessError, Error, Refusal};
use crate::kind::Kind;
use crate::limits::{MAX_DEPTH, MAX_MEMBERS, MAX_NAMES_PER_PAGE, MAX_PRIMITIVE};
use crate::name::Name;

/// The bounds every PDU is decoded under.
pub const LIMITS: Limits = Limits {
    max_depth: MAX_DEPTH,
    max_dataset_members: MAX_MEMBERS,
    max_primitive_len: MAX_PRIMITIVE,
    max_asdus: 1,
    max_list_items: MAX_NAMES_PER_PAGE,
};

/// What a name list lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Domains of the device.
    Domains,
    /// Variables of a domain.
    Variables,
    /// Variable lists (data sets) of a domain.
    DataSets,
}

/// A request to the device.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Vendor, model and revision; also the cheap probe of a silent link.
    Identify,
    /// One page of names.
    NameList {
        /// What to list.
        listing: Listing,
        /// Of which domain; ignored for domains.
        domain: String,
        /// Last name of the page before.
        after: Option<String>,
    },
    /// Type of a variable.
    TypeOf(Name),
    /// Members of a data set.
    DataSet(Name),
    /// Values, one answer each.
    Read(Vec<Name>),
    /// Values to write, one answer each.
    Write(Vec<(Name, Value)>),
}

/// The answer of the device.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Request::Identify`].
    Identity(Identity),
    /// To [`Request::NameList`].
    Names {
        /// This page.
        names: Vec<String>,
        /// Another page follows.
        more: bool,
    },
    /// To [`Request::TypeOf`].
    Type(Kind),
    /// To [`Request::DataSet`]: the members in order; `None` for one that is no plain variable of a domain.
    Members(Vec<Option<Name>>),
    /// To [`Request::Read`], as many as asked for.
    Values(Vec<Result<Value, AccessError>>),
    /// To [`Request::Write`], as many as asked for.
    Written(Vec<Result<(), AccessError>>),
}

/// What a device says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Vendor name.
    pub vendor: String,
    /// Model name.
    pub model: String,
    /// Revision.
    pub revision: String,
}

impl Request {
    /// The service's name, for messages.
    #[must_use]
    pub const fn service(&self) -> &'static str {
        match self {
            Self::Identify => "Identify",
            Self::NameList { .. } => "GetNameList",
            Self::TypeOf(_) => "GetVariableAccessAttributes",
            Self::DataSet(_) => "GetNamedVariableListAttributes",
            Self::Read(_) => "Read",
            Self::Write(_) => "Write",
        }
    }

    /// Calls `with` with the request in the form the codec takes.
    ///
    /// # Errors
    /// [`Error::NotSent`] where a value cannot be encoded or nothing is asked for.
    pub(crate) fn with<T>(&self, with: impl FnOnce(&ConfirmedRequest<'_>) -> T) -> Result<T, Error> {
        Ok(match self {
            Self::Identify => with(&ConfirmedRequest::Identify),
            Self::NameList { listing, domain, after } => {
                let (object_class, scope) = match listing {
                    Listing::Domains => (object_class::DOMAIN, ObjectScope::VmdSpecific),
                    Listing::Variables => (object_class::NAMED_VARIABLE, ObjectScope::DomainSpecific(domain)),
                    Listing::DataSets => {
                        (object_class::NAMED_VARIABLE_LIST, ObjectScope::DomainSpecific(domain))
                    }
                };
                let continue_after = after.as_deref();
                with(&ConfirmedRequest::GetNameList { object_class, scope, continue_after })
            }
            Self::TypeOf(name) => with(&ConfirmedRequest::GetVariableAccessAttributes(object(name))),
            Self::DataSet(name) => with(&ConfirmedRequest::GetNamedVariableListAttributes(object(name))),
            Self::Read(names) => {
                let access = variables(names.iter())?;
                with(&ConfirmedRequest::Read { specification_with_result: false, access })
            }
            Self::Write(writes) => {
                let access = variables(writes.iter().map(|(name, _)| name))?;
                let encoded = encode(writes.iter().map(|(_, value)| value))?;
                let values = encoded.iter().map(|bytes| tlv(bytes)).collect::<Result<_, _>>()?;
                with(&ConfirmedRequest::Write { access, values })
            }
        })
    }

    /// Reads the PDU that carries the answer to this request.
    ///
    /// # Errors
    /// [`Error::Refused`] and [`Error::Nonsense`].
    pub fn answer(&self, pdu: &[u8]) -> Result<Answer, Error> {
        let parsed = Mms::parse(pdu, &LIMITS).map_err(|error| self.nonsense("a readable PDU", &error))?;
        match parsed {
            Mms::ConfirmedResponse { service, .. } => self.read(service),
            Mms::ConfirmedError { error, .. } => {
                let error = ServiceError::parse(&error).map_err(|e| self.nonsense("a readable error", &e))?;
                Err(self.refused(Refusal::Service { class: error.class, code: error.code }))
            }
            other => Err(self.nonsense("a confirmed answer", &kind(&other))),
        }
    }

    /// The error for a refusal of this request.
    pub(crate) const fn refused(&self, refusal: Refusal) -> Error {
        Error::Refused { service: self.service(), refusal }
    }

    fn nonsense(&self, expected: &str, found: &dyn std::fmt::Display) -> Error {
        Error::Nonsense { service: self.service(), expected: expected.to_owned(), found: found.to_string() }
    }

    fn read(&self, response: ConfirmedResponse<'_>) -> Result<Answer, Error> {
        match (self, response) {
            (Self::Identify, ConfirmedResponse::Identify { vendor, model, revision }) => {
                let [vendor, model, revision] = [vendor, model, revision].map(str::to_owned);
                Ok(Answer::Identity(Identity { vendor, model, revision }))
            }
            (Self::NameList { .. }, ConfirmedResponse::GetNameList { identifiers, more_follows }) => {
                let names = identifiers.into_iter().map(str::to_owned).collect();
                Ok(Answer::Names { names, more: more_follows })
            }
            (Self::TypeOf(_), ConfirmedResponse::GetVariableAccessAttributes { type_spec, .. }) => {
                Ok(Answer::Type(Kind::from(&type_spec)))
            }
            (Self::DataSet(_), ConfirmedResponse::GetNamedVariableListAttributes { variables, .. }) => {
                Ok(Answer::Members(variables.iter().map(member).collect()))
            }
            (Self::Read(names), ConfirmedResponse::Read { results, .. }) => {
                self.count(names.len(), results.len())?;
                Ok(Answer::Values(values(&results).map_err(|e| self.nonsense("readable values", &e))?))
            }
            (Self::Write(writes), ConfirmedResponse::Write(results)) => {
                self.count(writes.len(), results.len())?;
                Ok(Answer::Written(results.into_iter().map(written).collect()))
            }
            _ => Err(self.nonsense(&format!("an answer to {}", self.service()), &"one to another service")),
        }
    }

    fn count(&self, asked: usize, got: usize) -> Result<(), Error> {
        if asked == got {
            return Ok(());
        }
        Err(self.nonsense(&format!("{asked} results"), &got))
    }
}

/// Owned values of access results.
pub(crate) fn values(
    results: &[AccessResult<'_>],
) -> Result<Vec<Result<Value, AccessError>>, iec61850_rs::Error> {
    results
        .iter()
        .map(|result| match result {
            AccessResult::Failure(code) => Ok(Err(AccessError(*code))),
            AccessResult::Success(tlv) => DataView::from_tlv(*tlv)?.to_owned(&LIMITS).map(Ok),
        })
        .collect()
}

fn object(name: &Name) -> ObjectName<'_> {
    ObjectName::DomainSpecific { domain: &name.domain, item: &name.item }
}

fn variables<'a>(names: impl Iterator<Item = &'a Name>) -> Result<VariableAccess<'a>, Error> {
    let list: Vec<_> = names.map(|name| VariableSpecification::Name(object(name))).collect();
    if list.is_empty() {
        return Err(Error::NotSent("nothing to read or write was named".to_owned()));
    }
    Ok(VariableAccess::ListOfVariable(list))
}

fn encode<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Vec<Vec<u8>>, Error> {
    values
        .map(|value| {
            let mut encoder = Encoder::new();
            value.encode(&mut encoder).map_err(|error| Error::NotSent(format!("value: {error}")))?;
            Ok(encoder.into_vec())
        })
        .collect()
}

fn tlv(bytes: &[u8]) -> Result<Tlv<'_>, Error> {
    Cursor::new(bytes).next_required().map_err(|error| Error::NotSent(format!("value: {error}")))
}

fn member(variable: &VariableSpecification<'_>) -> Option<Name> {
    match variable {
        VariableSpecification::Name(ObjectName::DomainSpecific { domain, item }) => {
            Some(Name::new(*domain, *item))
        }
        _ => None,
    }
}

const fn written(result: WriteResult) -> Result<(), AccessError> {
    match result {
        WriteResult::Success => Ok(()),
        WriteResult::Failure(code) => Err(AccessError(code)),
    }
}

/// What a PDU is, for messages.
const fn kind(pdu: &Mms<'_>) -> &'static str {
    match pdu {
        Mms::ConfirmedRequest { .. } => "a request",
        Mms::Unconfirmed(_) => "an unconfirmed PDU",
        Mms::Reject(_) => "a reject",
        _ => "another PDU",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_fit_its_request() {
        // confirmed-response, invoke id 5, read, one result: boolean true.
        let pdu = [0xa1, 0x0a, 0x02, 0x01, 0x05, 0xa4, 0x05, 0xa1, 0x03, 0x83, 0x01, 0x01];
        let one = Request::Read(vec![Name::new("LD", "A$ST$B")]);
        assert_eq!(one.answer(&pdu), Ok(Answer::Values(vec![Ok(Value::Boolean(true))])));
        let two = Request::Read(vec![Name::new("LD", "A$ST$B"), Name::new("LD", "A$ST$C")]);
        assert_eq!(two.answer(&pdu).unwrap_err().to_string(), "Read: expected 2 results, got 1");
        let error = Request::Identify.answer(&pdu).unwrap_err();
        assert_eq!(error.to_string(), "Identify: expected an answer to Identify, got one to another service");
    }

    #[test]
    fn a_refused_value_keeps_its_reason() {
        // failure [0] object-non-existent beside an unsigned.
        let pdu = [0xa1, 0x0d, 0x02, 0x01, 0x05, 0xa4, 0x08, 0xa1, 0x06, 0x80, 0x01, 0x0a, 0x86, 0x01, 0x2a];
        let request = Request::Read(vec![Name::new("LD", "A"), Name::new("LD", "B")]);
        let expected = vec![Err(AccessError(10)), Ok(Value::Unsigned(42))];
        assert_eq!(request.answer(&pdu), Ok(Answer::Values(expected)));
    }

    #[test]
    fn a_service_error_is_a_refusal() {
        // confirmed-error, invoke id 5, access / object-non-existent.
        let pdu = [0xa2, 0x0a, 0x80, 0x01, 0x05, 0xa2, 0x05, 0xa0, 0x03, 0x87, 0x01, 0x02];
        let error = Request::Identify.answer(&pdu).unwrap_err();
        assert_eq!(error.to_string(), "refused Identify: service error access/2 (object non-existent)");
    }

    #[test]
    fn nothing_is_not_asked() {
        assert!(matches!(Request::Read(Vec::new()).with(|_| ()), Err(Error::NotSent(_))));
    }
}
