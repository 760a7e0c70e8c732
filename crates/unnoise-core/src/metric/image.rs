//! Distances between an image and the truth.

use ndarray::{Array2, ArrayView2, Axis, Zip};

use crate::{Batch, Error, Result, norm_sq, schedule::check_same_shape};

/// The peak signal-to-noise ratio of each image, in dB; infinite for equal ones.
///
/// ```text
/// 10 log10(data_range^2 / mean((x - truth)^2))
/// ```
///
/// # Units
/// `data_range` is the width of the images' range: 1 for `[0, 1]`, 2 for `[-1, 1]`. Nothing is clipped.
///
/// # Errors
/// [`Error::Shape`] when `x` and `truth` differ in shape; [`Error::Argument`] unless `data_range` is positive.
pub fn psnr(x: &Batch, truth: &Batch, data_range: f64) -> Result<Vec<f64>> {
    check(x, truth, data_range, "psnr")?;
    let values = (x.len() / x.dim().0.max(1)) as f64;
    Ok(norm_sq(&(x - truth)).into_iter().map(|sum| 10.0 * (data_range * data_range * values / sum).log10()).collect())
}

/// The radius of the Gaussian window: 11 taps.
const RADIUS: usize = 5;

/// The mean structural similarity of each image, 1 for equal ones.
///
/// ```text
/// ((2 m_x m_y + c1) (2 cov_xy + c2)) / ((m_x^2 + m_y^2 + c1) (var_x + var_y + c2)),   c1 = (.01 L)^2,  c2 = (.03 L)^2
/// ```
///
/// averaged over channels and over the pixels whose window lies inside of the image. Moments are weighted by an 11 x 11 Gaussian of
/// deviation 1.5; `L` is the data range. The same as scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
/// use_sample_covariance=False`.
///
/// # Units
/// As [`psnr`].
///
/// # Errors
/// As [`psnr`]; [`Error::Argument`] for images with a side below 11.
///
/// # Reference
/// Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13: the
/// specific form, with `alpha = beta = gamma = 1` and `C3 = C2 / 2`.
pub fn ssim(x: &Batch, truth: &Batch, data_range: f64) -> Result<Vec<f64>> {
    check(x, truth, data_range, "ssim")?;
    let (_, _, h, w) = x.dim();
    if h.min(w) <= 2 * RADIUS {
        let (expected, got) = ("at least 11".into(), format!("{h} x {w}"));
        return Err(Error::Argument { what: "the image's sides", expected, got, at: "ssim" });
    }
    let (c1, c2) = ((0.01 * data_range).powi(2), (0.03 * data_range).powi(2));
    let of_plane = |x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>| {
        let (mx, my) = (blur(x), blur(y));
        let (xx, yy, xy) = (blur((&x * &x).view()), blur((&y * &y).view()), blur((&x * &y).view()));
        let mut map = Array2::zeros(mx.dim());
        Zip::from(&mut map).and(&mx).and(&my).for_each(|s, mx, my| *s = (2.0 * mx * my + c1) / (mx * mx + my * my + c1));
        let (spread, covariance) = (xx + yy - &mx * &mx - &my * &my, xy - mx * my);
        Zip::from(&mut map).and(&spread).and(&covariance).for_each(|s, v, cov| *s *= (2.0 * cov + c2) / (v + c2));
        map.sum() / map.len() as f64
    };
    let of_sample = |x: ndarray::ArrayView3<'_, f64>, y: ndarray::ArrayView3<'_, f64>| {
        x.axis_iter(Axis(0)).zip(y.axis_iter(Axis(0))).map(|(x, y)| of_plane(x, y)).sum::<f64>() / x.dim().0 as f64
    };
    Ok(x.axis_iter(Axis(0)).zip(truth.axis_iter(Axis(0))).map(|(x, y)| of_sample(x, y)).collect())
}

/// The Gaussian window's mean at every place where it fits, rows first.
fn blur(plane: ArrayView2<'_, f64>) -> Array2<f64> {
    let weight = |k: usize| (-(k as f64 - RADIUS as f64).powi(2) / (2.0 * 1.5 * 1.5)).exp();
    let total: f64 = (0..=2 * RADIUS).map(weight).sum();
    let along = |plane: ArrayView2<'_, f64>, axis: Axis| {
        let fits = plane.len_of(axis) - 2 * RADIUS;
        let shifted = |k: usize| plane.slice_axis(axis, (k..k + fits).into());
        let mut sum = Array2::zeros(shifted(0).dim());
        (0..=2 * RADIUS).for_each(|k| sum.scaled_add(weight(k) / total, &shifted(k)));
        sum
    };
    along(along(plane, Axis(1)).view(), Axis(0))
}

fn check(x: &Batch, truth: &Batch, data_range: f64, at: &'static str) -> Result<()> {
    check_same_shape(truth, x, "x", at)?;
    if data_range > 0.0 && data_range.is_finite() {
        return Ok(());
    }
    Err(Error::Argument { what: "data_range", expected: "positive".into(), got: data_range.to_string(), at })
}
