//! Where a value lives: one of the four Modbus tables and a 0-based offset.
//!
//! Two notations are in use in the field and they differ by one, which is the most frequent mistake of
//! a commissioning. The *offset* (`holding:0x2006`) is what travels in the request (MODBUS Application
//! Protocol 4.4, "PDU address", 0 to 65535). The *entity number* (`40003`) carries the table in its
//! first digit and counts from 1: number minus base minus 1 is the offset, so 30001 is `input:0` and
//! 40003 is `holding:2`. Five digits reach 9999 entities, six digits (`400001` to `465536`) all of them.
//!
//! Where both readings are possible the text decides by rule (hexadecimal is always an offset, a number
//! alone is always an entity number) or [`AddressMode`] does, and the other reading is named in a warning.

use std::fmt;

use crate::problem::Problem;

/// The largest offset of every table (16 bit PDU address).
pub const MAX_OFFSET: u16 = u16::MAX;

/// One of the four data tables of a Modbus server (MODBUS Application Protocol 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single bits, readable and writable: functions 1, 5, 15.
    Coil,
    /// Single bits, read only: function 2.
    Discrete,
    /// 16 bit registers, read only: function 4.
    Input,
    /// 16 bit registers, readable and writable: functions 3, 6, 16.
    Holding,
}

impl Table {
    /// All tables, in the order of their entity prefixes.
    pub const ALL: [Self; 4] = [Self::Coil, Self::Discrete, Self::Input, Self::Holding];

    /// The word used in addresses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Input => "input",
            Self::Holding => "holding",
        }
    }

    /// The function code that reads this table.
    #[must_use]
    pub const fn read_function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// True for the tables of single bits.
    #[must_use]
    pub const fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// True where the protocol has a write function.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::Coil | Self::Holding)
    }

    fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == text)
    }

    fn from_prefix(digit: u32) -> Option<Self> {
        match digit {
            0 => Some(Self::Coil),
            1 => Some(Self::Discrete),
            3 => Some(Self::Input),
            4 => Some(Self::Holding),
            _ => None,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A table and a 0-based offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The table.
    pub table: Table,
    /// The PDU address, 0-based.
    pub offset: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table, self.offset)
    }
}

/// How decimal numbers are read where both readings are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressMode {
    /// By the form of the text; a doubtful one gives a warning naming both readings.
    #[default]
    Auto,
    /// Decimal numbers are entity numbers (1-based).
    Entity,
    /// Decimal numbers are offsets (0-based).
    Offset,
}

/// A resolved address, and what is doubtful about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The address that will be used.
    pub address: Address,
    /// A sentence naming both readings, where the text allows two.
    pub warning: Option<Problem>,
}

impl Resolved {
    fn sure(address: Address) -> Self {
        Self { address, warning: None }
    }
}

const EXPECTED: &str = "coil:N, discrete:N, input:N or holding:N with offset N (0 to 65535, decimal or 0x hexadecimal), \
     or an entity number such as 30001 or 400123";

/// Reads an address as it stands in a point: `coil:3`, `holding:0x2006`, `30001`, `400123`.
///
/// # Errors
/// A [`Problem`] naming what was expected; where a number could be read in two ways, both readings.
pub fn parse(text: &str, mode: AddressMode) -> Result<Resolved, Problem> {
    let text = text.trim();
    match text.split_once(':') {
        None => parse_number_alone(text, mode),
        Some((name, number)) => {
            let Some(table) = Table::from_name(name) else {
                return Err(Problem::new(EXPECTED, format!("'{text}'"), table_hint(name)));
            };
            resolve(number.trim(), table, mode, Reading::Offset)
        }
    }
}

/// The reading that [`AddressMode::Auto`] prefers for a decimal number whose table is given beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// `holding:40003` is offset 40003.
    Offset,
    /// Register lists of older gateways: `40003` with type HOLDING is entity number 40003.
    Entity,
}

