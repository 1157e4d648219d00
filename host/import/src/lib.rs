//! Configuration files of older EMS gateways as `plugins.toml`.
//!
//! Two generations of files are read:
//!
//! ```text
//! seed        INI with one section per device and parallel comma lists (registers, data_types, labels, ...)   -> seed
//! field       config.ini with [MAINMODBUS] and sections that name JSON maps                                   -> field, outputs, map
//! ```
//!
//! and one file per module on the way:
//!
//! ```text
//! text, ini        bytes -> text -> sections, keys, values that know their place
//! reader, link     one section: required keys, numbers, words, lists, keys that nobody knows; how a device is reached
//! register, names  what the values mean: addresses, types, factors; names by Busbar's rule
//! seed, field, map what the keys mean
//! plan, toml       what was understood, and how it is written
//! findings         what was not understood
//! ```
//!
//! Invariants
//! * Everything that is wrong is found at once and named with file, line, column, section, key and position in its list.
//! * Nothing is guessed silently. What has two readings is a warning that names both; what has none is an error, and
//!   what belongs to it is left out.
//! * The same input makes the same text. The text is accepted by `busbar check`.
//! * No input makes this crate panic; every size has a named bound.
//! * No I/O: maps are fetched through [`Files`].

mod field;
mod findings;
mod ini;
mod link;
mod map;
mod names;
mod outputs;
mod plan;
mod reader;
mod register;
mod seed;
mod text;
mod toml;

use busbar_config::{Severity, Sources};

use crate::{findings::Findings, plan::Plan};
pub use crate::{
    findings::{Finding, MAX_FINDINGS, human},
    ini::{MAX_KEYS, MAX_SECTIONS},
    map::{MAX_VARIABLES, stem},
    register::AddressMode,
    seed::MAX_ITEMS,
    text::{MAX_FILE_SIZE, MAX_LINE},
};

/// How plain numbers of a JSON map are read; `0x` is always hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapNumbers {
    /// As decimal, which is what the old gateway's readme said.
    #[default]
    Decimal,
    /// As hexadecimal, which is what the old gateway did.
    Hex,
}

/// Choices of the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Numbers of register lists.
    pub address_mode: AddressMode,
    /// Numbers of JSON maps.
    pub map_numbers: MapNumbers,
    /// Time zone of hours, as `Europe/Madrid`; the old gateways used that of their machine.
    pub zone: Option<String>,
}

/// Where maps are read from.
pub trait Files {
    /// The bytes of a file that the INI names, at most one more than [`MAX_FILE_SIZE`]. The error is for the operator.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, name: &str) -> Result<Vec<u8>, String>;
}

/// What came of a file.
#[derive(Debug)]
pub struct Import {
    /// `plugins.toml`, of everything that was understood.
    pub toml: String,
    /// What was not, and what is doubtful.
    pub findings: Vec<Finding>,
    /// For [`human`].
    pub sources: Sources,
    /// The text holds a password of the old file.
    pub has_secret: bool,
}

impl Import {
    /// Something was not understood.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.problem.severity == Severity::Error)
    }
}

/// Imports an INI file of either generation. `name` is shown in messages and comments.
#[must_use]
pub fn ini(name: &str, bytes: &[u8], files: &dyn Files, options: &Options) -> Import {
    let mut findings = Findings::default();
    let text = match text::decode(name, bytes) {
        Ok(text) => text,
        Err(problem) => return refused(findings, *problem),
    };
    let source = findings.sources.add(name.to_owned(), name.into(), &text);
    let parsed = ini::parse(&mut findings, source, &text);
    let made = if parsed.section(field::MAIN).is_some() {
        field::plan(&mut findings, name, &parsed, files, options)
    } else {
        seed::plan(&mut findings, name, &parsed, options)
    };
    finish(made.plan, findings, made.has_secret)
}

/// Imports a JSON map as a template with the name of the file.
#[must_use]
pub fn map(name: &str, bytes: &[u8], options: &Options) -> Import {
    let mut findings = Findings::default();
    let text = match text::decode(name, bytes) {
        Ok(text) => text,
        Err(problem) => return refused(findings, *problem),
    };
    let mut plan = Plan::default();
    let stem = map::stem(name);
    let source = findings.sources.add(name.to_owned(), name.into(), &text);
    if let Some(map) = map::read(&mut findings, source, &text, options) {
        let table = register::Table::Holding;
        let template = map::template(&mut findings, &map, name, &mut names::Names::default(), &stem, table);
        plan.head.push(format!(
            "Made by `busbar import ems-map` from {name}. Include this file, or copy the table."
        ));
        plan.templates.push(template);
    }
    finish(plan, findings, false)
}

/// What a generation makes of its file.
#[derive(Debug, Default)]
struct Made {
    plan: Plan,
    has_secret: bool,
}

fn refused(mut findings: Findings, problem: busbar_config::Problem) -> Import {
    findings.file(problem);
    finish(Plan::default(), findings, false)
}

fn finish(mut plan: Plan, findings: Findings, has_secret: bool) -> Import {
    let errors = findings.errors();
    if errors > 0 {
        let things = if errors == 1 { "1 thing was".to_owned() } else { format!("{errors} things were") };
        plan.head.insert(0, format!("INCOMPLETE: {things} not understood and left out."));
    }
    let (findings, sources) = findings.finish();
    Import { toml: plan.write(), findings, sources, has_secret }
}
