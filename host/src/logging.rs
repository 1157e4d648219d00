//! The operator's log: one line per event, text or JSON, on standard error (a terminal, journald, a container engine) or
//! in a file that is rotated by size (`file.rs`).
//!
//! Lines go through a bounded channel to a thread of their own, because a stopped terminal or a stuck log collector
//! would otherwise stop whoever logs, and with it acquisition (G5). What does not fit is dropped and counted; the
//! count is written as soon as there is room again. Colours only on a terminal.

mod file;

use self::file::RotatedFile;

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use busbar_config::LogFile;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Lines waiting for the writer.
const QUEUED_LINES: usize = 4096;
/// Longest wait at exit for the lines still queued.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// Frames of a device are switched on device by device, whatever the level.
const FRAMES: &str = "busbar::frame=info";

/// Lines that were dropped since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Changes the filter of the running log.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;
static LEVEL: OnceLock<SetFilter> = OnceLock::new();

/// Changes the level of the running log.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{level},{FRAMES}")).map_err(|error| error.to_string())?;
    LEVEL.get().ok_or("no log is installed")?(filter)
}

/// Lines dropped since the start: not written fast enough, or not at all.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A log file is opened anew with the next line (SIGUSR1).
pub fn reopen() {
    file::REOPEN.store(true, Ordering::Relaxed);
}

/// `[host] log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Keeps the writer alive; dropping it writes what is still queued.
#[derive(Debug)]
pub struct LogGuard {
    // Dropped before joining, so that the writer sees the end.
    lines: Option<Sender<Line>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

enum Line {
    Text(Vec<u8>),
    End,
}

/// Installs the log for a running host.
///
/// `level` is `error warn info debug trace`, or a list of directives like `info,busbar_core=debug`. Without `file` it
/// goes to standard error.
pub fn init(level: &str, format: Format, file: Option<LogFile>) -> Result<LogGuard, String> {
    let filter = EnvFilter::try_new(format!("{level},{FRAMES}")).map_err(|error| {
        format!("[host] log.level: expected error, warn, info, debug or trace, found {level} ({error})")
    })?;
    let colours = file.is_none() && colours();
    let (writer, guard) = match file {
        None => start_writer(io::stderr(), format)?,
        Some(file) => {
            let path = file.path.display().to_string();
            let opened = RotatedFile::open(file);
            let file = opened.map_err(|error| {
                format!("[host] log.file: expected a file this user can write, found {path}: {error}")
            })?;
            start_writer(file, format)?
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let installed = match format {
        Format::Text => {
            let builder = builder.with_ansi(colours).with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ =
                LEVEL.set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
            builder.try_init()
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ =
                LEVEL.set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
            builder.try_init()
        }
    };
    installed.map_err(|error| format!("the log could not be installed: {error}"))?;
    Ok(guard)
}

/// Installs the log of a one-shot command: errors, directly on standard error.
pub fn init_quiet() {
    let filter = EnvFilter::new("error");
    // A second installation in one process only happens in tests; the first one stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours())
        .with_target(false)
        .without_time()
        .try_init();
}

/// Standard error is a terminal that wants colours.
fn colours() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted && io::stderr().is_terminal()
}

fn start_writer(out: impl Write + Send + 'static, format: Format) -> Result<(LineWriter, LogGuard), String> {
    let (lines, queue) = bounded(QUEUED_LINES);
    let (finished, done) = bounded(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&dropped);
    let thread = std::thread::Builder::new()
        .name("busbar-log".into())
        .spawn(move || {
            write_lines(out, &queue, &counter, format);
            let _ = finished.try_send(());
        })
        .map_err(|error| format!("the log thread could not be started: {error}"))?;
    let writer = LineWriter { lines: lines.clone(), dropped };
    Ok((writer, LogGuard { lines: Some(lines), done, thread: Some(thread) }))
}

fn write_lines(mut out: impl Write, queue: &Receiver<Line>, dropped: &AtomicU64, format: Format) {
    while let Ok(Line::Text(line)) = queue.recv() {
        // A log that cannot be written must not stop the host; it is told as soon as it can be written again.
        if out.write_all(&line).is_err() {
            count(dropped, 1);
            continue;
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 && out.write_all(loss_line(lost, format).as_bytes()).is_err() {
            dropped.fetch_add(lost, Ordering::Relaxed);
        }
        if queue.is_empty() {
            let _ = out.flush();
        }
    }
}

fn count(dropped: &AtomicU64, lines: u64) {
    dropped.fetch_add(lines, Ordering::Relaxed);
    DROPPED.fetch_add(lines, Ordering::Relaxed);
}

fn loss_line(lost: u64, format: Format) -> String {
    let text = format!("{lost} log lines dropped: they could not be written, or not fast enough");
    match format {
        Format::Text => format!("WARN {text}\n"),
        Format::Json => format!("{{\"level\":\"WARN\",\"message\":\"{text}\"}}\n"),
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            let _ = lines.send_timeout(Line::End, FLUSH_WAIT);
        }
        // A writer stuck on a stopped terminal is left behind.
        if !matches!(self.done.recv_timeout(FLUSH_WAIT), Err(RecvTimeoutError::Timeout))
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Hands formatted lines to the writer.
#[derive(Clone)]
struct LineWriter {
    lines: Sender<Line>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The formatter writes each event with one call.
        match self.lines.try_send(Line::Text(line.to_vec())) {
            Err(TrySendError::Full(_)) => {
                count(&self.dropped, 1);
            }
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{SyncSender, sync_channel};

    /// Blocks on every write until the test takes it.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_never_blocks_the_writer_and_losses_are_counted() {
        let (taken, lines) = sync_channel(0);
        let (writer, guard) = start_writer(Slow(taken), Format::Json).unwrap();
        let sent = QUEUED_LINES + 100;
        for number in 0..sent {
            (&mut &writer).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let reader = std::thread::spawn(move || {
            lines.iter().map(|l| String::from_utf8(l).unwrap()).collect::<Vec<_>>()
        });
        drop(guard);
        let seen = reader.join().unwrap();
        let lost: usize = seen
            .iter()
            .find_map(|line| line.split("message\":\"").nth(1)?.split(' ').next()?.parse().ok())
            .expect("the loss is reported");
        assert_eq!(seen.iter().filter(|line| line.trim().parse::<usize>().is_ok()).count() + lost, sent);
        assert!((98..=100).contains(&lost), "{lost}");
    }
}
