//! What a station consists of, and everything that can be wrong with it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::asdu::{BROADCAST, Kind, MAX_IOA, TimeKind, TypeId};
use crate::link::{ParameterError, Parameters};

/// Most common addresses of one station. A broadcast is answered for each.
pub const MAX_COMMON_ADDRESSES: usize = 64;

/// A point in monitor direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Common address, 1 to 65534.
    pub common_address: u16,
    /// Information object address, 1 to 16777215.
    pub ioa: u32,
    /// The type of its events; interrogations use the same without time.
    pub type_id: TypeId,
    /// Interrogation group 1 to 16, of counters 1 to 4.
    pub group: Option<u8>,
}

impl Point {
    pub(super) fn is_counter(&self) -> bool {
        self.type_id.layout().is_some_and(|(kind, _)| kind == Kind::Counter)
    }
}

/// Whether an execution needs a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelectMode {
    /// Execution alone is accepted; selections are too.
    #[default]
    Direct,
    /// The same connection must have selected the same value before.
    Required,
}

/// A point in control direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandPoint {
    /// Common address, 1 to 65534.
    pub common_address: u16,
    /// Information object address, 1 to 16777215.
    pub ioa: u32,
    /// 45 to 51: also accepted with time tag. 58 to 64: accepted with time tag only.
    pub type_id: TypeId,
    /// Selection.
    pub select: SelectMode,
    /// The only qualifier (QU or QL) that is accepted; `None`: any.
    pub qualifier: Option<u8>,
}

/// A master on its own, or a redundancy group of several connections of which one is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Name for the log.
    pub name: String,
    /// Its connections may send commands.
    pub commands: bool,
}

/// What a request that the gateway does not carry out itself is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A negative confirmation.
    Refuse,
    /// A positive confirmation; the host is told.
    Confirm,
}

/// A controlled station.
#[derive(Debug, Clone)]
pub struct Config {
    /// Windows and time-outs of every connection.
    pub link: Parameters,
    /// Points in monitor direction; elsewhere they are named by their place here.
    pub points: Vec<Point>,
    /// Points in control direction.
    pub commands: Vec<CommandPoint>,
    /// Masters and groups; elsewhere named by their place here.
    pub lanes: Vec<Lane>,
    /// Common addresses beyond those of points, so that a station without points can be interrogated.
    pub common_addresses: Vec<u16>,
    /// Events kept per lane.
    pub event_buffer: usize,
    /// Oldest time tag of a command, and furthest in the future.
    pub command_max_age: Duration,
    /// How long a selection holds.
    pub select_timeout: Duration,
    /// How long the host may take to answer a command; then it is negative.
    pub command_timeout: Duration,
    /// Clock synchronisation. The clock is never set here; with `Confirm` the host is told the difference.
    pub clock: Answer,
    /// Reset of process.
    pub reset: Answer,
    /// Setting counters to zero, in the image only. Masters share the counters.
    pub counter_reset: Answer,
    /// Interrogations use SQ = 1 for consecutive addresses.
    pub sequences: bool,
    /// M_EI_NA_1 is sent to every lane once.
    pub end_of_initialisation: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            link: Parameters::default(),
            points: Vec::new(),
            commands: Vec::new(),
            lanes: Vec::new(),
            common_addresses: Vec::new(),
            event_buffer: 10_000,
            command_max_age: Duration::from_secs(10),
            select_timeout: Duration::from_secs(30),
            command_timeout: Duration::from_secs(30),
            clock: Answer::Confirm,
            reset: Answer::Refuse,
            counter_reset: Answer::Refuse,
            sequences: false,
            end_of_initialisation: true,
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Windows or time-outs.
    #[error(transparent)]
    Link(#[from] ParameterError),
    /// Nobody to talk to.
    #[error("a station needs at least one master")]
    NoLane,
    /// No room for events.
    #[error("the event buffer holds at least 1 event, found 0")]
    NoBuffer,
    /// A common address that is none.
    #[error("a common address is 1 to 65534, found {0}")]
    CommonAddress(u16),
    /// Too many common addresses.
    #[error("a station has at most {MAX_COMMON_ADDRESSES} common addresses, found {0}")]
    CommonAddresses(usize),
    /// An object address that is none.
    #[error("an information object address is 1 to 16777215, found {0}")]
    Ioa(u32),
    /// Two objects at one address.
    #[error("common address {common_address}, object {ioa} is used twice in the same direction")]
    Twice {
        /// Common address.
        common_address: u16,
        /// Object.
        ioa: u32,
    },
    /// A type of the wrong direction, or one that 104 does not use.
    #[error("object {ioa}: expected a type of 1, 3, 5 .. 15, 30 .. 37, found {type_id}")]
    Monitor {
        /// Object.
        ioa: u32,
        /// Found.
        type_id: TypeId,
    },
    /// A type that is no command.
    #[error("command {ioa}: expected a type of 45 .. 51, 58 .. 64, found {type_id}")]
    Command {
        /// Object.
        ioa: u32,
        /// Found.
        type_id: TypeId,
    },
    /// A selection that the type cannot express.
    #[error("command {ioa}: {type_id} has no select bit, so select cannot be required")]
    Select {
        /// Object.
        ioa: u32,
        /// Found.
        type_id: TypeId,
    },
    /// A group that does not exist.
    #[error("object {ioa}: expected a group 1 to {most}, found {group}")]
    Group {
        /// Object.
        ioa: u32,
        /// Found.
        group: u8,
        /// 16, of counters 4.
        most: u8,
    },
}

impl Config {
    /// All common addresses in order.
    #[must_use]
    pub fn all_common_addresses(&self) -> BTreeSet<u16> {
        let points = self.points.iter().map(|point| point.common_address);
        let commands = self.commands.iter().map(|command| command.common_address);
        points.chain(commands).chain(self.common_addresses.iter().copied()).collect()
    }

