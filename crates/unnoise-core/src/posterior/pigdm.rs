//! `pigdm`: pseudo-inverse guidance, for noisy measurements.

use serde::{Deserialize, Serialize};

use super::{Guidance, GuidancePoint, LinearSolver, SolverReport, Target, Weighed, check_argument};
use crate::{Batch, Level, Measurement, Result};

/// Pseudo-inverse guidance: the image given its noisy version is taken as `N(x0_hat, r^2 I)`.
///
/// ```text
/// p(y | x_t) ~ N(y; A x0_hat, r^2 A A^T + sigma_y^2 I),   r^2 = sigma^2 v / (sigma^2 + alpha^2 v)
/// ```
///
/// `r^2` is the variance of `x0` given `x_t` for a white prior of variance `v` (`prior_variance`): `sigma^2` itself for a
/// variance-preserving schedule and `v = 1`. With `sigma_y = 0` the inverse is the pseudo-inverse, the paper's noiseless case.
///
/// # Target
/// Heuristic. (Exact as the steps grow for the one white Gaussian prior of variance `v`.)
///
/// # Reference
/// Song, Vahdat, Mardani, Kautz, "Pseudoinverse-guided diffusion models for inverse problems", ICLR 2023, the Gaussian model of
/// `x0` given `x_t` and its noisy case. Deviation: the
/// paper's algorithm 1 multiplies the gradient by a weight of its own choice and adds it to the DDIM step; here it is the shift of the
/// posterior mean that Tweedie's formula says, so that any sampler takes it with the right weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pigdm {
    /// The variance `v` of the prior's values, in the model's units: 1 is the usual assumption for images in `[-1, 1]`.
    pub prior_variance: f64,
    /// The relative residual of the solve, for operators without a singular value decomposition. It costs no network evaluation.
    pub tolerance: f64,
    /// The most iterations of that solve.
    pub max_iterations: usize,
}

impl Default for Pigdm {
    fn default() -> Self {
        Self { prior_variance: 1.0, tolerance: 1e-6, max_iterations: 200 }
    }
}

impl Guidance for Pigdm {
    fn name(&self) -> &'static str {
        "pigdm"
    }

    fn target(&self) -> Target {
        Target::Heuristic
    }

    fn check(&self) -> Result<()> {
        check_argument("prior_variance", self.prior_variance, self.prior_variance > 0.0, "above 0", "pigdm")?;
        check_argument("tolerance", self.tolerance, self.tolerance > 0.0, "above 0", "pigdm")
    }

    fn weigh(&self, at: &mut GuidancePoint<'_>, rhs: &Batch) -> Result<Weighed> {
        self.solve(at.measurement, at.level, rhs)
    }
}

impl Pigdm {
    /// `r^2`, the variance of the image given its noisy version.
    pub fn variance(&self, Level { alpha, sigma, .. }: Level) -> f64 {
        let noise = sigma * sigma;
        noise * self.prior_variance / (noise + alpha * alpha * self.prior_variance)
    }

    /// `(r^2 A A^T + sigma_y^2 I)^-1 rhs`, sample by sample.
    pub(crate) fn solve(&self, measurement: &Measurement<'_>, level: Level, rhs: &Batch) -> Result<Weighed> {
        let variance = self.variance(level);
        let noise = measurement.sigma_y * measurement.sigma_y;
        let op = measurement.op;
        let Some(svd) = op.svd() else {
            return super::solve(LinearSolver::Cg, rhs, self.tolerance, self.max_iterations, |v| {
                let mut product = op.forward(&op.adjoint(v)) * variance;
                product.scaled_add(noise, v);
                Ok(product)
            });
        };
        let mut coefficients = svd.u_transpose(rhs);
        let singular = svd.singular_values();
        for mut sample in coefficients.outer_iter_mut() {
            for (i, value) in sample.iter_mut().enumerate() {
                let s = singular.get(i).copied().unwrap_or(0.0);
                let denominator = variance * s * s + noise;
                *value = if denominator > 0.0 { *value / denominator } else { 0.0 };
            }
        }
        Ok(Weighed { v: svd.u(&coefficients), solver: SolverReport::default() })
    }
}
