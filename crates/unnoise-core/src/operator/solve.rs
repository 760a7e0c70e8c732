//! Iterative solutions of linear systems, sample by sample.

use ndarray::{Array4, Axis};

use crate::{Batch, Error, Result, dot, norm_sq, scale_samples};

/// What an iterative solver returns, converged or not: [`check`](Self::check) decides.
#[derive(Clone, Debug)]
pub struct Solved {
    /// The solution.
    pub x: Batch,
    /// Applications of the map to the batch.
    pub iterations: usize,
    /// `|b - M x| / |b|` of each sample.
    pub residuals: Vec<f64>,
}

impl Solved {
    /// The largest relative residual of a sample; NaN if one is.
    pub fn residual(&self) -> f64 {
        self.residuals.iter().copied().fold(0.0, |a, b| if a.is_nan() || a >= b { a } else { b })
    }

    /// The solution, if every sample reached the tolerance.
    ///
    /// # Errors
    /// [`Error::NotConverged`] in the name of `at`.
    pub fn check(self, tolerance: f64, at: &'static str) -> Result<Batch> {
        let residual = self.residual();
        if residual <= tolerance {
            return Ok(self.x);
        }
        Err(Error::NotConverged { at, residual, iterations: self.iterations, tolerance })
    }
}

/// Solves `M x = b` for a symmetric positive definite `M` by conjugate gradients from `x = 0`.
///
/// Step sizes are per sample, and a sample stops for itself when `|b - M x| <= tolerance |b|` in the recursion's residual, or when
/// `M` shows itself not positive definite; so a sample's solution does not depend on its batch. `apply` is called on the whole batch
/// until every sample has stopped, at most `max_iterations` times.
///
/// # Errors
/// Those of `apply`; a system that does not converge is no error here, see [`Solved::check`].
///
/// # Reference
/// Hestenes and Stiefel 1952, "Methods of conjugate gradients for solving linear systems".
pub fn conjugate_gradients(
    apply: &mut dyn FnMut(&Batch) -> Result<Batch>,
    b: &Batch,
    tolerance: f64,
    max_iterations: usize,
) -> Result<Solved> {
    let b_sq = norm_sq(b);
    let mut x = Array4::zeros(b.raw_dim());
    let (mut r, mut p, mut r_sq) = (b.clone(), b.clone(), b_sq.clone());
    let mut active: Vec<bool> = r_sq.iter().map(|r_sq| *r_sq > 0.0).collect();
    let mut iterations = 0;
    while iterations < max_iterations && active.contains(&true) {
        let m_p = apply(&p)?;
        iterations += 1;
        let curvature = dot(&p, &m_p);
        for (active, curvature) in active.iter_mut().zip(&curvature) {
            *active &= *curvature > 0.0;
        }
        let masked = |i: usize, value: f64| if active[i] { value } else { 0.0 };
        let step: Vec<f64> = (0..active.len()).map(|i| masked(i, r_sq[i] / curvature[i])).collect();
        add_scaled(&mut x, &step, &p);
        add_scaled(&mut r, &step.iter().map(|s| -s).collect::<Vec<_>>(), &m_p);
        let new = norm_sq(&r);
        let ratio: Vec<f64> = (0..active.len()).map(|i| masked(i, new[i] / r_sq[i])).collect();
        scale_samples(&mut p, &ratio);
        p += &r;
        r_sq = new;
        for (i, active) in active.iter_mut().enumerate() {
            *active &= r_sq[i] > tolerance * tolerance * b_sq[i];
        }
    }
    Ok(Solved { x, iterations, residuals: relative(&r_sq, &b_sq) })
}

