//! Type identifications (IEC 60870-5-101, table 8 to 13) and what an object of each looks like.

use std::fmt;

/// A type identification, known or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u8);

/// The information element of a type, without its time tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SIQ: single point with quality.
    Single,
    /// DIQ: double point with quality.
    Double,
    /// VTI and QDS: step position.
    Step,
    /// BSI and QDS: 32 bits.
    Bits,
    /// NVA and QDS: normalised value.
    Normalised,
    /// SVA and QDS: scaled value.
    Scaled,
    /// R32 and QDS: short floating point number.
    Float,
    /// BCR: binary counter reading.
    Counter,
    /// SCO: single command.
    SingleCommand,
    /// DCO: double command.
    DoubleCommand,
    /// RCO: regulating step command.
    StepCommand,
    /// NVA and QOS.
    SetNormalised,
    /// SVA and QOS.
    SetScaled,
    /// R32 and QOS.
    SetFloat,
    /// BSI without qualifier.
    SetBits,
    /// COI: end of initialisation.
    Initialised,
    /// QOI: interrogation.
    Interrogation,
    /// QCC: counter interrogation.
    CounterInterrogation,
    /// Nothing: read, and clock synchronisation, whose element is the time tag.
    Nothing,
    /// FBP: fixed test pattern.
    Test,
    /// QRP: reset of process.
    Reset,
    /// CP16Time2a: delay acquisition.
    Delay,
    /// TSC: test sequence counter.
    TestCounter,
}

impl Kind {
    /// Octets of the element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Single
            | Self::Double
            | Self::SingleCommand
            | Self::DoubleCommand
            | Self::StepCommand
            | Self::Initialised
            | Self::Interrogation
            | Self::CounterInterrogation
            | Self::Reset => 1,
            Self::Step | Self::Test | Self::Delay | Self::TestCounter => 2,
            Self::Normalised | Self::Scaled | Self::SetNormalised | Self::SetScaled => 3,
            Self::SetBits => 4,
            Self::Bits | Self::Float | Self::Counter | Self::SetFloat => 5,
        }
    }
}

/// The time tag of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeKind {
    /// No time.
    None,
    /// CP24Time2a, not used in 104.
    Cp24,
    /// CP56Time2a.
    Cp56,
}

impl TimeKind {
    /// Octets of the tag.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::None => 0,
            Self::Cp24 => 3,
            Self::Cp56 => 7,
        }
    }
}

macro_rules! types {
    ($($constant:ident = $number:literal, $kind:ident, $time:ident;)*) => {
        impl TypeId {
            $(
                #[doc = concat!("Type ", $number, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// Every type known here.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];

            /// Element and time tag; `None` for an unknown type.
            #[must_use]
            pub const fn layout(self) -> Option<(Kind, TimeKind)> {
                match self.0 {
                    $($number => Some((Kind::$kind, TimeKind::$time)),)*
                    _ => None,
                }
            }

            /// The standard's name.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($constant)),)*
                    _ => None,
                }
            }
        }
    };
}

types! {
    M_SP_NA_1 = 1, Single, None;
    M_SP_TA_1 = 2, Single, Cp24;
    M_DP_NA_1 = 3, Double, None;
    M_DP_TA_1 = 4, Double, Cp24;
    M_ST_NA_1 = 5, Step, None;
    M_ST_TA_1 = 6, Step, Cp24;
    M_BO_NA_1 = 7, Bits, None;
    M_BO_TA_1 = 8, Bits, Cp24;
    M_ME_NA_1 = 9, Normalised, None;
    M_ME_TA_1 = 10, Normalised, Cp24;
    M_ME_NB_1 = 11, Scaled, None;
    M_ME_TB_1 = 12, Scaled, Cp24;
    M_ME_NC_1 = 13, Float, None;
    M_ME_TC_1 = 14, Float, Cp24;
    M_IT_NA_1 = 15, Counter, None;
    M_IT_TA_1 = 16, Counter, Cp24;
    M_SP_TB_1 = 30, Single, Cp56;
    M_DP_TB_1 = 31, Double, Cp56;
    M_ST_TB_1 = 32, Step, Cp56;
    M_BO_TB_1 = 33, Bits, Cp56;
    M_ME_TD_1 = 34, Normalised, Cp56;
    M_ME_TE_1 = 35, Scaled, Cp56;
    M_ME_TF_1 = 36, Float, Cp56;
    M_IT_TB_1 = 37, Counter, Cp56;
    C_SC_NA_1 = 45, SingleCommand, None;
    C_DC_NA_1 = 46, DoubleCommand, None;
    C_RC_NA_1 = 47, StepCommand, None;
    C_SE_NA_1 = 48, SetNormalised, None;
    C_SE_NB_1 = 49, SetScaled, None;
    C_SE_NC_1 = 50, SetFloat, None;
    C_BO_NA_1 = 51, SetBits, None;
    C_SC_TA_1 = 58, SingleCommand, Cp56;
    C_DC_TA_1 = 59, DoubleCommand, Cp56;
    C_RC_TA_1 = 60, StepCommand, Cp56;
    C_SE_TA_1 = 61, SetNormalised, Cp56;
    C_SE_TB_1 = 62, SetScaled, Cp56;
    C_SE_TC_1 = 63, SetFloat, Cp56;
    C_BO_TA_1 = 64, SetBits, Cp56;
    M_EI_NA_1 = 70, Initialised, None;
    C_IC_NA_1 = 100, Interrogation, None;
    C_CI_NA_1 = 101, CounterInterrogation, None;
    C_RD_NA_1 = 102, Nothing, None;
    C_CS_NA_1 = 103, Nothing, Cp56;
    C_TS_NA_1 = 104, Test, None;
    C_RP_NA_1 = 105, Reset, None;
    C_CD_NA_1 = 106, Delay, None;
    C_TS_TA_1 = 107, TestCounter, Cp56;
}

impl TypeId {
    /// The type of this name, `M_DP_TB_1`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.name() == Some(name))
    }

    /// Process information that a controlled station sends: 1 to 16 and 30 to 37.
    #[must_use]
    pub const fn is_monitor(self) -> bool {
        matches!(self.0, 1..=16 | 30..=37)
    }

    /// A command to the process: 45 to 51 and 58 to 64.
    #[must_use]
    pub const fn is_command(self) -> bool {
        matches!(self.0, 45..=51 | 58..=64)
    }

    /// The same element without a time tag, itself where there is none.
    #[must_use]
    pub const fn without_time(self) -> Self {
        match self.0 {
            2 | 4 | 6 | 8 | 10 | 12 | 14 | 16 => Self(self.0 - 1),
            30..=37 => Self((self.0 - 30) * 2 + 1),
            58..=64 => Self(self.0 - 13),
            _ => self,
        }
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}
