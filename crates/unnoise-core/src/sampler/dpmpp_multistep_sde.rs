//! DPM-Solver++ for the SDE, multistep.

use super::dpm_multistep::{Form, weights};
use super::multistep::{History, LowerOrder};
use super::sde::{Exact, path_noise};
use super::{Sampler, SamplerInfo, Step, Stepped, combine};
use crate::{Batch, Noise, Purpose, Result};

/// DPM-Solver++(2M) SDE.
pub(super) const DPMPP_2M_SDE: SamplerInfo = SamplerInfo {
    name: "dpmpp-2m-sde",
    order: "2",
    stochastic: true,
    evaluations: "1",
    grids: "any",
    options: &["eta", "second_order", "lower_order_final", "euler_at_final"],
    source: include_str!("dpmpp_multistep_sde.rs"),
    make: |options| {
        let eta = options.eta.unwrap_or(1.0);
        Box::new(DpmMultistepSde::new(2, eta).with(options.dpm_form, options.lower_order(true)))
    },
};

/// DPM-Solver++(3M) SDE.
pub(super) const DPMPP_3M_SDE: SamplerInfo = SamplerInfo {
    name: "dpmpp-3m-sde",
    order: "2 (3 with eta 0)",
    options: &["eta", "second_order", "third_order", "lower_order_final", "euler_at_final"],
    make: |options| {
        let eta = options.eta.unwrap_or(1.0);
        Box::new(DpmMultistepSde::new(3, eta).with(options.dpm_form, options.lower_order(true)))
    },
    ..DPMPP_2M_SDE
};

/// DPM-Solver++(2M) and (3M) SDE: the linear part and the noise of the SDE exact over a step, the clean image extrapolated in
/// `lambda = log(alpha / sigma)` from the last evaluations.
///
/// ```text
/// h = lambda' - lambda,   z = -(1 + eta) h,   r = s' / s = e^-h          s = sigma / alpha
/// x' = (sigma' / sigma) r^eta x - alpha' P(z) + sigma' sqrt(1 - r^(2 eta)) w
/// P(z) = (e^z - 1) D0 + ((e^z - 1) / z - 1) D1 + 2 ((e^z - 1 - z) / z^2 - 1/2) D2         D0, D1, D2 as in dpmpp-2m and dpmpp-3m
/// order 2, midpoint:   P(z) = (e^z - 1) (D0 + D1 / 2)
/// ```
///
/// `w` is the Brownian path's increment. The first step, one to `sigma' = 0` and one from a level without signal have `D0` alone, the second has
/// order 2. With `eta = 0` these are `dpmpp-2m` and `dpmpp-3m`; here `lambda`'s rate of noise is `eta`, not the `eta^2` of ancestral steps.
///
/// # Reference
/// Lu et al. 2022, arXiv 2211.01095 (SDE-DPM-Solver++(2M)); Katherine Crowson's k-diffusion, `sample_dpmpp_2m_sde` and
/// `sample_dpmpp_3m_sde`; diffusers' `DPMSolverMultistepScheduler` with `sde-dpmsolver++`. The 2 of `D2` is missing in k-diffusion; diffusers
/// has its term with the wrong sign besides.
#[derive(Clone, Debug)]
pub struct DpmMultistepSde {
    order: usize,
    eta: f64,
    form: Form,
    lower: LowerOrder,
    history: History,
}

impl DpmMultistepSde {
    /// The method of this order, 2 or 3, with this share of noise.
    pub fn new(order: usize, eta: f64) -> Self {
        let (form, lower, history) = (Form::default(), LowerOrder::default(), History::default());
        Self { order: order.clamp(2, 3), eta, form, lower, history }
    }

    /// The same, in this form and with lower orders at a run's end.
    pub fn with(self, form: Form, lower: LowerOrder) -> Self {
        Self { form, lower, ..self }
    }
}

impl Sampler for DpmMultistepSde {
    fn name(&self) -> &'static str {
        if self.order == 2 { DPMPP_2M_SDE.name } else { DPMPP_3M_SDE.name }
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval = step.interval();
        let x0 = step.denoiser.x0_hat(x, interval.from)?;
        self.history.push(step, self.order, interval.from, &x0);
        let exact = Exact::new(interval, self.eta);
        let h = -interval.ratio().ln();
        let mut next = match self.lower.limit_in_lambda(step, self.order).min(self.history.len()) {
            order @ 2.. if h != 0.0 => {
                let predicted = self.history.combine(&weights(&self.history, self.form, order, h, -(1.0 + self.eta) * h));
                combine(exact.keep, x, -interval.to.alpha, &predicted)
            }
            _ => combine(exact.keep, x, exact.clean, &x0),
        };
        if exact.noise > 0.0 {
            next.scaled_add(exact.noise, &path_noise(noise, step, Purpose::Step, interval, x));
        }
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
