//! Errors of a session, sorted by consequence.

/// Why there is no session, or why it ended. Every text is one sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings cannot work: a file is missing, a key does not fit. Trying again does not help.
    #[error("{0}")]
    Configuration(String),
    /// The broker refuses this client: user, password, rights, client id. Trying again helps only after a change.
    #[error("{0}")]
    Refused(String),
    /// The broker's certificate, or ours, is not accepted. Trying again helps only after a change.
    #[error("{0}")]
    Certificate(String),
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// The broker closed the connection; connect again.
    #[error("{0}")]
    Closed(String),
    /// The broker fell silent, or the connection broke; connect again.
    #[error("{0}")]
    Lost(String),
    /// The broker gave the session to another client with the same client id (MQTT 5 says so).
    #[error("{0}")]
    TakenOver(String),
    /// The peer sent what MQTT does not allow; connect again.
    #[error("{0}")]
    Nonsense(String),
}

impl Error {
    /// Trying again without a change cannot help.
    #[must_use]
    pub const fn needs_change(&self) -> bool {
        matches!(self, Self::Configuration(_) | Self::Refused(_) | Self::Certificate(_))
    }
}
