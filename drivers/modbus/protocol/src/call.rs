//! One request and the check of its answer: functions 1, 2, 3, 4, 5, 6, 15, 16.
//!
//! tokio-modbus compares transaction number, unit and function; it does not compare how much came back, nor
//! which address and value a write confirms. That is done here.

use std::borrow::Cow;

use tokio_modbus::{Request, Response};

use crate::address::Table;
use crate::error::Error;
use crate::rtu::Expect;
use crate::value::{MAX_READ_BITS, MAX_READ_REGISTERS, MAX_WRITE_BITS, MAX_WRITE_REGISTERS};

/// A request, by value where it is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<'a> {
    /// Functions 1 to 4.
    Read {
        /// The table, which decides the function.
        table: Table,
        /// First offset.
        start: u16,
        /// Registers or bits.
        count: u16,
    },
    /// Function 5.
    WriteCoil {
        /// Offset.
        offset: u16,
        /// New state.
        value: bool,
    },
    /// Function 15.
    WriteCoils {
        /// First offset.
        start: u16,
        /// New states.
        values: &'a [bool],
    },
    /// Function 6.
    WriteRegister {
        /// Offset.
        offset: u16,
        /// New value.
        value: u16,
    },
    /// Function 16.
    WriteRegisters {
        /// First offset.
        start: u16,
        /// New values.
        values: &'a [u16],
    },
}

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As many bits as were asked for, or up to seven more (whole bytes).
    Bits(Vec<bool>),
    /// As many registers as were asked for.
    Words(Vec<u16>),
    /// The write was confirmed.
    Written,
}

impl Call<'_> {
    /// The function code.
    #[must_use]
    pub const fn function(&self) -> u8 {
        match self {
            Self::Read { table, .. } => table.read_function(),
            Self::WriteCoil { .. } => 5,
            Self::WriteRegister { .. } => 6,
            Self::WriteCoils { .. } => 15,
            Self::WriteRegisters { .. } => 16,
        }
    }

    /// True where repeating it cannot do harm.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. })
    }

    /// Start and count.
    fn range(&self) -> (u16, usize) {
        match self {
            Self::Read { start, count, .. } => (*start, usize::from(*count)),
            Self::WriteCoil { offset, .. } | Self::WriteRegister { offset, .. } => (*offset, 1),
            Self::WriteCoils { start, values } => (*start, values.len()),
            Self::WriteRegisters { start, values } => (*start, values.len()),
        }
    }

    /// Refuses what the protocol cannot carry.
    ///
    /// # Errors
    /// [`Error::NotSent`].
    pub fn check(&self) -> Result<(), Error> {
        let (start, count) = self.range();
        let limit = match self {
            Self::Read { table, .. } if table.is_bits() => MAX_READ_BITS,
            Self::Read { .. } => MAX_READ_REGISTERS,
            Self::WriteCoils { .. } => MAX_WRITE_BITS,
            Self::WriteRegisters { .. } => MAX_WRITE_REGISTERS,
            Self::WriteCoil { .. } | Self::WriteRegister { .. } => 1,
        };
        if count == 0 || count > usize::from(limit) {
            let function = self.function();
            return Err(Error::NotSent(format!(
                "function {function} takes 1 to {limit} values, not {count}"
            )));
        }
        if usize::from(start) + count > 65_536 {
            return Err(Error::NotSent(format!(
                "{count} values from offset {start} reach beyond offset 65535"
            )));
        }
        Ok(())
    }

    /// The request as tokio-modbus wants it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        match *self {
            Self::Read { table: Table::Coil, start, count } => Request::ReadCoils(start, count),
            Self::Read { table: Table::Discrete, start, count } => Request::ReadDiscreteInputs(start, count),
            Self::Read { table: Table::Input, start, count } => Request::ReadInputRegisters(start, count),
            Self::Read { table: Table::Holding, start, count } => Request::ReadHoldingRegisters(start, count),
            Self::WriteCoil { offset, value } => Request::WriteSingleCoil(offset, value),
            Self::WriteCoils { start, values } => Request::WriteMultipleCoils(start, Cow::Borrowed(values)),
            Self::WriteRegister { offset, value } => Request::WriteSingleRegister(offset, value),
            Self::WriteRegisters { start, values } => {
                Request::WriteMultipleRegisters(start, Cow::Borrowed(values))
            }
        }
    }

    /// What the answer looks like on an RTU line.
    #[must_use]
    pub fn expect(&self, unit: u8) -> Expect {
        let function = self.function();
        // `check` has limited every count, so the casts below lose nothing.
        match *self {
            Self::Read { table, start, count } => {
                let bytes = if table.is_bits() { count.div_ceil(8) } else { count * 2 };
                Expect::read(unit, function, start, count, bytes as u8)
            }
            Self::WriteCoil { offset, value } => {
                Expect::write(unit, function, offset, if value { 0xFF00 } else { 0 })
            }
            Self::WriteRegister { offset, value } => Expect::write(unit, function, offset, value),
            Self::WriteCoils { start, values } => Expect::write(unit, function, start, values.len() as u16),
            Self::WriteRegisters { start, values } => {
                Expect::write(unit, function, start, values.len() as u16)
            }
        }
    }

    /// Checks the answer.
    ///
    /// # Errors
    /// What was expected and what was found, as texts.
    pub fn verify(&self, response: Response) -> Result<Answer, (String, String)> {
        match (*self, response) {
            (Self::Read { count, .. }, Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => {
                let expected = usize::from(count.div_ceil(8)) * 8;
                if bits.len() == expected {
                    Ok(Answer::Bits(bits))
                } else {
                    Err((format!("{} bytes of bits", expected / 8), format!("{}", bits.len() / 8)))
                }
            }
            (
                Self::Read { count, .. },
                Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words),
            ) => {
                if words.len() == usize::from(count) {
                    Ok(Answer::Words(words))
                } else {
                    Err((format!("{count} registers"), format!("{}", words.len())))
                }
            }
            (Self::WriteCoil { offset, value }, Response::WriteSingleCoil(at, found)) => {
                confirm((offset, u16::from(value)), (at, u16::from(found)))
            }
            (Self::WriteRegister { offset, value }, Response::WriteSingleRegister(at, found)) => {
                confirm((offset, value), (at, found))
            }
            (Self::WriteCoils { start, values }, Response::WriteMultipleCoils(at, count)) => {
                confirm((start, values.len() as u16), (at, count))
            }
            (Self::WriteRegisters { start, values }, Response::WriteMultipleRegisters(at, count)) => {
                confirm((start, values.len() as u16), (at, count))
            }
            (call, other) => Err((
                format!("an answer to function {}", call.function()),
                format!("one to function {}", other.function_code().value()),
            )),
        }
    }
}

