//! What can go wrong in the mathematics, as values.

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of `unnoise-core`: what, expected, got and where.
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
    /// An array of the wrong shape.
    #[error("{at}: {what} must have shape {expected:?}, got {got:?}")]
    Shape {
        /// The array's name.
        what: &'static str,
        /// The shape that was expected.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
        /// The function or type that was called.
        at: &'static str,
    },
    /// A conversion between predictions that does not exist at this noise level.
    #[error("{target} cannot be computed from {source_name} at alpha = {alpha}, sigma = {sigma}; {usable} can")]
    UndefinedConversion {
        /// The prediction that was asked for.
        target: &'static str,
        /// The prediction that was given.
        source_name: &'static str,
        /// The signal scale.
        alpha: f64,
        /// The noise scale.
        sigma: f64,
        /// A prediction from which `target` can be computed at this level.
        usable: &'static str,
    },
    /// A valid combination that is not possible, with those that are.
    #[error("{what} is not possible: {why}; possible: {}", possible.join(", "))]
    Unsupported {
        /// The combination that was asked for.
        what: String,
        /// The reason.
        why: String,
        /// What would work instead.
        possible: Vec<String>,
    },
    /// A name that does not exist.
    #[error("unknown {kind} '{name}'; known: {}", known.join(", "))]
    Unknown {
        /// What kind of thing was named.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// An iterative solve that did not reach its tolerance.
    #[error("{at}: relative residual {residual:.1e} after {iterations} iterations, above the tolerance {tolerance:.1e}")]
    NotConverged {
        /// The solver.
        at: &'static str,
        /// The largest relative residual of a sample.
        residual: f64,
        /// The iterations that were run.
        iterations: usize,
        /// The tolerance that was asked for.
        tolerance: f64,
    },
    /// A number that is not finite where it must be.
    #[error("{at}: {what} is not finite in sample {sample}")]
    NotFinite {
        /// The quantity.
        what: &'static str,
        /// The sample that holds it.
        sample: usize,
        /// The function or type that met it.
        at: &'static str,
    },
    /// The caller's observer asked to stop.
    #[error("stopped on request after {done} of {steps} steps")]
    Stopped {
        /// The steps that were done.
        done: usize,
        /// The steps that were planned.
        steps: usize,
    },
    /// A denoiser outside this crate failed.
    #[error("the denoiser failed")]
    Denoiser(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The function or type that refused its argument, with which the message then begins.
    pub fn at(&self) -> Option<&'static str> {
        match self {
            Self::Argument { at, .. } | Self::Shape { at, .. } | Self::NotConverged { at, .. } | Self::NotFinite { at, .. } => {
                Some(at)
            }
            _ => None,
        }
    }
}
