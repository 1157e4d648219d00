//! Stories whose result is a time: run alone.

mod backlog;
mod crowd;
mod demo;
mod isolation;
mod lost;
mod outage;
mod reload;
mod survival;
mod upgrade;
