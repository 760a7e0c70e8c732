//! What every operator must satisfy, over one table of operators.

use ndarray::Array2;

use super::*;
use crate::{Noise, Purpose, Streams, dot};

fn noise(shape: Shape, n: usize, seed: u64) -> Batch {
    Streams::new(seed, 0..n as u32).normal(0, Purpose::Auxiliary, n, shape)
}

fn matrix(m: usize, d: usize, seed: u64) -> Array2<f64> {
    noise([1, m, d], 1, seed).into_shape_with_order((m, d)).unwrap()
}

/// A matrix of rank `rank`.
fn low_rank(m: usize, d: usize, rank: usize, seed: u64) -> Array2<f64> {
    matrix(m, rank, seed).dot(&matrix(rank, d, seed + 1))
}

/// Every operator, on odd sizes and several channels.
fn all() -> Vec<Box<dyn Operator>> {
    vec![
        Box::new(Identity::new([2, 3, 5])),
        Box::new(Dense::new(matrix(4, 15, 1), [1, 3, 5]).unwrap()),
        Box::new(Dense::new(matrix(11, 6, 2), [2, 1, 3]).unwrap()),
        Box::new(Dense::new(matrix(7, 7, 3), [7, 1, 1]).unwrap()),
        Box::new(Dense::new(low_rank(9, 6, 3, 4), [1, 2, 3]).unwrap()),
        Box::new(Dense::new(low_rank(5, 12, 3, 6), [1, 3, 4]).unwrap()),
        Box::new(Dense::new(Array2::zeros((2, 3)), [1, 1, 3]).unwrap()),
        Box::new(Dense::new(matrix(3, 1, 7), [1, 1, 1]).unwrap()),
        Box::new(Mask::outside_box([2, 3], None, [3, 5, 6]).unwrap()),
        Box::new(Mask::outside_box([5, 1], Some([0, 3]), [1, 5, 4]).unwrap()),
        Box::new(Mask::random(0.3, 1, [2, 5, 7]).unwrap()),
    ]
}

fn assert_close(a: &Batch, b: &Batch, tolerance: f64, what: &str, op: &dyn Operator) {
    assert_eq!(a.dim(), b.dim(), "{what} of {}", op.spec());
    let error = (a - b).iter().fold(0.0, |max: f64, e| max.max(e.abs()));
    assert!(error <= tolerance, "{what} of {}: {error:e}", op.spec());
}

#[test]
fn the_adjoint_is_the_adjoint() {
    for op in all() {
        let (x, y) = (noise(op.input_shape(), 3, 10), noise(op.output_shape(), 3, 11));
        for (a, b) in dot(&op.forward(&x), &y).into_iter().zip(dot(&x, &op.adjoint(&y))) {
            assert!((a - b).abs() <= 1e-12 * (1.0 + a.abs()), "{}: {a} and {b}", op.spec());
        }
    }
}

#[test]
fn the_svd_is_the_svd() {
    for op in all() {
        let Some(svd) = op.svd() else { continue };
        let op = &*op;
        let (m, d) = (op.measured(), op.input_shape().iter().product::<usize>());
        let (x, y) = (noise(op.input_shape(), 3, 20), noise(op.output_shape(), 3, 21));
        assert_eq!(svd.singular_values().len(), m.min(d), "{}", op.spec());

        // Orthonormal: V V^T = I and V^T V = I, and so for U.
        let (v_hat, u_hat) = (noise([1, 1, d], 3, 22), noise([1, 1, m], 3, 23));
        assert_close(&svd.v(&svd.v_transpose(&x)), &x, 1e-12, "V V^T", op);
        assert_close(&svd.v_transpose(&svd.v(&v_hat)), &v_hat, 1e-12, "V^T V", op);
        assert_close(&svd.u(&svd.u_transpose(&y)), &y, 1e-12, "U U^T", op);
        assert_close(&svd.u_transpose(&svd.u(&u_hat)), &u_hat, 1e-12, "U^T U", op);
        for (a, b) in crate::norm_sq(&svd.v(&v_hat)).into_iter().zip(crate::norm_sq(&v_hat)) {
            assert!((a - b).abs() < 1e-11 * b, "V keeps norms: {}", op.spec());
        }

        // A = U S V^T.
        let x_hat = svd.v_transpose(&x);
        let mut y_hat = Array4::zeros((3, 1, 1, m));
        for (i, s) in svd.singular_values().iter().enumerate() {
            (0..3).for_each(|n| y_hat[[n, 0, 0, i]] = s * x_hat[[n, 0, 0, i]]);
        }
        assert_close(&svd.u(&y_hat), &op.forward(&x), 1e-12, "U S V^T", op);
    }
}

#[test]
fn the_pseudo_inverse_satisfies_penrose() {
    for op in all() {
        let op = &*op;
        let y = noise(op.output_shape(), 2, 30);
        let Some(x) = op.pseudo_inverse(&y) else { continue };
        // A^T (y - A x) = 0 makes x a least-squares solution, and x in the range of A^T the smallest.
        let residual = &y - op.forward(&x);
        assert_close(&op.adjoint(&residual), &(&x * 0.0), 1e-10, "A^T (y - A A^+ y)", op);
        let again = op.pseudo_inverse(&op.forward(&x)).unwrap();
        assert_close(&again, &x, 1e-10, "A^+ A A^+", op);
    }
}

#[test]
fn the_prox_solves_its_normal_equations() {
    for op in all() {
        let op = &*op;
        let (y, z) = (noise(op.output_shape(), 1, 40), noise(op.input_shape(), 3, 41));
        for rho in [1e-3, 0.7, 50.0] {
            let Some(x) = op.prox(&y, &z, rho) else { continue };
            let gradient = op.adjoint(&(op.forward(&x) - &y)) + rho * (&x - &z);
            assert_close(&gradient, &(&z * 0.0), 1e-11 * (1.0 + rho), "the gradient at the prox", op);
        }
    }
}

#[test]
fn matrices_are_recovered() {
    let a = matrix(3, 8, 50);
    assert_eq!(Dense::matrix_of(&Dense::new(a.clone(), [2, 2, 2]).unwrap()), a);
}

#[test]
fn masks_measure_what_they_keep() {
    let op = Mask::outside_box([2, 2], None, [1, 3, 4]).unwrap();
    let x = Array4::from_shape_fn((1, 1, 3, 4), |(_, _, i, j)| (4 * i + j) as f64);
    assert_eq!(op.forward(&x).into_raw_vec_and_offset().0, [0.0, 3.0, 4.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    assert_eq!(op.spec(), "box:2x2,top=0,left=1");
    assert_eq!(Mask::random(0.25, 3, [3, 8, 8]).unwrap().measured(), 3 * 16);
    assert_eq!(Mask::random(0.25, 3, [1, 8, 8]).unwrap().keep(), Mask::random(0.25, 3, [2, 8, 8]).unwrap().keep());
    for wrong in [([0, 2], None), ([3, 4], None), ([2, 2], Some([2, 0])), ([usize::MAX, 1], Some([1, 0]))] {
        assert!(Mask::outside_box(wrong.0, wrong.1, [1, 3, 4]).is_err(), "{wrong:?}");
    }
    for keep in [0.0, 1.1, f64::NAN, -1.0] {
        assert!(Mask::random(keep, 0, [1, 3, 4]).is_err(), "{keep}");
    }
}
