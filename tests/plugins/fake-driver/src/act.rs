//! What a scripted peer does when it is asked: part of the configuration, and changeable while it runs.

use std::{borrow::Cow, time::Duration};

use busbar_driver_api::{Error, Result, schemars, time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// One behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Act {
    /// Answers.
    #[default]
    Ok,
    /// Answers after a while.
    Delay(Duration),
    /// Never answers, however long one waits.
    Silent,
    /// Refuses.
    Refuse,
    /// Gives no answer, and the driver notices.
    NoAnswer,
    /// Ends the session.
    Session,
    /// Says that the configuration is wrong.
    Configuration,
    /// Panics.
    Panic,
    /// Ends the process in a way that only a process of its own survives.
    Crash(Crash),
}

/// What takes the whole process along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Dereferences null (a field of a structure that is not there).
    Null,
    /// Aborts.
    Abort,
    /// Allocates without end.
    Exhaust,
    /// Never gives its thread back.
    Spin,
}

impl TryFrom<String> for Act {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "ok" => Self::Ok,
            "silent" => Self::Silent,
            "refuse" => Self::Refuse,
            "no_answer" => Self::NoAnswer,
            "session" => Self::Session,
            "configuration" => Self::Configuration,
            "panic" => Self::Panic,
            "null_pointer" => Self::Crash(Crash::Null),
            "abort" => Self::Crash(Crash::Abort),
            "exhaust" => Self::Crash(Crash::Exhaust),
            "spin" => Self::Crash(Crash::Spin),
            other => {
                let ms = other.strip_prefix("delay:").and_then(|ms| ms.parse().ok());
                Self::Delay(Duration::from_millis(ms.ok_or_else(|| {
                    format!(
                        "expected ok, silent, refuse, no_answer, session, configuration, panic, null_pointer, abort, exhaust, spin or delay:MS, found {other:?}"
                    )
                })?))
            }
        })
    }
}

impl JsonSchema for Act {
    fn schema_name() -> Cow<'static, str> {
        "Act".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "ok, silent, refuse, no_answer, session, configuration, panic, null_pointer, abort, exhaust, spin or delay:MS",
        })
    }
}

impl Act {
    /// Behaves; `what` is named in the error.
    #[allow(clippy::panic, reason = "a scripted panic is the point of this plugin")]
    pub(crate) async fn play(self, what: &str) -> Result<()> {
        match self {
            Self::Ok => Ok(()),
            Self::Delay(delay) => {
                time::sleep(delay).await;
                Ok(())
            }
            Self::Silent => std::future::pending().await,
            Self::Refuse => Err(Error::refused(format!("{what}: refused by script")).code(2)),
            Self::NoAnswer => Err(Error::no_answer(format!("{what}: no answer, by script"))),
            Self::Session => Err(Error::session(format!("{what}: session ended by script"))),
            Self::Configuration => {
                Err(Error::configuration(format!("{what}: wrong configuration, by script")))
            }
            Self::Panic => panic!("{what}: panic by script"),
            Self::Crash(crash) => crash.play(),
        }
    }
}

/// Touched, so that the memory is really used.
const PIECE: usize = 1024 * 1024;
/// Where a field of a structure at address 0 would be.
const FIELD: usize = 8;

impl Crash {
    #[allow(unsafe_code, reason = "a plugin that breaks memory is the point of this act")]
    fn play(self) -> ! {
        match self {
            Self::Null => {
                // SAFETY: there is none, on purpose: nothing is mapped in the first page, so this ends the process.
                unsafe { std::ptr::without_provenance_mut::<u8>(FIELD).write_volatile(1) };
                std::process::abort()
            }
            Self::Abort => std::process::abort(),
            Self::Exhaust => {
                let mut kept = Vec::new();
                loop {
                    kept.push(std::hint::black_box(vec![1_u8; PIECE]));
                }
            }
            Self::Spin => loop {
                std::hint::spin_loop();
            },
        }
    }
}
