//! `dps`: diffusion posterior sampling.

use serde::{Deserialize, Serialize};

use super::{Guidance, GuidancePoint, SolverReport, Target, Weighed, check_argument};
use crate::{Batch, Result, norm_sq, scale_samples};

/// Diffusion posterior sampling: a step down the gradient of the residual's norm.
///
/// ```text
/// the paper, at each of T = 1000 DDPM steps:  x' = DDPM(x) - zeta grad |y - A x0_hat(x)|
/// here, at any step of any sampler:           E[x0 | x_t, y] ~ x0_hat - (sigma^2 / alpha) kappa(t) grad |y - A x0_hat|
///                                             kappa(t) = 1000 zeta / g(t)^2
/// ```
///
/// A shift `S` of the score moves the reverse SDE by `g^2 S dt`. The paper's `-zeta grad` every `dt = 1 / 1000` is that of
/// `S = -1000 zeta grad / g^2`, and a shift of the score is `sigma^2 / alpha` times that shift of the mean. So the total strength is
/// the paper's whatever the number of steps, for samplers that follow the reverse SDE (`ddpm`, and `ddim` with `eta = 1`, the default); 1000
/// DDPM steps are its update up to `O(1 / T)`. The probability-flow ODE moves by `g^2 S dt / 2`: a deterministic sampler applies half
/// the strength. For the norm's gradient `-J^T A^T r / |r|` this is a Gaussian model with `M = |r| / kappa`: the measurement's own
/// noise level plays no part.
///
/// # Target
/// Heuristic: no limit makes the samples the posterior's.
///
/// # Reference
/// Chung, Kim, Mccann, Klasky, Ye 2023, arXiv 2209.14687, algorithm 1, with the step size of its experiments. Deviations: the norm is each
/// sample's own (their code takes it over the batch), `x0_hat` is not clipped unless `clamp` is set, and the strength does not depend
/// on the steps (theirs fades when there are fewer).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dps {
    /// The paper's step size, per step of 1000. Its own values, for 256 x 256 x 3 images: .3 for blur and super-resolution, .5 for
    /// random inpainting. The force is that of a noise variance `|r| / kappa`, so the best value grows with the square root of the number
    /// of measurements: some .01 for a handful of them.
    pub zeta: f64,
}

impl Default for Dps {
    fn default() -> Self {
        Self { zeta: 0.3 }
    }
}

impl Guidance for Dps {
    fn name(&self) -> &'static str {
        "dps"
    }

    fn target(&self) -> Target {
        Target::Heuristic
    }

    fn check(&self) -> Result<()> {
        check_argument("zeta", self.zeta, self.zeta >= 0.0, "at least 0", "dps")
    }

    fn weigh(&self, at: &mut GuidancePoint<'_>, rhs: &Batch) -> Result<Weighed> {
        let kappa = PAPER_STEPS * self.zeta / at.schedule.rates(at.level.t).diffusion_sq;
        // At a zero residual the norm has no gradient, and no pull either.
        let factors: Vec<f64> =
            norm_sq(&at.residual).iter().map(|norm_sq| if *norm_sq > 0.0 { kappa / norm_sq.sqrt() } else { 0.0 }).collect();
        let mut v = rhs.clone();
        scale_samples(&mut v, &factors);
        Ok(Weighed { v, solver: SolverReport::default() })
    }
}

/// The steps of the paper's sampler, to which its `zeta` belongs.
const PAPER_STEPS: f64 = 1000.0;