/// Reads a number whose table is given beside it.
///
/// The given table always wins over the table in an entity number; a contradiction gives a warning that
/// names both readings.
///
/// # Errors
/// A [`Problem`] for anything that is no number or outside the table.
pub fn resolve(number: &str, table: Table, mode: AddressMode, auto: Reading) -> Result<Resolved, Problem> {
    if let Some(hex) = number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
        let offset = u16::from_str_radix(hex, 16).map_err(|_| bad_offset(number, table))?;
        return Ok(Resolved::sure(Address { table, offset }));
    }
    let entity = entity_number(number);
    let by_offset = number.parse::<u16>().ok().filter(|_| all_digits(number));
    let reading = match mode {
        AddressMode::Entity => Reading::Entity,
        AddressMode::Offset => Reading::Offset,
        AddressMode::Auto if auto == Reading::Entity && entity.is_none() => Reading::Offset,
        AddressMode::Auto => auto,
    };
    match (reading, entity, by_offset) {
        (Reading::Offset, entity, Some(offset)) => {
            let address = Address { table, offset };
            let doubtful = mode == AddressMode::Auto && auto == Reading::Offset && offset > 10_000;
            let warning = entity.filter(|_| doubtful).map(|other| {
                two_readings(number, address, other, "add address_mode = \"offset\" if that is meant")
            });
            Ok(Resolved { address, warning })
        }
        (Reading::Offset, _, None) => Err(bad_offset(number, table)),
        (Reading::Entity, Some(found), _) => {
            let address = Address { table, offset: found.offset };
            let warning = (found.table != table).then(|| {
                two_readings(
                    number,
                    address,
                    found,
                    "the table that is named was taken; correct one of the two",
                )
            });
            Ok(Resolved { address, warning })
        }
        (Reading::Entity, None, by_offset) => Err(bad_entity(number, by_offset.map(|_| table))),
    }
}

/// The table and offset of an entity number: 1 to 9999, 10001 to 19999, 30001 to 39999, 40001 to 49999,
/// and the six-digit forms x00001 to x65536. `None` where the text is no entity number.
#[must_use]
pub fn entity_number(text: &str) -> Option<Address> {
    if !all_digits(text) || text.len() > 6 {
        return None;
    }
    let number: u32 = text.parse().ok()?;
    let base = if text.len() == 6 { 100_000 } else { 10_000 };
    let table = Table::from_prefix(number / base)?;
    let offset = u16::try_from((number % base).checked_sub(1)?).ok()?;
    Some(Address { table, offset })
}