fn confirm(expected: (u16, u16), found: (u16, u16)) -> Result<Answer, (String, String)> {
    let text = |(at, value): (u16, u16)| format!("confirmation of {value} at offset {at}");
    if expected == found { Ok(Answer::Written) } else { Err((text(expected), text(found))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_carried_is_not_sent() {
        let read = |table, start, count| Call::Read { table, start, count }.check();
        assert!(read(Table::Holding, 0, 125).is_ok() && read(Table::Coil, 0, 2000).is_ok());
        assert!(read(Table::Holding, 0, 126).is_err() && read(Table::Coil, 0, 2001).is_err());
        assert!(read(Table::Input, 0, 0).is_err() && read(Table::Input, 65_535, 2).is_err());
        assert!(Call::WriteRegisters { start: 0, values: &[0; 123] }.check().is_ok());
        assert!(Call::WriteRegisters { start: 0, values: &[0; 124] }.check().is_err());
        assert!(Call::WriteCoils { start: 0, values: &[false; 1969] }.check().is_err());
    }

    #[test]
    fn a_confirmation_of_something_else_is_none() {
        let call = Call::WriteRegister { offset: 7, value: 8 };
        assert_eq!(call.verify(Response::WriteSingleRegister(7, 8)), Ok(Answer::Written));
        assert!(call.verify(Response::WriteSingleRegister(7, 9)).is_err());
        assert!(call.verify(Response::WriteSingleRegister(8, 8)).is_err());
        let read = Call::Read { table: Table::Holding, start: 0, count: 2 };
        assert!(read.verify(Response::ReadHoldingRegisters(vec![1])).is_err());
        assert!(read.verify(Response::ReadHoldingRegisters(vec![1, 2, 3])).is_err());
        let bits = Call::Read { table: Table::Coil, start: 0, count: 9 };
        assert!(bits.verify(Response::ReadCoils(vec![true; 16])).is_ok());
        assert!(bits.verify(Response::ReadCoils(vec![true; 8])).is_err());
    }
}
