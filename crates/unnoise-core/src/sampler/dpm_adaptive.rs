//! DPM-Solver with steps of adaptive length.

use super::adaptive::{Adaptive, Attempt, Pair};
use super::{Grid, Sampler, SamplerInfo, Step, Stepped, along, dpm_solver};
use crate::{Batch, Denoiser, Error, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "dpm-adaptive",
    order: "error in proportion to the tolerance",
    stochastic: false,
    evaluations: "adaptive; the last 1",
    grids: "any",
    options: &["order", "tolerance"],
    source: include_str!("dpm_adaptive.rs"),
    make: |options| Box::new(DpmAdaptive::new(options.order.unwrap_or(3), options.tolerance)),
};

/// Adaptive DPM-Solver: each interval of the grid in steps as long as their error allows, for each sample by itself. The error is the
/// step's difference from the same one at an order less.
///
/// ```text
/// h = lambda' - lambda                            lambda = log(alpha / sigma)
/// order 2:  e = DPM-Solver-2 - DPM-Solver-1       its evaluation at lambda + h / 2
/// order 3:  e = DPM-Solver-3 - DPM-Solver-2       which share the evaluation at lambda + h / 3
/// accepted if rms(e) <= tolerance rms(x')         h <- h min(5, max(1/5, 0.9 (tolerance rms(x') / rms(e))^(1/order)))
/// ```
///
/// The step goes on from the higher order. The global error is in proportion to the tolerance: steps of length
/// `O(tolerance^(1/order))` of a method of that order. A step to `sigma' = 0`, and one from a level without signal, is DDIM's and its
/// error is not controlled.
///
/// # Reference
/// Lu et al. 2022, arXiv 2206.00927, app. C (DPM-Solver-12 and -23), which also k-diffusion's `sample_dpm_adaptive` follows. The error
/// here is relative to the state's size alone; there it has an absolute part, for each value, and is the batch's largest or its mean.
#[derive(Clone, Debug)]
pub struct DpmAdaptive {
    order: usize,
    control: Adaptive,
}

impl DpmAdaptive {
    /// Of order 2 or 3, with the error that a step may make, relative to the state's size.
    pub fn new(order: usize, tolerance: f64) -> Self {
        Self { order, control: Adaptive::new(tolerance) }
    }
}

impl Sampler for DpmAdaptive {
    fn name(&self) -> &'static str {
        "dpm-adaptive"
    }

    fn evaluations(&self, _: &Grid) -> Option<usize> {
        None
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        if matches!(self.order, 2 | 3) {
            return grid.check();
        }
        Err(Error::Unsupported {
            what: format!("dpm-adaptive of order {}", self.order),
            why: "it compares two orders that follow each other".into(),
            possible: vec!["order 2".into(), "order 3".into()],
        })
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        match self.order {
            2 => self.control.step(&Dpm12, step, x),
            _ => self.control.step(&Dpm23, step, x),
        }
    }
}

/// DPM-Solver-2 and -1.
struct Dpm12;

impl Pair for Dpm12 {
    fn name(&self) -> &'static str {
        "dpm-adaptive"
    }

    fn local_order(&self) -> f64 {
        2.0
    }

    fn attempt(&self, denoiser: &dyn Denoiser, interval: Interval, x: &Batch, eps: &Batch) -> Result<Attempt> {
        let x_2 = dpm_solver::second(denoiser, interval, x, eps)?;
        let difference = &x_2 - along(interval, x, eps);
        Ok(Attempt { x: x_2, difference, eps: None })
    }
}

/// DPM-Solver-3 and -2.
struct Dpm23;

impl Pair for Dpm23 {
    fn name(&self) -> &'static str {
        "dpm-adaptive"
    }

    fn local_order(&self) -> f64 {
        3.0
    }

    fn attempt(&self, denoiser: &dyn Denoiser, interval: Interval, x: &Batch, eps: &Batch) -> Result<Attempt> {
        let (x_3, eps_1) = dpm_solver::third(denoiser, interval, x, eps)?;
        let x_2 = dpm_solver::second_from(interval, x, eps, &eps_1, 1.0 / 3.0);
        let difference = &x_3 - x_2;
        Ok(Attempt { x: x_3, difference, eps: None })
    }
}
