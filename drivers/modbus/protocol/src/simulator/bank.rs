//! The data of one simulated unit: four tables with holes, and values that move.

use std::f64::consts::TAU;
use std::time::Duration;

use tokio::time::Instant;

use crate::address::{Address, Table};
use crate::error::Exception;
use crate::order::Order;
use crate::rtu::DIAGNOSTICS;
use crate::value::{
    Field, FieldSpec, MAX_READ_BITS, MAX_READ_REGISTERS, MAX_WRITE_BITS, MAX_WRITE_REGISTERS, Type, Value,
};

/// A value that swings around a centre.
#[derive(Debug, Clone, Copy)]
pub struct Wave {
    /// Mean.
    pub centre: f64,
    /// Largest distance from the mean.
    pub amplitude: f64,
    /// Time of one swing.
    pub period: Duration,
}

impl Wave {
    fn at(&self, elapsed: Duration) -> f64 {
        let turns = elapsed.as_secs_f64() / self.period.as_secs_f64().max(1e-3);
        self.centre + self.amplitude * (turns * TAU).sin()
    }
}

#[derive(Debug, Clone)]
struct Segment<T> {
    start: u32,
    values: Vec<T>,
}

impl<T: Copy> Segment<T> {
    fn slice(&self, start: u16, count: u16) -> Option<&[T]> {
        let from = u32::from(start).checked_sub(self.start)? as usize;
        self.values.get(from..from + usize::from(count))
    }

    fn slice_mut(&mut self, start: u16, count: usize) -> Option<&mut [T]> {
        let from = u32::from(start).checked_sub(self.start)? as usize;
        self.values.get_mut(from..from + count)
    }
}

/// Registers and bits of a unit. What was never set does not exist: reading it is refused with exception 2.
#[derive(Debug, Clone)]
pub struct Bank {
    words: [Vec<Segment<u16>>; 2],
    bits: [Vec<Segment<bool>>; 2],
    waves: Vec<(Field, Wave)>,
    started: Instant,
    max_registers: u16,
    echo: bool,
}

impl Default for Bank {
    fn default() -> Self {
        Self::new()
    }
}

impl Bank {
    /// An empty bank.
    #[must_use]
    pub fn new() -> Self {
        Self {
            words: [Vec::new(), Vec::new()],
            bits: [Vec::new(), Vec::new()],
            waves: Vec::new(),
            started: Instant::now(),
            max_registers: MAX_READ_REGISTERS,
            echo: true,
        }
    }

    /// Adds holding registers.
    #[must_use]
    pub fn holding(self, start: u16, values: &[u16]) -> Self {
        self.add_words(Table::Holding, start, values)
    }

    /// Adds input registers.
    #[must_use]
    pub fn input(self, start: u16, values: &[u16]) -> Self {
        self.add_words(Table::Input, start, values)
    }

    /// Adds coils.
    #[must_use]
    pub fn coils(self, start: u16, values: &[bool]) -> Self {
        self.add_bits(Table::Coil, start, values)
    }

    /// Adds discrete inputs.
    #[must_use]
    pub fn discretes(self, start: u16, values: &[bool]) -> Self {
        self.add_bits(Table::Discrete, start, values)
    }

    /// Adds one value of any type. A value that does not fit is left out.
    #[must_use]
    pub fn value(mut self, address: Address, kind: Type, order: Order, value: &Value) -> Self {
        let length = (kind == Type::Text).then_some(8);
        let spec = FieldSpec { address, kind: Some(kind), order: Some(order), bit: None, length };
        if let Ok(field) = Field::new(&spec)
            && let Ok(words) = field.encode_words(value)
        {
            self = self.add_words(address.table, address.offset, &words);
        }
        self
    }

    /// Adds a value that moves.
    #[must_use]
    pub fn wave(mut self, address: Address, kind: Type, order: Order, wave: Wave) -> Self {
        let spec = FieldSpec { address, kind: Some(kind), order: Some(order), bit: None, length: None };
        if let Ok(field) = Field::new(&spec) {
            self = self.add_words(address.table, address.offset, &vec![0; usize::from(field.count)]);
            self.waves.push((field, wave));
        }
        self
    }

