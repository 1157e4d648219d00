//! Serial ports: settings, timing derived from them, and exclusive use.
//!
//! Two programs on one RS-485 line read each other's answers, so a port is opened exclusively in both ways
//! Linux has: `TIOCEXCL` refuses later opens by anybody but root, and an advisory lock on the open file
//! catches the rest. The lock file in the UUCP style ([`lock_path`]) is honoured where an older tool left one, and never
//! made. Whoever has the port is named (`holder.rs`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::termios::{ioctl_tiocexcl, ioctl_tiocnxcl};
use serial2_tokio::{CharSize, SerialPort, Settings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::holder::{self, Holder};
use crate::problem::Problem;

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parity {
    /// No parity bit; MODBUS over Serial Line 2.5.1 then asks for two stop bits, most devices use one.
    #[default]
    None,
    /// Even: the standard's default.
    Even,
    /// Odd.
    Odd,
}

/// Everything about a serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialSettings {
    /// Device path.
    pub path: String,
    /// Bits per second.
    pub baud_rate: u32,
    /// Parity.
    pub parity: Parity,
    /// 7 or 8.
    pub data_bits: u8,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// Slowest and fastest line speed accepted.
pub const BAUD_RATES: std::ops::RangeInclusive<u32> = 300..=4_000_000;
/// Above this speed the standard fixes the silent interval instead of scaling it (2.5.1.1).
const FIXED_GAP_ABOVE: u32 = 19_200;
const FIXED_GAP: Duration = Duration::from_micros(1_750);

impl SerialSettings {
    /// Checks the settings; all problems at once, each with its key.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, Problem)> {
        let mut problems = Vec::new();
        if self.path.is_empty() {
            problems.push(("path", Problem::new("a serial device such as /dev/ttyUSB0", "nothing", "")));
        }
        if !BAUD_RATES.contains(&self.baud_rate) {
            let expected = format!("{} to {} baud", BAUD_RATES.start(), BAUD_RATES.end());
            problems.push(("baud_rate", Problem::new(expected, self.baud_rate.to_string(), "")));
        }
        if !matches!(self.data_bits, 7 | 8) {
            let hint = "RTU needs 8; 7 is for unusual converters";
            problems.push(("data_bits", Problem::new("7 or 8", self.data_bits.to_string(), hint)));
        }
        if !matches!(self.stop_bits, 1 | 2) {
            problems.push(("stop_bits", Problem::new("1 or 2", self.stop_bits.to_string(), "")));
        }
        problems
    }

    /// Silence between two frames: 3.5 characters, and never less than 1.75 ms above 19200 baud
    /// (MODBUS over Serial Line 2.5.1.1).
    #[must_use]
    pub fn frame_gap(&self) -> Duration {
        if self.baud_rate > FIXED_GAP_ABOVE {
            return FIXED_GAP;
        }
        let parity = u32::from(self.parity != Parity::None);
        let bits = 1 + u32::from(self.data_bits) + parity + u32::from(self.stop_bits);
        Duration::from_secs_f64(3.5 * f64::from(bits) / f64::from(self.baud_rate.max(1)))
    }

    /// Opens the port exclusively and throws away what it had received.
    ///
    /// # Errors
    /// The operating system's reason; a port in use by another program says so.
    pub fn open(&self) -> io::Result<SerialStream> {
        let used_by = |holder: Option<Holder>| {
            let holder = holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string());
            let text = format!("{} is in use by {holder}; stop it or choose another port", self.path);
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        };
        let in_use = || used_by(holder::of_port(&self.path));
        let busy =
            |error: io::Error| if error.kind() == io::ErrorKind::ResourceBusy { in_use() } else { error };
        let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
        let lock =
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.path).map_err(busy)?;
        lock.try_lock().map_err(|_| in_use())?;
        if let Some(holder) = holder::of_lock_file(Path::new(&lock_path(&canonical_path(&self.path)))) {
            return Err(used_by(Some(holder)));
        }
        let port =
            SerialPort::open(&self.path, |settings: Settings| self.apply(settings)).map_err(|error| {
                if error.raw_os_error().is_some() { busy(error) } else { self.not_applied(&error) }
            })?;
        ioctl_tiocexcl(&lock)?;
        port.discard_buffers()?;
        Ok(SerialStream { port, lock })
    }

    fn not_applied(&self, error: &io::Error) -> io::Error {
        let Self { path, baud_rate, parity, data_bits, stop_bits } = self;
        let settings =
            format!("{baud_rate} baud, parity {parity:?}, {data_bits} data bits, {stop_bits} stop bits");
        io::Error::new(error.kind(), format!("{path} cannot do {settings}: {error}"))
    }

    fn apply(&self, mut settings: Settings) -> io::Result<Settings> {
        settings.set_raw();
        settings.set_baud_rate(self.baud_rate)?;
        if is_pseudo_terminal(&self.path) {
            // Bits do not travel one by one there: the kernel keeps 8N and refuses everything else.
            return Ok(settings);
        }
        settings.set_char_size(if self.data_bits == 7 { CharSize::Bits7 } else { CharSize::Bits8 });
        settings.set_parity(match self.parity {
            Parity::None => serial2_tokio::Parity::None,
            Parity::Even => serial2_tokio::Parity::Even,
            Parity::Odd => serial2_tokio::Parity::Odd,
        });
        let two = self.stop_bits == 2;
        settings.set_stop_bits(if two { serial2_tokio::StopBits::Two } else { serial2_tokio::StopBits::One });
        Ok(settings)
    }
}

