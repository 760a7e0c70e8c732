//! The stochastic sampler of EDM.

use super::heun::{self, heun_step};
use super::{Grid, Sampler, SamplerInfo, Step, Stepped, combine};
use crate::{Batch, Interval, Level, Noise, Purpose, Result, Schedule};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "edm",
    order: "2",
    stochastic: true,
    evaluations: "2, the last 1",
    grids: "any",
    options: &["churn", "churn_min", "churn_max", "churn_inflation"],
    source: include_str!("edm.rs"),
    make: |options| Box::new(Edm { churn: options.churn }),
};

/// How much noise [`Edm`] adds before each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// `S_churn`: noise added over the whole run, spread over its steps; 0 is deterministic.
    pub amount: f64,
    /// `S_tmin`: noise is added only above this `sigma / alpha`,
    pub sigma_min: f64,
    /// `S_tmax`: and only below this one.
    pub sigma_max: f64,
    /// `S_noise`: the standard deviation of what is added, relative to what is announced.
    pub inflation: f64,
}

impl Default for Churn {
    /// Noise 40, between 0.05 and 50, inflated by 1.003: what the authors run ImageNet-64 with.
    fn default() -> Self {
        Self { amount: 40.0, sigma_min: 0.05, sigma_max: 50.0, inflation: 1.003 }
    }
}

/// EDM: noise is added to each step's start, then Heun's method leads from there to the step's end.
///
/// ```text
/// gamma     = min(S_churn / N, sqrt(2) - 1)   if S_tmin <= s <= S_tmax, else 0       s = sigma / alpha
/// s_hat     = (1 + gamma) s
/// x_hat / alpha_hat = x / alpha + sqrt(s_hat^2 - s^2) S_noise z
/// ```
///
/// The level of `s_hat` is the denoiser's schedule's; where that ends below, less noise is added. Without churn this is
/// [`Heun`](super::Heun).
///
/// # Reference
/// Karras et al. 2022, arXiv 2206.00364, algorithm 2, for any schedule through `x / alpha`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Edm {
    /// The noise that is added.
    pub churn: Churn,
}

impl Edm {
    /// The level to which noise is added from `from`, if any is.
    fn churned(&self, schedule: &dyn Schedule, from: Level, steps: usize) -> Option<Level> {
        let Churn { amount, sigma_min, sigma_max, .. } = self.churn;
        let gamma = (amount / steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
        if from.alpha <= 0.0 || gamma <= 0.0 || !(sigma_min..=sigma_max).contains(&from.sigma_edm()) {
            return None;
        }
        let level = Level::at(schedule, schedule.t_from_sigma_edm((1.0 + gamma) * from.sigma_edm()));
        (level.alpha > 0.0 && level.sigma_edm() > from.sigma_edm()).then_some(level)
    }
}

impl Sampler for Edm {
    fn name(&self) -> &'static str {
        "edm"
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(heun::evaluations_of(grid, 2))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let Some(hat) = self.churned(step.denoiser.schedule(), from, step.grid.steps.len()) else {
            return heun_step(step.denoiser, step.interval(), x, None);
        };
        let (n, c, h, w) = x.dim();
        let z = noise.normal(step.index, Purpose::Churn, n, [c, h, w]);
        let added = (hat.sigma_edm().powi(2) - from.sigma_edm().powi(2)).sqrt() * self.churn.inflation;
        let x_hat = combine(hat.alpha / from.alpha, x, hat.alpha * added, &z);
        heun_step(step.denoiser, Interval { from: hat, to }, &x_hat, None)
    }
}
