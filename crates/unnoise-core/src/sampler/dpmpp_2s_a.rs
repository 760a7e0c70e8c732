//! Ancestral sampling with DPM-Solver++(2S).

use super::euler_a::{Ancestral, add_ancestral_noise};
use super::{
    Grid, Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0,
    heun::{self, is_corrected},
};
use crate::{Batch, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "dpmpp-2s-a",
    order: "2",
    stochastic: true,
    evaluations: "2, the last 1",
    grids: "any",
    options: &["eta"],
    source: include_str!("dpmpp_2s_a.rs"),
    make: |options| Box::new(DpmPp2sA { eta: options.eta.unwrap_or(1.0) }),
};

/// DPM-Solver++(2S) ancestral: the clean image in the middle, in `log s`, of the way down to `s_down`, then noise up to the step's end,
/// `s = sigma / alpha`.
///
/// ```text
/// s_up = eta s' sqrt(1 - r^2)       s_down = sqrt(s'^2 - s_up^2)        r = s' / s
/// s_m  = sqrt(s s_down)
/// u_m  = (s_m / s) u + (1 - s_m / s) x0(u, s)                        u = x / alpha
/// u'   = (s_down / s) u + (1 - s_down / s) x0(u_m, s_m) + s_up z
/// ```
///
/// A step to `sigma' = 0`, and one from a level without signal, is that of [`EulerA`](super::EulerA).
///
/// # Reference
/// Katherine Crowson's k-diffusion, `sample_dpmpp_2s_ancestral`, after Lu et al. 2022, arXiv 2211.01095, algorithm 1 with `r_1 = 1/2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpmPp2sA {
    /// The share of ancestral noise, in `[0, 1]`.
    pub eta: f64,
}

impl Sampler for DpmPp2sA {
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
        let mut next = if is_corrected(interval) {
            let ratio = interval.ratio() * down;
            let middle = Level::at_sigma_edm(step.denoiser.schedule(), from.sigma_edm() * ratio.sqrt());
            let x_m = combine(middle.sigma / from.sigma, x, middle.alpha * (1.0 - ratio.sqrt()), &x0);
            let x0_m = step.denoiser.x0_hat(&x_m, middle)?;
            combine(to.sigma * down / from.sigma, x, to.alpha * (1.0 - ratio), &x0_m)
        } else {
            combine(to.alpha, &x0, to.sigma * down, &eps_from_x0(x, &x0, from))
        };
        add_ancestral_noise(&mut next, step, to.sigma * up, noise);
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