fn parse_number_alone(text: &str, mode: AddressMode) -> Result<Resolved, Problem> {
    let digits = all_digits(text);
    if text.starts_with("0x") || text.starts_with("0X") || (digits && mode == AddressMode::Offset) {
        let hint = format!("an offset needs its table: input:{text} or holding:{text}");
        return Err(Problem::new(EXPECTED, format!("'{text}'"), hint));
    }
    match entity_number(text) {
        Some(address) => Ok(Resolved::sure(address)),
        None if digits => Err(bad_entity(text, None)),
        None => Err(Problem::new(EXPECTED, format!("'{text}'"), String::new())),
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn bad_offset(number: &str, table: Table) -> Problem {
    let hint = match entity_number(number) {
        Some(other) => {
            format!("as an entity number {number} would be {other}; write {number} alone for that")
        }
        None => String::new(),
    };
    Problem::new(
        format!("an offset 0 to {MAX_OFFSET} in table {table}, decimal or 0x hexadecimal"),
        format!("'{number}'"),
        hint,
    )
}

fn bad_entity(number: &str, table: Option<Table>) -> Problem {
    let hint = match (table, number.parse::<u16>()) {
        (Some(table), Ok(offset)) => {
            format!("as an offset it would be {table}:{offset}; set address_mode = \"offset\" for that")
        }
        (None, Ok(offset)) => {
            format!("if offset {offset} is meant, name the table: input:{offset} or holding:{offset}")
        }
        _ => String::new(),
    };
    let expected = "an entity number: 1-9999, 10001-19999, 30001-39999, 40001-49999, \
                    or six digits 000001-065536, 100001-165536, 300001-365536, 400001-465536";
    Problem::new(expected, format!("'{number}'"), hint)
}

fn two_readings(number: &str, taken: Address, other: Address, hint: &str) -> Problem {
    Problem::new(
        "a number with one reading",
        format!("{number}, taken as {taken}; as an entity number it would be {other}"),
        hint,
    )
}

fn table_hint(name: &str) -> String {
    let lower = name.trim().to_ascii_lowercase();
    let near = match lower.as_str() {
        "holding" | "hr" | "holding_register" | "holdingregister" | "register" | "4x" => Some(Table::Holding),
        "input" | "ir" | "input_register" | "inputregister" | "3x" => Some(Table::Input),
        "coil" | "coils" | "co" | "do" | "0x" => Some(Table::Coil),
        "discrete" | "discrete_input" | "discreteinput" | "di" | "1x" => Some(Table::Discrete),
        // The four words begin differently, and a slip of the fingers is rarely in the first letter.
        _ => Table::ALL.into_iter().find(|table| lower.chars().next() == table.name().chars().next()),
    };
    near.map(|table| format!("did you mean {table}:?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(table: Table, offset: u16) -> Address {
        Address { table, offset }
    }

    fn auto(text: &str) -> Address {
        let resolved = parse(text, AddressMode::Auto).unwrap();
        assert_eq!(resolved.warning, None, "{text}");
        resolved.address
    }

    #[test]
    fn offsets_are_taken_as_they_are() {
        assert_eq!(auto("coil:3"), at(Table::Coil, 3));
        assert_eq!(auto("discrete:3"), at(Table::Discrete, 3));
        assert_eq!(auto("input:0"), at(Table::Input, 0));
        assert_eq!(auto("holding:0x2006"), at(Table::Holding, 0x2006));
        assert_eq!(auto("holding:0xFFFF"), at(Table::Holding, 65535));
        assert_eq!(auto(" holding: 7 "), at(Table::Holding, 7));
    }

    #[test]
    fn entity_numbers_count_from_one() {
        assert_eq!(auto("30001"), at(Table::Input, 0));
        assert_eq!(auto("40003"), at(Table::Holding, 2));
        assert_eq!(auto("400123"), at(Table::Holding, 122));
        assert_eq!(auto("1"), at(Table::Coil, 0));
        assert_eq!(auto("9999"), at(Table::Coil, 9998));
        assert_eq!(auto("10001"), at(Table::Discrete, 0));
        assert_eq!(auto("19999"), at(Table::Discrete, 9998));
        assert_eq!(auto("000001"), at(Table::Coil, 0));
        assert_eq!(auto("065536"), at(Table::Coil, 65535));
        assert_eq!(auto("100001"), at(Table::Discrete, 0));
        assert_eq!(auto("365536"), at(Table::Input, 65535));
        assert_eq!(auto("465536"), at(Table::Holding, 65535));
    }

    #[test]
    fn no_entity_numbers() {
        for text in
            ["0", "10000", "20001", "30000", "40000", "50001", "200001", "400000", "465537", "4000001", ""]
        {
            assert_eq!(entity_number(text), None, "{text}");
            assert!(parse(text, AddressMode::Auto).is_err(), "{text}");
        }
    }

    #[test]
    fn a_contradiction_names_both_readings() {
        let doubtful = parse("holding:40003", AddressMode::Auto).unwrap();
        assert_eq!(doubtful.address, at(Table::Holding, 40003));
        let warning = doubtful.warning.unwrap().to_string();
        assert!(warning.contains("holding:40003") && warning.contains("holding:2"), "{warning}");

        let entity = parse("holding:30001", AddressMode::Entity).unwrap();
        assert_eq!(entity.address, at(Table::Holding, 0));
        let warning = entity.warning.unwrap().to_string();
        assert!(warning.contains("holding:0") && warning.contains("input:0"), "{warning}");

        let offset = parse("holding:30001", AddressMode::Offset).unwrap();
        assert_eq!(offset, Resolved::sure(at(Table::Holding, 30001)));
    }

    #[test]
    fn register_lists_of_older_gateways_are_entity_numbers() {
        let read = |text, mode| resolve(text, Table::Holding, mode, Reading::Entity).unwrap();
        assert_eq!(read("40001", AddressMode::Auto), Resolved::sure(at(Table::Holding, 0)));
        assert_eq!(read("30001", AddressMode::Auto).address, at(Table::Holding, 0));
        assert!(read("30001", AddressMode::Auto).warning.is_some());
        assert_eq!(read("30001", AddressMode::Offset), Resolved::sure(at(Table::Holding, 30001)));
        assert_eq!(read("0x0010", AddressMode::Entity), Resolved::sure(at(Table::Holding, 16)));
        assert_eq!(read("20001", AddressMode::Auto).address, at(Table::Holding, 20001));
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        let text = |input, mode| parse(input, mode).unwrap_err().to_string();
        assert!(text("0x2006", AddressMode::Auto).contains("holding:0x2006"));
        assert!(text("50001", AddressMode::Auto).contains("holding:50001"));
        assert!(text("30001", AddressMode::Offset).contains("input:30001"));
        assert!(text("HR:5", AddressMode::Auto).contains("did you mean holding"));
        assert!(text("hodling:5", AddressMode::Auto).contains("did you mean holding"));
        assert!(text("holding:70000", AddressMode::Auto).contains("65535"));
        assert!(text("holding:400123", AddressMode::Auto).contains("holding:122"));
        assert!(text("holding:60000", AddressMode::Entity).contains("offset"));
        assert!(text("holding:-1", AddressMode::Auto).contains("'-1'"));
        assert!(text("voltage", AddressMode::Auto).contains("'voltage'"));
    }
}
