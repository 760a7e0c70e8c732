//! What every operator must satisfy, over one table of operators.

use nalgebra::{DMatrix, DVector};
use ndarray::Array2;
use proptest::prelude::{ProptestConfig, proptest};

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

fn convolution([kh, kw]: [usize; 2], boundary: Boundary, shape: Shape) -> Convolution {
    Convolution::new(&matrix(kh, kw, 70), boundary, shape, format!("{kh} x {kw} {boundary:?} on {shape:?}")).unwrap()
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
        Box::new(Separable::new(2, matrix(3, 5, 60), matrix(7, 4, 61), "wide and tall").unwrap()),
        Box::new(Separable::new(1, matrix(6, 5, 62), low_rank(4, 6, 2, 63), "tall and wide of low rank").unwrap()),
        Box::new(Separable::new(3, matrix(2, 5, 65), matrix(3, 4, 66), "wide").unwrap()),
        Box::new(Separable::downsample(3, Downsampling::Average, [2, 6, 9], "average").unwrap()),
        Box::new(Separable::downsample(4, Downsampling::Bicubic, [1, 8, 12], "bicubic").unwrap()),
        Box::new(Separable::downsample(3, Downsampling::Bicubic, [1, 3, 6], "bicubic, one row").unwrap()),
        Box::new(Separable::blur(&gaussian_kernel(1.5, 9).unwrap(), Boundary::Reflect, [2, 7, 5], "reflecting").unwrap()),
        Box::new(Separable::blur(&gaussian_kernel(3.0, 19).unwrap(), Boundary::Reflect, [1, 16, 16], "strong").unwrap()),
        Box::new(convolution([3, 3], Boundary::Circular, [2, 5, 7])),
        Box::new(convolution([5, 2], Boundary::Circular, [1, 6, 4])),
        Box::new(convolution([7, 9], Boundary::Circular, [3, 1, 4])),
        Box::new(Convolution::new(&Array2::from_elem((4, 4), 0.25), Boundary::Circular, [1, 8, 8], "with zeros").unwrap()),
        Box::new(convolution([3, 3], Boundary::Reflect, [2, 5, 7])),
        Box::new(convolution([4, 5], Boundary::Reflect, [1, 3, 2])),
        Box::new(convolution([1, 12], Boundary::Reflect, [2, 3, 4])),
    ]
}

fn assert_close(a: &Batch, b: &Batch, tolerance: f64, what: &str, op: &dyn Operator) {
    assert_eq!(a.dim(), b.dim(), "{what} of {}", op.spec());
    let error = (a - b).iter().fold(0.0, |max: f64, e| max.max(e.abs()));
    assert!(error <= tolerance, "{what} of {}: {error:e}", op.spec());
}

fn check_adjoint(op: &dyn Operator) {
    let (x, y) = (noise(op.input_shape(), 3, 10), noise(op.output_shape(), 3, 11));
    for (a, b) in dot(&op.forward(&x), &y).into_iter().zip(dot(&x, &op.adjoint(&y))) {
        assert!((a - b).abs() <= 1e-12 * (1.0 + a.abs()), "{}: {a} and {b}", op.spec());
    }
}

fn check_svd(op: &dyn Operator) {
    let Some(svd) = op.svd() else { return };
    let (m, d) = (op.measured(), op.input_shape().iter().product::<usize>());
    let (x, y) = (noise(op.input_shape(), 3, 20), noise(op.output_shape(), 3, 21));
    assert_eq!(svd.singular_values().len(), m.min(d), "{}", op.spec());

    // Orthonormal: V V^T = I and V^T V = I, and so for U.
    let (v_hat, u_hat) = (noise([1, 1, d], 3, 22), noise([1, 1, m], 3, 23));
    assert_close(&svd.v(&svd.v_transpose(&x)), &x, 1e-12, "V V^T", op);
    assert_close(&svd.v_transpose(&svd.v(&v_hat)), &v_hat, 1e-12, "V^T V", op);
    assert_close(&svd.u(&svd.u_transpose(&y)), &y, 1e-12, "U U^T", op);
    assert_close(&svd.u_transpose(&svd.u(&u_hat)), &u_hat, 1e-12, "U^T U", op);
    for (what, image, coefficients) in [("V", svd.v(&v_hat), &v_hat), ("U", svd.u(&u_hat), &u_hat)] {
        for (a, b) in crate::norm_sq(&image).into_iter().zip(crate::norm_sq(coefficients)) {
            assert!((a - b).abs() < 1e-11 * b, "{what} keeps norms: {}", op.spec());
        }
    }

    // A = U S V^T.
    let x_hat = svd.v_transpose(&x);
    let mut y_hat = Array4::zeros((3, 1, 1, m));
    for (i, s) in svd.singular_values().iter().enumerate() {
        (0..3).for_each(|n| y_hat[[n, 0, 0, i]] = s * x_hat[[n, 0, 0, i]]);
    }
    let scale = svd.singular_values().iter().fold(1.0, |a: f64, s| a.max(*s));
    assert_close(&svd.u(&y_hat), &op.forward(&x), 1e-12 * scale, "U S V^T", op);
}

