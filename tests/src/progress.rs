//! How far a long story is, on the terminal: a bar that is drawn again in place, or a line at every tenth where nobody
//! watches.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Cells of the bar.
const WIDTH: u64 = 30;
/// Shorter stories need none.
const WORTH: u64 = 5;

/// One bar.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    begin: Instant,
    terminal: bool,
}

impl Progress {
    /// Begins; `what` names the steps.
    #[must_use]
    pub fn start(what: &'static str, total: u64) -> Self {
        Self { what, total, done: 0, begin: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Time since the begin.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// One more is done.
    pub fn step(&mut self) {
        let tenth = |done: u64| done * 10 / self.total.max(1);
        let news = tenth(self.done) != tenth(self.done + 1);
        self.done += 1;
        if self.total < WORTH {
            return;
        }
        if self.terminal {
            self.draw("\r", "");
        } else if news {
            self.draw("", "\n");
        }
    }

    /// All are done.
    pub fn end(&self) {
        if self.terminal && self.total >= WORTH {
            self.draw("\r", "\n");
        }
    }

    fn draw(&self, before: &str, after: &str) {
        let mut out = std::io::stderr();
        // A closed terminal is no reason to fail.
        let _ =
            write!(out, "{before}{}{after}", line(self.what, self.done, self.total, self.begin.elapsed()));
        let _ = out.flush();
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let full = (done * WIDTH / total.max(1)).min(WIDTH);
    let bar: String = (0..WIDTH).map(|cell| if cell < full { '#' } else { '.' }).collect();
    let seconds = elapsed.as_secs();
    format!("  [{bar}] {done}/{total} {what}, {:02}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills() {
        let at = |done| line("rounds", done, 200, Duration::from_secs(83));
        assert_eq!(at(0), "  [..............................] 0/200 rounds, 01:23");
        assert_eq!(at(100), "  [###############...............] 100/200 rounds, 01:23");
        assert_eq!(at(200), "  [##############################] 200/200 rounds, 01:23");
    }
}
