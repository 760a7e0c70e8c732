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
    /// A model that does not say how large its images are.
    #[error("{model}: the side of the images stands neither in its config.json (sample_size) nor was it given")]
    ImageSize {
        /// The model's name.
        model: String,
    },
}

impl Error {
    /// The function or type that refused its argument, which the message names before the argument.
    pub fn at(&self) -> Option<&'static str> {
        match self {
            Self::Core(error) => error.at(),
            Self::Network(error) => error.at(),
            Self::File(error) => error.at(),
            Self::Argument { at, .. } => Some(at),
            Self::ImageSize { .. } => None,
        }
    }

    /// Whether the run was stopped by its observer.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Core(unnoise_core::Error::Stopped { .. }))
    }
}