#[test]
fn the_adjoint_is_the_adjoint() {
    all().iter().for_each(|op| check_adjoint(&**op));
}

#[test]
fn the_svd_is_the_svd() {
    all().iter().for_each(|op| check_svd(&**op));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn operators_of_any_shape(shape in [1..4_usize, 1..10_usize, 1..10_usize], [kh, kw] in [1..8_usize, 1..8_usize], seed in 0..1000_u64) {
        let [c, h, w] = shape;
        let size = 2 * (kh / 2) + 1;
        let ops: Vec<Box<dyn Operator>> = vec![
            Box::new(Identity::new(shape)),
            Box::new(Mask::random(1.0 / (1.0 + (seed % 7) as f64).min((h * w) as f64), seed, shape).unwrap()),
            Box::new(convolution([kh, kw], Boundary::Circular, shape)),
            Box::new(convolution([kh, kw], Boundary::Reflect, shape)),
            Box::new(Separable::new(c, matrix(kh, h, seed), matrix(kw, w, seed + 1), "any").unwrap()),
            Box::new(Separable::blur(&gaussian_kernel(0.5 * kw as f64, size).unwrap(), Boundary::Reflect, shape, "blur").unwrap()),
            Box::new(Separable::downsample(kh, Downsampling::Average, [c, h * kh, w * kh], "average").unwrap()),
            Box::new(Separable::downsample(kw, Downsampling::Bicubic, [c, h * kw, w * kw], "bicubic").unwrap()),
        ];
        for op in ops {
            check_adjoint(&*op);
            check_svd(&*op);
        }
    }
}

