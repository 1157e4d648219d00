//! The dynamic linker, the layout check and the description, in this process.
//!
//! Only a private copy ([`mod@crate::stage`]) that survived the probe child ([`mod@crate::probe`]) may come here: the dynamic
//! linker and the constructors of a damaged file kill the process, and nothing on this side can prevent it.
//!
//! Libraries are never closed: abi_stable's layout checker keeps pointers into every library it has seen, and a
//! second load after `dlclose` is a SIGSEGV. Every loaded version costs memory and, with its own tokio, one of the
//! 1024 thread-local keys of the process; so the number of distinct loads is bounded ([`MAX_LOADS`]).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use abi_stable::library::{AbiHeaderRef, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModuleError};
use busbar_abi::Module_Ref;
use busbar_contract::Describe;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::{
    LoadError, Step,
    call::Caller,
    judge::{Expect, judge, parse},
    stage::noexec,
};

/// Distinct plugin files per process from which on each further one is a warning.
pub const WARN_LOADS: usize = 16;
/// Distinct plugin files per process; a further one is refused.
pub const MAX_LOADS: usize = 64;
/// Time for the constructors and `describe`.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the library mapped even if somebody closed it; not in `libloading`.
const RTLD_NODELETE: std::ffi::c_int = libc::RTLD_NODELETE;

static LOADED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Maps a staged copy and checks the layout of the waist. `caller` is the plugin's.
pub(crate) fn open_root(path: &Path, shown_as: &Path, caller: &Caller) -> Result<Module_Ref, LoadError> {
    let fail = |text: &str| LoadError::new(Step::Load, shown_as, text);
    // A path without a slash would be searched in the system's library directories.
    let path = path.canonicalize().map_err(|error| fail(&crate::stage::plain(&error)))?;
    admit(&path).map_err(|text| fail(&text))?;
    let opened = path.clone();
    let root = caller
        .call("load", LOAD_TIMEOUT, move || dlopen_root(&opened))
        .map_err(|failure| fail(&failure.text("loading")))?;
    root.map_err(|refusal| match refusal {
        Refusal::NoExec => noexec(path.parent().unwrap_or(&path)),
        Refusal::Text(text) => fail(&text),
    })
}

/// Reads and judges the description.
pub(crate) fn describe(
    root: Module_Ref,
    shown_as: &Path,
    expect: Expect<'_>,
    caller: &Caller,
) -> Result<Describe, LoadError> {
    let fail = |text: &str| LoadError::new(Step::Load, shown_as, text);
    let text = caller
        .call("describe", LOAD_TIMEOUT, move || root.describe()().into_string())
        .map_err(|failure| fail(&failure.text("describe")))?;
    let describe = parse(text.as_bytes()).map_err(|text| fail(&text))?;
    judge(&describe, expect).map_err(|text| fail(&text))?;
    Ok(describe)
}

enum Refusal {
    NoExec,
    Text(String),
}

/// Number of distinct plugin files that this process has loaded.
#[must_use]
pub fn distinct_loads() -> usize {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).len()
}

fn admit(path: &Path) -> Result<(), String> {
    let count = count_in(&mut LOADED.lock().unwrap_or_else(PoisonError::into_inner), path)?;
    if count >= WARN_LOADS {
        tracing::warn!(
            loads = count,
            limit = MAX_LOADS,
            "many plugin versions are loaded and stay in memory; restart Busbar when convenient, or set isolation = \"process\""
        );
    }
    Ok(())
}

/// Adds a file, or refuses it; 0 when it is known, else the number of distinct files with it.
fn count_in(loaded: &mut BTreeSet<PathBuf>, path: &Path) -> Result<usize, String> {
    if loaded.contains(path) {
        return Ok(0);
    }
    if loaded.len() >= MAX_LOADS {
        return Err(format!(
            "{MAX_LOADS} plugin versions are loaded in this process; restart Busbar or set isolation = \"process\""
        ));
    }
    loaded.insert(path.to_path_buf());
    Ok(loaded.len())
}

#[allow(unsafe_code, reason = "dlopen and the first symbol lookup are the loader's task")]
fn dlopen_root(path: &Path) -> Result<Module_Ref, Refusal> {
    let flags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    // SAFETY: runs the constructors of the library. The file is a private, hashed copy that the same host binary has
    // already loaded in a probe child; what its code does is the trust one places in an in-process plugin.
    let library = unsafe { Library::open(Some(path), flags) }.map_err(|error| linker_refusal(&error))?;
    // SAFETY: the symbol is the static `LibHeader` that abi_stable defines under this mangled name; its first field
    // is the `AbiHeader`, whose magic text and version `upgrade` checks before anything else is read.
    let header =
        unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()).map(|h| *h) }
            .map_err(|_| Refusal::Text("not a Busbar plugin: expected a root module, found none".into()))?;
    // Never closed: see the head of this module.
    std::mem::forget(library);
    header
        .upgrade()
        .and_then(|header| header.init_root_module::<Module_Ref>())
        .map_err(|error| Refusal::Text(condense(&error)))
}

