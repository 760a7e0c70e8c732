//! The midpoint method for the probability-flow ODE.

use super::{
    Grid, Sampler, SamplerInfo, Step, Stepped, along, combine,
    heun::{self, is_corrected},
    predict,
};
use crate::{Batch, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "midpoint",
    order: "2",
    stochastic: false,
    evaluations: "2, the last 1",
    grids: "any",
    options: &[],
    source: include_str!("midpoint.rs"),
    make: |_| Box::new(Midpoint),
};

/// The midpoint method: an Euler step to the middle of the step, whose slope then leads from its start to its end, with `u = x / alpha`
/// integrated in `s = sigma / alpha`.
///
/// ```text
/// s_m = (s + s') / 2
/// u_m = u + (s_m - s) eps(u, s)              Euler's step to the middle
/// u'  = u + (s'  - s) eps(u_m, s_m)
/// ```
///
/// The coordinate is `s`, since `du / ds = eps` is bounded and smooth from pure noise to the image: a trajectory of a Gaussian prior is
/// `sqrt(variance + s^2)`, a straight line in `s` at either end, whereas in `log s` or `t` the noise itself bends it. As `s` is smooth
/// in `log s`, grids that are smooth in either keep the order.
///
/// A step to `sigma' = 0`, and one from a level without signal, where `s` is infinite, is Euler's.
///
/// # Reference
/// Hairer, Norsett, Wanner 1993, "Solving ordinary differential equations I", table II.1.1, for the ODE of Song, Meng, Ermon 2021,
/// arXiv 2010.02502, eq. 14.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Midpoint;

impl Sampler for Midpoint {
    fn name(&self) -> &'static str {
        "midpoint"
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(heun::evaluations_of(grid, 2))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        midpoint_step(step, x, 0.5 * (from.sigma_edm() + to.sigma_edm()))
    }
}

/// One step with the slope that is met at `sigma_edm`.
pub(super) fn midpoint_step(step: &Step<'_>, x: &Batch, sigma_edm: f64) -> Result<Stepped> {
    let (denoiser, interval @ Interval { from, to }) = (step.denoiser, step.interval());
    let (x0, eps) = predict(denoiser, x, from)?;
    if !is_corrected(interval) {
        return Ok(Stepped { x: combine(to.alpha, &x0, to.sigma, &eps), x0_hat: x0 });
    }
    let middle = Level::at_sigma_edm(denoiser.schedule(), sigma_edm);
    let there = along(Interval { from, to: middle }, x, &eps);
    let (_, eps_there) = predict(denoiser, &there, middle)?;
    Ok(Stepped { x: along(interval, x, &eps_there), x0_hat: x0 })
}
