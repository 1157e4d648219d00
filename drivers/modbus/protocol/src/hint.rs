//! What a frame means, in a few words, for somebody who watches the wire. Pure.
//!
//! A stream hands over what came at once, which need not be one frame: what does not begin like a frame gets no hint.
//! Layouts: MODBUS Application Protocol V1.1b3, 6 (PDU), MODBUS Messaging on TCP/IP V1.0b, 3.1.3 (MBAP header).

use crate::error::Exception;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A request of ours.
    Tx,
    /// An answer.
    Rx,
}

/// Set in the function code of a refusal.
const REFUSED: u8 = 0x80;

/// The hint; empty where none can be given. `mbap`: the frame has the header of Modbus TCP.
pub(crate) fn hint(mbap: bool, direction: Direction, bytes: &[u8]) -> String {
    let body = match (mbap, bytes) {
        (true, [_, _, 0, 0, _, _, rest @ ..]) => rest,
        (true, _) => return String::new(),
        (false, all) => all,
    };
    let [unit, function, data @ ..] = body else { return String::new() };
    let meaning = match direction {
        Direction::Tx => request(*function, data),
        Direction::Rx => answer(*function, data),
    };
    if meaning.is_empty() { meaning } else { format!("unit {unit}: {meaning}") }
}

fn request(function: u8, data: &[u8]) -> String {
    let &[a0, a1, b0, b1, ..] = data else { return String::new() };
    let (start, value) = (u16::from_be_bytes([a0, a1]), u16::from_be_bytes([b0, b1]));
    match function {
        1..=4 => format!("read {value} of {} from {start}", table(function)),
        5 => format!("write coil {start} = {}", if value == 0xff00 { "on" } else { "off" }),
        6 => format!("write holding {start} = {value}"),
        8 => format!("echo {value:#06x}"),
        15 => format!("write {value} of coil from {start}"),
        16 => format!("write {value} of holding from {start}"),
        22 => format!("write bits of holding {start}"),
        other => format!("function {other}"),
    }
}

fn answer(function: u8, data: &[u8]) -> String {
    match (function, data) {
        (refused, [code, ..]) if refused & REFUSED != 0 => {
            format!("refused: exception {code}, {}", Exception(*code).name())
        }
        (1..=4, [bytes, ..]) => format!("{bytes} bytes of {}", table(function)),
        (8, _) => "echo".to_owned(),
        (5 | 6 | 15 | 16 | 22, [_, _, ..]) => "written".to_owned(),
        _ => String::new(),
    }
}

const fn table(function: u8) -> &'static str {
    match function {
        1 => "coil",
        2 => "discrete",
        3 => "holding",
        _ => "input",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_in_words() {
        let tcp = |direction, bytes: &[u8]| hint(true, direction, bytes);
        let rtu = |direction, bytes: &[u8]| hint(false, direction, bytes);
        assert_eq!(
            tcp(Direction::Tx, &[0, 1, 0, 0, 0, 6, 1, 3, 0x20, 0x06, 0, 2]),
            "unit 1: read 2 of holding from 8198"
        );
        assert_eq!(
            tcp(Direction::Rx, &[0, 1, 0, 0, 0, 3, 1, 0x83, 2]),
            "unit 1: refused: exception 2, illegal data address"
        );
        assert_eq!(rtu(Direction::Tx, &[7, 5, 0, 3, 0xff, 0, 0, 0]), "unit 7: write coil 3 = on");
        assert_eq!(rtu(Direction::Rx, &[7, 4, 4, 1, 2, 3, 4, 0, 0]), "unit 7: 4 bytes of input");
        assert_eq!(rtu(Direction::Rx, &[7, 16, 0, 1, 0, 2, 0, 0]), "unit 7: written");
    }

    #[test]
    fn pieces_and_nonsense_get_no_hint() {
        for bytes in [&[][..], &[1], &[1, 3], &[0, 1, 0, 9, 0, 6, 1, 3, 0, 0, 0, 1], &[0, 1, 0, 0, 0, 6, 1]] {
            assert_eq!(hint(true, Direction::Tx, bytes), "", "{bytes:?}");
        }
        assert_eq!(hint(false, Direction::Rx, &[1, 2]), "");
        for function in 0..=255 {
            for length in 0..8 {
                let bytes = vec![function; length];
                let _ = (hint(false, Direction::Tx, &bytes), hint(true, Direction::Rx, &bytes));
            }
        }
    }
}
