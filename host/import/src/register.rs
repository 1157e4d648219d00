//! What a value is in a Modbus device: table, offset, type. The rules of the old files; the words of the new one.
//!
//! Numbers. `0x` is always an offset. In lists of the first generation a plain number is an *entity number*, which carries
//! its table in the first digit and counts from 1 (30001 is input register 0, 40003 is holding register 2), unless it
//! cannot be one or the user says that offsets are meant. The table that is named beside a number wins over the one in
//! the number, and the contradiction is told with both readings. The driver reads addresses by the same rule; a test
//! compares the two.

/// One of the four tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

impl Table {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Input => "input",
            Self::Holding => "holding",
        }
    }

    pub(crate) const fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// `HOLDING`, `HOLDING_REGISTER`, `INPUT`, `COIL`, `DISCRETE_INPUT` without regard to case, blanks or dashes.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let word: String = text
            .trim()
            .to_ascii_uppercase()
            .chars()
            .map(|c| if matches!(c, ' ' | '-') { '_' } else { c })
            .collect();
        Some(match word.as_str() {
            "COIL" | "COILS" => Self::Coil,
            "DISCRETE_INPUT" | "DISCRETE_INPUTS" | "DISCRETE" => Self::Discrete,
            "INPUT" | "INPUT_REGISTER" | "INPUT_REGISTERS" => Self::Input,
            "HOLDING" | "HOLDING_REGISTER" | "HOLDING_REGISTERS" => Self::Holding,
            _ => return None,
        })
    }
}

/// Words of tables, for messages.
pub(crate) const TABLES: [&str; 4] = ["COIL", "DISCRETE_INPUT", "HOLDING", "INPUT"];

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) table: Table,
    pub(crate) offset: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.table.name(), self.offset)
    }
}

/// How plain numbers of register lists are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressMode {
    /// Entity numbers where they can be one, else offsets; contradictions are told.
    #[default]
    Auto,
    /// Entity numbers.
    Entity,
    /// Offsets.
    Offset,
}

/// A number read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) address: Address,
    /// The other readings, where the number contradicts the table.
    pub(crate) doubt: Option<String>,
}

/// Reads a number of a register list beside the table that was named, if one was. The error says what was expected.
pub(crate) fn resolve(text: &str, table: Option<Table>, mode: AddressMode) -> Result<Resolved, String> {
    let text = text.trim();
    if let Some(hex) = hex_digits(text) {
        let table = table.ok_or("a register type beside an offset")?;
        let offset = u16::from_str_radix(hex, 16).map_err(|_| OFFSETS.to_owned())?;
        return Ok(Resolved { address: Address { table, offset }, doubt: None });
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a register number, decimal or 0x hexadecimal".into());
    }
    let offset = || text.parse::<u16>().map_err(|_| OFFSETS.to_owned());
    let entity = entity_number(text);
    match (mode, entity, table) {
        (AddressMode::Offset, _, Some(table)) | (AddressMode::Auto, None, Some(table)) => {
            Ok(Resolved { address: Address { table, offset: offset()? }, doubt: None })
        }
        (AddressMode::Offset, ..) => Err("a register type beside an offset".into()),
        (_, None, _) => {
            Err("an entity number: 1 to 9999, 10001 to 19999, 30001 to 39999, 40001 to 49999, or six \
                             digits x00001 to x65536"
                .into())
        }
        (_, Some(found), named) => {
            let address = Address { table: named.unwrap_or(found.table), offset: found.offset };
            let doubt = (address.table != found.table).then(|| {
                let by_offset = offset().map(|offset| Address { table: address.table, offset });
                match by_offset {
                    Ok(plain) => format!("{found} by the number, or {plain} if it is an offset"),
                    Err(_) => format!("{found} by the number"),
                }
            });
            Ok(Resolved { address, doubt })
        }
    }
}

const OFFSETS: &str = "an offset from 0 to 65535";

/// The digits behind `0x`.
pub(crate) fn hex_digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

