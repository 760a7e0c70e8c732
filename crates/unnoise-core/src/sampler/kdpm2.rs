//! The second-order sampler of k-diffusion and diffusers that is called DPM2.

use super::{Grid, Sampler, SamplerInfo, Step, Stepped, heun, midpoint::midpoint_step};
use crate::{Batch, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "kdpm2",
    order: "2",
    stochastic: false,
    evaluations: "2, the last 1",
    grids: "any",
    options: &[],
    source: include_str!("kdpm2.rs"),
    make: |_| Box::new(Kdpm2),
};

/// KDPM2: the slope in the middle of the step in `log s`, `s = sigma / alpha`, leads `u = x / alpha` from its start to its end.
///
/// ```text
/// s_m = sqrt(s s')
/// u_m = u + (s_m - s) eps(u, s)              Euler's step to the middle
/// u'  = u + (s'  - s) eps(u_m, s_m)
/// ```
///
/// It is [`Midpoint`](super::Midpoint) with another middle, and DPM-Solver-2: [`DpmSolver`](super::DpmSolver) of order 2. A step to
/// `sigma' = 0`, and one from a level without signal, is Euler's.
///
/// # Reference
/// Katherine Crowson's k-diffusion, `sample_dpm_2`, after Lu et al. 2022, arXiv 2206.00927, algorithm 1; diffusers'
/// `KDPM2DiscreteScheduler`. As there the network is asked at the fractional timestep of `s_m`, here by the denoiser's own schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kdpm2;

impl Sampler for Kdpm2 {
    fn name(&self) -> &'static str {
        "kdpm2"
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(heun::evaluations_of(grid, 2))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        midpoint_step(step, x, (from.sigma_edm() * to.sigma_edm()).sqrt())
    }
}
