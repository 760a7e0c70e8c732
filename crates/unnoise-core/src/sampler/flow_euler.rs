//! Euler's method in the schedule's own time.

use super::{Sampler, SamplerInfo, Step, Stepped, combine, predict};
use crate::{Batch, Denoiser, Derivatives, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "flow-euler",
    order: "1",
    stochastic: false,
    evaluations: "1",
    grids: "any, with levels of the denoiser's schedule",
    options: &[],
    source: include_str!("flow_euler.rs"),
    make: |_| Box::new(FlowEuler),
};

/// Flow Euler: `x` integrated in the time of the denoiser's schedule, along the velocity of its flow.
///
/// ```text
/// dx / dt = velocity = (d alpha / dt) x0 + (d sigma / dt) eps
/// x' = x + (t' - t) velocity(x, t)
/// ```
///
/// On the straight path `alpha = 1 - t`, `sigma = t` it is DDIM with `eta = 0`; on a curved one it follows the path's tangent, where DDIM
/// follows the path. Nothing is infinite at a level without signal; where a schedule's derivatives are, at an end of some, the step's secant
/// takes the tangent's place. A step to `sigma' = 0` is DDIM's, which leaves no noise on any path.
///
/// # Reference
/// Lipman et al. 2023, arXiv 2210.02747, eq. 1 and sec. 4, time running from the image to the noise; diffusers'
/// `FlowMatchEulerDiscreteScheduler`, whose `sigma` is our `t`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowEuler;

impl Sampler for FlowEuler {
    fn name(&self) -> &'static str {
        "flow-euler"
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let (x0, eps) = predict(step.denoiser, x, from)?;
        let next = match to.sigma {
            0.0 => to.alpha * &x0,
            _ => x + flow(step.denoiser, step.interval(), from, &x0, &eps),
        };
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

/// `(t' - t) velocity` at `level`, one of the interval's ends.
pub(super) fn flow(denoiser: &dyn Denoiser, Interval { from, to }: Interval, level: Level, x0: &Batch, eps: &Batch) -> Batch {
    let dt = to.t - from.t;
    let Derivatives { d_alpha, d_sigma } = denoiser.schedule().derivatives(level.t);
    let (along_alpha, along_sigma) = (dt * d_alpha, dt * d_sigma);
    match along_alpha.is_finite() && along_sigma.is_finite() {
        true => combine(along_alpha, x0, along_sigma, eps),
        false => combine(to.alpha - from.alpha, x0, to.sigma - from.sigma, eps),
    }
}
