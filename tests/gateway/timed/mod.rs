//! Stories whose result is a time: run alone.

mod crowd;
mod lost;
mod outage;
