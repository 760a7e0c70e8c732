//! DPM-Solver, singlestep.

use super::{Grid, Sampler, SamplerInfo, Step, Stepped, along, combine, heun::is_corrected, predict};
use crate::{Batch, Denoiser, Interval, Level, Noise, Result};

/// DPM-Solver-1.
pub(super) const FIRST: SamplerInfo = SamplerInfo {
    name: "dpm-solver-1",
    order: "1",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &[],
    source: include_str!("dpm_solver.rs"),
    make: |_| Box::new(DpmSolver::First),
};

/// DPM-Solver-2.
pub(super) const SECOND: SamplerInfo =
    SamplerInfo { name: "dpm-solver-2", order: "2", evaluations: "2, the last 1", make: |_| Box::new(DpmSolver::Second), ..FIRST };

/// DPM-Solver-3.
pub(super) const THIRD: SamplerInfo =
    SamplerInfo { name: "dpm-solver-3", order: "3", evaluations: "3, the last 1", make: |_| Box::new(DpmSolver::Third), ..FIRST };

/// DPM-Solver of order 1, 2 or 3: the linear part of the ODE solved exactly, the noise expanded in `lambda = log(alpha / sigma)` with
/// evaluations between the step's ends.
///
/// ```text
/// h = lambda' - lambda      e_k: eps at lambda + r_k h      phi(h) = (e^h - 1) / h - 1
/// order 1:  x'  = (alpha' / alpha) x - sigma' (e^h - 1) eps
/// order 2:  x_1 = that step to r_1 = 1/2
///           x'  = (alpha' / alpha) x - sigma' (e^h - 1) e_1
/// order 3:  x_1 = that step to r_1 = 1/3
///           x_2 = that step to r_2 = 2/3, less (r_2 / r_1) sigma_2 phi(r_2 h) (e_1 - eps)
///           x'  = (alpha' / alpha) x - sigma' (e^h - 1) eps - (1 / r_2) sigma' phi(h) (e_2 - eps)
/// ```
///
/// Order 1 is DDIM with `eta = 0`, and order 2 is [`Kdpm2`](super::Kdpm2). A step to `sigma' = 0`, and one from a level without signal,
/// where `lambda` is infinite, has order 1.
///
/// # Reference
/// Lu et al. 2022, arXiv 2206.00927, eq. 3.7 and algorithms 1 and 2. The intermediate levels are those of the denoiser's schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpmSolver {
    /// DPM-Solver-1.
    First,
    /// DPM-Solver-2.
    Second,
    /// DPM-Solver-3.
    Third,
}

impl DpmSolver {
    /// Its order in this step, which is the number of its evaluations.
    fn order(self, interval: Interval) -> usize {
        match self {
            _ if !is_corrected(interval) => 1,
            Self::First => 1,
            Self::Second => 2,
            Self::Third => 3,
        }
    }
}

impl Sampler for DpmSolver {
    fn name(&self) -> &'static str {
        match self {
            Self::First => FIRST.name,
            Self::Second => SECOND.name,
            Self::Third => THIRD.name,
        }
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.iter().map(|step| self.order(*step)).sum())
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let (x0, eps) = predict(step.denoiser, x, from)?;
        let next = match self.order(interval) {
            1 => combine(to.alpha, &x0, to.sigma, &eps),
            2 => second(step.denoiser, interval, x, &eps)?,
            _ => third(step.denoiser, interval, x, &eps)?.0,
        };
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

/// A step of order 2, with its evaluation at `r = 1/2`.
pub(super) fn second(denoiser: &dyn Denoiser, interval: Interval, x: &Batch, eps: &Batch) -> Result<Batch> {
    let r = 0.5;
    let inner = Interval { from: interval.from, to: level_within(denoiser, interval, r) };
    let (_, eps_1) = predict(denoiser, &along(inner, x, eps), inner.to)?;
    Ok(second_from(interval, x, eps, &eps_1, r))
}

/// A step of order 2 from its evaluation `eps_1` at `r`.
///
/// ```text
/// x' = (alpha' / alpha) x - sigma' (e^h - 1) (eps + (eps_1 - eps) / (2 r))
/// ```
pub(super) fn second_from(interval: Interval, x: &Batch, eps: &Batch, eps_1: &Batch, r: f64) -> Batch {
    along(interval, x, &combine(1.0 - 0.5 / r, eps, 0.5 / r, eps_1))
}

/// A step of order 3, and its evaluation at `r_1 = 1/3`.
pub(super) fn third(
    denoiser: &dyn Denoiser,
    interval @ Interval { from, to }: Interval,
    x: &Batch,
    eps: &Batch,
) -> Result<(Batch, Batch)> {
    let (r_1, r_2) = (1.0 / 3.0, 2.0 / 3.0);
    let h = -interval.ratio().ln();
    let step_to = |r: f64| Interval { from, to: level_within(denoiser, interval, r) };
    let (to_1, to_2) = (step_to(r_1), step_to(r_2));

    let (_, eps_1) = predict(denoiser, &along(to_1, x, eps), to_1.to)?;
    let mut x_2 = along(to_2, x, eps);
    x_2.scaled_add(-(r_2 / r_1) * to_2.to.sigma * phi(r_2 * h), &(&eps_1 - eps));
    let (_, eps_2) = predict(denoiser, &x_2, to_2.to)?;
    let mut next = along(interval, x, eps);
    next.scaled_add(-to.sigma / r_2 * phi(h), &(eps_2 - eps));
    Ok((next, eps_1))
}

/// The level of the denoiser's schedule at the fraction `r` of the step in `lambda`.
fn level_within(denoiser: &dyn Denoiser, interval: Interval, r: f64) -> Level {
    Level::at_sigma_edm(denoiser.schedule(), interval.from.sigma_edm() * interval.ratio().powf(r))
}

/// `(e^h - 1) / h - 1`.
pub(super) fn phi(h: f64) -> f64 {
    if h.abs() < 1e-5 { h / 2.0 + h * h / 6.0 } else { h.exp_m1() / h - 1.0 }
}
