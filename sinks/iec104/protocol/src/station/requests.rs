//! What a master may ask, and the answer to everything else (IEC 60870-5-101, 7.2.3: causes 44 to 47).
//!
//! Order of the checks: type, cause, common address, object. A refusal is the request itself with another cause and
//! P/N set, so it fits whatever was sent. A known type in another length ends the connection: the frame was whole, so
//! the sender does not write what we read.

use super::commands::{Refusal, Wish};
use super::config::Answer;
use super::connection::Connection;
use super::image::Selection;
use super::interrogation::Job;
use super::lane::tag;
use super::{CloseReason, Note, Now, Output, Station};
use crate::asdu::{
    Asdu, AsduError, BROADCAST, Cause, Element, Freeze, Header, Object, Packer, Reason, Tag, TypeId, mirror,
};
use crate::map;

/// The test pattern of C_TS_NA_1 (101, 7.2.6.14).
const TEST_PATTERN: u16 = 0x55aa;
/// QOI of the station; groups follow.
const QOI_STATION: u8 = 20;
/// Interrogations waiting on one connection: a broadcast of each kind for every common address, and some.
pub(super) const MAX_JOBS: usize = 256;

impl Station {
    /// Takes one ASDU of a master.
    pub(super) fn request(
        &mut self,
        now: Now,
        connection: &mut Connection,
        octets: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let (header, _) = Header::decode(octets)?;
        let unknown = |reason| Err(Rejection::Unknown(reason));
        let type_id = header.type_id;
        let verdict = if !(type_id.is_command() || (100..=107).contains(&type_id.0)) {
            unknown(Reason::UNKNOWN_TYPE)
        } else {
            let asdu = Asdu::decode(octets)?;
            if !causes(type_id).contains(&header.cause.reason) {
                unknown(Reason::UNKNOWN_CAUSE)
            } else if !self.addressed(&header) {
                unknown(Reason::UNKNOWN_COMMON_ADDRESS)
            } else {
                self.known(now, connection, &asdu, octets, out)
            }
        };
        let Err(rejection) = verdict else { return Ok(()) };
        let (reason, note) = match rejection {
            Rejection::Unknown(reason) => (reason, Note::Unknown { reason, header }),
            Rejection::Negative(refusal) => (confirmation(&header), Note::Refused { refusal, header }),
            Rejection::Close(reason) => return Err(reason),
        };
        connection.answer(mirror(octets, reason, true))?;
        out.push(Output::Note { connection: connection.id, note });
        Ok(())
    }

    fn addressed(&self, header: &Header) -> bool {
        let everywhere = matches!(
            header.type_id,
            TypeId::C_IC_NA_1 | TypeId::C_CI_NA_1 | TypeId::C_CS_NA_1 | TypeId::C_RP_NA_1
        );
        self.image.common_addresses.contains(&header.common_address)
            || (header.common_address == BROADCAST && everywhere)
    }

    fn known(
        &mut self,
        now: Now,
        connection: &mut Connection,
        asdu: &Asdu,
        octets: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let header = &asdu.header;
        let [object] = asdu.objects[..] else { return Err(Refusal::Structure.into()) };
        if header.sequence {
            return Err(Refusal::Structure.into());
        }
        if header.type_id.is_command() {
            return self.command(now, connection, header, object, octets, out);
        }
        if header.type_id == TypeId::C_RD_NA_1 {
            return self.read(connection, header, object.ioa);
        }
        if object.ioa != 0 {
            return Err(Rejection::Unknown(Reason::UNKNOWN_OBJECT));
        }
        match object.element {
            Element::Interrogation(qoi) => {
                let selection = match qoi.checked_sub(QOI_STATION) {
                    Some(0) => Selection::Station,
                    Some(group @ 1..=16) => Selection::Group(group),
                    _ => return Err(Refusal::Value.into()),
                };
                self.interrogate(connection, header, octets, selection)
            }
            Element::CounterInterrogation(qcc) => {
                let selection = match qcc.request {
                    group @ 1..=4 => Selection::CounterGroup(group),
                    5 => Selection::Counters,
                    _ => return Err(Refusal::Value.into()),
                };
                self.count(connection, header, octets, selection, qcc.freeze)
            }
            Element::Nothing => self.clock(now, connection, header, object.tag, out),
            Element::Test(pattern) if pattern != TEST_PATTERN => Err(Refusal::Value.into()),
            Element::Reset(qualifier) => {
                if self.config.reset == Answer::Refuse || qualifier == 0 {
                    return Err(Refusal::NotPermitted.into());
                }
                out.push(Output::Reset { connection: connection.id, qualifier });
                confirm(connection, octets)
            }
            // Test, test with time, delay: the mirror is the answer.
            _ => confirm(connection, octets),
        }
    }

