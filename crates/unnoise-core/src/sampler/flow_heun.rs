//! Heun's method in the schedule's own time.

use super::{FlowEuler, Grid, Sampler, SamplerInfo, Step, Stepped, flow_euler::flow, predict};
use crate::{Batch, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "flow-heun",
    order: "2",
    stochastic: false,
    evaluations: "2, the last 1",
    grids: "any, with levels of the denoiser's schedule",
    options: &[],
    source: include_str!("flow_heun.rs"),
    make: |_| Box::new(FlowHeun),
};

/// Flow Heun: the mean of the velocities at both ends of an Euler step in the time of the denoiser's schedule.
///
/// ```text
/// p  = x + (t' - t) velocity(x, t)                                        velocity = (d alpha / dt) x0 + (d sigma / dt) eps
/// x' = x + (t' - t) (velocity(x, t) + velocity(p, t')) / 2
/// ```
///
/// It has order 2 from a level without signal on, where [`Heun`](super::Heun) takes a step of order 1. A step to `sigma' = 0` is that of
/// [`FlowEuler`].
///
/// # Reference
/// Lipman et al. 2023, arXiv 2210.02747, eq. 1; diffusers' `FlowMatchHeunDiscreteScheduler`, whose `sigma` is our `t`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowHeun;

impl Sampler for FlowHeun {
    fn name(&self) -> &'static str {
        "flow-heun"
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.iter().map(|step| if step.to.sigma > 0.0 { 2 } else { 1 }).sum())
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        if to.sigma == 0.0 {
            return FlowEuler.step(step, x, noise);
        }
        let (denoiser, interval) = (step.denoiser, step.interval());
        let (x0, eps) = predict(denoiser, x, from)?;
        let here = flow(denoiser, interval, from, &x0, &eps);
        let end = x + &here;
        let (x0_there, eps_there) = predict(denoiser, &end, to)?;
        let there = flow(denoiser, interval, to, &x0_there, &eps_there);
        Ok(Stepped { x: end + 0.5 * (there - here), x0_hat: x0 })
    }
}
