//! Annealed Langevin dynamics.

use super::registry::needs_signal;
use super::{Grid, Sampler, SamplerInfo, Step, Stepped, combine};
use crate::{Batch, Interval, Noise, Purpose, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "langevin",
    order: "0 (its bias stays)",
    stochastic: true,
    evaluations: "1 a correction, the last 1 more",
    grids: "those that start with signal",
    options: &["snr", "corrections"],
    source: include_str!("langevin.rs"),
    make: |options| Box::new(Langevin { snr: options.snr, corrections: options.corrections.unwrap_or(100) }),
};

/// Annealed Langevin dynamics: many Langevin steps at each level, then on to the next one with the same `x / alpha`.
///
/// ```text
/// delta = 2 (snr sigma)^2
/// x    <- x + delta score + sqrt(2 delta) z        score = (alpha x0 - x) / sigma^2,  some times at each level
/// x'    = (alpha' / alpha) x,   x0 in a step to sigma' = 0
/// ```
///
/// At a level whose marginal has the variance `v` it draws the variance `v / (1 - delta / (2 v))`, whatever the number of levels.
///
/// # Reference
/// Song, Ermon 2019, arXiv 1907.05600, algorithm 1: its `alpha_i = epsilon sigma_i^2 / sigma_L^2` is `2 delta`, and its settings for CIFAR-10
/// are 100 steps at `snr = 0.22`. The clean image at the end is Jolicoeur-Martineau et al. 2020, arXiv 2009.05475. For any schedule
/// through `x / alpha`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Langevin {
    /// The length of a step: half its noise's variance is `2 (snr sigma)^2`.
    pub snr: f64,
    /// Steps at each level.
    pub corrections: usize,
}

impl Sampler for Langevin {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.iter().map(|step| self.corrections + usize::from(step.to.sigma == 0.0)).sum())
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        needs_signal(self.name(), grid)
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let (n, c, h, w) = x.dim();
        let (mut x, mut x0) = (x.clone(), x.clone());
        let share = 2.0 * self.snr.powi(2);
        for k in 0..self.corrections {
            x0 = step.denoiser.x0_hat(&x, from)?;
            x = combine(1.0 - share, &x, share * from.alpha, &x0);
            let z = noise.normal(step.index * self.corrections + k, Purpose::Langevin, n, [c, h, w]);
            x.scaled_add((2.0 * share).sqrt() * from.sigma, &z);
        }
        if to.sigma == 0.0 {
            x0 = step.denoiser.x0_hat(&x, from)?;
            return Ok(Stepped { x: to.alpha * &x0, x0_hat: x0 });
        }
        Ok(Stepped { x: x * (to.alpha / from.alpha), x0_hat: x0 })
    }
}
