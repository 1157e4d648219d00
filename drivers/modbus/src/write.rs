//! Commands and blocks. Nothing is repeated, nothing is clamped; what left without an answer is `unknown`.

use busbar_driver_api::{
    Action, Answer, BlockWrite, BoundPoint, Command, Device, Error, Reason, Result, contract::Stage,
};
use busbar_modbus::value::{MAX_WRITE_BITS, MAX_WRITE_REGISTERS};
use busbar_modbus::{Call, Field, Session, Table, Value};

use crate::driver::{Modbus, costs_the_device, error, is_unknown};
use crate::point;

/// Why a write did not happen, or may have: an answer, or an error that also costs the device.
type Outcome<T> = std::result::Result<T, Result<Answer>>;

fn refused<T>(reason: Reason, text: impl Into<String>) -> Outcome<T> {
    Err(Ok(Answer::refused(reason, text)))
}

/// Operates one point. Modbus knows no selection: the error tells the gateway to keep it by itself, so that a client
/// that selects before it operates finds the same as at any other device.
pub(crate) async fn command(
    session: &mut Session,
    device: &Device<Modbus>,
    command: &Command<'_, Modbus>,
) -> Result<Answer> {
    if command.action != Action::Operate {
        return Err(Error::unsupported("Modbus has no selection; operate directly"));
    }
    if command.test {
        return Ok(Answer::refused(Reason::Unsupported, "Modbus has no test commands"));
    }
    match operate(session, device, command.point, command.value).await {
        Ok(()) => Ok(Answer::stage(Stage::Finished)),
        Err(outcome) => outcome,
    }
}

async fn operate(
    session: &mut Session,
    device: &Device<Modbus>,
    target: &BoundPoint<Modbus>,
    value: &busbar_driver_api::Value,
) -> Outcome<()> {
    let (field, value) = prepare(device, target, value)?;
    operate_prepared(session, device, &field, &value).await
}

async fn operate_prepared(
    session: &mut Session,
    device: &Device<Modbus>,
    field: &Field,
    value: &Value,
) -> Outcome<()> {
    let unit = device.connection.unit_id;
    let multiple = device.connection.write_multiple;
    let offset = field.address.offset;
    if field.address.table == Table::Coil {
        let state = encoded(field.encode_bit(value))?;
        let single = Call::WriteCoil { offset, value: state };
        let several = Call::WriteCoils { start: offset, values: &[state] };
        return send(session, unit, if multiple { &several } else { &single }).await;
    }
    let words = if field.is_register_bit() {
        vec![register_with_bit(session, unit, field, value).await?]
    } else {
        encoded(field.encode_words(value))?
    };
    match words.as_slice() {
        [word] if !multiple => send(session, unit, &Call::WriteRegister { offset, value: *word }).await,
        words => send(session, unit, &Call::WriteRegisters { start: offset, values: words }).await,
    }
}

/// The point's field and the value in the protocol's form.
fn prepare(
    device: &Device<Modbus>,
    target: &BoundPoint<Modbus>,
    value: &busbar_driver_api::Value,
) -> Outcome<(Field, Value)> {
    let field = match point::checked_field(&target.spec, device.connection.address_mode) {
        Ok(field) => field,
        Err(text) => return refused(Reason::NotWritable, text),
    };
    if !field.address.table.is_writable() {
        return refused(Reason::NotWritable, format!("table {} is read only", field.address.table));
    }
    match point::to_protocol(value) {
        Some(value) => Ok((field, value)),
        None => {
            refused(Reason::OutOfRange, format!("expected a value of type {}, found {value:?}", field.kind))
        }
    }
}

fn encoded<T>(result: std::result::Result<T, busbar_modbus::EncodeError>) -> Outcome<T> {
    result.or_else(|wrong| refused(Reason::OutOfRange, wrong.to_string()))
}

/// Reads the register, so that its other bits stay as they are. No other request of this gateway can come between.
async fn register_with_bit(session: &mut Session, unit: u8, field: &Field, value: &Value) -> Outcome<u16> {
    let state = encoded(field.encode_bit(value))?;
    match session.read_words(unit, Table::Holding, field.address.offset, 1).await {
        Ok(words) => Ok(field.with_bit(words.first().copied().unwrap_or(0), state)),
        Err(failure) => {
            let failure = error(&failure);
            let text = format!("not written, because the register could not be read: {failure}");
            if costs_the_device(&failure) {
                refused(Reason::DeviceLost, text)
            } else {
                refused(Reason::DeviceRefused, text)
            }
        }
    }
}

async fn send(session: &mut Session, unit: u8, call: &Call<'_>) -> Outcome<()> {
    let Err(failure) = session.call(unit, call).await else { return Ok(()) };
    let unknown = is_unknown(session, &failure);
    let failure = error(&failure);
    match (unknown, costs_the_device(&failure)) {
        // The gateway reports `unknown` and takes the device as lost.
        (true, true) => Err(Err(failure)),
        (true, false) => Err(Ok(Answer::unknown(Reason::Timeout, failure.to_string()))),
        (false, true) => refused(Reason::DeviceLost, failure.to_string()),
        (false, false) => refused(Reason::DeviceRefused, failure.to_string()),
    }
}

/// What one request of a block writes.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    Words(u16, Vec<u16>),
    Bits(u16, Vec<bool>),
}

/// Writes a block, reads it back, and only when it is equal writes the commit point.
pub(crate) async fn block(
    session: &mut Session,
    device: &Device<Modbus>,
    write: &BlockWrite<'_, Modbus>,
) -> Result<Answer> {
    match write_block(session, device, write).await {
        Ok(()) => Ok(Answer::stage(Stage::Finished)),
        Err(outcome) => outcome,
    }
}