/// An open serial port, locked against other programs until it is dropped.
#[derive(Debug)]
pub struct SerialStream {
    port: SerialPort,
    /// Holds the advisory lock and clears the exclusive mode.
    lock: File,
}

impl Drop for SerialStream {
    fn drop(&mut self) {
        // The mode belongs to the terminal, not to the file: without this a pseudo-terminal stays locked.
        if let Err(error) = ioctl_tiocnxcl(&self.lock) {
            tracing::debug!(%error, "the exclusive mode of the port could not be cleared");
        }
    }
}

impl AsyncRead for SerialStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_read(cx, buf)
    }
}

impl AsyncWrite for SerialStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.port).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_shutdown(cx)
    }
}

/// The lock file of a port in the UUCP style (Filesystem Hierarchy Standard 3.0, 5.9), for tools that know only that.
#[must_use]
pub fn lock_path(path: &str) -> String {
    let name = Path::new(path)
        .file_name()
        .map_or_else(|| path.replace('/', "_"), |name| name.to_string_lossy().into());
    format!("/run/lock/LCK..{name}")
}

fn is_pseudo_terminal(path: &str) -> bool {
    canonical_path(path).starts_with("/dev/pts/")
}

/// The same port under the name the kernel gives it, so that two spellings of one port are one endpoint.
/// A port that is not plugged in keeps the spelling of the configuration.
#[must_use]
pub fn canonical_path(path: &str) -> String {
    std::fs::canonicalize(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(baud_rate: u32) -> SerialSettings {
        SerialSettings {
            path: "/dev/ttyS9".into(),
            baud_rate,
            parity: Parity::Even,
            data_bits: 8,
            stop_bits: 1,
        }
    }

    #[test]
    fn the_gap_is_three_and_a_half_characters() {
        assert_eq!(settings(9600).frame_gap().as_micros(), 4010);
        assert_eq!(settings(19_200).frame_gap().as_micros(), 2005);
        assert_eq!(settings(38_400).frame_gap().as_micros(), 1750);
        assert_eq!(settings(115_200).frame_gap().as_micros(), 1750);
    }

    #[test]
    fn all_problems_at_once() {
        let bad = SerialSettings {
            path: String::new(),
            baud_rate: 1,
            parity: Parity::None,
            data_bits: 9,
            stop_bits: 3,
        };
        let keys: Vec<&str> = bad.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["path", "baud_rate", "data_bits", "stop_bits"]);
        assert!(settings(9600).problems().is_empty());
    }

    #[test]
    fn lock_files_are_named_after_the_port() {
        assert_eq!(lock_path("/dev/ttyUSB0"), "/run/lock/LCK..ttyUSB0");
    }
}
