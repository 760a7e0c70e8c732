//! DPM-Solver++(2M).

use super::{Sampler, SamplerInfo, Step, Stepped, combine};
use crate::{Batch, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "dpmpp-2m",
    order: "2",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    source: include_str!("dpmpp_2m.rs"),
    make: |_| Box::new(DpmPp2m::default()),
};

/// DPM-Solver++(2M): the clean image extrapolated from this step's and the last step's estimates, linearly in
/// `lambda = log(alpha / sigma)`.
///
/// ```text
/// h = lambda' - lambda,  h_0 = lambda - lambda_previous
/// D  = x0 + h / (2 h_0) (x0 - x0_previous)
/// x' = (sigma' / sigma) x + alpha' (1 - r) D        r = e^-h
/// ```
///
/// The first step, and one to `sigma' = 0`, take `D = x0`.
///
/// # Reference
/// Lu et al. 2022, arXiv 2211.01095, algorithm 2. Like diffusers it takes the last step to `sigma' = 0` at first order; an
/// infinite `h_0`, after a start without signal, gives first order as its limit.
#[derive(Clone, Debug, Default)]
pub struct DpmPp2m {
    previous: Option<(Level, Batch)>,
}

impl Sampler for DpmPp2m {
    fn name(&self) -> &'static str {
        "dpmpp-2m"
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let ratio = interval.ratio();
        let previous = self.previous.take().filter(|_| step.index > 0 && ratio > 0.0);
        let extrapolated = previous.and_then(|(before, x0_before)| {
            // 1 / h_0 = 0 after a start without signal; a step of no length has nothing to extrapolate from.
            let h_0 = (before.sigma_edm() / from.sigma_edm()).ln();
            let weight = -ratio.ln() / (2.0 * h_0);
            (h_0 != 0.0).then(|| combine(1.0 + weight, &x0, -weight, &x0_before))
        });
        let next = combine(to.sigma / from.sigma, x, to.alpha * (1.0 - ratio), extrapolated.as_ref().unwrap_or(&x0));
        self.previous = Some((from, x0.clone()));
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