    /// Everything that is wrong.
    #[must_use]
    pub fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if let Err(error) = self.link.check() {
            errors.push(error.into());
        }
        if self.lanes.is_empty() {
            errors.push(ConfigError::NoLane);
        }
        if self.event_buffer == 0 {
            errors.push(ConfigError::NoBuffer);
        }
        let addresses = self.all_common_addresses();
        let none = addresses.iter().filter(|address| matches!(**address, 0 | BROADCAST));
        errors.extend(none.map(|address| ConfigError::CommonAddress(*address)));
        if addresses.len() > MAX_COMMON_ADDRESSES {
            errors.push(ConfigError::CommonAddresses(addresses.len()));
        }
        unique(self.points.iter().map(|point| (point.common_address, point.ioa)), &mut errors);
        unique(self.commands.iter().map(|point| (point.common_address, point.ioa)), &mut errors);
        self.points.iter().for_each(|point| check_point(point, &mut errors));
        self.commands.iter().for_each(|command| check_command(command, &mut errors));
        errors
    }
}

fn unique(objects: impl Iterator<Item = (u16, u32)>, errors: &mut Vec<ConfigError>) {
    let mut seen = HashSet::new();
    for (common_address, ioa) in objects {
        if !seen.insert((common_address, ioa)) {
            errors.push(ConfigError::Twice { common_address, ioa });
        }
        if !(1..=MAX_IOA).contains(&ioa) {
            errors.push(ConfigError::Ioa(ioa));
        }
    }
}

fn check_point(point: &Point, errors: &mut Vec<ConfigError>) {
    let Point { ioa, type_id, .. } = *point;
    let used = type_id.layout().is_some_and(|(_, time)| time != TimeKind::Cp24);
    if !type_id.is_monitor() || !used {
        errors.push(ConfigError::Monitor { ioa, type_id });
    }
    let most = if point.is_counter() { 4 } else { 16 };
    if let Some(group) = point.group.filter(|group| !(1..=most).contains(group)) {
        errors.push(ConfigError::Group { ioa, group, most });
    }
}

fn check_command(command: &CommandPoint, errors: &mut Vec<ConfigError>) {
    let CommandPoint { ioa, type_id, .. } = *command;
    if !type_id.is_command() {
        errors.push(ConfigError::Command { ioa, type_id });
    }
    if command.select == SelectMode::Required && type_id.without_time() == TypeId::C_BO_NA_1 {
        errors.push(ConfigError::Select { ioa, type_id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ioa: u32, type_id: TypeId) -> Point {
        Point { common_address: 1, ioa, type_id, group: None }
    }

    fn command(ioa: u32, type_id: TypeId) -> CommandPoint {
        CommandPoint { common_address: 1, ioa, type_id, select: SelectMode::Direct, qualifier: None }
    }

    fn good() -> Config {
        let lanes = vec![Lane { name: "centre".into(), commands: true }];
        let points = vec![point(1, TypeId::M_SP_TB_1), point(2, TypeId::M_IT_NA_1)];
        // The same address may be used in the other direction.
        Config { lanes, points, commands: vec![command(1, TypeId::C_SC_NA_1)], ..Config::default() }
    }

    #[test]
    fn a_good_station() {
        assert_eq!(good().check(), []);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut config = good();
        config.lanes.clear();
        config.event_buffer = 0;
        config.link.k = 0;
        config.points.push(point(1, TypeId::M_SP_NA_1));
        config.points.push(point(0, TypeId::M_SP_NA_1));
        config.points.push(point(3, TypeId::M_SP_TA_1));
        config.points.push(Point { group: Some(5), ..point(4, TypeId::M_IT_TB_1) });
        config.points.push(Point { group: Some(17), ..point(5, TypeId::M_SP_TB_1) });
        config.points.push(Point { common_address: 0xffff, ..point(6, TypeId::M_SP_TB_1) });
        config.commands.push(command(7, TypeId::M_SP_NA_1));
        config.commands.push(CommandPoint { select: SelectMode::Required, ..command(8, TypeId::C_BO_TA_1) });
        let expected = [
            ConfigError::Link(ParameterError::Window("k", 0)),
            ConfigError::NoLane,
            ConfigError::NoBuffer,
            ConfigError::CommonAddress(0xffff),
            ConfigError::Twice { common_address: 1, ioa: 1 },
            ConfigError::Ioa(0),
            ConfigError::Monitor { ioa: 3, type_id: TypeId::M_SP_TA_1 },
            ConfigError::Group { ioa: 4, group: 5, most: 4 },
            ConfigError::Group { ioa: 5, group: 17, most: 16 },
            ConfigError::Command { ioa: 7, type_id: TypeId::M_SP_NA_1 },
            ConfigError::Select { ioa: 8, type_id: TypeId::C_BO_TA_1 },
        ];
        assert_eq!(config.check(), expected);
        let mut config = good();
        config.common_addresses = (1..=65).collect();
        assert_eq!(config.check(), [ConfigError::CommonAddresses(65)]);
    }
}
