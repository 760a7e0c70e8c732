//! The complete singular value decomposition of a matrix.

use nalgebra::DMatrix;
use ndarray::{Array2, ArrayView2};

/// `A = U S V^T` with square `U` and `V`.
#[derive(Clone)]
pub(super) struct MatrixSvd {
    /// `[m, m]`.
    pub(super) u: Array2<f64>,
    /// The `min(m, d)` singular values, largest first; negligible ones are 0.
    pub(super) s: Vec<f64>,
    /// `[d, d]`.
    pub(super) v: Array2<f64>,
}

impl MatrixSvd {
    pub(super) fn new(a: ArrayView2<'_, f64>) -> Self {
        let (m, d) = a.dim();
        let svd = DMatrix::from_fn(m, d, |i, j| a[[i, j]]).svd(true, true);
        let (u, v_transpose) = (svd.u.expect("u was asked for"), svd.v_t.expect("v was asked for"));
        let mut s: Vec<f64> = svd.singular_values.iter().copied().collect();
        cut_negligible(&mut s, m.max(d));
        Self { u: complete(u), s, v: complete(v_transpose.transpose()) }
    }
}

/// Sets the singular values of at most `size` epsilons of the largest to zero.
pub(super) fn cut_negligible(s: &mut [f64], size: usize) {
    let cut = size as f64 * f64::EPSILON * s.iter().copied().fold(0.0, f64::max);
    s.iter_mut().filter(|s| **s <= cut).for_each(|s| *s = 0.0);
}

/// The `k` orthonormal columns of `thin`, completed to a basis of the whole space.
///
/// The QR factorisation of orthonormal columns has these columns, up to their signs, as the first of its complete `Q`.
fn complete(thin: DMatrix<f64>) -> Array2<f64> {
    let (n, k) = thin.shape();
    let mut q_transpose = DMatrix::identity(n, n);
    thin.clone().qr().q_tr_mul(&mut q_transpose);
    Array2::from_shape_fn((n, n), |(i, j)| if j < k { thin[(i, j)] } else { q_transpose[(j, i)] })
}
