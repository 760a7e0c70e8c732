//! Total-variation reconstruction.

use ndarray::{Array4, Zip};

use crate::{Batch, Error, Measurement, Result, Solved, norm_sq, operator_norm_sq};

/// The image that fits the measurement with little total variation.
///
/// ```text
/// argmin_x  1/2 |y - A x|^2 + weight TV(x)
/// TV(x) = sum_{c,i,j} sqrt((x_{c,i+1,j} - x_{c,i,j})^2 + (x_{c,i,j+1} - x_{c,i,j})^2)
/// ```
///
/// The isotropic total variation of each channel, differences across the edges being 0. In the model's range, that of
/// [`Measurement::y`]; a Laplace-like prior of scale `b` on the gradients has `weight = sigma_y^2 / b`.
///
/// # Shapes
/// The image is `[1, c, h, w]`.
///
/// # Errors
/// [`Error::Argument`] unless `weight` is positive and finite. One that stops at `max_iterations` is no error here: see
/// [`Solved::check`].
///
/// # Reference
/// Chambolle and Pock 2011, "A first-order primal-dual algorithm for convex problems with applications to imaging", J. Math. Imaging
/// Vis. 40, algorithm 1 with theta = 1 and both terms dualised, so that any operator with an adjoint is served; with a step for each
/// dual block as in Pock and Chambolle 2011, "Diagonal preconditioning". It stops when both residuals of the optimality conditions
///
/// ```text
/// |A^T p + D^T q| <= tolerance |A^T y|,    |(p - (A x - y), q's distance)| <= tolerance |y|
/// ```
///
/// are small, the second as in Goldstein et al. 2013, arXiv 1305.0546.
pub fn total_variation(measurement: &Measurement<'_>, weight: f64, tolerance: f64, max_iterations: usize) -> Result<Solved> {
    if !(weight > 0.0 && weight.is_finite()) {
        let expected = "positive and finite".into();
        return Err(Error::Argument { what: "weight", expected, got: weight.to_string(), at: "total_variation" });
    }
    let Measurement { op, y, .. } = measurement;
    let norm_sq_a = operator_norm_sq(*op);
    // tau (sigma_p |A|^2 + sigma_q |D|^2) < 1, with |D|^2 < 8. The image's size over the gradient dual's, at most `weight`, is the
    // ratio that balances the primal and the dual steps.
    let tau = 0.05 / weight.min(1.0);
    let (sigma_p, sigma_q) = (0.5 / (tau * norm_sq_a), 0.5 / (tau * 8.0));
    let (y_scale, adjoint_scale) = (one_norm(y), one_norm(&op.adjoint(y)));

    let mut x = op.adjoint(y) / norm_sq_a;
    let (mut a_x, mut d_x) = (op.forward(&x), gradient(&x));
    let mut p = &a_x - y;
    let mut q = [x.raw_dim(), x.raw_dim()].map(Array4::<f64>::zeros);
    let mut slope = op.adjoint(&p);
    let (mut iterations, mut residual) = (0, f64::INFINITY);
    while iterations < max_iterations && residual > tolerance {
        iterations += 1;
        x.scaled_add(-tau, &slope);
        let (new_a, new_d) = (op.forward(&x), gradient(&x));
        let (ahead_a, ahead_d) = (2.0 * &new_a - &a_x, [0, 1].map(|axis| 2.0 * &new_d[axis] - &d_x[axis]));
        let (old_p, old_q) = (p.clone(), q.clone());
        p = (p + sigma_p * (ahead_a - y)) / (1.0 + sigma_p);
        for axis in [0, 1] {
            q[axis].scaled_add(sigma_q, &ahead_d[axis]);
        }
        project(&mut q, weight);

        slope = op.adjoint(&p) + divergence_negated(&q);
        let mut dual = norm_sq(&((&p - &old_p) / sigma_p - (&new_a - &a_x)))[0];
        for axis in [0, 1] {
            dual += norm_sq(&((&q[axis] - &old_q[axis]) / sigma_q - (&new_d[axis] - &d_x[axis])))[0];
        }
        residual = ratio(one_norm(&slope), adjoint_scale).max(ratio(dual.sqrt(), y_scale));
        (a_x, d_x) = (new_a, new_d);
    }
    Ok(Solved { x, iterations, residuals: vec![residual] })
}

