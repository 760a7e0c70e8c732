//! The Frechet distance between two sets of features.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, Axis};

/// The squared 2-Wasserstein distance between Gaussians with the two sets' moments.
///
/// ```text
/// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))
/// ```
///
/// It is biased upwards for small sets: compare only at equal sizes, and with two real sets as a floor.
///
/// # Reference
/// Heusel et al. 2017, arXiv 1706.08500, eq. 6, there with Inception's features.
pub(crate) fn frechet_distance(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let ((m1, c1), (m2, c2)) = (moments(a), moments(b));
    let root = square_root(&c1);
    let cross = (&root * &c2 * &root).symmetric_eigenvalues().iter().map(|v| v.max(0.0).sqrt()).sum::<f64>();
    (m1 - m2).norm_squared() + c1.trace() + c2.trace() - 2.0 * cross
}

fn moments(x: &Array2<f64>) -> (DVector<f64>, DMatrix<f64>) {
    let (n, d) = x.dim();
    let x = DMatrix::from_fn(n, d, |i, j| x[[i, j]]);
    let mean = x.row_mean().transpose();
    let centred = DMatrix::from_fn(n, d, |i, j| x[(i, j)] - mean[j]);
    (mean, centred.tr_mul(&centred) / (n as f64 - 1.0))
}

fn square_root(c: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = c.clone().symmetric_eigen();
    let roots = DMatrix::from_diagonal(&eigen.eigenvalues.map(|v| v.max(0.0).sqrt()));
    &eigen.eigenvectors * roots * eigen.eigenvectors.transpose()
}

/// Checks the formula on sets whose distance is known: the same, shifted by one in every feature.
pub(crate) fn self_check(features: &Array2<f64>) {
    let shifted = features + 1.0;
    let d = features.len_of(Axis(1)) as f64;
    let error = (frechet_distance(features, &shifted) - d).abs();
    assert!(error < 1e-6 * d, "the distance of a shifted set is off by {error}");
}
