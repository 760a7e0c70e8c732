//! Heun's method for the probability-flow ODE.

use super::{Grid, Sampler, SamplerInfo, Step, Stepped, clipped, combine, eps_from_x0};
use crate::{Batch, Denoiser, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "heun",
    order: "2",
    stochastic: false,
    evaluations: "2, the last 1",
    grids: "any",
    options: &["clip"],
    source: include_str!("heun.rs"),
    make: |options| Box::new(Heun { clip: options.clip }),
};

/// Heun: an Euler step, corrected by the mean of the slopes at both ends, with `x / alpha` integrated in `sigma / alpha`.
///
/// ```text
/// p  = alpha' x0 + sigma' eps                                   Euler's step
/// x' = p + (sigma' - alpha' sigma / alpha) (eps(p) - eps) / 2
/// ```
///
/// A step to `sigma' = 0`, and one from a level without signal, where `sigma / alpha` is infinite, is Euler's.
///
/// # Reference
/// Karras et al. 2022, arXiv 2206.00364, algorithm 1, for `s = alpha`. As in diffusers, a clipped `x0` changes `eps`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Heun {
    /// The largest absolute value of the clean image.
    pub clip: Option<f64>,
}

impl Sampler for Heun {
    fn name(&self) -> &'static str {
        "heun"
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(evaluations_of(grid, 2))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        heun_step(step.denoiser, step.interval(), x, self.clip)
    }
}

/// Whether Heun's correction is made in this step.
pub(super) fn is_corrected(Interval { from, to }: Interval) -> bool {
    to.sigma > 0.0 && from.alpha > 0.0
}

/// The evaluations of a run whose steps take `each`, but one where Heun's correction is not made.
pub(super) fn evaluations_of(grid: &Grid, each: usize) -> usize {
    grid.steps.iter().map(|step| if is_corrected(*step) { each } else { 1 }).sum()
}

/// One step of Heun's method.
pub(super) fn heun_step(denoiser: &dyn Denoiser, interval: Interval, x: &Batch, clip: Option<f64>) -> Result<Stepped> {
    let Interval { from, to } = interval;
    let x0 = clipped(denoiser.x0_hat(x, from)?, clip);
    let eps = eps_from_x0(x, &x0, from);
    let mut next = combine(to.alpha, &x0, to.sigma, &eps);
    if is_corrected(interval) {
        let x0_there = clipped(denoiser.x0_hat(&next, to)?, clip);
        let change = eps_from_x0(&next, &x0_there, to) - eps;
        next.scaled_add(0.5 * (to.sigma - to.alpha * from.sigma_edm()), &change);
    }
    Ok(Stepped { x: next, x0_hat: x0 })
}