    /// The common addresses that a request is for.
    fn targets(&self, header: &Header) -> Vec<u16> {
        match header.common_address {
            BROADCAST => self.image.common_addresses.iter().copied().collect(),
            address => vec![address],
        }
    }

    fn interrogate(
        &mut self,
        connection: &mut Connection,
        header: &Header,
        octets: &[u8],
        selection: Selection,
    ) -> Result<(), Rejection> {
        if header.cause.reason == Reason::DEACTIVATION {
            return stop(connection, header, octets, selection);
        }
        for common_address in self.targets(header) {
            let (header, request) = addressed(octets, header, common_address);
            // Somebody without points of a group says so; the station itself is always answered.
            let empty = selection != Selection::Station && !self.image.has(common_address, selection);
            let running = connection
                .jobs
                .iter()
                .any(|job| (job.common_address, job.selection) == (common_address, selection));
            if empty || running || connection.jobs.len() >= MAX_JOBS {
                connection.answer(mirror(&request, Reason::ACTIVATION_CON, true))?;
                continue;
            }
            connection.answer(mirror(&request, Reason::ACTIVATION_CON, false))?;
            connection.jobs.push_back(Job::new(request, &header, selection, self.config.sequences));
        }
        Ok(())
    }

    fn count(
        &mut self,
        connection: &mut Connection,
        header: &Header,
        octets: &[u8],
        selection: Selection,
        freeze: Freeze,
    ) -> Result<(), Rejection> {
        if freeze == Freeze::Read || header.cause.reason == Reason::DEACTIVATION {
            return self.interrogate(connection, header, octets, selection);
        }
        let resets = matches!(freeze, Freeze::FreezeReset | Freeze::Reset);
        if resets && self.config.counter_reset == Answer::Refuse {
            return Err(Refusal::NotPermitted.into());
        }
        for common_address in self.targets(header) {
            let (_, request) = addressed(octets, header, common_address);
            let empty = !self.image.has(common_address, selection);
            connection.answer(mirror(&request, Reason::ACTIVATION_CON, empty))?;
            if !empty {
                self.image.freeze(common_address, selection, freeze);
                connection.answer(mirror(&request, Reason::ACTIVATION_TERM, false))?;
            }
        }
        Ok(())
    }

    fn read(&self, connection: &mut Connection, header: &Header, ioa: u32) -> Result<(), Rejection> {
        let unknown = Rejection::Unknown(Reason::UNKNOWN_OBJECT);
        let Some(shown) = self.image.read(header.common_address, ioa) else { return Err(unknown) };
        let cause = Cause { test: header.cause.test || shown.test, ..header.cause };
        let mut packer = Packer::new(shown.type_id, cause, header.common_address, false);
        match packer.push_untimed(ioa, shown.element) {
            Ok(true) => Ok(connection.answer(packer.finish())?),
            _ => Err(unknown),
        }
    }

