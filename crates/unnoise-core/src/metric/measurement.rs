//! Whether an image explains its measurement.

use crate::{Batch, Error, Measurement, Result, check_shape, norm_sq};

/// The squared residual of each image, in units of the noise.
///
/// ```text
/// |y - A x|^2 / (m sigma_y^2)
/// ```
///
/// For the true image this is a chi-square variable of `m` degrees of freedom, divided by `m`: `1 +- sqrt(2 / m)`. A posterior sample
/// and the truth have the same joint distribution with `y`, so the same holds for samples, over many measurements. It does not hold
/// for the mean of samples.
///
/// # Errors
/// [`Error::Shape`] when `x` does not suit the operator; [`Error::Argument`] for a measurement without noise.
pub fn chi_square(measurement: &Measurement<'_>, x: &Batch) -> Result<Vec<f64>> {
    let Measurement { op, y, sigma_y } = measurement;
    check_shape(x, op.input_shape(), "x", "chi_square")?;
    if *sigma_y <= 0.0 {
        return Err(Error::Argument { what: "sigma_y", expected: "positive".into(), got: sigma_y.to_string(), at: "chi_square" });
    }
    let expected = op.measured() as f64 * sigma_y * sigma_y;
    Ok(norm_sq(&(op.forward(x) - y)).into_iter().map(|residual| residual / expected).collect())
}
