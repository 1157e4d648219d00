//! What can go wrong with a file, by consequence.

use rusqlite::ErrorCode;

/// SQLITE_IOERR_READ: the disk could not read a page. The same consequence as a page with wrong content.
const IOERR_READ: i32 = 266;

/// Why something could not be done. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No room.
    Full(String),
    /// Parts of the file are unreadable or contradict each other: salvage.
    Damaged(String),
    /// Written by a newer version, with this schema.
    Newer(i64),
    /// Not a file of ours.
    Foreign(String),
    /// Anything else: try again later.
    Other(String),
}

impl Fault {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Full(text) => format!("the disk is full: {text}"),
            Self::Newer(version) => format!("written by a newer version of Busbar (schema {version})"),
            Self::Damaged(text) | Self::Foreign(text) | Self::Other(text) => text.clone(),
        }
    }
}

impl Fault {
    /// For what a damaged file answers: anything that does not speak about the circumstances (rights, locks, a disk that does
    /// not read at all) speaks about its content. So does "out of memory": a size was read from a damaged page.
    pub(crate) fn of_damaged(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error().map(|failure| failure.code);
        let circumstances = matches!(
            code,
            Some(
                ErrorCode::PermissionDenied
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::ReadOnly
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DiskFull
                    | ErrorCode::CannotOpen
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::NoLargeFileSupport
                    | ErrorCode::AuthorizationForStatementDenied
            )
        );
        if circumstances { error.into() } else { Self::Damaged(error.to_string()) }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let rusqlite::Error::SqliteFailure(failure, _) = &error else {
            // A column of another type, a missing row: what we wrote is not what is there.
            return Self::Damaged(text);
        };
        match failure.code {
            ErrorCode::DiskFull => Self::Full(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged(text),
            _ if failure.extended_code == IOERR_READ => Self::Damaged(text),
            _ => Self::Other(text),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        if is_full(&error) { Self::Full(error.to_string()) } else { Self::Other(error.to_string()) }
    }
}

/// No room, a quota, or a limit on the size of files.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
