//! The distance between the first two moments of two sets of samples.

use nalgebra::{DMatrix, RowDVector};
use ndarray::{Array2, Axis};

use crate::{Error, Result};

const AT: &str = "frechet_distance";

/// The squared Frechet distance between two sets of feature vectors, one a row: that of the Gaussians with their means and covariances.
///
/// ```text
/// d^2 = |mu_a - mu_b|^2 + tr C_a + tr C_b - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2        C with divisor n - 1
/// ```
///
/// It is called a distance because its users do; it is the square of one, in squared units of the features. Two sets of the
/// same distribution are not at 0 but, for `n` samples of `d` features, of the order of `d^2 / n` variances of a feature: compare with
/// that floor, and only at equal `n`. Fewer samples than features give singular covariances, which are served.
///
/// # Errors
/// [`Error::Shape`] when the features differ in number; [`Error::Argument`] for fewer than two samples;
/// [`Error::NotFinite`] with the row that is not.
///
/// # Reference
/// Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions", J. Multivariate Analysis 12; for images, Heusel et al.
/// 2017, arXiv 1706.08500. There the trace is that of `(C_a C_b)^1/2`; the product here has the same eigenvalues and is symmetric, so that no
/// complex root of a rounding error has to be discarded.
pub fn frechet_distance(a: &Array2<f64>, b: &Array2<f64>) -> Result<f64> {
    if a.ncols() != b.ncols() {
        let (expected, got) = (vec![b.nrows(), a.ncols()], b.shape().to_vec());
        return Err(Error::Shape { what: "b", expected, got, at: AT });
    }
    let (a, b) = (Moments::of(a, "a")?, Moments::of(b, "b")?);
    let root = square_root(a.covariance.clone());
    let product = &root * &b.covariance * &root;
    let overlap: f64 = product.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum();
    let distance = (a.mean - b.mean).norm_squared() + a.covariance.trace() + b.covariance.trace() - 2.0 * overlap;
    Ok(distance.max(0.0))
}

struct Moments {
    mean: RowDVector<f64>,
    covariance: DMatrix<f64>,
}

impl Moments {
    fn of(rows: &Array2<f64>, what: &'static str) -> Result<Self> {
        let n = rows.nrows();
        if n < 2 {
            return Err(Error::Argument { what, expected: "at least 2 rows".into(), got: n.to_string(), at: AT });
        }
        if let Some(sample) = rows.axis_iter(Axis(0)).position(|row| row.iter().any(|v| !v.is_finite())) {
            return Err(Error::NotFinite { what, sample, at: AT });
        }
        let mut centred = DMatrix::from_row_iterator(n, rows.ncols(), rows.iter().copied());
        let mean = centred.row_mean();
        centred.row_iter_mut().for_each(|mut row| row -= &mean);
        Ok(Self { mean, covariance: centred.tr_mul(&centred) / (n - 1) as f64 })
    }
}

/// The symmetric root of a symmetric matrix whose eigenvalues are negative by rounding at most.
fn square_root(matrix: DMatrix<f64>) -> DMatrix<f64> {
    let eigen = matrix.symmetric_eigen();
    let roots = eigen.eigenvalues.map(|value| value.max(0.0).sqrt());
    &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose()
}

#[cfg(test)]
mod tests {
    use ndarray::{array, concatenate};

    use super::*;

    /// `mean +- factor row` for each row of `factors`, scaled so that the covariance with divisor `n - 1` is `factors^T factors` exactly.
    fn with_moments(mean: &[f64], factors: &Array2<f64>) -> Array2<f64> {
        let scale = ((2 * factors.nrows() - 1) as f64 / 2.0).sqrt();
        let mean = Array2::from_shape_vec((1, mean.len()), mean.to_vec()).unwrap();
        concatenate(Axis(0), &[(&mean + &(factors * scale)).view(), (&mean - &(factors * scale)).view()]).unwrap()
    }

    /// For 2x2 matrices `tr (C_a C_b)^1/2 = sqrt(tr C_a C_b + 2 sqrt(det C_a det C_b))`; for rank one, with covariances `u u^T` and `v v^T`,
    /// it is `|<u, v>|`; for commuting ones, the sum of the products of the deviations.
    #[test]
    fn gaussians_have_a_closed_form() {
        struct Case {
            name: &'static str,
            a: (Vec<f64>, Array2<f64>),
            b: (Vec<f64>, Array2<f64>),
            expected: f64,
        }
        // C_a = [[5, 2], [2, 1]], C_b = [[4, -6], [-6, 10]]: tr C_a C_b = 6, both determinants positive.
        let not_commuting = 6.0 + 14.0 - 2.0 * (20.0 - 24.0 + 10.0 + 2.0 * (1.0f64 * 4.0).sqrt()).sqrt();
        let cases = [
            Case {
                name: "means alone",
                a: (vec![1.0, 2.0], array![[1.0, 0.0], [3.0, 2.0]]),
                b: (vec![4.0, -2.0], array![[1.0, 0.0], [3.0, 2.0]]),
                expected: 25.0,
            },
            Case {
                name: "commuting",
                a: (vec![0.0; 3], array![[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]),
                b: (vec![1.0, 0.0, 0.0], array![[4.0, 0.0, 0.0], [0.0, 2.5, 0.0], [0.0, 0.0, 1.0]]),
                expected: 1.0 + 9.0 + 0.25 + 4.0,
            },
            Case {
                name: "not commuting",
                a: (vec![0.0, 0.0], array![[2.0, 1.0], [1.0, 0.0]]),
                b: (vec![0.0, 0.0], array![[2.0, -3.0], [0.0, 1.0]]),
                expected: not_commuting,
            },
            Case {
                name: "rank one, fewer samples than features",
                a: (vec![0.0; 4], array![[1.0, 2.0, 0.0, -1.0]]),
                b: (vec![0.0, 0.0, 0.0, 2.0], array![[-3.0, 1.0, 5.0, 1.0]]),
                expected: 4.0 + 6.0 + 36.0 - 2.0 * 2.0,
            },
        ];
        for Case { name, a, b, expected } in cases {
            let (a, b) = (with_moments(&a.0, &a.1), with_moments(&b.0, &b.1));
            for (first, second) in [(&a, &b), (&b, &a)] {
                let got = frechet_distance(first, second).unwrap();
                assert!((got - expected).abs() < 1e-7, "{name}: {got} instead of {expected}");
            }
            assert!(frechet_distance(&a, &a).unwrap() < 1e-7, "{name}: not at 0 from itself");
        }
    }

    #[test]
    fn refuses_what_has_no_moments() {
        let good = array![[1.0, 2.0], [3.0, 4.0]];
        let cases = [
            (array![[1.0, 2.0]], "at least 2 rows, got 1"),
            (array![[1.0, 2.0], [f64::NAN, 0.0]], "b is not finite in sample 1"),
            (array![[1.0], [2.0]], "[2, 2], got [2, 1]"),
        ];
        for (bad, message) in cases {
            let error = frechet_distance(&good, &bad).unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message}");
        }
    }
}
