//! Information elements (IEC 60870-5-101, 7.2.6) as values, and their octets.

use super::types::Kind;

/// Quality descriptor QDS, also the upper half of SIQ and DIQ (7.2.6.1 to 7.2.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Qds(pub u8);

impl Qds {
    /// Good.
    pub const GOOD: Self = Self(0);
    /// OV: beyond the range of the type. Only in QDS.
    pub const OVERFLOW: Self = Self(0x01);
    /// BL: blocked for transmission, keeps the value from before.
    pub const BLOCKED: Self = Self(0x10);
    /// SB: entered by an operator or an automatic source.
    pub const SUBSTITUTED: Self = Self(0x20);
    /// NT: the last update was not successful.
    pub const NOT_TOPICAL: Self = Self(0x40);
    /// IV: not to be used.
    pub const INVALID: Self = Self(0x80);
    /// What a QDS can hold.
    const QDS: u8 = 0xf1;
    /// What fits into SIQ and DIQ.
    const STATUS: u8 = 0xf0;

    /// All bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Binary counter reading BCR (7.2.6.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counter {
    /// The reading.
    pub value: i32,
    /// SQ: 0 to 31, counts the readings.
    pub sequence: u8,
    /// CY: the counter went over its end since the last reading.
    pub carry: bool,
    /// CA: the counter was set since the last reading.
    pub adjusted: bool,
    /// IV.
    pub invalid: bool,
}

/// One information element without time tag. Numbers are as on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    /// Single point.
    Single(bool, Qds),
    /// Double point: 0 intermediate, 1 off, 2 on, 3 indeterminate.
    Double(u8, Qds),
    /// Step position -64 to 63 and the transient mark.
    Step(i8, bool, Qds),
    /// 32 bits.
    Bits(u32, Qds),
    /// Normalised value in steps of 2^-15.
    Normalised(i16, Qds),
    /// Scaled value.
    Scaled(i16, Qds),
    /// Short floating point number.
    Float(f32, Qds),
    /// Counter.
    Counter(Counter),
    /// A command.
    Command(Command),
    /// Cause of initialisation; bit 7: after change of local parameters.
    Initialised(u8),
    /// QOI: 20 station, 21 to 36 groups.
    Interrogation(u8),
    /// QCC.
    CounterInterrogation(Qcc),
    /// Nothing.
    Nothing,
    /// Fixed test pattern, 0x55aa.
    Test(u16),
    /// QRP: 1 general reset, 2 reset of events with time tag.
    Reset(u8),
    /// Milliseconds.
    Delay(u16),
    /// Test sequence counter.
    TestCounter(u16),
}

/// Qualifier of counter interrogation (7.2.6.23).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcc {
    /// RQT: 1 to 4 groups, 5 general.
    pub request: u8,
    /// FRZ.
    pub freeze: Freeze,
}

/// FRZ (7.2.6.23).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// Read what is frozen.
    Read,
    /// Freeze.
    Freeze,
    /// Freeze and set to zero.
    FreezeReset,
    /// Set to zero.
    Reset,
}

/// The value of a command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CommandValue {
    /// SCS.
    Single(bool),
    /// DCS: 1 off, 2 on; 0 and 3 are not permitted.
    Double(u8),
    /// RCS: 1 lower, 2 higher; 0 and 3 are not permitted.
    Step(u8),
    /// In steps of 2^-15.
    Normalised(i16),
    /// Scaled.
    Scaled(i16),
    /// Short floating point number.
    Float(f32),
    /// 32 bits.
    Bits(u32),
}

/// A command: value, QU or QL, S/E (7.2.6.15 to 7.2.6.17, 7.2.6.26, 7.2.6.39).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Command {
    /// The value.
    pub value: CommandValue,
    /// QU 0 to 31 of SCO, DCO, RCO; QL 0 to 127 of set points; 0 for bit strings.
    pub qualifier: u8,
    /// S/E: select rather than execute. Bit strings have none.
    pub select: bool,
}

/// Why an element cannot be written: it does not belong to the type.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0:?} is no element of this type")]
pub struct WrongElement(pub Element);

impl Command {
    const fn high(self) -> u8 {
        if self.select { 0x80 } else { 0 }
    }

