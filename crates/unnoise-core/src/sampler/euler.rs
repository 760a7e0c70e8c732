//! Euler's method for the probability-flow ODE.

use super::{Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "euler",
    order: "1",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &[],
    source: include_str!("euler.rs"),
    make: |_| Box::new(Euler),
};

/// Euler: `x / alpha` integrated in `sigma / alpha`, along which the ODE's right-hand side is `eps`.
///
/// ```text
/// x' / alpha' = x / alpha + (sigma' / alpha' - sigma / alpha) eps
///          x' = alpha' x0 + sigma' eps
/// ```
///
/// The second form is the first one without its division by `alpha`; it is DDIM with `eta = 0`.
///
/// # Reference
/// Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 13 and 14; Karras et al. 2022, arXiv 2206.00364, eq. 4 with `s = alpha`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Euler;

impl Sampler for Euler {
    fn name(&self) -> &'static str {
        "euler"
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let eps = eps_from_x0(x, &x0, from);
        Ok(Stepped { x: combine(to.alpha, &x0, to.sigma, &eps), x0_hat: x0 })
    }
}
