//! What can go wrong with networks and their files, as values.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of `unnoise-nn`: what, expected, got and where.
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
    /// A file that does not hold what it should.
    #[error("{}: {what} must be {expected}, got {got}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The part of it that is wrong.
        what: String,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Tensors that do not fit the architecture.
    #[error("{at}: the tensors do not fit the architecture: {}", list(problems))]
    Parameters {
        /// Every tensor that is missing, unused or of another shape.
        problems: Vec<ParameterProblem>,
        /// The file or function.
        at: String,
    },
    /// Something larger than this crate is willing to hold.
    #[error("{at}: {what} is {got}, above the limit of {limit}")]
    Limit {
        /// The quantity.
        what: &'static str,
        /// The largest value that is accepted.
        limit: u64,
        /// Its value.
        got: u64,
        /// The file or function.
        at: String,
    },
    /// A valid option that this crate cannot serve.
    #[error("{what} is not supported yet; supported: {supported}")]
    NotSupportedYet {
        /// The option.
        what: String,
        /// What works instead.
        supported: String,
    },
    /// Training that left the finite numbers.
    #[error("training diverged at step {step}: loss {loss}, gradient norm {grad_norm}; a lower learning rate or clipping may help")]
    Diverged {
        /// The update that was not made.
        step: u64,
        /// The batch's loss.
        loss: f64,
        /// The norm of its gradient.
        grad_norm: f64,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The mathematics refused.
    #[error(transparent)]
    Core(#[from] unnoise_core::Error),
}

impl Error {
    /// The function or type that refused its argument, with which the message then begins.
    pub fn at(&self) -> Option<&'static str> {
        match self {
            Self::Argument { at, .. } => Some(at),
            Self::Core(error) => error.at(),
            _ => None,
        }
    }

    pub(crate) fn argument(what: &'static str, expected: impl Into<String>, got: impl fmt::Debug, at: &'static str) -> Self {
        Self::Argument { what, expected: expected.into(), got: format!("{got:?}"), at }
    }

    pub(crate) fn file(path: &Path, what: impl Into<String>, expected: impl Into<String>, got: impl fmt::Display) -> Self {
        Self::File { path: path.into(), what: what.into(), expected: expected.into(), got: got.to_string() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }

    /// Says of a file in `temporary` where it would have come to stand.
    pub(crate) fn at_place(self, temporary: &Path, place: &Path) -> Self {
        match self {
            Self::Io { path, source } => {
                let path = path.strip_prefix(temporary).map_or(path.clone(), |name| place.join(name));
                Self::Io { path, source }
            }
            other => other,
        }
    }

    /// Says that an argument came from the file `path`.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Argument { what, expected, got, .. } => Self::file(path, what, expected, got),
            Self::Parameters { problems, .. } => Self::Parameters { problems, at: path.display().to_string() },
            Self::Limit { what, limit, got, .. } => Self::Limit { what, limit, got, at: path.display().to_string() },
            Self::NotSupportedYet { what, supported } => {
                Self::NotSupportedYet { what: format!("{}: {what}", path.display()), supported }
            }
            other => other,
        }
    }
}

/// One tensor that does not fit an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterProblem {
    /// The architecture has a tensor that is not there.
    Missing {
        /// Its name.
        name: String,
        /// The most similar name among the tensors that the architecture does not have.
        nearest: Option<String>,
    },
    /// There is a tensor that the architecture does not have.
    Unused {
        /// Its name.
        name: String,
        /// The most similar name of the architecture.
        nearest: Option<String>,
    },
    /// A tensor of another shape.
    Shape {
        /// Its name.
        name: String,
        /// The architecture's shape.
        expected: Vec<usize>,
        /// The tensor's shape.
        got: Vec<usize>,
    },
}

impl fmt::Display for ParameterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = |nearest: &Option<String>| nearest.as_ref().map(|n| format!(" (nearest: {n})")).unwrap_or_default();
        match self {
            Self::Missing { name, nearest } => write!(f, "missing {name}{}", hint(nearest)),
            Self::Unused { name, nearest } => write!(f, "unused {name}{}", hint(nearest)),
            Self::Shape { name, expected, got } => write!(f, "{name} must have shape {expected:?}, got {got:?}"),
        }
    }
}

/// The first problems, and how many more there are.
fn list(problems: &[ParameterProblem]) -> String {
    const SHOWN: usize = 6;
    let mut text = problems.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        text += &format!("; and {} more", problems.len() - SHOWN);
    }
    text
}
