//! Improved PNDM.

use super::multistep::History;
use super::{Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "ipndm",
    order: "2",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &["order"],
    source: include_str!("ipndm.rs"),
    make: |options| Box::new(Ipndm::new(options.order.unwrap_or(4))),
};

/// iPNDM: DDIM's step with the noise extrapolated by Adams and Bashforth's weights of equal steps.
///
/// ```text
/// e  = eps                                              first step
///      (3 eps - eps_1) / 2                              second
///      (23 eps - 16 eps_1 + 5 eps_2) / 12               third
///      (55 eps - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24    all others
/// x' = (alpha' / alpha) (x - sigma e) + sigma' e
/// ```
///
/// `eps_j` is the noise of `j` steps ago. The weights are right for steps of equal length in `sigma / alpha` alone: what they do on another
/// grid is second order at most. A step from a level without signal is DDIM's.
///
/// # Reference
/// Zhang, Chen 2023, arXiv 2204.13902, sec. 3.3 and app. H.2 (iPNDM); Liu et al. 2022, arXiv 2202.09778, eq. 12 (the weights).
#[derive(Clone, Debug)]
pub struct Ipndm {
    order: usize,
    history: History,
}

impl Ipndm {
    /// With at most `order` evaluations in the extrapolation, from 1 to 4.
    pub fn new(order: usize) -> Self {
        Self { order: order.clamp(1, 4), history: History::default() }
    }
}

impl Default for Ipndm {
    fn default() -> Self {
        Self::new(4)
    }
}

impl Sampler for Ipndm {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval = step.interval();
        let x0 = step.denoiser.x0_hat(x, interval.from)?;
        let eps = eps_from_x0(x, &x0, interval.from);
        self.history.push(step, self.order, interval.from, &eps);
        let next = match self.history.len() {
            0 | 1 => combine(interval.to.alpha, &x0, interval.to.sigma, &eps),
            order => transfer_along(interval, x, &self.history.combine(adams_bashforth(order))),
        };
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

/// DDIM's step from `x` along any estimate `e` of the noise.
pub(super) fn transfer_along(Interval { from, to }: Interval, x: &Batch, e: &Batch) -> Batch {
    let ratio = to.alpha / from.alpha;
    combine(ratio, x, to.sigma - ratio * from.sigma, e)
}

/// The weights of the last `order` slopes, newest first, for steps of equal length.
pub(super) fn adams_bashforth(order: usize) -> &'static [f64] {
    match order {
        1 => &[1.0],
        2 => &[1.5, -0.5],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    }
}
