//! Ancestral sampling of denoising diffusion probabilistic models.

use serde::{Deserialize, Serialize};

use super::{Sampler, SamplerInfo, Step, Stepped, clipped, combine};
use crate::{Batch, Interval, Noise, Purpose, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "ddpm",
    order: "1",
    stochastic: true,
    evaluations: "1",
    grids: "any",
    options: &["variance", "clip"],
    source: include_str!("ddpm.rs"),
    make: |options| Box::new(Ddpm { variance: options.variance, clip: options.clip }),
};

/// The variance of a [`Ddpm`] step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// `sigma'^2 (1 - r^2)`: exact for a prior of one image.
    #[default]
    FixedSmall,
    /// `sigma^2 (1 - r^2)`: exact for white unit-variance images.
    FixedLarge,
}

/// DDPM: the forward process's posterior, with the clean image replaced by its estimate.
///
/// ```text
/// mean     = alpha' (1 - r^2) x0 + r (sigma' / sigma) x
/// variance = sigma'^2 (1 - r^2)  or  sigma^2 (1 - r^2);   none in a step to sigma' = 0
/// ```
///
/// # Reference
/// Ho, Jain, Abbeel 2020, arXiv 2006.11239, eq. 7 and sec. 3.2 (the two variances), written for any `alpha`, `sigma`: in its terms
/// `1 - r^2 = beta_t / (1 - alpha_bar_t)`. The last step adds no noise (its algorithm 2); diffusers adds some with `fixed_large` on
/// a grid whose last timestep is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ddpm {
    /// Which variance.
    pub variance: Variance,
    /// The largest absolute value of the clean image.
    pub clip: Option<f64>,
}

impl Sampler for Ddpm {
    fn name(&self) -> &'static str {
        "ddpm"
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = clipped(step.denoiser.x0_hat(x, from)?, self.clip);

        let ratio = interval.ratio();
        let fresh = (1.0 - ratio.powi(2)).max(0.0);
        let mut next = combine(to.alpha * fresh, &x0, ratio * to.sigma / from.sigma, x);
        if to.sigma > 0.0 {
            let scale = match self.variance {
                Variance::FixedSmall => to.sigma,
                Variance::FixedLarge => from.sigma,
            };
            let (n, c, h, w) = x.dim();
            next.scaled_add(scale * fresh.sqrt(), &noise.normal(step.index, Purpose::Step, n, [c, h, w]));
        }
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