fn entity_number(text: &str) -> Option<Address> {
    if text.len() > 6 {
        return None;
    }
    let number: u32 = text.parse().ok()?;
    let base = if text.len() == 6 { 100_000 } else { 10_000 };
    let table = match number / base {
        0 => Table::Coil,
        1 => Table::Discrete,
        3 => Table::Input,
        4 => Table::Holding,
        _ => return None,
    };
    Some(Address { table, offset: u16::try_from((number % base).checked_sub(1)?).ok()? })
}

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float32,
    Float64,
    /// Text in so many registers; 0 where the file does not say.
    Text(u16),
}

/// Words of types in the first generation, for messages.
pub(crate) const KINDS: [&str; 8] =
    ["INT16", "UINT16", "INT32", "UINT32", "FLOAT32", "FLOAT64", "BOOL", "STRING"];
/// Letters of types in maps (those of Python's `struct`), for messages.
pub(crate) const LETTERS: [&str; 5] = ["f", "h", "H", "i", "I"];

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int16 => "int16",
            Self::Uint16 => "uint16",
            Self::Int32 => "int32",
            Self::Uint32 => "uint32",
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Text(_) => "string",
        }
    }

    /// Registers, or bits.
    pub(crate) const fn width(self) -> u16 {
        match self {
            Self::Bool | Self::Int16 | Self::Uint16 => 1,
            Self::Int32 | Self::Uint32 | Self::Float32 => 2,
            Self::Int64 | Self::Uint64 | Self::Float64 => 4,
            Self::Text(length) => length,
        }
    }

    /// A type of the first generation. `STRING:8` is a text in eight registers.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let word = text.trim().to_ascii_uppercase();
        if let Some(length) = word.strip_prefix("STRING:") {
            return length.trim().parse().ok().filter(|length| (1..=125).contains(length)).map(Self::Text);
        }
        Some(match word.as_str() {
            "BOOL" | "BOOLEAN" => Self::Bool,
            "INT16" => Self::Int16,
            "UINT16" => Self::Uint16,
            "INT32" => Self::Int32,
            "UINT32" => Self::Uint32,
            "INT64" => Self::Int64,
            "UINT64" => Self::Uint64,
            "FLOAT32" | "FLOAT" => Self::Float32,
            "FLOAT64" | "DOUBLE" => Self::Float64,
            "STRING" => Self::Text(0),
            _ => return None,
        })
    }

    /// A type of a map: a letter of Python's `struct`.
    pub(crate) fn of_letter(text: &str) -> Option<Self> {
        Some(match text.trim() {
            "f" => Self::Float32,
            "h" => Self::Int16,
            "H" => Self::Uint16,
            "i" => Self::Int32,
            "I" => Self::Uint32,
            _ => return None,
        })
    }
}

/// A factor as TOML writes it; `None` where it is no factor of at most 18 digits, or 0.
pub(crate) fn factor(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let decimal: busbar_core::decimal::Decimal = text.parse().ok()?;
    let number = decimal.to_f64();
    if decimal == busbar_core::decimal::Decimal::ZERO || !number.is_finite() || text.contains('_') {
        return None;
    }
    // Digits as they were written: a double next to 0.1 is not 0.1.
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, ""));
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = fraction.trim_end_matches('0');
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    let exponent =
        if exponent.is_empty() { String::new() } else { format!("e{}", exponent.parse::<i32>().ok()?) };
    Some(format!("{sign}{whole}.{fraction}{exponent}"))
}

