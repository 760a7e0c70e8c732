//! Blur kernels, all of sum 1.

use std::f64::consts::{PI, TAU};

use ndarray::{Array1, Array2};

use crate::{Error, Noise, Purpose, Result, Streams};

/// The largest side of a generated kernel.
const MAX_SIZE: usize = 1023;

/// A sampled Gaussian of odd length, `exp(-i^2 / (2 sigma^2))` at `i = -(size - 1) / 2, ..., (size - 1) / 2`, divided by its sum.
///
/// # Errors
/// [`Error::Argument`] unless `sigma` is positive and finite and `size` odd and at most 1023.
pub fn gaussian_kernel(sigma: f64, size: usize) -> Result<Array1<f64>> {
    let at = "gaussian_kernel";
    check_positive(sigma, "sigma", at)?;
    check_size(size, at)?;
    let kernel = Array1::from_shape_fn(size, |i| (-0.5 * ((i as f64 - (size / 2) as f64) / sigma).powi(2)).exp());
    Ok(&kernel / kernel.sum())
}

/// The size at which a Gaussian's weights have fallen below e^-4.5, `2 ceil(3 sigma) + 1`, at most 1023.
pub fn gaussian_size(sigma: f64) -> usize {
    2 * (3.0 * sigma).ceil().min((MAX_SIZE / 2) as f64) as usize + 1
}

/// The blur of a uniform linear motion over `length` pixels, at `angle` degrees counter-clockwise from the direction of the rows.
///
/// The segment of this length, centred, is exactly integrated against the bilinear interpolation between pixels, so that any
/// length and angle has its own anti-aliased kernel. The kernel is square and as small as holds it.
///
/// # Errors
/// [`Error::Argument`] unless `length` is positive and at most 1020 and `angle` finite.
pub fn motion_kernel(length: f64, angle: f64) -> Result<Array2<f64>> {
    let at = "motion_kernel";
    if !(length > 0.0 && length <= (MAX_SIZE - 3) as f64) {
        return Err(Error::Argument { what: "length", expected: "in (0, 1020]".into(), got: length.to_string(), at });
    }
    if !angle.is_finite() {
        return Err(Error::Argument { what: "angle", expected: "finite".into(), got: angle.to_string(), at });
    }
    let (sin, cos) = (angle * (PI / 180.0)).sin_cos();
    // Rows run downwards. What is below rounding is an axis.
    let end = [-sin, cos].map(|v: f64| if v.abs() < 1e-15 { 0.0 } else { 0.5 * length * v });
    let reach = (end[0].abs().max(end[1].abs()) - 1e-9).ceil() as usize;
    Ok(path_kernel(&[end.map(|v| -v), end], 2 * reach + 1))
}

/// The blur of a random trajectory, such as a hand's during an exposure, on a square of `size` pixels.
///
/// A point moves at constant speed while its heading, uniform at first, diffuses to a standard deviation of `turning` half turns
/// over the path: 0 is a straight line, 1 a scribble. The path of 64 segments is centred on its mean and scaled to reach the
/// square's border, then integrated as in [`motion_kernel`].
///
/// # Errors
/// [`Error::Argument`] unless `size` is odd, at least 3 and at most 1023, and `turning` finite and not negative.
///
/// # Reference
/// In the spirit of Boracchi and Foi 2012, "Modeling the performance of image restoration from motion blur", IEEE TIP 21(8), whose
/// speed changes too and who has impulsive shakes.
pub fn trajectory_kernel(size: usize, turning: f64, seed: u64) -> Result<Array2<f64>> {
    const SEGMENTS: usize = 64;
    let at = "trajectory_kernel";
    check_size(size, at)?;
    if size < 3 {
        return Err(Error::Argument { what: "size", expected: "at least 3".into(), got: size.to_string(), at });
    }
    if !(turning >= 0.0 && turning.is_finite()) {
        return Err(Error::Argument { what: "turning", expected: "finite and not negative".into(), got: turning.to_string(), at });
    }
    let mut streams = Streams::new(seed, 0..1);
    let mut heading = TAU * streams.uniform(0, Purpose::Auxiliary, 1)[0][0];
    let turns = streams.normal(1, Purpose::Auxiliary, 1, [1, 1, SEGMENTS]);
    let mut path = vec![[0.0, 0.0]];
    for turn in turns {
        let [i, j] = path[path.len() - 1];
        path.push([i - heading.sin(), j + heading.cos()]);
        heading += PI * turning * turn / (SEGMENTS as f64).sqrt();
    }
    let mean = [0, 1].map(|axis| {
        let middles: f64 = path.windows(2).map(|ends| 0.5 * (ends[0][axis] + ends[1][axis])).sum();
        middles / SEGMENTS as f64
    });
    path.iter_mut().for_each(|point| *point = [point[0] - mean[0], point[1] - mean[1]]);
    let reach = path.iter().flatten().fold(0.0, |reach: f64, v| reach.max(v.abs()));
    path.iter_mut().for_each(|point| *point = point.map(|v| v * (size / 2) as f64 / reach));
    Ok(path_kernel(&path, size))
}

