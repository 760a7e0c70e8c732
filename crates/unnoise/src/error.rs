//! What can go wrong, from whichever part.

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of any part of `unnoise`; the message is the part's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The mathematics refused an argument or a combination, or could not go on.
    #[error(transparent)]
    Core(#[from] unnoise_core::Error),
    /// A network or its files.
    #[error(transparent)]
    Network(#[from] unnoise_nn::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] unnoise_io::Error),
    /// A measurement or an array that does not fit the prior.
    #[error("{at}: {what} must be {expected}, got {got}")]
    Argument {
        /// The argument's name.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
        /// The function that was called.
        at: &'static str,
    },
}

impl Error {
    /// Whether the run was stopped by its observer.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Core(unnoise_core::Error::Stopped { .. }))
    }
}