    /// Refuses reads of more than `limit` registers with exception 3, as small devices do.
    #[must_use]
    pub const fn at_most(mut self, limit: u16) -> Self {
        self.max_registers = limit;
        self
    }

    /// Refuses function 8 (diagnostics) with exception 1.
    #[must_use]
    pub const fn without_diagnostics(mut self) -> Self {
        self.echo = false;
        self
    }

    fn add_words(mut self, table: Table, start: u16, values: &[u16]) -> Self {
        if let Some(segments) = self.words.get_mut(usize::from(table == Table::Input)) {
            insert(segments, start, values);
        }
        self
    }

    fn add_bits(mut self, table: Table, start: u16, values: &[bool]) -> Self {
        if let Some(segments) = self.bits.get_mut(usize::from(table == Table::Discrete)) {
            insert(segments, start, values);
        }
        self
    }

    /// Registers as they are now; `None` where one of them does not exist.
    pub fn words(&mut self, table: Table, start: u16, count: u16) -> Option<Vec<u16>> {
        self.move_waves(table, start, count);
        let segments = self.words.get(usize::from(table == Table::Input)).filter(|_| !table.is_bits())?;
        segments.iter().find_map(|segment| segment.slice(start, count)).map(<[u16]>::to_vec)
    }

    /// Bits as they are now; `None` where one of them does not exist.
    #[must_use]
    pub fn bits(&self, table: Table, start: u16, count: u16) -> Option<Vec<bool>> {
        let segments = self.bits.get(usize::from(table == Table::Discrete)).filter(|_| table.is_bits())?;
        segments.iter().find_map(|segment| segment.slice(start, count)).map(<[bool]>::to_vec)
    }

    /// Changes registers that exist; false where one of them does not.
    pub fn set_words(&mut self, table: Table, start: u16, values: &[u16]) -> bool {
        let segments = self.words.get_mut(usize::from(table == Table::Input));
        segments.is_some_and(|segments| overwrite(segments, start, values))
    }

    /// Changes bits that exist; false where one of them does not.
    pub fn set_bits(&mut self, table: Table, start: u16, values: &[bool]) -> bool {
        let segments = self.bits.get_mut(usize::from(table == Table::Discrete));
        segments.is_some_and(|segments| overwrite(segments, start, values))
    }

    fn move_waves(&mut self, table: Table, start: u16, count: u16) {
        let end = u32::from(start) + u32::from(count);
        let elapsed = self.started.elapsed();
        let due: Vec<(u16, Vec<u16>)> = self
            .waves
            .iter()
            .filter(|(field, _)| {
                let from = u32::from(field.address.offset);
                field.address.table == table && from < end && from + u32::from(field.count) > u32::from(start)
            })
            .filter_map(|(field, wave)| {
                let number = wave.at(elapsed);
                let whole = !matches!(field.kind, Type::Float32 | Type::Float64);
                let value = Value::Float64(if whole { number.round() } else { number });
                field.encode_words(&value).ok().map(|words| (field.address.offset, words))
            })
            .collect();
        for (offset, words) in due {
            self.set_words(table, offset, &words);
        }
    }

    /// Executes a request PDU; the answer may be an exception.
    pub(super) fn execute(&mut self, pdu: &[u8]) -> Vec<u8> {
        let function = pdu.first().copied().unwrap_or(0);
        match self.run(function, pdu.get(1..).unwrap_or(&[])) {
            Ok(mut data) => {
                data.insert(0, function);
                data
            }
            Err(exception) => vec![function | 0x80, exception.0],
        }
    }

