//! The method of Dormand and Prince for the probability-flow ODE.

use super::adaptive::{Adaptive, Attempt, Pair};
use super::{Grid, Sampler, SamplerInfo, Step, Stepped, predict};
use crate::dormand_prince;
use crate::{Batch, Denoiser, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "rk45",
    order: "error in proportion to the tolerance",
    stochastic: false,
    evaluations: "adaptive; the last 1",
    grids: "any",
    options: &["tolerance"],
    source: include_str!("rk45.rs"),
    make: |options| Box::new(Rk45::new(options.tolerance)),
};

/// RK45, the embedded Runge-Kutta pair of Dormand and Prince, with `u = x / alpha` integrated in `s = sigma / alpha`. Each interval of the
/// grid is walked in steps of its own, as long as their error allows, for each sample by itself.
///
/// ```text
/// k_i = eps(u + h sum_j a_ij k_j, s + c_i h)      i = 1 .. 7, k_1 from the step before
/// u'  = u + h sum_j a_7j k_j                      of order 5
/// e   = h sum_j d_j k_j                           its difference from the embedded method of order 4
/// accepted if rms(e) <= tolerance rms(u')         h <- h min(5, max(1/5, 0.9 (tolerance rms(u') / rms(e))^(1/5)))
/// ```
///
/// The global error is in proportion to the tolerance: steps of length `O(tolerance^(1/5))` of a method of order 5. A step to
/// `sigma' = 0`, and one from a level without signal, is Euler's and its error is not controlled.
///
/// # Reference
/// Dormand, Prince 1980, "A family of embedded Runge-Kutta formulae", RK5(4)7M; the control is that of Hairer, Norsett, Wanner 1993,
/// "Solving ordinary differential equations I", eq. II.4.13. Song et al. 2021, arXiv 2011.13456, app. D.4, use it for the flow, in `t`
/// and with one error for the whole batch; the lengths here are those in `log s`.
#[derive(Clone, Debug)]
pub struct Rk45(Adaptive);

impl Rk45 {
    /// With the error that a step may make, relative to the state's size.
    pub fn new(tolerance: f64) -> Self {
        Self(Adaptive::new(tolerance))
    }
}

impl Sampler for Rk45 {
    fn name(&self) -> &'static str {
        "rk45"
    }

    fn evaluations(&self, _: &Grid) -> Option<usize> {
        None
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        self.0.step(&DormandPrince, step, x)
    }
}

struct DormandPrince;

impl Pair for DormandPrince {
    fn name(&self) -> &'static str {
        "rk45"
    }

    fn local_order(&self) -> f64 {
        5.0
    }

    fn attempt(&self, denoiser: &dyn Denoiser, Interval { from, to }: Interval, x: &Batch, eps: &Batch) -> Result<Attempt> {
        let h = to.sigma_edm() - from.sigma_edm();
        let rate = |share: f64, u: &Batch| {
            let level = if share == 1.0 { to } else { Level::at_sigma_edm(denoiser.schedule(), from.sigma_edm() + share * h) };
            Ok(predict(denoiser, &(u * level.alpha), level)?.1)
        };
        let step = dormand_prince::attempt(&(x / from.alpha), h, eps, rate)?;
        Ok(Attempt { x: step.y * to.alpha, difference: step.difference * to.alpha, eps: Some(step.slope) })
    }
}