    /// The confirmation carries the time of this station, as it was when the request came (101, 7.4.4).
    fn clock(
        &self,
        now: Now,
        connection: &mut Connection,
        header: &Header,
        tag_of_master: Tag,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let Tag::Cp56(time) = tag_of_master else { return Err(Refusal::Structure.into()) };
        let Ok(utc_ns) = time.to_utc_ns(now.utc.offset_minutes) else { return Err(Refusal::Stale.into()) };
        if self.config.clock == Answer::Refuse {
            return Err(Refusal::NotPermitted.into());
        }
        out.push(Output::Clock {
            connection: connection.id,
            ahead_ns: utc_ns.saturating_sub(now.utc.utc_ns),
        });
        for common_address in self.targets(header) {
            let cause = Cause { reason: Reason::ACTIVATION_CON, negative: false, ..header.cause };
            let object = Object { ioa: 0, element: Element::Nothing, tag: tag(header.type_id, now.utc) };
            if let Ok(asdu) = Asdu::single(header.type_id, cause, common_address, object) {
                connection.answer(asdu)?;
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        now: Now,
        connection: &mut Connection,
        header: &Header,
        object: Object,
        octets: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let address = (header.common_address, object.ioa);
        let found = self.command_index.get(&address).and_then(|p| Some((*p, *self.config.commands.get(*p)?)));
        let Some((place, point)) = found else { return Err(Rejection::Unknown(Reason::UNKNOWN_OBJECT)) };
        if header.type_id != point.type_id && header.type_id.without_time() != point.type_id {
            return Err(Rejection::Unknown(Reason::UNKNOWN_TYPE));
        }
        if !self.config.lanes.get(connection.lane).is_some_and(|lane| lane.commands) {
            return Err(Refusal::NotPermitted.into());
        }
        let Element::Command(command) = object.element else { return Err(Refusal::Structure.into()) };
        let issued = self.fresh(now, object.tag)?;
        let Cause { originator, test, reason, .. } = header.cause;
        let wish = Wish { connection: connection.id, originator, place, command, test, issued, asdu: octets };
        let mut effects = Vec::new();
        let verdict = if reason == Reason::DEACTIVATION {
            self.commands.deactivate(now.elapsed, &self.config, wish, &mut effects)
        } else if map::command(command.value, 1.0).is_none() {
            Err(Refusal::Value)
        } else if point.qualifier.is_some_and(|qualifier| qualifier != command.qualifier) {
            Err(Refusal::Qualifier)
        } else {
            self.commands.activate(now.elapsed, &self.config, wish, &mut effects)
        };
        self.apply(Some(connection), effects, out);
        Ok(verdict?)
    }

    /// The moment of a time tag, if it is one of now.
    fn fresh(&self, now: Now, tag: Tag) -> Result<Option<i64>, Refusal> {
        let Tag::Cp56(time) = tag else { return Ok(None) };
        let Ok(issued) = time.to_utc_ns(now.utc.offset_minutes) else { return Err(Refusal::Stale) };
        let age = u128::from(issued.abs_diff(now.utc.utc_ns));
        if time.invalid || age > self.config.command_max_age.as_nanos() {
            return Err(Refusal::Stale);
        }
        Ok(Some(issued))
    }
}

/// Why a request is not carried out.
enum Rejection {
    Unknown(Reason),
    Negative(Refusal),
    /// Not even the answer can be kept.
    Close(CloseReason),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Negative(refusal)
    }
}

impl From<CloseReason> for Rejection {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason)
    }
}

fn confirm(connection: &mut Connection, octets: &[u8]) -> Result<(), Rejection> {
    Ok(connection.answer(mirror(octets, Reason::ACTIVATION_CON, false))?)
}

/// Ends running interrogations of this selection.
fn stop(
    connection: &mut Connection,
    header: &Header,
    octets: &[u8],
    selection: Selection,
) -> Result<(), Rejection> {
    let before = connection.jobs.len();
    let asked = |job: &Job| {
        job.selection == selection
            && (header.common_address == BROADCAST || header.common_address == job.common_address)
    };
    connection.jobs.retain(|job| !asked(job));
    let nothing = connection.jobs.len() == before;
    Ok(connection.answer(mirror(octets, Reason::DEACTIVATION_CON, nothing))?)
}

/// The request as it would be for one common address.
fn addressed(octets: &[u8], header: &Header, common_address: u16) -> (Header, Vec<u8>) {
    let header = Header { common_address, ..*header };
    let mut request = header.encode().to_vec();
    request.extend_from_slice(octets.get(crate::asdu::HEADER..).unwrap_or_default());
    (header, request)
}

/// The causes with which a master may send a type (101, clause 7.3, tables of each type).
fn causes(type_id: TypeId) -> &'static [Reason] {
    match type_id {
        TypeId::C_RD_NA_1 => &[Reason::REQUEST],
        TypeId::C_CS_NA_1 | TypeId::C_TS_NA_1 | TypeId::C_RP_NA_1 | TypeId::C_TS_TA_1 => {
            &[Reason::ACTIVATION]
        }
        TypeId::C_CD_NA_1 => &[Reason::SPONTANEOUS, Reason::ACTIVATION],
        _ => &[Reason::ACTIVATION, Reason::DEACTIVATION],
    }
}

/// The confirmation that belongs to a request.
fn confirmation(header: &Header) -> Reason {
    match header.cause.reason {
        Reason::DEACTIVATION => Reason::DEACTIVATION_CON,
        Reason::REQUEST => Reason::UNKNOWN_OBJECT,
        _ => Reason::ACTIVATION_CON,
    }
}

impl From<AsduError> for CloseReason {
    fn from(error: AsduError) -> Self {
        Self::Asdu(error)
    }
}
