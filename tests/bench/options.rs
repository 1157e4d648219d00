//! Command line of the measuring program.

const USAGE: &str = "\
Usage: cargo task bench -- [--seconds N] [--ramp-seconds N] [PART ...]

  --seconds N       length of each measurement, default 30
  --ramp-seconds N  length of each level of the ramp, default 8
  PART              boundary queue load ramp crowd; default all of them";

/// The parts in the order they run.
const PARTS: [&str; 5] = ["boundary", "queue", "load", "ramp", "crowd"];

/// What to measure and how long.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) seconds: u64,
    pub(crate) ramp_seconds: u64,
    parts: Vec<String>,
}

impl Options {
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self { seconds: 30, ramp_seconds: 8, parts: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || {
                let text =
                    words.next().ok_or_else(|| format!("expected a number after {word}\n\n{USAGE}"))?;
                let number = text.parse::<u64>().ok().filter(|number| *number > 0);
                number.ok_or_else(|| format!("expected whole seconds, found '{text}'\n\n{USAGE}"))
            };
            match word.as_str() {
                "--seconds" => options.seconds = number()?,
                "--ramp-seconds" => options.ramp_seconds = number()?,
                part if PARTS.contains(&part) => options.parts.push(part.to_owned()),
                "--help" | "-h" => return Err(USAGE.to_owned()),
                other => return Err(format!("'{other}' is no part and no option\n\n{USAGE}")),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|have| have == part)
    }
}
