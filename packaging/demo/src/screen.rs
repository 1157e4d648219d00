//! What people see: a live table on a terminal, plain lines otherwise.
#![allow(
    clippy::print_stdout,
    reason = "showing is this module's task; a closed output is noticed by the next line"
)]

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write as _,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use crate::{
    plant::Plant,
    site::Site,
    story::Story,
    watch::{Device, Image, Point},
};

/// Plain lines: one per device this often.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Live table: drawn this often.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// Words kept on the live screen.
const WORDS: usize = 6;
/// Points of a device on a plain line.
const POINTS_PER_LINE: usize = 4;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const FAINT: &str = "\x1b[2m";

/// Where the demo is shown.
pub(crate) struct Screen {
    live: bool,
    head: String,
    words: VecDeque<String>,
    all_words: Vec<String>,
    drawn: Option<Instant>,
}

impl Screen {
    pub(crate) const fn new(live: bool) -> Self {
        Self { live, head: String::new(), words: VecDeque::new(), all_words: Vec::new(), drawn: None }
    }

    /// Says what runs where.
    pub(crate) fn begin(&mut self, site: &Site, plant: &Plant) {
        let devices: Vec<String> =
            plant.addresses().map(|(name, address)| format!("{name} {address}")).collect();
        let head = &mut self.head;
        let _ = writeln!(head, "configuration  {}", site.origin().display());
        for change in site.changes() {
            let _ = writeln!(head, "               {change} (taken by another program)");
        }
        let _ = writeln!(head, "devices        {}", devices.join(", "));
        let _ = writeln!(head, "broker         {}  topics busbar/{}/#", plant.broker_url(), site.host());
        if let Some(admin) = site.admin() {
            let _ = writeln!(head, "gateway        http://{admin}/metrics  log {}", site.log().display());
        }
        if self.live {
            // The alternate screen: what was on the terminal comes back at the end.
            put("\x1b[?1049h\x1b[?25l");
        } else {
            put(&format!("Busbar demo: everything below came back from the broker; Ctrl-C ends it\n{head}"));
        }
    }

    /// Tells one thing.
    pub(crate) fn say(&mut self, at: Duration, word: &str) {
        let line = format!("{:6.1} s  {word}", at.as_secs_f64());
        if self.live {
            self.words.push_back(line.clone());
            if self.words.len() > WORDS {
                self.words.pop_front();
            }
            self.all_words.push(line);
        } else {
            put(&format!("{:6.1} s  --> {word}\n", at.as_secs_f64()));
        }
    }

    /// Shows the image when it is time.
    pub(crate) fn draw(&mut self, story: &Story, image: &Image) {
        let every = if self.live { DRAW_EVERY } else { LINE_EVERY };
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < every) {
            return;
        }
        self.drawn = Some(Instant::now());
        if self.live {
            put(&self.frame(story, image));
        } else {
            put(&lines(story.elapsed(), image));
        }
    }

    /// Gives the terminal back, with the story as plain text.
    pub(crate) fn end(&mut self) {
        if self.live {
            put("\x1b[?25h\x1b[?1049l");
            put(&self.all_words.iter().fold(String::new(), |text, word| text + word + "\n"));
            self.live = false;
        }
    }

    fn frame(&self, story: &Story, image: &Image) -> String {
        // Home, draw over, clear the rest: no flicker.
        let mut frame = String::from("\x1b[H");
        let mut line = |text: &str| {
            frame.push_str(text);
            frame.push_str("\x1b[K\r\n");
        };
        let (seconds, chapter) = (story.elapsed().as_secs(), story.chapter());
        line(&format!(
            "{BOLD}Busbar demo{RESET}  {seconds} s  {chapter}  {FAINT}{} messages, Ctrl-C ends{RESET}",
            image.messages
        ));
        for text in self.head.lines() {
            line(&format!("{FAINT}{text}{RESET}"));
        }
        let points = points_that_fit(rows(), self.head.lines().count(), image.devices.len());
        for device in &image.devices {
            line("");
            line(&format!("{BOLD}{}{RESET}  {}", device.name, status(device)));
            for (name, point) in device.points.iter().take(points) {
                line(&row(name, point.as_ref()));
            }
        }
        line("");
        for word in &self.words {
            line(word);
        }
        frame.push_str("\x1b[J");
        frame
    }
}

/// Lines of the terminal.
fn rows() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(usize::from(u16::MAX), |size| usize::from(size.ws_row))
}

/// Points shown per device, so that the frame does not scroll: title, head, words, and per device a blank and a name.
fn points_that_fit(rows: usize, head: usize, devices: usize) -> usize {
    let room = rows.saturating_sub(1 + head + 2 + WORDS + 2 * devices);
    (room / devices.max(1)).max(1)
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

fn status(device: &Device) -> String {
    let colour = if device.status == "online" { "\x1b[32m" } else { "\x1b[31m" };
    let status = if device.status.is_empty() { "..." } else { &device.status };
    format!("{colour}{status}{RESET}")
}

fn row(name: &str, point: Option<&Point>) -> String {
    let Some(point) = point else { return format!("  {name:<14} ...") };
    let colour = if point.is_good() { "\x1b[32m" } else { "\x1b[31m" };
    format!("  {name:<14} {:>10} {:<5} {colour}{}{RESET}", shown(point), point.unit, point.quality)
}

/// A value with as many digits as fit.
fn shown(point: &Point) -> String {
    match point.value.as_f64() {
        Some(number) if point.value.is_f64() => format!("{number:.2}"),
        _ => point.value.to_string(),
    }
}

fn lines(at: Duration, image: &Image) -> String {
    image.devices.iter().fold(String::new(), |mut text, device| {
        let _ = write!(text, "{:6.1} s  {:<9} {:<8}", at.as_secs_f64(), device.name, device.status);
        let shown_points = || device.points.iter().take(POINTS_PER_LINE);
        let qualities: BTreeSet<&str> = shown_points()
            .filter_map(|(_, point)| point.as_ref())
            .map(|point| point.quality.as_str())
            .collect();
        // One quality for all stands at the end; otherwise each point has its own.
        let common = (qualities.len() == 1).then(|| qualities.first().copied().unwrap_or_default());
        for (name, point) in shown_points() {
            let _ = match point {
                None => write!(text, "  {name} ..."),
                Some(point) => {
                    let quality = if common.is_some() { "" } else { point.quality.as_str() };
                    let shown = format!("{} {} {quality}", shown(point), point.unit);
                    write!(text, "  {name}={}", shown.trim_end())
                }
            };
        }
        let _ = writeln!(text, "  {}", common.unwrap_or_default());
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    })
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::device_of;
    use serde_json::json;

    #[test]
    fn the_frame_fits_into_the_terminal() {
        assert_eq!(points_that_fit(24, 4, 3), 1);
        let points = points_that_fit(40, 4, 3);
        assert!(1 + 4 + 3 * (2 + points) + 1 + WORDS < 40 && points >= 6, "{points}");
    }

    #[test]
    fn plain_lines_show_value_unit_and_quality() {
        let points = [("u", json!(231.456), "good"), ("run", json!(true), "invalid|comm_lost")];
        let mut device = device_of("meter-01", "online", &points);
        device.points.push(("p".into(), None));
        let image = Image { devices: vec![device], ..Image::default() };
        let text = lines(Duration::from_millis(1500), &image);
        assert_eq!(
            text,
            "   1.5 s  meter-01  online    u=231.46  good  run=true  invalid|comm_lost  p ...\n"
        );
    }
}
