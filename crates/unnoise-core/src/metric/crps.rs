//! How good samples are as a forecast of the truth.

use crate::{Batch, Error, Result, check_shape, element_shape, samples};

/// The continuous ranked probability score, averaged over pixels; smaller is better.
///
/// ```text
/// mean_i |x_i - truth| - 1 / (2 n (n - 1)) sum_{i,j} |x_i - x_j|
/// ```
///
/// It is a proper score: on average, samples of the true posterior have the smallest. It rewards sharpness and calibration together,
/// which neither PSNR (of the mean alone) nor coverage does.
///
/// # Shapes
/// `images [n, c, h, w]` with `n > 1`, `truth [1, c, h, w]`.
///
/// # Units
/// Those of the images.
///
/// # Errors
/// [`Error::Shape`] for other shapes; [`Error::Argument`] for fewer than two samples.
///
/// # Reference
/// Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102, 359, eq. 21; the unbiased estimate of Zamo and Naveau 2018, Math. Geosci. 50,
/// 209.
pub fn crps(images: &Batch, truth: &Batch) -> Result<f64> {
    let at = "crps";
    let n = images.dim().0;
    if n < 2 {
        return Err(Error::Argument { what: "the number of samples", expected: "at least 2".into(), got: n.to_string(), at });
    }
    check_shape(truth, element_shape(images), "truth", at)?;
    let images: Vec<_> = samples(images).collect();
    let mut sum = 0.0;
    let mut values = vec![0.0; n];
    for (pixel, truth) in truth.iter().enumerate() {
        values.iter_mut().zip(&images).for_each(|(value, image)| *value = image[pixel]);
        values.sort_unstable_by(f64::total_cmp);
        let error = values.iter().map(|v| (v - truth).abs()).sum::<f64>() / n as f64;
        // Of sorted values, sum_{i < j} (x_j - x_i) = sum_i (2 i - n + 1) x_i.
        let spread: f64 = values.iter().enumerate().map(|(i, v)| (2.0 * i as f64 - n as f64 + 1.0) * v).sum();
        sum += error - spread / (n * (n - 1)) as f64;
    }
    Ok(sum / truth.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Noise, Purpose, Streams};

    #[test]
    fn two_values() {
        let images = Batch::from_shape_vec((2, 1, 1, 1), vec![1.0, 4.0]).unwrap();
        let truth = Batch::from_elem((1, 1, 1, 1), 2.0);
        // (1 + 2) / 2 - 3 / 2.
        assert!(crps(&images, &truth).unwrap().abs() < 1e-15);
    }

    /// The CRPS of N(0, 1) at 0 is 2 phi(0) - 1 / sqrt(pi) (Gneiting and Raftery, eq. 22).
    #[test]
    fn a_normal_forecast() {
        let n = 20_000;
        let images = Streams::new(3, 0..1).normal(0, Purpose::Auxiliary, 1, [1, 1, n]).into_shape_with_order((n, 1, 1, 1)).unwrap();
        let pi = std::f64::consts::PI;
        let expected = 2.0 / (2.0 * pi).sqrt() - 1.0 / pi.sqrt();
        let found = crps(&images, &Batch::zeros((1, 1, 1, 1))).unwrap();
        // The deviation of |x| is .6, and the second term's error is smaller: 3.3 of .6 / sqrt(n).
        assert!((found - expected).abs() < 3.3 * 0.6 / f64::from(n as u32).sqrt(), "{found}");
    }
}
