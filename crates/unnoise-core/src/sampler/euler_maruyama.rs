//! The Euler-Maruyama method for the reverse SDE.

use super::sde::{Exact, path_noise};
use super::{Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Noise, Purpose, Rates, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "euler-maruyama",
    order: "1",
    stochastic: true,
    evaluations: "1",
    grids: "any",
    options: &[],
    source: include_str!("euler_maruyama.rs"),
    make: |_| Box::new(EulerMaruyama),
};

/// Euler-Maruyama: a step of the reverse SDE with the drift and the diffusion of the schedule at its start.
///
/// ```text
/// dx = (f x - g^2 score) dt + g dw        score = -eps / sigma,  t falling
/// x' = x - (t - t') (f x + g^2 eps / sigma) + g sqrt(t - t') z
/// ```
///
/// `z` is the Brownian path's increment. A step to `sigma' = 0` returns `x0`; one from where the schedule has no signal, and infinite rates, is the
/// exact one for a constant `x0`.
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, eq. 6 (the reverse SDE); its code, too, returns a last step without noise,
/// but with the step's own mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EulerMaruyama;

impl Sampler for EulerMaruyama {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        if to.sigma == 0.0 {
            return Ok(Stepped { x: to.alpha * &x0, x0_hat: x0 });
        }
        let Rates { drift, diffusion_sq } = step.denoiser.schedule().rates(from.t);
        let dt = from.t - to.t;
        let (mut next, std) = if drift.is_finite() && diffusion_sq.is_finite() {
            let eps = eps_from_x0(x, &x0, from);
            (combine(1.0 - dt * drift, x, -dt * diffusion_sq / from.sigma, &eps), (diffusion_sq * dt).max(0.0).sqrt())
        } else {
            let exact = Exact::new(interval, 1.0);
            (combine(exact.keep, x, exact.clean, &x0), exact.noise)
        };
        next.scaled_add(std, &path_noise(noise, step, Purpose::Step, interval, x));
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
