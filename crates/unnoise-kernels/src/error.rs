//! What a caller can get wrong.

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of `unnoise-kernels`: what, expected, got and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice whose length does not match the shape.
    #[error("{at}: {what} must hold {expected} numbers, got {got}")]
    Length {
        /// The slice's name.
        what: &'static str,
        /// The length that the shape asks for.
        expected: usize,
        /// Its length.
        got: usize,
        /// The function that was called.
        at: &'static str,
    },
    /// A shape that does not exist.
    #[error("{at}: {what} must be {expected}, got {got}")]
    Shape {
        /// The dimension's name.
        what: &'static str,
        /// Its domain.
        expected: String,
        /// Its value.
        got: usize,
        /// The function that was called.
        at: &'static str,
    },
}

/// The product of some dimensions, or, where it does not fit, `usize::MAX`, which no slice of numbers holds.
pub(crate) fn size<const N: usize>(dimensions: [usize; N]) -> usize {
    dimensions.into_iter().fold(1, usize::saturating_mul)
}

/// Checks that the slices of a call hold as many numbers as its shape says.
pub(crate) fn check_lengths(at: &'static str, slices: &[(&'static str, usize, usize)]) -> Result<()> {
    match slices.iter().find(|(_, got, expected)| got != expected) {
        Some(&(what, got, expected)) => Err(Error::Length { what, expected, got, at }),
        None => Ok(()),
    }
}
