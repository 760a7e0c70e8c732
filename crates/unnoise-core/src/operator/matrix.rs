//! The complete singular value decomposition of a matrix.

use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView2, Zip};

/// `A = U S V^T` with square `U` and `V`.
///
/// By one-sided Jacobi rotations, which find every singular value that is not cut to high relative accuracy: the bidiagonalising
/// decomposition of nalgebra 0.35 loses four digits where two singular values are close.
///
/// # Reference
/// Hestenes 1958, "Inversion of matrices by biorthogonalization and related results"; stopping rule of Demmel and Veselic 1992,
/// "Jacobi's method is more accurate than QR".
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
        if a.nrows() < a.ncols() {
            let Self { u, s, v } = Self::new(a.t());
            return Self { u: v, s, v: u };
        }
        let (m, d) = a.dim();
        let mut columns: Vec<Array1<f64>> = a.columns().into_iter().map(|column| column.to_owned()).collect();
        let mut basis: Vec<Array1<f64>> = Array2::eye(d).rows().into_iter().map(|row| row.to_owned()).collect();
        let negligible = m as f64 * f64::EPSILON * columns.iter().map(|column| column.dot(column)).sum::<f64>().sqrt();
        orthogonalise(&mut columns, &mut basis, negligible);

        let mut triples: Vec<_> = columns.into_iter().map(|column| (column.dot(&column).sqrt(), column)).zip(basis).collect();
        triples.sort_by(|((a, _), _), ((b, _), _)| b.total_cmp(a));
        let rank = triples.iter().take_while(|((norm, _), _)| *norm > negligible).count();
        let s = (0..d).map(|k| if k < rank { triples[k].0.0 } else { 0.0 }).collect();
        let u = DMatrix::from_fn(m, rank, |i, k| triples[k].0.1[i] / triples[k].0.0);
        Self { u: complete(&u), s, v: Array2::from_shape_fn((d, d), |(i, k)| triples[k].1[i]) }
    }
}

/// Rotates pairs of columns, and of the basis alike, until all that are not negligible are orthogonal.
fn orthogonalise(columns: &mut [Array1<f64>], basis: &mut [Array1<f64>], negligible: f64) {
    const MAX_SWEEPS: usize = 60;
    let tolerance = f64::EPSILON * (columns[0].len() as f64).sqrt();
    for _ in 0..MAX_SWEEPS {
        let mut squares: Vec<f64> = columns.iter().map(|column| column.dot(column)).collect();
        let mut rotated = false;
        for q in 1..columns.len() {
            for p in 0..q {
                let overlap = columns[p].dot(&columns[q]);
                let small = squares[p].min(squares[q]) <= negligible * negligible;
                if small || overlap.abs() <= tolerance * (squares[p] * squares[q]).sqrt() {
                    continue;
                }
                rotated = true;
                let zeta = (squares[q] - squares[p]) / (2.0 * overlap);
                let tan = 1.0_f64.copysign(zeta) / (zeta.abs() + zeta.hypot(1.0));
                rotate(columns, p, q, tan);
                rotate(basis, p, q, tan);
                (squares[p], squares[q]) = (squares[p] - tan * overlap, squares[q] + tan * overlap);
            }
        }
        if !rotated {
            break;
        }
    }
}

fn rotate(vectors: &mut [Array1<f64>], p: usize, q: usize, tan: f64) {
    let cos = 1.0 / tan.hypot(1.0);
    let sin = cos * tan;
    let (head, tail) = vectors.split_at_mut(q);
    Zip::from(&mut head[p]).and(&mut tail[0]).for_each(|a, b| (*a, *b) = (cos * *a - sin * *b, sin * *a + cos * *b));
}

/// Sets the singular values of at most `size` epsilons of the largest to zero.
pub(super) fn cut_negligible(s: &mut [f64], size: usize) {
    let cut = size as f64 * f64::EPSILON * s.iter().copied().fold(0.0, f64::max);
    s.iter_mut().filter(|s| **s <= cut).for_each(|s| *s = 0.0);
}

/// The `k` orthonormal columns of `thin`, completed to a basis of the whole space.
///
/// The QR factorisation of orthonormal columns has these columns, up to their signs, as the first of its complete `Q`.
fn complete(thin: &DMatrix<f64>) -> Array2<f64> {
    let (n, k) = thin.shape();
    let mut q_transpose = DMatrix::identity(n, n);
    if k > 0 {
        thin.clone().qr().q_tr_mul(&mut q_transpose);
    }
    Array2::from_shape_fn((n, n), |(i, j)| if j < k { thin[(i, j)] } else { q_transpose[(j, i)] })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn close_and_tiny_singular_values() {
        // The third matrix has the singular values 1, 1e-12 and 0 exactly.
        for (a, s) in [
            (array![[3.0, 0.0], [4.0, 5.0]], vec![45.0_f64.sqrt(), 5.0_f64.sqrt()]),
            (array![[1.0, 1e-9], [0.0, 1.0], [0.0, 0.0]], vec![1.0 + 5e-10, 1.0 - 5e-10]),
            (array![[0.6, -0.8e-12, 0.0], [0.8, 0.6e-12, 0.0], [0.0, 0.0, 0.0]], vec![1.0, 1e-12, 0.0]),
            (array![[0.0, 0.0, 0.0]], vec![0.0]),
        ] {
            for a in [a.view(), a.t()] {
                let svd = MatrixSvd::new(a);
                assert!(svd.s.iter().zip(&s).all(|(a, b)| (a - b).abs() <= 4e-16 * b), "{:?} and {s:?}", svd.s);
                let sigma = Array2::from_shape_fn(a.dim(), |(i, j)| if i == j { svd.s[i] } else { 0.0 });
                for zero in [
                    svd.u.dot(&sigma).dot(&svd.v.t()) - a,
                    svd.u.t().dot(&svd.u) - Array2::<f64>::eye(a.nrows()),
                    svd.v.t().dot(&svd.v) - Array2::<f64>::eye(a.ncols()),
                ] {
                    assert!(zero.iter().all(|e| e.abs() < 3e-15), "{zero}");
                }
            }
        }
    }
}
