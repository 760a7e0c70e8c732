//! `mmps`: moment matching posterior sampling.

use serde::{Deserialize, Serialize};

use super::{Guidance, GuidancePoint, GuidedRun, LinearSolver, Target, Weighed, check_argument};
use crate::{Batch, Result};

/// Moment matching: the image given its noisy version is taken as the Gaussian of its true mean and covariance.
///
/// ```text
/// p(y | x_t) ~ N(y; A x0_hat, A Cov A^T + sigma_y^2 I),   Cov[x0 | x_t] = (sigma^2 / alpha) J^T
/// ```
///
/// Its inverse is applied by an iterative solve, one vector-Jacobian product an iteration, to the stated relative residual. A solve
/// that does not get there, and a Jacobian that is not symmetric, stand in the run's [`SolverReport`](super::SolverReport).
///
/// # Target
/// Exact for Gaussian priors when the steps grow and the tolerance falls, where `max_iterations` suffices to reach it.
///
/// # Reference
/// Rozet, Andry, Lanusse, Louppe 2024, arXiv 2405.13712, sec. 4.2, "moment matching posterior sampling". Deviation: they run a fixed small number of
/// iterations (1 to 3), which leaves the solve unfinished; here it runs to a tolerance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mmps {
    /// The relative residual `|M v - r| / |r|` at which a sample's solve stops.
    pub tolerance: f64,
    /// The most iterations of a solve, each of them a vector-Jacobian product.
    pub max_iterations: usize,
    /// The iterative method, `"gmres"` or `"cg"`.
    pub solver: LinearSolver,
}

impl Default for Mmps {
    fn default() -> Self {
        Self { tolerance: 1e-3, max_iterations: 30, solver: LinearSolver::Gmres }
    }
}

impl Guidance for Mmps {
    fn name(&self) -> &'static str {
        "mmps"
    }

    fn target(&self) -> Target {
        Target::ExactForGaussianPriors("steps -> infinity, tolerance -> 0 and max_iterations suffices")
    }

    /// DPM-Solver++(2M): second order for one evaluation a step, which this guidance, exact on Gaussians, is smooth enough to gain from.
    fn default_run() -> GuidedRun {
        GuidedRun { sampler: "dpmpp-2m".into(), eta: 0.0, clamp: None }
    }

    fn vjps(&self) -> u64 {
        // The solve's, GMRES's residual, and the shift's own.
        self.max_iterations as u64 + u64::from(self.solver == LinearSolver::Gmres) + 1
    }

    fn check(&self) -> Result<()> {
        check_argument("tolerance", self.tolerance, self.tolerance > 0.0, "above 0", "mmps")?;
        check_argument("max_iterations", self.max_iterations as f64, self.max_iterations > 0, "at least 1", "mmps")
    }

    fn weigh(&self, at: &mut GuidancePoint<'_>, rhs: &Batch) -> Result<Weighed> {
        let noise = at.measurement.sigma_y * at.measurement.sigma_y;
        super::solve(self.solver, rhs, self.tolerance, self.max_iterations, |v| {
            let mut product = at.predictive_covariance(v)?;
            product.scaled_add(noise, v);
            Ok(product)
        })
    }
}