async fn write_block(
    session: &mut Session,
    device: &Device<Modbus>,
    write: &BlockWrite<'_, Modbus>,
) -> Outcome<()> {
    let unit = device.connection.unit_id;
    // Everything is known to fit, the commit point too, before the first request leaves.
    let runs = merge(pieces(device, write)?);
    let commit = match &write.commit {
        Some((target, value)) => Some(checked(device, target, value)?),
        None => None,
    };
    let mut written = false;
    for run in &runs {
        let call = match run {
            Run::Words(start, words) => Call::WriteRegisters { start: *start, values: words },
            Run::Bits(start, bits) => Call::WriteCoils { start: *start, values: bits },
        };
        let sent = send(session, unit, &call).await;
        sent.map_err(|outcome| if written { in_part(outcome) } else { outcome })?;
        written = true;
    }
    for run in &runs {
        if !reads_back(session, unit, run).await? {
            let text = "the block was written and read back different; the commit point was not written";
            return Err(Ok(Answer::unknown(Reason::DeviceRefused, text)));
        }
    }
    let Some((field, value)) = commit else { return Ok(()) };
    let committed = operate_prepared(session, device, &field, &value).await;
    committed.map_err(|outcome| if written { in_part(outcome) } else { outcome })
}

/// The device has a part of the block already: a refusal of the rest is no refusal of the block.
fn in_part(outcome: Result<Answer>) -> Result<Answer> {
    match outcome {
        Ok(Answer { stage: Stage::Refused, reason, text }) => {
            let text = format!("a part of the block was written and the commit point was not: {text}");
            Ok(Answer::unknown(reason.unwrap_or(Reason::DeviceRefused), text))
        }
        other => other,
    }
}

fn pieces(device: &Device<Modbus>, write: &BlockWrite<'_, Modbus>) -> Outcome<Vec<Run>> {
    let mut pieces = Vec::with_capacity(write.values.len());
    for (target, value) in &write.values {
        let (field, value) = prepare(device, target, value)?;
        if field.is_register_bit() {
            return refused(
                Reason::Unsupported,
                format!("{}: one bit of a register cannot be part of a block", target.name),
            );
        }
        pieces.push(piece(&field, &value)?);
    }
    Ok(pieces)
}

/// Like [`prepare`], and the value is known to fit.
fn checked(
    device: &Device<Modbus>,
    target: &BoundPoint<Modbus>,
    value: &busbar_driver_api::Value,
) -> Outcome<(Field, Value)> {
    let (field, value) = prepare(device, target, value)?;
    if field.address.table == Table::Coil || field.is_register_bit() {
        encoded(field.encode_bit(&value))?;
    } else {
        encoded(field.encode_words(&value))?;
    }
    Ok((field, value))
}

fn piece(field: &Field, value: &Value) -> Outcome<Run> {
    let offset = field.address.offset;
    if field.address.table == Table::Coil {
        Ok(Run::Bits(offset, vec![encoded(field.encode_bit(value))?]))
    } else {
        Ok(Run::Words(offset, encoded(field.encode_words(value))?))
    }
}

/// Joins neighbours into one request each, within the limits of functions 15 and 16.
fn merge(mut pieces: Vec<Run>) -> Vec<Run> {
    let start = |run: &Run| match run {
        Run::Bits(start, _) => (0, *start),
        Run::Words(start, _) => (1, *start),
    };
    pieces.sort_by_key(start);
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match (runs.last_mut(), piece) {
            (Some(Run::Words(first, words)), Run::Words(next, more))
                if usize::from(*first) + words.len() == usize::from(next)
                    && words.len() + more.len() <= usize::from(MAX_WRITE_REGISTERS) =>
            {
                words.extend(more);
            }
            (Some(Run::Bits(first, bits)), Run::Bits(next, more))
                if usize::from(*first) + bits.len() == usize::from(next)
                    && bits.len() + more.len() <= usize::from(MAX_WRITE_BITS) =>
            {
                bits.extend(more);
            }
            (_, piece) => runs.push(piece),
        }
    }
    runs
}

async fn reads_back(session: &mut Session, unit: u8, run: &Run) -> Outcome<bool> {
    let result = match run {
        Run::Words(start, words) => {
            let count = u16::try_from(words.len()).unwrap_or(u16::MAX);
            session.read_words(unit, Table::Holding, *start, count).await.map(|found| found == *words)
        }
        Run::Bits(start, bits) => {
            let count = u16::try_from(bits.len()).unwrap_or(u16::MAX);
            let found = session.read_bits(unit, Table::Coil, *start, count).await;
            found.map(|found| found.get(..bits.len()) == Some(bits))
        }
    };
    result.map_err(|failure| {
        let failure = error(&failure);
        let text = format!(
            "the block was written and could not be read back: {failure}; the commit point was not written"
        );
        Ok(Answer::unknown(Reason::Timeout, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_request() {
        let runs = merge(vec![
            Run::Words(4, vec![4, 5]),
            Run::Bits(7, vec![true]),
            Run::Words(2, vec![2, 3]),
            Run::Words(9, vec![9]),
            Run::Bits(8, vec![false]),
        ]);
        assert_eq!(
            runs,
            [Run::Bits(7, vec![true, false]), Run::Words(2, vec![2, 3, 4, 5]), Run::Words(9, vec![9])]
        );
    }

    #[test]
    fn a_long_block_is_cut_at_the_limit() {
        let runs = merge((0..200).map(|offset| Run::Words(offset, vec![offset])).collect());
        let sizes: Vec<usize> =
            runs.iter().map(|run| if let Run::Words(_, words) = run { words.len() } else { 0 }).collect();
        assert_eq!(sizes, [123, 77]);
    }
}
