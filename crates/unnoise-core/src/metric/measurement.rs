//! Whether an image explains its measurement.

use crate::{Batch, Error, Measurement, Result, check_shape, norm_sq, operator_norm_sq};

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

/// What every image of the model's range leaves unexplained: a lower bound of the residual's root mean square.
///
/// ```text
/// min over x in [-1, 1]^d of |A x - y|  >=  (-<u, y> - |A^T u|_1) / |u|        for every u
/// ```
///
/// Cauchy-Schwarz gives `|A x - y| |u| >= <u, A x - y>`, and no `x` makes `<A^T u, x>` smaller than `-|A^T u|_1`. The bound is the largest
/// one, `min |A x - y|` itself, at that minimum's `u = A x - y`; a few projected gradient steps come near it, and the bound holds wherever they end.
///
/// Far above `sigma_y` it says that `y` is not a measurement of such an image: that it is in other units, or the operator another.
///
/// # Units
/// Those of the model, images in `[-1, 1]`.
pub fn least_residual(measurement: &Measurement<'_>) -> f64 {
    const STEPS: usize = 15;
    let Measurement { op, y, .. } = measurement;
    let [c, h, w] = op.input_shape();
    let step = 1.0 / operator_norm_sq(*op);
    let mut x = Batch::zeros((1, c, h, w));
    for _ in 0..STEPS {
        x = (&x - step * op.adjoint(&(op.forward(&x) - y))).clamp(-1.0, 1.0);
    }
    let u = op.forward(&x) - y;
    let excess = -(&u * y).sum() - op.adjoint(&u).mapv(f64::abs).sum();
    let norm = (&u * &u).sum().sqrt();
    if excess > 0.0 { excess / norm / (op.measured() as f64).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, array};

    use super::*;
    use crate::{Dense, Identity, Operator, OperatorConfig};

    /// The distance to the nearest measurement of an image, where it is known.
    #[test]
    fn it_is_the_distance_where_that_is_known() {
        let identity = Identity::new([1, 1, 4]);
        // x + 2 x' covers [-3, 3].
        let sum = Dense::new(array![[1.0, 2.0]], [1, 1, 2]).unwrap();
        for (op, y, want) in [
            (&identity as &dyn Operator, array![[[[0.5, -1.0, 1.0, 0.0]]]], 0.0),
            (&identity, array![[[[4.0, 0.0, -1.5, 0.9]]]], ((9.0 + 0.25) / 4.0_f64).sqrt()),
            (
                &identity,
                array![[[[128.0, 3.0, 255.0, 17.0]]]],
                ((127.0_f64.powi(2) + 4.0 + 254.0_f64.powi(2) + 256.0) / 4.0).sqrt(),
            ),
            (&sum, array![[[[2.9]]]], 0.0),
            (&sum, array![[[[-5.0]]]], 2.0),
        ] {
            let got = least_residual(&Measurement::new(op, y.clone(), 0.1).unwrap());
            assert!((got - want).abs() < 1e-9 * want.max(1e-3), "{y}: {got} instead of {want}");
        }
    }

    /// No image leaves less: for operators of every kind and images at the ends of their range, with residuals of every size.
    #[test]
    fn no_image_leaves_less() {
        let shape = [1, 8, 8];
        let image = Array4::from_shape_fn((1, 1, 8, 8), |(_, _, i, j)| if (i * 5 + j * 3) % 7 < 3 { 1.0 } else { -1.0 });
        for spec in ["identity", "box:4", "blur:gaussian,sigma=1.5", "downsample:2,kernel=bicubic", "blur:motion,length=5"] {
            let config = OperatorConfig { spec: spec.parse().unwrap(), arrays: Default::default() };
            let op = config.build(shape).unwrap();
            let [c, h, w] = op.output_shape();
            for size in [0.0, 1e-3, 0.1, 1.0, 100.0] {
                let noise = Array4::from_shape_fn((1, c, h, w), |(_, c, i, j)| size * ((c + 7 * i + 11 * j) as f64).sin());
                let residual = (norm_sq(&noise)[0] / op.measured() as f64).sqrt();
                let y = op.forward(&image) + noise;
                let bound = least_residual(&Measurement::new(&*op, y, 0.1).unwrap());
                assert!(bound <= residual * (1.0 + 1e-12), "{spec}, {size}: {bound} of {residual}");
                assert!(size < 100.0 || bound > 0.5 * residual, "{spec}: {bound} of {residual} is no use");
            }
        }
    }
}