#[test]
fn the_pseudo_inverse_satisfies_penrose() {
    for op in all() {
        let op = &*op;
        let y = noise(op.output_shape(), 2, 30);
        let Some(x) = op.pseudo_inverse(&y) else { continue };
        // A^T (y - A x) = 0 makes x a least-squares solution, and x in the range of A^T the smallest.
        // Rounding grows with the solution, and again with the condition number.
        let rounding = 1e-12 * x.iter().fold(1.0, |a: f64, v| a.max(v.abs()));
        let s = op.svd().unwrap().singular_values();
        let (largest, smallest) =
            (s.iter().copied().fold(0.0, f64::max), s.iter().copied().filter(|s| *s > 0.0).fold(1.0, f64::min));
        let residual = &y - op.forward(&x);
        assert_close(&op.adjoint(&residual), &(&x * 0.0), rounding, "A^T (y - A A^+ y)", op);
        let again = op.pseudo_inverse(&op.forward(&x)).unwrap();
        assert_close(&again, &x, rounding * (1.0 + largest / smallest), "A^+ A A^+", op);
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

/// The dense linear algebra of another library, on the matrix `A` that the operator is: the eigenvalues of `A^T A`, and normal
/// equations. (nalgebra's own singular values are off by 1e-8 here, where two are close.)
#[test]
fn nalgebra_agrees() {
    let mut compared = 0;
    for op in all() {
        let op = &*op;
        let Some(svd) = op.svd() else { continue };
        let a = Dense::matrix_of(op);
        let a = DMatrix::from_fn(a.nrows(), a.ncols(), |i, j| a[[i, j]]);
        let gram = a.tr_mul(&a);
        let (y, z) = (noise(op.output_shape(), 1, 45), noise(op.input_shape(), 1, 46));
        let [y_column, z_column] = [&y, &z].map(|batch| DVector::from_iterator(batch.len(), batch.iter().copied()));
        let back = a.tr_mul(&y_column);
        let to_batch = |column: &DVector<f64>| Array4::from_shape_vec(z.dim(), column.as_slice().to_vec()).unwrap();

        let eigen = gram.clone().symmetric_eigen();
        let mut eigenvalues = eigen.eigenvalues.as_slice().to_vec();
        let mut squares: Vec<f64> = svd.singular_values().iter().map(|s| s * s).collect();
        [&mut eigenvalues, &mut squares].into_iter().for_each(|values| values.sort_by(|a, b| b.total_cmp(a)));
        let scale = squares[0].max(1.0);
        for (ours, theirs) in squares.iter().zip(&eigenvalues) {
            assert!((ours - theirs).abs() < 1e-13 * scale, "{}: squared singular values {ours} and {theirs}", op.spec());
        }

        for rho in [1e-3, 0.7, 50.0] {
            let normal = &gram + DMatrix::identity(a.ncols(), a.ncols()) * rho;
            let theirs = normal.cholesky().unwrap().solve(&(&back + &z_column * rho));
            assert_close(&op.prox(&y, &z, rho).unwrap(), &to_batch(&theirs), 1e-12 * scale * (1.0 + 1.0 / rho), "the prox", op);
        }

        // Where no value is near the cut, so that both cut the same ones.
        let smallest = squares.iter().copied().filter(|square| *square > 0.0).fold(scale, f64::min);
        if smallest > 1e-6 * scale {
            let inverse = eigen.eigenvalues.map(|value| if value > 1e-9 * scale { 1.0 / value } else { 0.0 });
            let theirs = &eigen.eigenvectors * eigen.eigenvectors.tr_mul(&back).component_mul(&inverse);
            let tolerance = 1e-12 * (1.0 + back.norm()) * scale / (smallest * smallest.min(1.0));
            assert_close(&op.pseudo_inverse(&y).unwrap(), &to_batch(&theirs), tolerance, "A^+", op);
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");
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

#[test]
fn convolutions_are_their_definition() {
    for boundary in [Boundary::Circular, Boundary::Reflect] {
        for ([kh, kw], [c, h, w]) in [([3, 5], [2, 7, 6]), ([4, 2], [1, 5, 5]), ([9, 7], [1, 3, 4])] {
            let kernel = matrix(kh, kw, 80);
            let op = Convolution::new(&kernel, boundary, [c, h, w], "test").unwrap();
            let x = noise([c, h, w], 2, 81);
            let pixel = |(n, c, i, j): (usize, usize, usize, usize)| {
                let seen = |offset: [isize; 2]| {
                    let outside = |p: isize, size: usize| match boundary {
                        Boundary::Circular => (p + 5 * size as isize) as usize % size,
                        Boundary::Reflect => {
                            let twice: Vec<usize> = (0..size).chain((0..size).rev()).collect();
                            twice[(p + 10 * size as isize) as usize % twice.len()]
                        }
                    };
                    x[[n, c, outside(i as isize - offset[0], h), outside(j as isize - offset[1], w)]]
                };
                let centred = |a: usize, k: usize| a as isize - (k / 2) as isize;
                kernel.indexed_iter().map(|((a, b), k)| k * seen([centred(a, kh), centred(b, kw)])).sum::<f64>()
            };
            assert_close(&op.forward(&x), &Array4::from_shape_fn((2, c, h, w), pixel), 1e-12, "the definition", &op);
        }
    }
}

#[test]
fn a_separable_blur_is_a_convolution() {
    let kernel = gaussian_kernel(1.5, 9).unwrap();
    let plane = Array2::from_shape_fn((9, 9), |(i, j)| kernel[i] * kernel[j]);
    let x = noise([2, 7, 11], 2, 90);
    for boundary in [Boundary::Circular, Boundary::Reflect] {
        let separable = Separable::blur(&kernel, boundary, [2, 7, 11], "separable").unwrap();
        let op = Convolution::new(&plane, boundary, [2, 7, 11], "convolution").unwrap();
        assert_close(&separable.forward(&x), &op.forward(&x), 1e-13, "the convolution", &separable);
    }
}

#[test]
fn averages_are_block_means() {
    let op = Separable::downsample(2, Downsampling::Average, [1, 4, 6], "average").unwrap();
    let x = Array4::from_shape_fn((1, 1, 4, 6), |(_, _, i, j)| (6 * i + j) as f64);
    let mean = |i: usize, j: usize| (12 * i + 2 * j) as f64 + 3.5;
    assert_close(&op.forward(&x), &Array4::from_shape_fn((1, 1, 2, 3), |(_, _, i, j)| mean(i, j)), 1e-13, "block means", &op);
    for factor in [0, 4, 5] {
        assert!(Separable::downsample(factor, Downsampling::Average, [1, 4, 6], "average").is_err());
    }
}

#[test]
fn bicubic_has_the_published_weights() {
    // MATLAB's contributions for a factor of 2, far from the edges: Keys' cubic at 1/4, 3/4, 5/4 and 7/4 blocks, halved.
    let op = Separable::downsample(2, Downsampling::Bicubic, [1, 16, 2], "bicubic").unwrap();
    let column = |row: usize| -> Vec<f64> {
        let mut unit = Array4::zeros((1, 1, 16, 2));
        unit.index_axis_mut(Axis(2), row).fill(1.0);
        op.forward(&unit).into_raw_vec_and_offset().0
    };
    let half = [111.0, 29.0, -9.0, -3.0].map(|w| w / 256.0);
    for (k, weight) in half.into_iter().enumerate() {
        assert!((column(9 + k)[4] - weight).abs() < 1e-15, "{k}: {} and {weight}", column(9 + k)[4]);
    }
    // A linear ramp is kept away from the mirrored edges, and a constant everywhere.
    let ramp = Array4::from_shape_fn((1, 1, 16, 2), |(_, _, i, _)| i as f64);
    for (i, value) in op.forward(&ramp).iter().enumerate().skip(2).take(4) {
        assert!((value - (2.0 * i as f64 + 0.5)).abs() < 1e-13, "{i}: {value}");
    }
    assert!(op.forward(&Array4::ones((1, 1, 16, 2))).iter().all(|v| (v - 1.0).abs() < 1e-15));
}
