//! The classical Runge-Kutta method for the probability-flow ODE.

use super::{
    Grid, Sampler, SamplerInfo, Step, Stepped, along, combine,
    heun::{self, is_corrected},
    predict,
};
use crate::{Batch, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "rk4",
    order: "4",
    stochastic: false,
    evaluations: "4, the last 1",
    grids: "any",
    options: &[],
    source: include_str!("rk4.rs"),
    make: |_| Box::new(Rk4),
};

/// RK4, the classical method of Runge and Kutta, with `u = x / alpha` integrated in `s = sigma / alpha`.
///
/// ```text
/// h = s' - s      s_m = (s + s') / 2
/// k1 = eps(u, s)                   k2 = eps(u + h k1 / 2, s_m)
/// k3 = eps(u + h k2 / 2, s_m)      k4 = eps(u + h k3, s')
/// u' = u + h (k1 + 2 k2 + 2 k3 + k4) / 6
/// ```
///
/// The coordinate is that of [`Midpoint`](super::Midpoint), for its reasons. A step to `sigma' = 0`, and one from a level without
/// signal, is Euler's.
///
/// # Reference
/// Hairer, Norsett, Wanner 1993, "Solving ordinary differential equations I", table II.1.2, for the ODE of Song, Meng, Ermon 2021,
/// arXiv 2010.02502, eq. 14.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rk4;

impl Sampler for Rk4 {
    fn name(&self) -> &'static str {
        "rk4"
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(heun::evaluations_of(grid, 4))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let (denoiser, interval @ Interval { from, to }) = (step.denoiser, step.interval());
        let (x0, k1) = predict(denoiser, x, from)?;
        if !is_corrected(interval) {
            return Ok(Stepped { x: combine(to.alpha, &x0, to.sigma, &k1), x0_hat: x0 });
        }
        let middle = Level::at_sigma_edm(denoiser.schedule(), 0.5 * (from.sigma_edm() + to.sigma_edm()));
        let slope = |level: Level, k: &Batch| Ok(predict(denoiser, &along(Interval { from, to: level }, x, k), level)?.1);
        let k2 = slope(middle, &k1)?;
        let k3 = slope(middle, &k2)?;
        let k4 = slope(to, &k3)?;
        Ok(Stepped { x: along(interval, x, &((k1 + 2.0 * (k2 + k3) + k4) / 6.0)), x0_hat: x0 })
    }
}