fn one_norm(x: &Batch) -> f64 {
    norm_sq(x).into_iter().sum::<f64>().sqrt()
}

fn ratio(value: f64, scale: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value / scale }
}

/// Forward differences along the columns and the rows, 0 at the last.
fn gradient(x: &Batch) -> [Batch; 2] {
    let (_, _, h, w) = x.dim();
    let along = |last: usize, step: [usize; 2]| {
        Array4::from_shape_fn(x.raw_dim(), |(n, c, i, j)| {
            let at_edge = [i, j][usize::from(step[1] == 1)] == last;
            if at_edge { 0.0 } else { x[[n, c, i + step[0], j + step[1]]] - x[[n, c, i, j]] }
        })
    };
    [along(h - 1, [1, 0]), along(w - 1, [0, 1])]
}

/// The gradient's adjoint.
fn divergence_negated([q_i, q_j]: &[Batch; 2]) -> Batch {
    let (_, _, h, w) = q_i.dim();
    Array4::from_shape_fn(q_i.raw_dim(), |(n, c, i, j)| {
        let before_i = if i > 0 { q_i[[n, c, i - 1, j]] } else { 0.0 };
        let before_j = if j > 0 { q_j[[n, c, i, j - 1]] } else { 0.0 };
        let here_i = if i + 1 < h { q_i[[n, c, i, j]] } else { 0.0 };
        let here_j = if j + 1 < w { q_j[[n, c, i, j]] } else { 0.0 };
        before_i - here_i + before_j - here_j
    })
}

