//! A look at the bytes of a plugin before the dynamic linker sees them.
//!
//! A truncated or damaged file kills the process inside `ld.so` (SIGBUS, SIGSEGV, assertion with exit code 127)
//! before any check of ours could run, and a file for another machine yields the misleading "No such file or
//! directory". Both are cheap to see in the headers. What this cannot see (flipped bytes inside the segments) is the
//! business of the probe child. Pure: bytes in, verdict out; nothing is allocated in proportion to the file.
//!
//! Source: System V ABI, "Object Files" (ELF header, program header, section header); field offsets of ELF64.

use abi_stable::library::ROOT_MODULE_LOADER_NAME;

/// Why the bytes are no plugin for this machine. Each text is an operator's sentence without the file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not ELF at all.
    #[error("not a plugin: expected an ELF shared object, found {0}")]
    NotElf(&'static str),
    /// Built for another machine or word size.
    #[error("wrong architecture: expected {expected}, found {found}; install the {expected} build")]
    Machine {
        /// This machine.
        expected: &'static str,
        /// The file's machine.
        found: String,
    },
    /// An executable, object or core file.
    #[error("not a plugin: expected a shared object, found {0}")]
    NotShared(String),
    /// The file ends before its contents.
    #[error("truncated: expected at least {need} bytes, found {have}; copy the file again")]
    Truncated {
        /// Where its last table or segment ends.
        need: u64,
        /// Length of the file.
        have: u64,
    },
    /// Header fields contradict each other.
    #[error("damaged: {0}; copy the file again")]
    Damaged(&'static str),
    /// A shared object, but not a plugin.
    #[error("not a Busbar plugin: expected a root module built with the Busbar SDK, found none")]
    NotPlugin,
}

const EHDR_SIZE: u64 = 64;
const PHDR_SIZE: u16 = 56;
const SHDR_SIZE: u16 = 64;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const ET_DYN: u16 = 3;

/// ELF machine code and name of this machine.
const HOST: (u16, &str) = if cfg!(target_arch = "x86_64") {
    (62, "x86_64")
} else if cfg!(target_arch = "aarch64") {
    (183, "aarch64")
} else if cfg!(target_arch = "riscv64") {
    (243, "riscv64")
} else {
    (0, "this machine")
};

/// Accepts the bytes of a shared object for this machine that holds a Busbar root module.
///
/// # Errors
/// [`Unfit`] names the first reason against it.
pub fn preflight(bytes: &[u8]) -> Result<(), Unfit> {
    identity(bytes)?;
    let have = bytes.len() as u64;
    if have < EHDR_SIZE {
        return Err(Unfit::Truncated { need: EHDR_SIZE, have });
    }
    program_headers(bytes)?;
    section_headers(bytes)?;
    if !contains(bytes, ROOT_MODULE_LOADER_NAME.as_bytes()) {
        return Err(Unfit::NotPlugin);
    }
    Ok(())
}

/// Magic, class, byte order, machine, file type.
fn identity(bytes: &[u8]) -> Result<(), Unfit> {
    if bytes.get(..4) != Some(b"\x7fELF") {
        return Err(Unfit::NotElf(describe_foreign(bytes)));
    }
    let short = Unfit::Truncated { need: EHDR_SIZE, have: bytes.len() as u64 };
    let (Some(class), Some(order)) = (bytes.get(4), bytes.get(5)) else { return Err(short) };
    let read = |at| if *order == 2 { u16_be(bytes, at) } else { u16_le(bytes, at) };
    let (Some(kind), Some(machine)) = (read(16), read(18)) else { return Err(short) };
    if *class != 2 || *order != 1 || machine != HOST.0 {
        let word = if *class == 2 { "" } else { " (32 bit)" };
        let found = format!("{}{word}", machine_name(machine));
        return Err(Unfit::Machine { expected: HOST.1, found });
    }
    match kind {
        ET_DYN => Ok(()),
        1 => Err(Unfit::NotShared("an object file".into())),
        2 => Err(Unfit::NotShared("an executable".into())),
        4 => Err(Unfit::NotShared("a core dump".into())),
        other => Err(Unfit::NotShared(format!("ELF type {other}"))),
    }
}

/// The table and every loadable segment lie inside the file.
fn program_headers(bytes: &[u8]) -> Result<(), Unfit> {
    let (offset, size, count) = (u64_le(bytes, 32), u16_le(bytes, 54), u16_le(bytes, 56));
    let (Some(offset), Some(size), Some(count)) = (offset, size, count) else {
        return Err(Unfit::Damaged("no ELF header"));
    };
    if size != PHDR_SIZE || count == 0 {
        return Err(Unfit::Damaged("its program header table is malformed"));
    }
    inside(bytes, offset, u64::from(size) * u64::from(count), "its program header table is malformed")?;
    let mut loadable = 0u32;
    let mut dynamic = false;
    for index in 0..u64::from(count) {
        let at = usize::try_from(offset + index * u64::from(size)).unwrap_or(usize::MAX);
        let Some(kind) = u32_le(bytes, at) else { return Err(Unfit::Damaged("a segment is malformed")) };
        dynamic |= kind == PT_DYNAMIC;
        if kind == PT_LOAD {
            loadable += 1;
            segment(bytes, at)?;
        }
    }
    if loadable == 0 || !dynamic {
        return Err(Unfit::Damaged("it has no loadable or no dynamic segment"));
    }
    Ok(())
}

/// One PT_LOAD: inside the file, not larger on disk than in memory, offset and address congruent.
fn segment(bytes: &[u8], at: usize) -> Result<(), Unfit> {
    const WHAT: &str = "a segment is malformed";
    let field = |offset: usize| at.checked_add(offset).and_then(|at| u64_le(bytes, at));
    let (Some(offset), Some(address), Some(in_file), Some(in_memory), Some(align)) =
        (field(8), field(16), field(32), field(40), field(48))
    else {
        return Err(Unfit::Damaged(WHAT));
    };
    if in_memory < in_file || address.checked_add(in_memory).is_none() {
        return Err(Unfit::Damaged(WHAT));
    }
    if align > 1 && (!align.is_power_of_two() || offset % align != address % align) {
        return Err(Unfit::Damaged(WHAT));
    }
    inside(bytes, offset, in_file, WHAT)
}

/// The section header table is the last thing a linker writes: it shows a file cut near its end.
fn section_headers(bytes: &[u8]) -> Result<(), Unfit> {
    const WHAT: &str = "its section header table is malformed";
    let (Some(offset), Some(size), Some(count)) = (u64_le(bytes, 40), u16_le(bytes, 58), u16_le(bytes, 60))
    else {
        return Err(Unfit::Damaged(WHAT));
    };
    if offset == 0 && count == 0 {
        return Ok(());
    }
    if size != SHDR_SIZE {
        return Err(Unfit::Damaged(WHAT));
    }
    inside(bytes, offset, u64::from(size) * u64::from(count), WHAT)
}

fn inside(bytes: &[u8], offset: u64, length: u64, what: &'static str) -> Result<(), Unfit> {
    let have = bytes.len() as u64;
    match offset.checked_add(length) {
        Some(need) if need <= have => Ok(()),
        // Beyond any real plugin: a flipped bit rather than a short copy.
        Some(need) if need > crate::stage::MAX_PLUGIN_BYTES => Err(Unfit::Damaged(what)),
        Some(need) => Err(Unfit::Truncated { need, have }),
        None => Err(Unfit::Damaged(what)),
    }
}

fn describe_foreign(bytes: &[u8]) -> &'static str {
    const SAMPLE: usize = 64;
    match bytes.get(..SAMPLE.min(bytes.len())).unwrap_or_default() {
        [] => "an empty file",
        start if start.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text",
        start if start.starts_with(b"MZ") => "a Windows program",
        start if start.starts_with(b"PK") => "a zip archive",
        [0x1f, 0x8b, ..] => "a gzip archive",
        _ => "other data",
    }
}

