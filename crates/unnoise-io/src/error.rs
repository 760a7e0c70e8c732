//! What can go wrong with files, as values.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of `unnoise-io`.
///
/// Its text is one line that is complete by itself: the reason of an [`Io`](Error::Io) error is part of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument outside its domain.
    #[error("{at}: {what} must be {expected}, got {got}")]
    Argument {
        /// The argument's name.
        what: &'static str,
        /// Its domain.
        expected: String,
        /// Its value.
        got: String,
        /// The function or type that was called.
        at: &'static str,
    },
    /// A result that would have been overwritten.
    #[error("{} exists already{}", path.display(), note)]
    Exists {
        /// The file or directory.
        path: PathBuf,
        /// What else the caller should know, starting with a separator; usually empty.
        note: String,
    },
    /// A file whose content is not what it must be.
    #[error("{}: {what}: expected {expected}, got {got}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The part of the file.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file that is valid as far as it was read, but larger than what the caller accepts.
    #[error("{}: {what} is {got}, above the limit of {limit}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: String,
        /// The limit, with its unit.
        limit: String,
        /// The size, with its unit.
        got: String,
    },
    /// A valid file that this version cannot read or write.
    #[error("{}: {what} is not supported yet; supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it would need.
        what: String,
        /// What works instead.
        supported: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried: "read", "write", "create", ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// A description that `unnoise-core` refused, such as a measurement's operator.
    #[error("{}: {reason}", path.display())]
    Core {
        /// The file that holds it.
        path: PathBuf,
        /// Why not.
        reason: unnoise_core::Error,
    },
}

impl Error {
    /// The function or type that refused its argument, which the message then names before the argument.
    pub fn at(&self) -> Option<&'static str> {
        match self {
            Self::Argument { at, .. } => Some(at),
            Self::Core { reason, .. } => reason.at(),
            _ => None,
        }
    }

    pub(crate) fn content(path: &Path, what: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Content { path: path.into(), what: what.into(), expected: expected.into(), got: got.into() }
    }

    pub(crate) fn limit(path: &Path, what: impl Into<String>, got: String, limit: String) -> Self {
        Self::Limit { path: path.into(), what: what.into(), limit, got }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>, supported: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), what: what.into(), supported: supported.into() }
    }

    /// `map_err(Error::io("read", path))`
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |reason| Self::Io { action, path, reason }
    }

    /// Reading past a file's end is a statement about its content, every other failure one about the system.
    pub(crate) fn reading(path: &Path, what: &str, reason: std::io::Error) -> Self {
        match reason.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::content(path, what, "more bytes", "the file's end (truncated?)"),
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
                Self::content(path, what, "intact data", reason.to_string())
            }
            _ => Self::Io { action: "read", path: path.into(), reason },
        }
    }
}
