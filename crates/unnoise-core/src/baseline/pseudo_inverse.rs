//! The least-squares reconstruction.

use crate::{Batch, Capability, Measurement, Result, require};

/// The smallest image, in the model's range, among those that fit the measurement best.
///
/// ```text
/// x = A^+ y
/// ```
///
/// What was not measured is 0, the middle of `[-1, 1]`; noise is amplified by up to the inverse of the smallest singular value.
///
/// # Shapes
/// `[1, c, h, w]`.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) if the operator has no pseudo-inverse.
pub fn pseudo_inverse(measurement: &Measurement<'_>) -> Result<Batch> {
    require(measurement.op, &[Capability::PseudoInverse], "the pseudo-inverse")?;
    Ok(measurement.op.pseudo_inverse(&measurement.y).expect("the capability was checked"))
}
