//! Ancestral sampling of denoising diffusion probabilistic models.

use serde::{Deserialize, Serialize};

use super::{Sampler, SamplerInfo, Step, Stepped, clipped, combine};
use crate::{Batch, Error, Estimate, Interval, Noise, Purpose, Result};

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
    /// Between the two, in logarithms, by the share that a network gives for each pixel.
    LearnedRange,
}

/// DDPM: the forward process's posterior, with the clean image replaced by its estimate.
///
/// ```text
/// mean     = alpha' (1 - r^2) x0 + r (sigma' / sigma) x
/// variance = sigma'^2 (1 - r^2)        fixed_small
///            sigma^2 (1 - r^2)         fixed_large
///            small^(1 - v) large^v     learned_range
/// ```
///
/// `v` is what a network has learned to give beside its prediction, for each pixel; nothing limits it to `[0, 1]`. A step to `sigma' = 0` adds
/// no noise, whatever the variance.
///
/// # Reference
/// Ho, Jain, Abbeel 2020, arXiv 2006.11239, eq. 7 and sec. 3.2 (the two variances), written for any `alpha`, `sigma`: in its terms
/// `1 - r^2 = beta_t / (1 - alpha_bar_t)`. The learned range: Nichol, Dhariwal 2021, arXiv 2102.09672, eq. 15, for the levels of any grid
/// (its sec. 4). The last step adds no noise (Ho et al., algorithm 2); diffusers adds some with `fixed_large`, and with `learned_range` where
/// `v` is near 1, on a grid whose last timestep is not 0.
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
        let Estimate { x0_hat, variance_share } = step.denoiser.estimate(x, from)?;
        let x0 = clipped(x0_hat, self.clip);

        let ratio = interval.ratio();
        let fresh = (1.0 - ratio.powi(2)).max(0.0);
        let mut next = combine(to.alpha * fresh, &x0, ratio * to.sigma / from.sigma, x);
        if to.sigma > 0.0 {
            let (n, c, h, w) = x.dim();
            let mut z = noise.normal(step.index, Purpose::Step, n, [c, h, w]);
            let scale = match self.variance {
                Variance::FixedSmall => to.sigma,
                Variance::FixedLarge => from.sigma,
                Variance::LearnedRange => {
                    let share = variance_share.ok_or_else(nothing_learned)?;
                    z.zip_mut_with(&share, |z, v| *z *= (from.sigma / to.sigma).powf(*v));
                    to.sigma
                }
            };
            next.scaled_add(scale * fresh.sqrt(), &z);
        }
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

fn nothing_learned() -> Error {
    Error::Unsupported {
        what: "ddpm with the variance learned_range".into(),
        why: "the denoiser gives no variance, as a network with twice as many outputs as inputs does".into(),
        possible: vec!["fixed_small".into(), "fixed_large".into()],
    }
}
