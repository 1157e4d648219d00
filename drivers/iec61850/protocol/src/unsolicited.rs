//! What a device sends without being asked: reports, ends of commands, reasons of refused commands.
//!
//! All three are MMS information reports (IEC 61850-8-1 17.2.2, 20.8): a report names a list, an end of a command
//! names the `Oper` variable (and `LastApplError` before it where it failed), a reason alone names `LastApplError`.

use iec61850_rs::proto::mms::{Mms, ObjectName, Unconfirmed, VariableAccess, VariableSpecification};

use crate::control::ApplError;
use crate::name::Name;
use crate::report::Report;
use crate::request::{LIMITS, Value, values};

/// Name of the variable that carries the reason of a refused command.
const LAST_APPL_ERROR: &str = "LastApplError";

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Unsolicited {
    /// A report or a segment of one.
    Report(Report),
    /// A command of enhanced security has ended.
    Terminated {
        /// The `Oper` variable.
        object: Name,
        /// The structure of the command, as the device echoes it.
        request: Option<Value>,
        /// Why it failed; `None` for success.
        error: Option<ApplError>,
    },
    /// Why the device is about to refuse a command.
    Reason(ApplError),
}

impl Unsolicited {
    /// Reads an unconfirmed PDU.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn read(pdu: &[u8]) -> Result<Self, String> {
        let parsed = Mms::parse(pdu, &LIMITS).map_err(|error| format!("unsolicited PDU: {error}"))?;
        let Mms::Unconfirmed(Unconfirmed::InformationReport { access, results }) = parsed else {
            return Err("expected an information report, got another unsolicited PDU".to_owned());
        };
        let values = values(&results).map_err(|error| format!("report: {error}"))?;
        match access {
            VariableAccess::VariableListName(_) => Report::read(values).map(Self::Report),
            VariableAccess::ListOfVariable(list) => {
                let values: Vec<Option<Value>> = values.into_iter().map(Result::ok).collect();
                control(&list, values)
            }
        }
    }
}

fn control(list: &[VariableSpecification<'_>], values: Vec<Option<Value>>) -> Result<Unsolicited, String> {
    let (mut error, mut object, mut request) = (None, None, None);
    for (variable, value) in list.iter().zip(values) {
        match variable.name() {
            Some(ObjectName::VmdSpecific(name) | ObjectName::AaSpecific(name))
                if *name == LAST_APPL_ERROR =>
            {
                let value = value.ok_or("LastApplError: expected a structure, got an access error")?;
                error = Some(ApplError::read(&value)?);
            }
            Some(ObjectName::DomainSpecific { domain, item }) => {
                object = Some(Name::new(*domain, *item));
                request = value;
            }
            _ => return Err("expected a report or the end of a command, got a list of variables".to_owned()),
        }
    }
    match (object, error) {
        (Some(object), error) => Ok(Unsolicited::Terminated { object, request, error }),
        (None, Some(error)) => Ok(Unsolicited::Reason(error)),
        (None, None) => Err("expected a report or the end of a command, got an empty list".to_owned()),
    }
}