fn linker_refusal(error: &libloading::Error) -> Refusal {
    use std::error::Error;
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    if text.contains("failed to map segment") {
        return Refusal::NoExec;
    }
    Refusal::Text(format!("the dynamic linker refused it: {}", linker_words(&text)))
}

/// `/path/to/copy.so: what (required by /path/to/copy.so)` -> `what`; garbage of a damaged file becomes `?`.
fn linker_words(text: &str) -> String {
    let what = text.split_once(".so: ").map_or(text, |(_, what)| what);
    let what = what.split_once(" (required by").map_or(what, |(what, _)| what);
    what.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// abi_stable's report (up to 140 KB) as one sentence.
pub(crate) fn condense(error: &LibraryError) -> String {
    match error {
        LibraryError::IncompatibleVersionNumber { expected_version, actual_version, .. } => format!(
            "built for another plugin ABI: expected {expected_version}, found {actual_version}; install a build for ABI {}",
            busbar_abi::ABI
        ),
        LibraryError::AbiInstability(report) => layout(&report.to_string()),
        LibraryError::InvalidAbiHeader(found) => format!(
            "built with another abi_stable: expected 0.11, found {}.{}; rebuild it with the Busbar SDK",
            found.abi_major, found.abi_minor
        ),
        LibraryError::InvalidCAbi { .. } => {
            "built by a compiler with other calling conventions; rebuild it with the Busbar SDK".into()
        }
        LibraryError::RootModule { err: RootModuleError::Unwound, .. } => {
            "panicked while its root module was built; report it to its maker".into()
        }
        LibraryError::RootModule { err: RootModuleError::Returned(error), .. } => {
            format!("its root module failed: {error}")
        }
        LibraryError::ParseVersionError(_) => {
            "damaged: its ABI version cannot be read; copy the file again".into()
        }
        LibraryError::Many(errors) => {
            errors.iter().next().map_or_else(|| "refused without a reason".into(), condense)
        }
        other => format!("refused: {other}"),
    }
}

/// Longest part of a type name in a sentence, bytes.
const MAX_TYPE: usize = 40;

/// The innermost difference stands last in the report: after the last `Error:` come the kind of mismatch and blocks
/// `Expected:` and `Found:`.
fn layout(report: &str) -> String {
    let last = report.rsplit("Error:").next().unwrap_or(report);
    let (what, rest) = last.split_once("Expected:").unwrap_or((last, ""));
    let (expected, found) = rest.split_once("Found:").unwrap_or((rest, ""));
    let short = |text: &str| {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("?");
        let end = (0..=MAX_TYPE.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.get(..end).unwrap_or_default().to_owned()
    };
    format!(
        "other layout of the plugin ABI ({}: expected {}, found {}); rebuild it with the SDK of ABI {}",
        short(what),
        short(expected),
        short(found),
        busbar_abi::ABI
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_linker_are_clean() {
        let text = "/s/x/ab.so: /lib/libc.so.6: version `GL\u{1b}_2' not found (required by /s/x/ab.so)";
        assert_eq!(linker_words(text), "/lib/libc.so.6: version `GL?_2' not found");
        assert_eq!(linker_words("/s/ab.so: undefined symbol: x"), "undefined symbol: x");
        assert_eq!(linker_words(""), "");
    }

    #[test]
    fn distinct_files_are_bounded_and_known_ones_are_free() {
        let mut loaded = BTreeSet::new();
        for n in 1..=MAX_LOADS {
            assert_eq!(count_in(&mut loaded, Path::new(&format!("/{n}"))), Ok(n));
        }
        let text = count_in(&mut loaded, Path::new("/one-more")).unwrap_err();
        assert!(text.contains("64 plugin versions") && text.contains("isolation"), "{text}");
        assert_eq!(count_in(&mut loaded, Path::new("/1")), Ok(0));
    }

    #[test]
    fn the_innermost_difference_is_shown() {
        let report = "Compared <this>:\n...\n0 error(s).\n\nError:too many fields\nExpected:\n\t5\nFound:\n\t4\n\
                      Error:mismatched type\nExpected:\n\tu32\nFound:\n\tu64\n\n";
        let text = layout(report);
        assert!(text.contains("(mismatched type: expected u32, found u64)"), "{text}");
        assert!(layout("").len() < 150);
        assert!(layout(&"x".repeat(140_000)).len() < 200);
    }
}