/// Onto the disks of radius `weight`.
fn project([q_i, q_j]: &mut [Batch; 2], weight: f64) {
    Zip::from(q_i).and(q_j).for_each(|a, b| {
        let excess = (a.hypot(*b) / weight).max(1.0);
        (*a, *b) = (*a / excess, *b / excess);
    });
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::{
        Boundary, Convolution, Dense, Downsampling, Identity, Mask, Noise, Operator, Purpose, Separable, Streams, dot,
        motion_kernel, samples,
    };

    fn noise(shape: [usize; 3], seed: u64) -> Batch {
        Streams::new(seed, 0..1).normal(0, Purpose::Auxiliary, 1, shape)
    }

    fn solved(op: &dyn Operator, y: Batch, weight: f64, tolerance: f64) -> Batch {
        let measurement = Measurement::new(op, y, 0.1).unwrap();
        let solved = total_variation(&measurement, weight, tolerance, 20_000).unwrap();
        solved.check(tolerance, "total_variation").unwrap()
    }

    #[test]
    fn the_gradient_has_its_adjoint() {
        let (x, q) = (noise([2, 3, 5], 1), [noise([2, 3, 5], 2), noise([2, 3, 5], 3)]);
        let d_x = gradient(&x);
        let left = dot(&d_x[0], &q[0])[0] + dot(&d_x[1], &q[1])[0];
        assert!((left - dot(&x, &divergence_negated(&q))[0]).abs() < 1e-13);
    }

    #[test]
    fn a_step_shrinks_by_the_weight_over_its_lengths() {
        let op = Identity::new([1, 1, 5]);
        let x = solved(&op, array![[[[0.0, 0.0, 1.0, 1.0, 1.0]]]], 0.12, 1e-9);
        let expected = array![[[[0.06, 0.06, 0.96, 0.96, 0.96]]]];
        assert!((&x - expected).iter().all(|e| e.abs() < 1e-7), "{x}");
    }

    /// In one dimension `u_i = sum_{k <= i} (y_k - x_k)` is the taut string's: within the weight, at it where `x` jumps, 0 at the end.
    #[test]
    fn one_dimension_is_the_taut_string() {
        let (weight, y) = (0.4, noise([1, 40, 1], 4));
        let x = solved(&Identity::new([1, 40, 1]), y.clone(), weight, 1e-8);
        let (x, y) = (samples(&x).next().unwrap().to_vec(), samples(&y).next().unwrap().to_vec());
        let mut string = 0.0;
        for i in 0..40 {
            string += x[i] - y[i];
            let jump = if i < 39 { x[i + 1] - x[i] } else { 0.0 };
            assert!(string.abs() < weight + 1e-6);
            if jump.abs() > 1e-5 {
                assert!((string - weight * jump.signum()).abs() < 1e-5, "{i}: {string} at a jump of {jump}");
            }
        }
        assert!(string.abs() < 1e-6);
    }

    #[test]
    fn a_great_weight_gives_the_best_constant() {
        let matrix = Array2::from_shape_fn((5, 12), |(i, j)| ((i * 7 + j * 5) % 11) as f64 / 11.0);
        let op = Dense::new(matrix, [1, 3, 4]).unwrap();
        let (y, a_1) = (noise([1, 1, 5], 5), op.forward(&Array4::ones((1, 1, 3, 4))));
        let constant = dot(&a_1, &y)[0] / norm_sq(&a_1)[0];
        let x = solved(&op, y, 50.0, 1e-9);
        assert!(x.iter().all(|v| (v - constant).abs() < 1e-6), "{x} and {constant}");
    }

    /// No perturbation of a minimum of a convex function lowers it, in the directions of noise, pixels and the image itself.
    #[test]
    fn nothing_near_is_better() {
        let shape = [1, 12, 12];
        let truth = Array4::from_shape_fn((1, 1, 12, 12), |(_, _, i, j)| if i + j > 10 && i < 9 { 0.8 } else { -0.7 });
        let motion = motion_kernel(4.0, 30.0).unwrap();
        let ops: [Box<dyn Operator>; 4] = [
            Box::new(Identity::new(shape)),
            Box::new(Mask::outside_box([4, 4], None, shape).unwrap()),
            Box::new(Separable::downsample(4, Downsampling::Average, shape, "downsample").unwrap()),
            Box::new(Convolution::new(&motion, Boundary::Reflect, shape, "motion").unwrap()),
        ];
        for op in ops {
            let y = op.forward(&truth) + 0.1 * noise(op.output_shape(), 6);
            let x = solved(&*op, y.clone(), 0.02, 1e-5);
            let objective = |x: &Batch| {
                let [d_i, d_j] = gradient(x);
                let tv: f64 = d_i.iter().zip(&d_j).map(|(a, b)| a.hypot(*b)).sum();
                0.5 * norm_sq(&(&y - op.forward(x)))[0] + 0.02 * tv
            };
            let best = objective(&x);
            for k in 0..40 {
                let direction = if k < 20 { noise(shape, 10 + k) } else { noise(shape, 10 + k).mapv(|v| f64::from(v > 1.5)) };
                for size in [1e-3, 1e-2, 0.1] {
                    assert!(objective(&(&x + &(size * &direction))) > best - 1e-6, "{}", op.spec());
                }
            }
            assert!(objective(&(0.99 * &x)) > best - 1e-6 && objective(&(1.01 * &x)) > best - 1e-6, "{}", op.spec());
        }
    }

    #[test]
    fn nothing_measured_is_nothing() {
        let op = Identity::new([1, 2, 2]);
        assert_eq!(solved(&op, Array4::zeros((1, 1, 2, 2)), 1.0, 1e-6), Array4::<f64>::zeros((1, 1, 2, 2)));
        let measurement = Measurement::new(&op, Array4::zeros((1, 1, 2, 2)), 0.1).unwrap();
        assert!(total_variation(&measurement, 0.0, 1e-3, 9).is_err() && total_variation(&measurement, f64::NAN, 1e-3, 9).is_err());
    }
}
