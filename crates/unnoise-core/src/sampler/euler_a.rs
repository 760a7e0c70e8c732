//! Ancestral sampling with Euler's method.

use ndarray::Zip;

use super::sde::fresh_noise;
use super::{Sampler, SamplerInfo, Step, Stepped, eps_from_x0};
use crate::{Batch, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "euler-a",
    order: "1",
    stochastic: true,
    evaluations: "1",
    grids: "any",
    options: &["eta"],
    source: include_str!("euler_a.rs"),
    make: |options| Box::new(EulerA { eta: options.eta.unwrap_or(1.0) }),
};

/// Euler ancestral: Euler's method down below the step's end, to `s_down`, then noise up to it, `s = sigma / alpha`.
///
/// ```text
/// s_up   = eta s' sqrt(1 - r^2)       s_down = sqrt(s'^2 - s_up^2)        r = s' / s
/// x' / alpha' = x / alpha + (s_down - s) eps + s_up z
///          x' = alpha' (x0 + s_down eps + s_up z)
/// ```
///
/// It is [`Ddim`](super::Ddim) with the same `eta`, and [`Euler`](super::Euler) with `eta = 0`.
///
/// # Reference
/// Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 12 and 16, for any schedule through `x / alpha`; under this name Katherine Crowson's
/// k-diffusion, `sample_euler_ancestral` and `get_ancestral_step`, and diffusers' `EulerAncestralDiscreteScheduler`, whose `eta` is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EulerA {
    /// The share of ancestral noise, in `[0, 1]`.
    pub eta: f64,
}

/// How far an ancestral step goes down, and how much noise leads up again, both relative to the step's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ancestral {
    /// `s_down / s'`.
    pub(super) down: f64,
    /// `s_up / s'`.
    pub(super) up: f64,
}

impl Ancestral {
    pub(super) fn new(interval: Interval, eta: f64) -> Self {
        let up = eta * (1.0 - interval.ratio().powi(2)).max(0.0).sqrt();
        Self { down: (1.0 - up * up).max(0.0).sqrt(), up }
    }
}

impl Sampler for EulerA {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let Ancestral { down, up } = Ancestral::new(interval, self.eta);
        let x0 = step.denoiser.x0_hat(x, from)?;
        let eps = eps_from_x0(x, &x0, from);
        let mut next = Zip::from(&x0).and(&eps).map_collect(|x0, eps| to.alpha * x0 + to.sigma * down * eps);
        add_ancestral_noise(&mut next, step, to.sigma * up, noise);
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

/// Adds the step's noise of standard deviation `std`.
pub(super) fn add_ancestral_noise(x: &mut Batch, step: &Step<'_>, std: f64, noise: &mut dyn Noise) {
    if std > 0.0 {
        let z = fresh_noise(noise, step, x);
        x.scaled_add(std, &z);
    }
}
