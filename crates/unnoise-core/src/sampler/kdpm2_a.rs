//! Ancestral sampling with KDPM2's step.

use super::euler_a::{Ancestral, add_ancestral_noise};
use super::{
    Grid, Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0,
    heun::{self, is_corrected},
};
use crate::{Batch, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "kdpm2-a",
    order: "2",
    stochastic: true,
    evaluations: "2, the last 1",
    grids: "any",
    options: &["eta"],
    source: include_str!("kdpm2_a.rs"),
    make: |options| Box::new(Kdpm2A { eta: options.eta.unwrap_or(1.0) }),
};

/// KDPM2 ancestral: the slope in the middle, in `log s`, of the way down to `s_down`, then noise up to the step's end, `s = sigma / alpha`.
///
/// ```text
/// s_up = eta s' sqrt(1 - r^2)       s_down = sqrt(s'^2 - s_up^2)        r = s' / s
/// s_m  = sqrt(s s_down)
/// u_m  = u + (s_m - s) eps(u, s)                                     u = x / alpha
/// u'   = u + (s_down - s) eps(u_m, s_m) + s_up z
/// ```
///
/// A step to `sigma' = 0`, and one from a level without signal, is that of [`EulerA`](super::EulerA).
///
/// # Reference
/// Katherine Crowson's k-diffusion, `sample_dpm_2_ancestral`, after Karras et al. 2022, arXiv 2206.00364; diffusers'
/// `KDPM2AncestralDiscreteScheduler`, whose `eta` is 1. The network is asked at the fractional timestep of `s_m`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kdpm2A {
    /// The share of ancestral noise, in `[0, 1]`.
    pub eta: f64,
}

impl Sampler for Kdpm2A {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(heun::evaluations_of(grid, 2))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let Ancestral { down, up } = Ancestral::new(interval, self.eta);
        let x0 = step.denoiser.x0_hat(x, from)?;
        let eps = eps_from_x0(x, &x0, from);
        let mut next = if is_corrected(interval) {
            let (s, s_down) = (from.sigma_edm(), to.sigma_edm() * down);
            let middle = Level::at_sigma_edm(step.denoiser.schedule(), (s * s_down).sqrt());
            let x_m = combine(middle.alpha, &x0, middle.sigma, &eps);
            let eps_m = eps_from_x0(&x_m, &step.denoiser.x0_hat(&x_m, middle)?, middle);
            combine(to.alpha / from.alpha, x, to.alpha * (s_down - s), &eps_m)
        } else {
            combine(to.alpha, &x0, to.sigma * down, &eps)
        };
        add_ancestral_noise(&mut next, step, to.sigma * up, noise);
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
