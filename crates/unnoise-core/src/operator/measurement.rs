//! What was measured, and its units.

use ndarray::Array4;

use super::Operator;
use crate::{Batch, Error, Noise, Purpose, Result, Streams, check_shape, sampler::check_finite};

/// A measurement `y = A x + sigma_y e` in the model's units: images in `[-1, 1]`.
///
/// One `y`, `[1, c', h', w']`, whatever the number of posterior samples.
pub struct Measurement<'a> {
    /// The forward operator.
    pub op: &'a dyn Operator,
    /// What was measured, `[1, c', h', w']`.
    pub y: Batch,
    /// The noise's standard deviation, in the units of `y`.
    pub sigma_y: f64,
}

impl<'a> Measurement<'a> {
    /// A measurement in the model's units.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `y` is one measurement of `op`, [`Error::NotFinite`] if it holds a number that is not finite,
    /// [`Error::Argument`] unless `sigma_y` is finite and not negative.
    pub fn new(op: &'a dyn Operator, y: Batch, sigma_y: f64) -> Result<Self> {
        let at = "Measurement::new";
        check_shape(&y, op.output_shape(), "y", at)?;
        if y.dim().0 != 1 {
            let [c, h, w] = op.output_shape();
            return Err(Error::Shape { what: "y", expected: vec![1, c, h, w], got: y.shape().to_vec(), at });
        }
        check_finite(&y, "y", at)?;
        if !(sigma_y >= 0.0 && sigma_y.is_finite()) {
            return Err(Error::Argument {
                what: "sigma_y",
                expected: "finite and not negative".into(),
                got: sigma_y.to_string(),
                at,
            });
        }
        Ok(Self { op, y, sigma_y })
    }

    /// A measurement whose `y` and `sigma_y` are in the units of images in `[0, 1]`, which users see.
    ///
    /// ```text
    /// x' = 2 x - 1,   y' = 2 y - A 1,   sigma_y' = 2 sigma_y:   y' = A x' + sigma_y' e
    /// ```
    ///
    /// `A 1` is 1 for masks, normalised kernels and averages, and not for operators in general.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`check_noise_level`].
    pub fn from_unit_range(op: &'a dyn Operator, y: &Batch, sigma_y: f64) -> Result<Self> {
        let at = "Measurement::from_unit_range";
        check_shape(y, op.output_shape(), "y", at)?;
        check_noise_level(sigma_y, at)?;
        Self::new(op, 2.0 * y - of_ones(op), 2.0 * sigma_y)
    }

    /// `y` in the units of images in `[0, 1]`: the inverse of [`from_unit_range`](Self::from_unit_range).
    pub fn y_in_unit_range(&self) -> Batch {
        (&self.y + of_ones(self.op)) * 0.5
    }

    /// `sigma_y` in the units of images in `[0, 1]`.
    pub fn sigma_y_in_unit_range(&self) -> f64 {
        0.5 * self.sigma_y
    }
}

/// Measures images: `y = A x + sigma_y e`, with one stream of noise for each, in the units of `x`.
///
/// The formula is the same in both ranges: with images in `[0, 1]` it gives the `y` of [`Measurement::from_unit_range`].
///
/// # Errors
/// [`Error::Shape`] for images of another shape or another number than the streams, [`Error::NotFinite`] for one that is not finite,
/// and those of [`check_noise_level`].
pub fn simulate(op: &dyn Operator, x: &Batch, sigma_y: f64, streams: &Streams) -> Result<Batch> {
    let at = "simulate";
    check_shape(x, op.input_shape(), "x", at)?;
    let n = x.dim().0;
    if n != streams.len() {
        let [c, h, w] = op.input_shape();
        return Err(Error::Shape { what: "x", expected: vec![streams.len(), c, h, w], got: x.shape().to_vec(), at });
    }
    check_finite(x, "x", at)?;
    check_noise_level(sigma_y, at)?;
    Ok(op.forward(x) + sigma_y * streams.clone().normal(0, Purpose::Measurement, n, op.output_shape()))
}

/// Refuses a noise level that no measurement of an image in `[0, 1]` has: `at` is who asks.
///
/// 0 is a measurement without noise. A level below 1e-9 cannot be told from that in a `y` of single precision, and one above 1e6 leaves nothing
/// of an image; their squares would leave the numbers in which methods compute.
///
/// # Errors
/// [`Error::Argument`] unless `sigma_y` is 0 or from 1e-9 to 1e6.
pub fn check_noise_level(sigma_y: f64, at: &'static str) -> Result<()> {
    if sigma_y == 0.0 || (1e-9..=1e6).contains(&sigma_y) {
        return Ok(());
    }
    let got = if sigma_y.abs() < 1e9 { sigma_y.to_string() } else { format!("{sigma_y:e}") };
    Err(Error::Argument { what: "sigma_y", expected: "0 (no noise) or from 1e-9 to 1e6, for pixels in [0, 1]".into(), got, at })
}

