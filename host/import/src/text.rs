//! From bytes of unknown origin to text: bounded, UTF-8, without a byte order mark.
//!
//! Old files were written on many machines. What is not UTF-8 is refused with its place instead of being guessed at: a
//! wrong guess would put wrong names into every later message.

use busbar_config::Problem;

use crate::findings::file_problem;

/// Largest file that is read. The largest map in the field has some hundred registers.
pub const MAX_FILE_SIZE: usize = 4 * 1024 * 1024;
/// Longest line. Lists of a device stand in one line each.
pub const MAX_LINE: usize = 256 * 1024;

/// The text, or what is wrong with the file.
pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<String, Box<Problem>> {
    let refuse = |at: Option<usize>, expected: String, found: String, help: &str| {
        let (line, column) = at.map_or((0, 0), |at| place(bytes, at));
        Err(Box::new(Problem { line, column, ..file_problem(name, &expected, &found, help) }))
    };
    if bytes.len() > MAX_FILE_SIZE {
        let expected = format!("a file of at most {} MiB", MAX_FILE_SIZE / 1024 / 1024);
        return refuse(None, expected, "more".into(), "this is no configuration file");
    }
    if let [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] = bytes {
        return refuse(None, "UTF-8 text".into(), "UTF-16".into(), "save the file as UTF-8 in the editor");
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return refuse(Some(at), "a text file".into(), "a byte 0".into(), "this is a binary file");
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let at = error.valid_up_to();
            let byte = bytes.get(at).copied().unwrap_or_default();
            let help = "if it is Latin-1: iconv -f latin1 -t utf-8 OLD > NEW, then import NEW";
            return refuse(Some(at), "UTF-8 text".into(), format!("the byte 0x{byte:02X}"), help);
        }
    };
    let strange = |symbol: char| symbol.is_control() && !matches!(symbol, '\n' | '\r' | '\t');
    if let Some((at, symbol)) = text.char_indices().find(|(_, symbol)| strange(*symbol)) {
        let at = at + (bytes.len() - text.len());
        let found = format!("U+{:04X}", u32::from(symbol));
        return refuse(Some(at), "text without control characters".into(), found, "");
    }
    if let Some((at, line)) = text.lines().enumerate().find(|(_, line)| line.len() > MAX_LINE) {
        let expected = format!("lines of at most {} KiB", MAX_LINE / 1024);
        return refuse(None, expected, format!("{} bytes in line {}", line.len(), at + 1), "");
    }
    Ok(text.to_owned())
}

/// Line and column of a byte in something that may not be text: the column counts bytes.
fn place(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        assert_eq!(decode("f", b"\xEF\xBB\xBFa = 1\r\n").unwrap(), "a = 1\r\n");
        for (bytes, found) in [
            (&b"a = 1\nb = caf\xE9\n"[..], "f:2:8: error: expected UTF-8 text, found the byte 0xE9 "),
            (b"\xFF\xFEa\0", "error: expected UTF-8 text, found UTF-16 "),
            (
                b"\xEF\xBB\xBFa\nb\x1b[31m",
                "f:2:2: error: expected text without control characters, found U+001B",
            ),
            (b"ab\n\0\x7fELF", "f:2:1: error: expected a text file, found a byte 0 "),
        ] {
            let problem = decode("f", bytes).unwrap_err();
            assert_eq!(problem.file, "f");
            assert!(problem.to_string().starts_with(found), "{problem}");
        }
        assert!(decode("f", &vec![b' '; MAX_FILE_SIZE + 1]).unwrap_err().expected.contains("4 MiB"));
        let long = format!("a\n{}", "x".repeat(MAX_LINE + 1));
        assert!(decode("f", long.as_bytes()).unwrap_err().found.ends_with("in line 2"));
    }
}
