//! DPM-Solver++ for the SDE, with an evaluation in the middle of a step.

use super::euler_a::Ancestral;
use super::sde::{combined_noise, path_noise};
use super::{
    Grid, Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0,
    heun::{self, is_corrected},
};
use crate::{Batch, Interval, Level, Noise, Purpose, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "dpmpp-sde",
    order: "2",
    stochastic: true,
    evaluations: "2, the last 1",
    grids: "any",
    options: &["eta"],
    source: include_str!("dpmpp_sde.rs"),
    make: |options| Box::new(DpmPpSde { eta: options.eta.unwrap_or(1.0) }),
};

/// DPM-Solver++ (SDE): an ancestral step to the middle in `log s`, `s = sigma / alpha`, and one from the start to the end with the clean image
/// found there.
///
/// ```text
/// up(r) = eta sqrt(1 - r^2)        down(r) = sqrt(1 - up(r)^2)
/// s_m = sqrt(s s'),   q = s_m / s = s' / s_m,   r = s' / s = q^2
/// u_m = q down(q) u + (1 - q down(q)) x0(u, s)     + s_m up(q) z_1                    u = x / alpha
/// u'  = r down(r) u + (1 - r down(r)) x0(u_m, s_m) + s'  up(r) z
/// z   = (q z_1 + z_2) / sqrt(1 + q^2)
/// ```
///
/// `z_1` and `z_2` are the Brownian path's two halves. A step to `sigma' = 0`, and one from a level without signal, is of first order.
///
/// # Reference
/// Katherine Crowson's k-diffusion, `sample_dpmpp_sde` with `r = 1/2`, after Lu et al. 2022, arXiv 2211.01095. Its `z` is the path's
/// increment in the time `s`, ours the SDE's own stochastic integral for `eta = 1`; they differ by `O(h)` of their correlation with `z_1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpmPpSde {
    /// The share of ancestral noise, in `[0, 1]`.
    pub eta: f64,
}

impl Sampler for DpmPpSde {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(heun::evaluations_of(grid, 2))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        // From `from` to `end` with a clean image, without its noise.
        let down_to = |end: Level, clean: &Batch| {
            let whole = Interval { from, to: end };
            let down = Ancestral::new(whole, self.eta).down;
            combine(end.sigma / from.sigma * down, x, end.alpha * (1.0 - whole.ratio() * down), clean)
        };
        let noise_at = |end: Level| end.sigma * Ancestral::new(Interval { from, to: end }, self.eta).up;
        let (mut next, z) = if is_corrected(interval) {
            let middle = Level::at_sigma_edm(step.denoiser.schedule(), (from.sigma_edm() * to.sigma_edm()).sqrt());
            let halves = [Interval { from, to: middle }, Interval { from: middle, to }];
            let z_1 = path_noise(noise, step, Purpose::Step, halves[0], x);
            let mut x_m = down_to(middle, &x0);
            x_m.scaled_add(noise_at(middle), &z_1);
            let x0_m = step.denoiser.x0_hat(&x_m, middle)?;
            let z_2 = path_noise(noise, step, Purpose::SecondHalf, halves[1], x);
            (down_to(to, &x0_m), combined_noise(halves[1].ratio(), &z_1, &z_2))
        } else {
            let eps = eps_from_x0(x, &x0, from);
            let down = Ancestral::new(interval, self.eta).down;
            (combine(to.alpha, &x0, to.sigma * down, &eps), path_noise(noise, step, Purpose::Step, interval, x))
        };
        next.scaled_add(noise_at(to), &z);
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