/// `A 1`.
fn of_ones(op: &dyn Operator) -> Batch {
    let [c, h, w] = op.input_shape();
    op.forward(&Array4::ones((1, c, h, w)))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::{Dense, Identity, chi_square, samples};

    /// Rows that do not sum to 1, so that `A 1 = (3, -0.5)`.
    fn dense() -> Dense {
        Dense::new(array![[1.0, 2.0], [0.5, -1.0]], [1, 1, 2]).unwrap()
    }

    #[test]
    fn units_are_those_of_the_shifted_image() {
        let op = dense();
        let x = array![[[[0.25, 0.75]]]];
        let streams = Streams::new(5, 0..1);
        let (y, sigma_y) = (simulate(&op, &x, 0.1, &streams).unwrap(), 0.1);
        // The same noise, twice as large, on the same image in [-1, 1]: (-0.5, 0.5).
        let expected = simulate(&op, &array![[[[-0.5, 0.5]]]], 0.2, &streams).unwrap();
        let measurement = Measurement::from_unit_range(&op, &y, sigma_y).unwrap();
        assert!((&measurement.y - expected).iter().all(|e| e.abs() < 1e-15));
        assert!((measurement.y_in_unit_range() - y).iter().all(|e| e.abs() < 1e-15));
        assert_eq!((measurement.sigma_y, measurement.sigma_y_in_unit_range()), (0.2, 0.1));
        // By hand, without noise: y = (1.75, -0.625) and y' = 2 y - (3, -0.5) = (0.5, -0.75) = A (-0.5, 0.5).
        let exact = Measurement::from_unit_range(&op, &array![[[[1.75, -0.625]]]], 0.0).unwrap();
        assert_eq!(exact.y, array![[[[0.5, -0.75]]]]);
    }

    #[test]
    fn the_truth_has_chi_square_one() {
        let op = Identity::new([1, 100, 100]);
        let x = Array4::from_elem((1, 1, 100, 100), 0.3);
        let y = simulate(&op, &x, 0.05, &Streams::new(2, 0..1)).unwrap();
        let chi_square = chi_square(&Measurement::new(&op, y, 0.05).unwrap(), &x).unwrap()[0];
        assert!((chi_square - 1.0).abs() < 2.58 * (2.0 / 1e4_f64).sqrt(), "{chi_square}, outside 99 %");
    }

    #[test]
    fn samples_have_their_own_noise() {
        let op = dense();
        let x = Array4::zeros((3, 1, 1, 2));
        let all = simulate(&op, &x, 1.0, &Streams::new(1, 0..3)).unwrap();
        let second = simulate(&op, &Array4::zeros((1, 1, 1, 2)), 1.0, &Streams::new(1, 1..2)).unwrap();
        assert_eq!(samples(&all).nth(1), samples(&second).next());
    }

    #[test]
    fn what_is_no_measurement_is_refused() {
        let op = Dense::new(Array2::eye(2), [1, 1, 2]).unwrap();
        for (y, sigma_y) in [
            (Array4::zeros((1, 1, 2, 1)), 0.1),
            (Array4::zeros((2, 1, 1, 2)), 0.1),
            (array![[[[0.0, f64::NAN]]]], 0.1),
            (Array4::zeros((1, 1, 1, 2)), -0.1),
            (Array4::zeros((1, 1, 1, 2)), f64::NAN),
            (Array4::zeros((1, 1, 1, 2)), f64::INFINITY),
        ] {
            assert!(Measurement::new(&op, y.clone(), sigma_y).is_err(), "{y} {sigma_y}");
            assert!(Measurement::from_unit_range(&op, &y, sigma_y).is_err(), "{y} {sigma_y}");
        }
        let one = Array4::zeros((1, 1, 1, 2));
        assert!(simulate(&op, &Array4::zeros((2, 1, 1, 2)), 0.1, &Streams::new(0, 0..1)).is_err());
        for (sigma_y, valid) in
            [(0.0, true), (1e-9, true), (1e6, true), (1e-10, false), (1e7, false), (-0.1, false), (f64::NAN, false)]
        {
            assert_eq!(simulate(&op, &one, sigma_y, &Streams::new(0, 0..1)).is_ok(), valid, "{sigma_y}");
            assert_eq!(Measurement::from_unit_range(&op, &one, sigma_y).is_ok(), valid, "{sigma_y}");
        }
    }
}
