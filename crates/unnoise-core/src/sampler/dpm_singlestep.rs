//! DPM-Solver++, singlestep, with its intermediate levels on the grid.

use ndarray::Zip;

use super::{Sampler, SamplerInfo, Step, Stepped, dpm_solver::phi};
use crate::{Batch, Interval, Level, Noise, Result};

/// DPM-Solver++(2S).
pub(super) const SECOND: SamplerInfo = SamplerInfo {
    name: "dpmpp-2s",
    order: "2",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &["lower_order_final"],
    source: include_str!("dpm_singlestep.rs"),
    make: |options| Box::new(DpmSinglestep::new(2, options.lower_order_final.unwrap_or(false))),
};

/// DPM-Solver++(3S).
pub(super) const THIRD: SamplerInfo = SamplerInfo {
    name: "dpmpp-3s",
    order: "3 (2 with a last step of order 1)",
    make: |options| Box::new(DpmSinglestep::new(3, options.lower_order_final.unwrap_or(false))),
    ..SECOND
};

/// Singlestep DPM-Solver++: the grid in blocks of 2 or 3 steps, whose last step alone has the full order. Every step of a block starts anew
/// from the block's first state `x_b`, with the block's estimates `m_0, m_1, m_2` of the clean image.
///
/// ```text
/// h = lambda' - lambda_b      r = (lambda - lambda_b) / h      lambda = log(alpha / sigma)
/// step 1 of a block:  D = 0
/// step 2:             D = (1 - e^-h) / 2  (m_1 - m_0) / r
/// step 3:             D = (1 + (e^-h - 1) / h)  (m_2 - m_0) / r
/// x' = (sigma' / sigma_b) x_b + alpha' (1 - e^-h) m_0 + alpha' D
/// ```
///
/// One evaluation a step. A block's end is of order 2 or 3, given `r = 2/3` in step 3, which steps of equal length in `lambda` have and
/// steps on a smooth grid nearly. Blocks keep their place in the grid: a run that starts within one shortens it. A step to `sigma' = 0`
/// begins a block of its own, and so does the one after a step from a level without signal; with `lower_order_final` the last step of a
/// whole last block does, too.
///
/// # Reference
/// Lu et al. 2022, arXiv 2211.01095, algorithm 1 (`r = 1/2` there), and arXiv 2206.00927, algorithm 2, for `x0` in place of `eps`;
/// diffusers' `DPMSolverSinglestepScheduler`, solver type midpoint, for the levels on the grid and the ends of blocks.
#[derive(Clone, Debug)]
pub struct DpmSinglestep {
    order: usize,
    lower_order_final: bool,
    /// The block's first state.
    start: Batch,
    /// The block's levels and estimates.
    estimates: Vec<(Level, Batch)>,
}

impl DpmSinglestep {
    /// Blocks of `order` steps, 1 to 3; whether a last step that would end a block is of order 1 instead.
    pub fn new(order: usize, lower_order_final: bool) -> Self {
        Self { order: order.clamp(1, 3), lower_order_final, start: Batch::default((0, 0, 0, 0)), estimates: Vec::new() }
    }

    /// Whether a block begins with this step.
    fn begins(&self, step: &Step<'_>) -> bool {
        let steps = step.grid.steps.len();
        let is_last = step.index + 1 == steps;
        let without_signal = self.estimates.first().is_none_or(|(level, _)| level.alpha <= 0.0);
        let ends_low = self.lower_order_final && is_last && steps.is_multiple_of(self.order);
        step.index.is_multiple_of(self.order) || without_signal || ends_low || step.interval().to.sigma == 0.0
    }
}

impl Sampler for DpmSinglestep {
    fn name(&self) -> &'static str {
        if self.order < 3 { SECOND.name } else { THIRD.name }
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        if self.begins(step) {
            self.start = x.clone();
            self.estimates.clear();
        }
        self.estimates.push((from, x0.clone()));

        let (first, m_0) = &self.estimates[0];
        let block = Interval { from: *first, to };
        let h = -block.ratio().ln();
        let r = (first.sigma_edm() / from.sigma_edm()).ln() / h;
        let of_difference = match self.estimates.len() {
            _ if r == 0.0 || !r.is_finite() => 0.0,
            1 => 0.0,
            2 => 0.5 * (1.0 - block.ratio()) / r,
            _ => -phi(-h) / r,
        };
        // Both sums of coefficients are those of an estimate that does not change.
        let (of_state, of_x0) = (to.sigma / first.sigma, to.alpha * (1.0 - block.ratio()));
        let next = Zip::from(&self.start)
            .and(m_0)
            .and(&x0)
            .map_collect(|x, m_0, m| of_state * x + of_x0 * m_0 + to.alpha * of_difference * (m - m_0));
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