    const fn qoc(self) -> u8 {
        (self.qualifier & 0x1f) << 2 | self.high()
    }

    const fn qos(self) -> u8 {
        self.qualifier & 0x7f | self.high()
    }

    const fn short(value: CommandValue, octet: u8) -> Self {
        Self { value, qualifier: octet >> 2 & 0x1f, select: octet & 0x80 != 0 }
    }

    const fn set(value: CommandValue, octet: u8) -> Self {
        Self { value, qualifier: octet & 0x7f, select: octet & 0x80 != 0 }
    }

    fn encode(self, kind: Kind, out: &mut Vec<u8>) -> bool {
        match (kind, self.value) {
            (Kind::SingleCommand, CommandValue::Single(on)) => out.push(u8::from(on) | self.qoc()),
            (Kind::DoubleCommand, CommandValue::Double(state)) => out.push(state & 3 | self.qoc()),
            (Kind::StepCommand, CommandValue::Step(state)) => out.push(state & 3 | self.qoc()),
            (Kind::SetNormalised, CommandValue::Normalised(v))
            | (Kind::SetScaled, CommandValue::Scaled(v)) => {
                out.extend_from_slice(&v.to_le_bytes());
                out.push(self.qos());
            }
            (Kind::SetFloat, CommandValue::Float(v)) => {
                out.extend_from_slice(&v.to_le_bytes());
                out.push(self.qos());
            }
            (Kind::SetBits, CommandValue::Bits(v)) => out.extend_from_slice(&v.to_le_bytes()),
            _ => return false,
        }
        true
    }
}

impl Element {
    /// Appends the octets of the element of `kind`.
    ///
    /// # Errors
    /// The element is of another kind; nothing is appended.
    pub fn encode(self, kind: Kind, out: &mut Vec<u8>) -> Result<(), WrongElement> {
        match (kind, self) {
            (Kind::Single, Self::Single(on, q)) => out.push(u8::from(on) | q.0 & Qds::STATUS),
            (Kind::Double, Self::Double(state, q)) => out.push(state & 3 | q.0 & Qds::STATUS),
            (Kind::Step, Self::Step(position, transient, q)) => {
                let octet = position.clamp(-64, 63).to_le_bytes();
                out.push(octet[0] & 0x7f | if transient { 0x80 } else { 0 });
                out.push(q.0 & Qds::QDS);
            }
            (Kind::Bits, Self::Bits(v, q)) => with_quality(out, &v.to_le_bytes(), q),
            (Kind::Normalised, Self::Normalised(v, q)) | (Kind::Scaled, Self::Scaled(v, q)) => {
                with_quality(out, &v.to_le_bytes(), q);
            }
            (Kind::Float, Self::Float(v, q)) => with_quality(out, &v.to_le_bytes(), q),
            (Kind::Counter, Self::Counter(c)) => {
                out.extend_from_slice(&c.value.to_le_bytes());
                let bit = |set: bool, mask: u8| if set { mask } else { 0 };
                out.push(
                    c.sequence & 0x1f | bit(c.carry, 0x20) | bit(c.adjusted, 0x40) | bit(c.invalid, 0x80),
                );
            }
            (_, Self::Command(command)) if command.encode(kind, out) => {}
            (Kind::Initialised, Self::Initialised(v))
            | (Kind::Interrogation, Self::Interrogation(v))
            | (Kind::Reset, Self::Reset(v)) => out.push(v),
            (Kind::CounterInterrogation, Self::CounterInterrogation(q)) => out.push(q.encode()),
            (Kind::Nothing, Self::Nothing) => {}
            (Kind::Test, Self::Test(v))
            | (Kind::Delay, Self::Delay(v))
            | (Kind::TestCounter, Self::TestCounter(v)) => {
                out.extend_from_slice(&v.to_le_bytes());
            }
            _ => return Err(WrongElement(self)),
        }
        Ok(())
    }