    fn run(&mut self, function: u8, body: &[u8]) -> Result<Vec<u8>, Exception> {
        let word = |index: usize| match (body.get(index), body.get(index + 1)) {
            (Some(high), Some(low)) => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(Exception::ILLEGAL_DATA_VALUE),
        };
        match function {
            1 => self.read_bits(Table::Coil, word(0)?, word(2)?),
            2 => self.read_bits(Table::Discrete, word(0)?, word(2)?),
            3 => self.read_words(Table::Holding, word(0)?, word(2)?),
            4 => self.read_words(Table::Input, word(0)?, word(2)?),
            5 => {
                let value = match word(2)? {
                    0xFF00 => true,
                    0 => false,
                    _ => return Err(Exception::ILLEGAL_DATA_VALUE),
                };
                accepted(self.set_bits(Table::Coil, word(0)?, &[value]), body)
            }
            6 => accepted(self.set_words(Table::Holding, word(0)?, &[word(2)?]), body),
            DIAGNOSTICS if self.echo && word(0)? == 0 => Ok(body.to_vec()),
            15 => {
                let count = word(2)?;
                let data = body.get(5..).filter(|data| data.len() == usize::from(count.div_ceil(8)));
                let data = data.filter(|_| (1..=MAX_WRITE_BITS).contains(&count));
                let data = data.ok_or(Exception::ILLEGAL_DATA_VALUE)?;
                let bit = |index: u16| {
                    data.get(usize::from(index / 8)).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
                };
                let values: Vec<bool> = (0..count).map(bit).collect();
                accepted(self.set_bits(Table::Coil, word(0)?, &values), body)
            }
            16 => {
                let count = word(2)?;
                let data = body.get(5..).filter(|data| data.len() == usize::from(count) * 2);
                let data = data.filter(|_| (1..=MAX_WRITE_REGISTERS).contains(&count));
                let data = data.ok_or(Exception::ILLEGAL_DATA_VALUE)?;
                let values: Vec<u16> = data
                    .chunks_exact(2)
                    .filter_map(|pair| Some(u16::from_be_bytes([*pair.first()?, *pair.get(1)?])))
                    .collect();
                accepted(self.set_words(Table::Holding, word(0)?, &values), body)
            }
            _ => Err(Exception::ILLEGAL_FUNCTION),
        }
    }

    fn read_words(&mut self, table: Table, start: u16, count: u16) -> Result<Vec<u8>, Exception> {
        if count == 0 || count > self.max_registers {
            return Err(Exception::ILLEGAL_DATA_VALUE);
        }
        let words = self.words(table, start, count).ok_or(Exception::ILLEGAL_DATA_ADDRESS)?;
        let mut data = vec![(count * 2) as u8];
        data.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        Ok(data)
    }

    fn read_bits(&self, table: Table, start: u16, count: u16) -> Result<Vec<u8>, Exception> {
        if count == 0 || count > MAX_READ_BITS {
            return Err(Exception::ILLEGAL_DATA_VALUE);
        }
        let bits = self.bits(table, start, count).ok_or(Exception::ILLEGAL_DATA_ADDRESS)?;
        let mut data = vec![count.div_ceil(8) as u8];
        let byte = |bits: &[bool]| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
        data.extend(bits.chunks(8).map(byte));
        Ok(data)
    }
}

/// Confirms a write with the first four bytes of its request (address and value or count).
fn accepted(done: bool, body: &[u8]) -> Result<Vec<u8>, Exception> {
    let confirmation = body.get(..4).filter(|_| done);
    confirmation.map(<[u8]>::to_vec).ok_or(Exception::ILLEGAL_DATA_ADDRESS)
}

/// Overwrites what exists, appends to a neighbour, or starts a new segment.
fn insert<T: Copy>(segments: &mut Vec<Segment<T>>, start: u16, values: &[T]) {
    if overwrite(segments, start, values) {
        return;
    }
    let start = u32::from(start);
    match segments.iter_mut().find(|segment| segment.start + segment.values.len() as u32 == start) {
        Some(before) => before.values.extend_from_slice(values),
        None => segments.push(Segment { start, values: values.to_vec() }),
    }
}

fn overwrite<T: Copy>(segments: &mut [Segment<T>], start: u16, values: &[T]) -> bool {
    let place = segments.iter_mut().find_map(|segment| segment.slice_mut(start, values.len()));
    place.map(|place| place.copy_from_slice(values)).is_some()
}