/// The factor that changes nothing.
pub(crate) const ONE: &str = "1.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_lists() {
        let at = |table, offset| Address { table, offset };
        let read = |text, table, mode| resolve(text, table, mode).map(|resolved| resolved.address);
        let (auto, entity, by_offset) = (AddressMode::Auto, AddressMode::Entity, AddressMode::Offset);
        let holding = Some(Table::Holding);
        for (text, table, mode, expected) in [
            ("30001", None, auto, at(Table::Input, 0)),
            ("30001", Some(Table::Input), auto, at(Table::Input, 0)),
            ("40003", holding, auto, at(Table::Holding, 2)),
            ("30001", holding, auto, at(Table::Holding, 0)),
            ("30001", holding, by_offset, at(Table::Holding, 30_001)),
            ("0x2006", holding, auto, at(Table::Holding, 0x2006)),
            ("0X10", holding, entity, at(Table::Holding, 16)),
            ("0", holding, auto, at(Table::Holding, 0)),
            ("20000", holding, auto, at(Table::Holding, 20_000)),
            ("465536", holding, auto, at(Table::Holding, 65_535)),
            ("1", Some(Table::Coil), auto, at(Table::Coil, 0)),
        ] {
            assert_eq!(read(text, table, mode), Ok(expected), "{text}");
        }
        for (text, table, mode) in [
            ("", holding, auto),
            ("-1", holding, auto),
            ("40001.5", holding, auto),
            ("0x10000", holding, auto),
            ("0xZZ", holding, auto),
            ("70000", holding, auto),
            ("20000", holding, entity),
            ("40001", None, by_offset),
            ("0x10", None, auto),
        ] {
            assert!(read(text, table, mode).is_err(), "{text}");
        }
        let doubt = resolve("30001", holding, auto).unwrap().doubt.unwrap();
        assert_eq!(doubt, "input:0 by the number, or holding:30001 if it is an offset");
    }

    /// The driver would read the list in the same way.
    #[test]
    fn the_driver_reads_numbers_alike() {
        use busbar_modbus::address::{self, Reading};
        let tables = [Table::Coil, Table::Discrete, Table::Input, Table::Holding];
        let modes = [AddressMode::Auto, AddressMode::Entity, AddressMode::Offset];
        for number in
            (0..70_000_u32).step_by(7).chain([1, 9999, 10_000, 10_001, 39_999, 40_000, 49_999, 65_535]).chain(
                (0..6).flat_map(|digit| {
                    [digit * 100_000 + 1, digit * 100_000 + 65_536, digit * 100_000 + 65_537]
                }),
            )
        {
            let text = number.to_string();
            for (own, table) in tables.into_iter().zip(address::Table::ALL) {
                for mode in modes {
                    let theirs = match mode {
                        AddressMode::Auto => address::AddressMode::Auto,
                        AddressMode::Entity => address::AddressMode::Entity,
                        AddressMode::Offset => address::AddressMode::Offset,
                    };
                    let theirs = address::resolve(&text, table, theirs, Reading::Entity);
                    let ours = resolve(&text, Some(own), mode);
                    assert_eq!(
                        ours.as_ref().ok().map(|r| (r.address.to_string(), r.doubt.is_some())),
                        theirs.ok().map(|r| (r.address.to_string(), r.warning.is_some())),
                        "{text} {own:?} {mode:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn factors_keep_their_digits() {
        for (text, written) in [
            ("1", "1.0"),
            ("0.1", "0.1"),
            (" .5 ", "0.5"),
            ("-2.50", "-2.5"),
            ("1e-3", "1.0e-3"),
            ("007", "7.0"),
            ("+3", "3.0"),
        ] {
            assert_eq!(factor(text).as_deref(), Some(written), "{text}");
            let read: toml::Table = format!("x = {written}").parse().unwrap();
            assert_eq!(read["x"].as_float(), text.trim().parse().ok(), "{text}");
        }
        for bad in ["", "0", "0.0", "abc", "1,5", "nan", "inf", "1_0", "12345678901234567890", "--1", "1e999"]
        {
            assert_eq!(factor(bad), None, "{bad}");
        }
    }

    #[test]
    fn types() {
        assert_eq!(Kind::read(" float32 "), Some(Kind::Float32));
        assert_eq!(Kind::read("STRING:8"), Some(Kind::Text(8)));
        assert_eq!((Kind::read("STRING:0"), Kind::read("WORD")), (None, None));
        assert_eq!((Kind::of_letter("h"), Kind::of_letter("H")), (Some(Kind::Int16), Some(Kind::Uint16)));
        assert_eq!(Kind::of_letter("F"), None);
        assert_eq!(Table::read("Discrete-Input"), Some(Table::Discrete));
        assert_eq!(Table::read("HOLDNG"), None);
    }
}