    /// Reads the element of `kind` from exactly its octets; `None` when their number is another.
    #[must_use]
    pub fn decode(kind: Kind, octets: &[u8]) -> Option<Self> {
        let one = || <[u8; 1]>::try_from(octets).ok().map(|[octet]| octet);
        let two = || <[u8; 2]>::try_from(octets).ok();
        let three = || <[u8; 3]>::try_from(octets).ok().map(|[a, b, q]| (i16::from_le_bytes([a, b]), q));
        let four = || <[u8; 4]>::try_from(octets).ok();
        let five = || <[u8; 5]>::try_from(octets).ok().map(|[a, b, c, d, q]| ([a, b, c, d], q));
        let status = |octet: u8| Qds(octet & Qds::STATUS);
        let quality = |octet: u8| Qds(octet & Qds::QDS);
        let short = |value, octet| Self::Command(Command::short(value, octet));
        let set = |value, octet| Self::Command(Command::set(value, octet));
        Some(match kind {
            Kind::Single => one().map(|o| Self::Single(o & 1 != 0, status(o)))?,
            Kind::Double => one().map(|o| Self::Double(o & 3, status(o)))?,
            Kind::Step => two().map(|[v, q]| Self::Step(position(v), v & 0x80 != 0, quality(q)))?,
            Kind::Bits => five().map(|(v, q)| Self::Bits(u32::from_le_bytes(v), quality(q)))?,
            Kind::Normalised => three().map(|(v, q)| Self::Normalised(v, quality(q)))?,
            Kind::Scaled => three().map(|(v, q)| Self::Scaled(v, quality(q)))?,
            Kind::Float => five().map(|(v, q)| Self::Float(f32::from_le_bytes(v), quality(q)))?,
            Kind::Counter => five().map(|(v, q)| Self::Counter(counter(v, q)))?,
            Kind::SingleCommand => one().map(|o| short(CommandValue::Single(o & 1 != 0), o))?,
            Kind::DoubleCommand => one().map(|o| short(CommandValue::Double(o & 3), o))?,
            Kind::StepCommand => one().map(|o| short(CommandValue::Step(o & 3), o))?,
            Kind::SetNormalised => three().map(|(v, q)| set(CommandValue::Normalised(v), q))?,
            Kind::SetScaled => three().map(|(v, q)| set(CommandValue::Scaled(v), q))?,
            Kind::SetFloat => five().map(|(v, q)| set(CommandValue::Float(f32::from_le_bytes(v)), q))?,
            Kind::SetBits => four().map(|v| set(CommandValue::Bits(u32::from_le_bytes(v)), 0))?,
            Kind::Initialised => Self::Initialised(one()?),
            Kind::Interrogation => Self::Interrogation(one()?),
            Kind::CounterInterrogation => Self::CounterInterrogation(Qcc::decode(one()?)),
            Kind::Nothing => octets.is_empty().then_some(Self::Nothing)?,
            Kind::Test => Self::Test(u16::from_le_bytes(two()?)),
            Kind::Reset => Self::Reset(one()?),
            Kind::Delay => Self::Delay(u16::from_le_bytes(two()?)),
            Kind::TestCounter => Self::TestCounter(u16::from_le_bytes(two()?)),
        })
    }
}

impl Qcc {
    /// The octet.
    #[must_use]
    pub const fn encode(self) -> u8 {
        let freeze = match self.freeze {
            Freeze::Read => 0,
            Freeze::Freeze => 1,
            Freeze::FreezeReset => 2,
            Freeze::Reset => 3,
        };
        self.request & 0x3f | freeze << 6
    }

    /// Reads the octet.
    #[must_use]
    pub const fn decode(octet: u8) -> Self {
        let freeze = match octet >> 6 {
            0 => Freeze::Read,
            1 => Freeze::Freeze,
            2 => Freeze::FreezeReset,
            _ => Freeze::Reset,
        };
        Self { request: octet & 0x3f, freeze }
    }
}

fn with_quality(out: &mut Vec<u8>, value: &[u8], quality: Qds) {
    out.extend_from_slice(value);
    out.push(quality.0 & Qds::QDS);
}

/// Seven bits in two's complement.
const fn position(octet: u8) -> i8 {
    i8::from_le_bytes([octet << 1]) >> 1
}

const fn counter(value: [u8; 4], octet: u8) -> Counter {
    Counter {
        value: i32::from_le_bytes(value),
        sequence: octet & 0x1f,
        carry: octet & 0x20 != 0,
        adjusted: octet & 0x40 != 0,
        invalid: octet & 0x80 != 0,
    }
}