/// Solves `M x = b` for any invertible `M` by GMRES from `x = 0`, restarted after `restart` directions.
///
/// For maps that are only nearly symmetric, such as a network's Jacobian between an operator and its adjoint, where conjugate
/// gradients may stall. Each sample has its own Krylov space and stops for itself as in [`conjugate_gradients`]; the residuals are
/// recomputed from `b - M x` at each restart and at the end, which the iterations include.
///
/// # Errors
/// Those of `apply`; [`Error::Argument`] if `restart` is 0.
///
/// # Reference
/// Saad and Schultz 1986, "GMRES", SIAM J. Sci. Stat. Comput. 7: its GMRES(m), with modified Gram-Schmidt and Givens rotations.
pub fn gmres(
    apply: &mut dyn FnMut(&Batch) -> Result<Batch>,
    b: &Batch,
    tolerance: f64,
    restart: usize,
    max_iterations: usize,
) -> Result<Solved> {
    if restart == 0 {
        return Err(Error::Argument { what: "restart", expected: "at least 1".into(), got: "0".into(), at: "gmres" });
    }
    let b_sq = norm_sq(b);
    let target: Vec<f64> = b_sq.iter().map(|b_sq| tolerance * b_sq.sqrt()).collect();
    let mut x = Array4::zeros(b.raw_dim());
    let (mut r, mut r_sq) = (b.clone(), b_sq.clone());
    let mut iterations = 0;
    loop {
        let norms: Vec<f64> = r_sq.iter().map(|r_sq| r_sq.sqrt()).collect();
        let mut spaces: Vec<_> = norms.iter().zip(&target).map(|(norm, target)| Krylov::new(*norm, *target)).collect();
        // The last iteration is the residual's.
        if iterations + 1 >= max_iterations || !spaces.iter().any(|space| space.active) {
            break;
        }
        scale_samples(&mut r, &inverses(&norms));
        let mut basis = vec![r];
        while basis.len() <= restart && iterations + 1 < max_iterations && spaces.iter().any(|space| space.active) {
            let mut next = apply(&basis[basis.len() - 1])?;
            iterations += 1;
            let mut columns = vec![Vec::with_capacity(basis.len() + 1); spaces.len()];
            for direction in &basis {
                let overlaps = dot(&next, direction);
                add_scaled(&mut next, &overlaps.iter().map(|o| -o).collect::<Vec<_>>(), direction);
                columns.iter_mut().zip(overlaps).for_each(|(column, overlap)| column.push(overlap));
            }
            let norms: Vec<f64> = norm_sq(&next).into_iter().map(f64::sqrt).collect();
            scale_samples(&mut next, &inverses(&norms));
            basis.push(next);
            for ((space, mut column), norm) in spaces.iter_mut().zip(columns).zip(norms) {
                column.push(norm);
                space.extend(column);
            }
        }
        let weights: Vec<_> = spaces.iter().map(Krylov::weights).collect();
        for (k, direction) in basis.iter().enumerate() {
            let of_direction: Vec<f64> = weights.iter().map(|w| w.get(k).copied().unwrap_or(0.0)).collect();
            add_scaled(&mut x, &of_direction, direction);
        }
        r = b - apply(&x)?;
        iterations += 1;
        r_sq = norm_sq(&r);
    }
    Ok(Solved { x, iterations, residuals: relative(&r_sq, &b_sq) })
}

/// One sample's least-squares problem in its Krylov space, kept triangular by Givens rotations.
struct Krylov {
    triangle: Vec<Vec<f64>>,
    rotations: Vec<(f64, f64)>,
    right: Vec<f64>,
    target: f64,
    active: bool,
}

impl Krylov {
    fn new(norm: f64, target: f64) -> Self {
        Self { triangle: vec![], rotations: vec![], right: vec![norm], target, active: norm > target }
    }

    /// Adds a column of the Hessenberg matrix, unless the sample has stopped.
    fn extend(&mut self, mut column: Vec<f64>) {
        if !self.active {
            return;
        }
        for (i, (cos, sin)) in self.rotations.iter().enumerate() {
            (column[i], column[i + 1]) = (cos * column[i] + sin * column[i + 1], cos * column[i + 1] - sin * column[i]);
        }
        let last = self.rotations.len();
        let norm = column[last].hypot(column[last + 1]);
        if norm == 0.0 {
            // A singular map: no further direction helps.
            self.active = false;
            return;
        }
        let (cos, sin) = (column[last] / norm, column[last + 1] / norm);
        column[last] = norm;
        column.truncate(last + 1);
        self.triangle.push(column);
        self.rotations.push((cos, sin));
        self.right.push(-sin * self.right[last]);
        self.right[last] *= cos;
        self.active = self.right[last + 1].abs() > self.target;
    }

    /// The solution's coefficients in the basis.
    fn weights(&self) -> Vec<f64> {
        let k = self.triangle.len();
        let mut weights = self.right[..k].to_vec();
        for i in (0..k).rev() {
            let known: f64 = (i + 1..k).map(|j| self.triangle[j][i] * weights[j]).sum();
            weights[i] = (weights[i] - known) / self.triangle[i][i];
        }
        weights
    }
}

/// `x += factors[i] p` for sample `i`; a factor of 0 leaves the sample untouched.
pub(crate) fn add_scaled(x: &mut Batch, factors: &[f64], p: &Batch) {
    for ((mut x, factor), p) in x.axis_iter_mut(Axis(0)).zip(factors).zip(p.axis_iter(Axis(0))) {
        if *factor != 0.0 {
            x.scaled_add(*factor, &p);
        }
    }
}