fn machine_name(code: u16) -> String {
    match code {
        3 => "x86".into(),
        8 => "mips".into(),
        20 => "ppc".into(),
        21 => "ppc64".into(),
        22 => "s390x".into(),
        40 => "arm".into(),
        62 => "x86_64".into(),
        183 => "aarch64".into(),
        243 => "riscv".into(),
        258 => "loongarch".into(),
        other => format!("machine {other}"),
    }
}

/// Substring search by the first byte; the symbol name is rare enough for nothing cleverer.
fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, _)) = needle.split_first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let Some(from) = rest.get(at..) else { return false };
        if from.starts_with(needle) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_le(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest file that passes: header, one PT_LOAD over everything, one PT_DYNAMIC, the symbol name.
    fn good() -> Vec<u8> {
        let mut file = vec![0u8; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let put16 =
            |file: &mut Vec<u8>, at: usize, v: u16| file[at..at + 2].copy_from_slice(&v.to_le_bytes());
        put16(&mut file, 16, ET_DYN);
        put16(&mut file, 18, HOST.0);
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        put16(&mut file, 54, PHDR_SIZE);
        put16(&mut file, 56, 2);
        file.extend_from_slice(ROOT_MODULE_LOADER_NAME.as_bytes());
        let size = (file.len() as u64).to_le_bytes();
        file[64..68].copy_from_slice(&PT_LOAD.to_le_bytes());
        file[64 + 32..64 + 40].copy_from_slice(&size);
        file[64 + 40..64 + 48].copy_from_slice(&size);
        file[120..124].copy_from_slice(&PT_DYNAMIC.to_le_bytes());
        file
    }

    #[test]
    fn the_smallest_good_file_passes() {
        assert_eq!(preflight(&good()), Ok(()));
    }

    #[test]
    fn foreign_files_are_named() {
        assert_eq!(preflight(b""), Err(Unfit::NotElf("an empty file")));
        assert_eq!(preflight(b"#!/bin/sh\necho"), Err(Unfit::NotElf("text")));
        assert_eq!(preflight(&[0xa5; 900]), Err(Unfit::NotElf("other data")));
        assert_eq!(preflight(b"\x7fELF"), Err(Unfit::Truncated { need: 64, have: 4 }));
    }

    #[test]
    fn wrong_architecture_names_both() {
        let mut other = good();
        let foreign: u16 = if HOST.0 == 183 { 62 } else { 183 };
        other[18..20].copy_from_slice(&foreign.to_le_bytes());
        let text = preflight(&other).unwrap_err().to_string();
        assert!(text.contains(HOST.1) && text.contains(&machine_name(foreign)), "{text}");
        let mut narrow = good();
        narrow[4] = 1;
        narrow[18..20].copy_from_slice(&3u16.to_le_bytes());
        let text = preflight(&narrow).unwrap_err().to_string();
        assert!(text.contains("x86 (32 bit)"), "{text}");
        let mut big_endian = good();
        big_endian[5] = 2;
        big_endian[18..20].copy_from_slice(&22u16.to_be_bytes());
        assert!(preflight(&big_endian).unwrap_err().to_string().contains("s390x"));
    }

    #[test]
    fn every_cut_is_refused() {
        let file = good();
        for end in 0..file.len() {
            assert!(preflight(&file[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn other_kinds_of_elf_are_refused() {
        for (kind, word) in [(1u16, "object"), (2, "executable"), (4, "core")] {
            let mut file = good();
            file[16..18].copy_from_slice(&kind.to_le_bytes());
            assert!(preflight(&file).unwrap_err().to_string().contains(word));
        }
        let mut file = good();
        let at = file.len() - 1;
        file[at] = b'X';
        assert_eq!(preflight(&file), Err(Unfit::NotPlugin));
    }

    #[test]
    fn hostile_header_fields_are_refused() {
        for (at, value) in [(32, u64::MAX), (32, 1 << 40), (72, u64::MAX), (96, u64::MAX), (104, 0), (112, 3)]
        {
            let mut file = good();
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(preflight(&file).is_err(), "{at}: {value:#x}");
        }
    }

    #[test]
    fn no_flip_of_one_byte_panics() {
        let file = good();
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut flipped = file.clone();
                flipped[at] = value;
                let _ = preflight(&flipped);
            }
        }
    }
}