/// Time spent near each pixel at constant speed along a polyline, weighted by bilinear interpolation; the centre is `(0, 0)`.
fn path_kernel(path: &[[f64; 2]], size: usize) -> Array2<f64> {
    let mut kernel = Array2::<f64>::zeros((size, size));
    let mut deposit = |[i, j]: [f64; 2], weight: f64| {
        let half = (size / 2) as f64;
        let (i, j) = ((i + half).clamp(0.0, 2.0 * half), (j + half).clamp(0.0, 2.0 * half));
        let (row, column) = (i.floor(), j.floor());
        for (row, in_i) in [(row, 1.0 - (i - row)), (row + 1.0, i - row)] {
            for (column, in_j) in [(column, 1.0 - (j - column)), (column + 1.0, j - column)] {
                if in_i * in_j > 0.0 {
                    kernel[[row as usize, column as usize]] += weight * in_i * in_j;
                }
            }
        }
    };
    for ends in path.windows(2) {
        let at = |t: f64| [0, 1].map(|axis| ends[0][axis] + t * (ends[1][axis] - ends[0][axis]));
        let length = (ends[1][0] - ends[0][0]).hypot(ends[1][1] - ends[0][1]);
        // Between two crossings of the pixels' rows and columns the weight is quadratic, and Simpson's rule is exact.
        let cuts = crossings(ends);
        for cut in cuts.windows(2) {
            let weight = length * (cut[1] - cut[0]);
            for (t, share) in [(cut[0], 1.0 / 6.0), (0.5 * (cut[0] + cut[1]), 2.0 / 3.0), (cut[1], 1.0 / 6.0)] {
                deposit(at(t), weight * share);
            }
        }
    }
    let sum = kernel.sum();
    kernel / sum
}

/// The times in `[0, 1]`, ends included, at which a segment crosses an integer coordinate.
fn crossings(ends: &[[f64; 2]]) -> Vec<f64> {
    let mut times = vec![0.0, 1.0];
    for axis in [0, 1] {
        let (from, to) = (ends[0][axis], ends[1][axis]);
        let (low, high) = (from.min(to).ceil() as i64, from.max(to).floor() as i64);
        if from != to {
            times.extend((low..=high).map(|integer| ((integer as f64 - from) / (to - from)).clamp(0.0, 1.0)));
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

fn check_positive(value: f64, what: &'static str, at: &'static str) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::Argument { what, expected: "positive and finite".into(), got: value.to_string(), at })
}

fn check_size(size: usize, at: &'static str) -> Result<()> {
    if size % 2 == 1 && size <= MAX_SIZE {
        return Ok(());
    }
    Err(Error::Argument { what: "size", expected: format!("odd and at most {MAX_SIZE}"), got: size.to_string(), at })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn assert_close(a: &Array2<f64>, b: &Array2<f64>) {
        assert_eq!(a.dim(), b.dim());
        assert!((a - b).iter().all(|e| e.abs() < 1e-14), "{a} and {b}");
    }

    #[test]
    fn motion_along_the_axes_and_the_diagonal() {
        // The integral of the hat function over [-1.5, 1.5], around 0, 1 and 2, over 3.
        let row = array![[1.0, 7.0, 8.0, 7.0, 1.0]] / 24.0;
        let mut expected = Array2::zeros((5, 5));
        expected.row_mut(2).assign(&row.row(0));
        assert_close(&motion_kernel(3.0, 0.0).unwrap(), &expected);
        assert_close(&motion_kernel(3.0, 180.0).unwrap(), &expected);
        assert_close(&motion_kernel(3.0, 90.0).unwrap(), &expected.t().to_owned());
        // From (-1, -1) to (1, 1): 1/2 int (1 - |t|)^2 = 1/3 in the centre, 1/2 int t (1 - t) = 1/12 beside it, 1/6 at the ends.
        let diagonal = array![[2.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 2.0]] / 12.0;
        assert_close(&motion_kernel(2.0 * 2.0_f64.sqrt(), -45.0).unwrap(), &diagonal);
        // Counter-clockwise: up to the right.
        assert!(motion_kernel(5.0, 30.0).unwrap()[[1, 4]] > 0.0);
    }

    #[test]
    fn kernels_have_sum_one_and_are_centred() {
        let paths = (0..20).map(|seed| trajectory_kernel(15, 0.2 * seed as f64, seed).unwrap());
        for kernel in paths.chain((1..30).map(|k| motion_kernel(0.7 * k as f64, 17.0 * k as f64).unwrap())) {
            let (half, mut moments) = ((kernel.nrows() / 2) as f64, [0.0; 3]);
            for ((i, j), weight) in kernel.indexed_iter() {
                assert!(*weight >= 0.0);
                moments = [moments[0] + weight, moments[1] + weight * (i as f64 - half), moments[2] + weight * (j as f64 - half)];
            }
            assert!((moments[0] - 1.0).abs() < 1e-14 && moments[1].abs() < 1e-12 && moments[2].abs() < 1e-12, "{moments:?}");
        }
    }

    #[test]
    fn trajectories_are_their_seeds() {
        assert_eq!(trajectory_kernel(9, 0.5, 1).unwrap(), trajectory_kernel(9, 0.5, 1).unwrap());
        assert_ne!(trajectory_kernel(9, 0.5, 1).unwrap(), trajectory_kernel(9, 0.5, 2).unwrap());
    }

    #[test]
    fn gaussians_are_sampled() {
        let (a, b) = ((-0.5_f64).exp(), (-2.0_f64).exp());
        let expected = array![b, a, 1.0, a, b] / (1.0 + 2.0 * (a + b));
        assert!((gaussian_kernel(1.0, 5).unwrap() - expected).iter().all(|e| e.abs() < 1e-15));
        assert_eq!(gaussian_size(1.5), 11);
    }

    #[test]
    fn arguments_are_checked() {
        assert!(gaussian_kernel(0.0, 3).is_err() && gaussian_kernel(1.0, 4).is_err() && gaussian_kernel(f64::NAN, 3).is_err());
        assert!(motion_kernel(0.0, 0.0).is_err() && motion_kernel(f64::INFINITY, 0.0).is_err());
        assert!(motion_kernel(3.0, f64::NAN).is_err() && trajectory_kernel(1, 0.5, 0).is_err());
        assert!(trajectory_kernel(9, -0.5, 0).is_err() && trajectory_kernel(10, 0.5, 0).is_err());
    }
}