fn inverses(norms: &[f64]) -> Vec<f64> {
    norms.iter().map(|norm| if *norm > 0.0 { 1.0 / norm } else { 0.0 }).collect()
}

fn relative(r_sq: &[f64], b_sq: &[f64]) -> Vec<f64> {
    r_sq.iter().zip(b_sq).map(|(r, b)| if *r == 0.0 { 0.0 } else { (r / b).sqrt() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dense, Noise, Operator, Purpose, Streams};

    const SHAPE: [usize; 3] = [1, 3, 4];

    fn noise(n: u32, shape: [usize; 3], seed: u64) -> Batch {
        Streams::new(seed, 0..n).normal(0, Purpose::Auxiliary, n as usize, shape)
    }

    /// `B^T B + shift I + skew (B - B^T)`.
    fn dense(skew: f64, shift: f64) -> Dense {
        let b = noise(1, [1, 12, 12], 1).into_shape_with_order((12, 12)).unwrap();
        let matrix = b.t().dot(&b) + ndarray::Array2::<f64>::eye(12) * shift + (&b - &b.t()) * skew;
        Dense::new(matrix, SHAPE).unwrap()
    }

    /// One right-hand side of zeros among the others.
    fn right() -> Batch {
        let mut b = noise(4, SHAPE, 2);
        b.index_axis_mut(Axis(0), 2).fill(0.0);
        b
    }

    fn applied(op: &Dense) -> impl FnMut(&Batch) -> Result<Batch> {
        |x| Ok(op.forward(x).into_shape_with_order(x.raw_dim()).unwrap())
    }

    #[test]
    fn both_solve_to_the_tolerance() {
        let op = dense(0.0, 0.5);
        let b = right();
        let exact = op.pseudo_inverse(&b.clone().into_shape_with_order((4, 1, 1, 12)).unwrap()).unwrap();
        for solved in [
            conjugate_gradients(&mut applied(&op), &b, 1e-11, 60).unwrap(),
            gmres(&mut applied(&op), &b, 1e-11, 20, 60).unwrap(),
            gmres(&mut applied(&op), &b, 1e-11, 8, 1000).unwrap(),
        ] {
            assert!(solved.residual() <= 1e-11, "{:?} in {}", solved.residuals, solved.iterations);
            let error = (&solved.check(1e-11, "test").unwrap() - &exact).iter().fold(0.0, |a: f64, e| a.max(e.abs()));
            assert!(error < 1e-9, "{error:e}");
        }
    }

    #[test]
    fn gmres_bears_asymmetry() {
        let op = dense(3.0, 1.0);
        let solved = gmres(&mut applied(&op), &right(), 1e-10, 12, 40).unwrap();
        assert!(solved.residual() <= 1e-10 && solved.iterations <= 15, "{solved:?}");
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let op = dense(0.0, 0.1);
        let b = right();
        let alone = b.select(Axis(0), &[3]);
        let cg = |b: &Batch| conjugate_gradients(&mut applied(&op), b, 1e-6, 50).unwrap().x;
        let gm = |b: &Batch| gmres(&mut applied(&op), b, 1e-6, 5, 500).unwrap().x;
        assert_eq!(cg(&b).index_axis(Axis(0), 3), cg(&alone).index_axis(Axis(0), 0));
        assert_eq!(gm(&b).index_axis(Axis(0), 3), gm(&alone).index_axis(Axis(0), 0));
    }

    #[test]
    fn failure_is_reported() {
        let op = dense(0.0, 0.1);
        let solved = conjugate_gradients(&mut applied(&op), &right(), 1e-10, 2).unwrap();
        assert_eq!(solved.iterations, 2);
        assert!(matches!(solved.check(1e-10, "test"), Err(Error::NotConverged { iterations: 2, .. })));
        let mut negative = |x: &Batch| Ok(-x);
        assert_eq!(conjugate_gradients(&mut negative, &right(), 1e-10, 9).unwrap().residual(), 1.0);
        let mut b = right();
        b[[1, 0, 0, 0]] = f64::NAN;
        assert!(conjugate_gradients(&mut applied(&op), &b, 1e-2, 50).unwrap().check(1e-2, "test").is_err());
        assert!(gmres(&mut applied(&op), &b, 1e-2, 12, 50).unwrap().check(1e-2, "test").is_err());
        let mut zero = |x: &Batch| Ok(0.0 * x);
        assert_eq!(gmres(&mut zero, &right(), 1e-10, 9, 20).unwrap().residual(), 1.0);
        assert!(gmres(&mut zero, &right(), 1e-10, 0, 20).is_err());
    }
}
