//! `Sample.flags`: why a sample was made, and its marks.

/// Why a sample was made (bits 0-2 of the flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// A scheduled read.
    Poll = 0,
    /// The device reported a change of the value.
    DataChange = 1,
    /// The device reported a change of quality.
    QualityChange = 2,
    /// The device reported an update without change.
    DataUpdate = 3,
    /// Integrity report or interrogation.
    Integrity = 4,
    /// Read after (re)connect.
    Resync = 5,
    /// A record from the device's own memory.
    History = 6,
    /// Made by the host: lost, stale, substituted.
    Host = 7,
}

impl Cause {
    /// The cause in `flags`.
    #[must_use]
    pub const fn of(flags: u8) -> Self {
        match flags & 0b111 {
            0 => Self::Poll,
            1 => Self::DataChange,
            2 => Self::QualityChange,
            3 => Self::DataUpdate,
            4 => Self::Integrity,
            5 => Self::Resync,
            6 => Self::History,
            _ => Self::Host,
        }
    }

    /// Causes that make an event of bool, double point, step and bits (kept all and in order towards sinks).
    #[must_use]
    pub const fn is_event(self) -> bool {
        matches!(self, Self::DataChange | Self::QualityChange | Self::DataUpdate)
    }
}

/// The marks beside the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// The time stamp is the gateway's.
    pub const GATEWAY_TIME: u8 = 1 << 3;
    /// A transient: the value was already gone when it was read.
    pub const TRANSIENT: u8 = 1 << 4;
    /// The counter overflowed since the last sample.
    pub const COUNTER_CARRY: u8 = 1 << 5;
    /// The counter was adjusted since the last sample.
    pub const COUNTER_ADJUSTED: u8 = 1 << 6;
    /// Bit 7 is reserved and 0.
    pub const RESERVED: u8 = 1 << 7;

    /// Flags with `cause` and `marks`.
    #[must_use]
    pub const fn new(cause: Cause, marks: u8) -> Self {
        Self((cause as u8) | (marks & 0b0111_1000))
    }

    /// The cause.
    #[must_use]
    pub const fn cause(self) -> Cause {
        Cause::of(self.0)
    }

    /// The same marks with another cause.
    #[must_use]
    pub const fn with_cause(self, cause: Cause) -> Self {
        Self::new(cause, self.0)
    }

    /// True when the gateway stamped the sample.
    #[must_use]
    pub const fn gateway_time(self) -> bool {
        self.0 & Self::GATEWAY_TIME != 0
    }
}
