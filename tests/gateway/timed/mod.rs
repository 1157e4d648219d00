//! Stories whose result is a time: run alone.

mod crowd;
mod demo;
mod lost;
mod outage;
mod reload;
