//! Why there is no answer, sorted by consequence.

/// Why there is no answer. Every text is one sentence for the operator; none holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings cannot work: a file is missing, a key does not fit. Trying again helps only after a change.
    #[error("{0}")]
    Configuration(String),
    /// The server's certificate, or ours, is not accepted.
    #[error("{0}")]
    Certificate(String),
    /// Nobody answers there; nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke before the answer was complete: whether the batch was taken is not known.
    #[error("{0}")]
    Broken(String),
}
