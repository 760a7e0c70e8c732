//! The inverse of a measurement's covariance, applied to a vector by an iterative solve.

use super::SolverReport;
use crate::{Batch, Result, conjugate_gradients, dot, gmres, norm_sq};

/// What a [`Guidance`](super::Guidance) makes of a vector in measurement space.
pub struct Weighed {
    /// `M^-1 rhs`.
    pub v: Batch,
    /// How the solve went.
    pub solver: SolverReport,
}

/// How a linear system is solved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinearSolver {
    /// GMRES, which bears a network's asymmetric Jacobian. It takes one product more, for the true residual.
    #[default]
    Gmres,
    /// Conjugate gradients, for a symmetric Jacobian. The residual is the recursion's.
    Cg,
}

/// Solves `M v = rhs` for each sample, and reports what happened rather than fail: the best iterate is still a guidance.
pub(super) fn solve(
    solver: LinearSolver,
    rhs: &Batch,
    tolerance: f64,
    max_iterations: usize,
    mut apply: impl FnMut(&Batch) -> Result<Batch>,
) -> Result<Weighed> {
    // The first two vectors and their products tell whether M is symmetric.
    let mut seen: Vec<(Batch, Batch)> = Vec::with_capacity(2);
    let mut apply = |v: &Batch| {
        let product = apply(v)?;
        if seen.len() < 2 {
            seen.push((v.clone(), product.clone()));
        }
        Ok(product)
    };
    let solved = match solver {
        LinearSolver::Gmres => gmres(&mut apply, rhs, tolerance, max_iterations, max_iterations + 1)?,
        LinearSolver::Cg => conjugate_gradients(&mut apply, rhs, tolerance, max_iterations)?,
    };
    let n = rhs.dim().0 as u64;
    let report = SolverReport {
        solves: n,
        products: n * solved.iterations as u64,
        not_converged: solved.residuals.iter().filter(|residual| residual.is_nan() || **residual > tolerance).count() as u64,
        worst_residual: solved.residual(),
        worst_pair_asymmetry: seen.get(1).map_or(0.0, |second| pair_asymmetry(&seen[0], second)),
    };
    Ok(Weighed { v: solved.x, solver: report })
}

/// The largest `|u^T M w - w^T M u| / (|u| |M w| + |w| |M u|)` of a sample, from `(u, M u)` and `(w, M w)`.
fn pair_asymmetry((u, m_u): &(Batch, Batch), (w, m_w): &(Batch, Batch)) -> f64 {
    let norms = [u, m_w, w, m_u].map(|a| norm_sq(a).into_iter().map(f64::sqrt).collect::<Vec<_>>());
    let (u_m_w, w_m_u) = (dot(u, m_w), dot(w, m_u));
    (0..u_m_w.len())
        .map(|i| {
            let scale = norms[0][i] * norms[1][i] + norms[2][i] * norms[3][i];
            if scale > 0.0 { (u_m_w[i] - w_m_u[i]).abs() / scale } else { 0.0 }
        })
        .fold(0.0, f64::max)
}
