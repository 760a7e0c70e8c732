//! What samplers of the reverse SDE share: its linear part and its noise over a step, both exact.
//!
//! ```text
//! x' = (sigma' / sigma) r^tau2 x + alpha' integral of x0 + sigma' sqrt(1 - r^(2 tau2)) z        r = s' / s,  s = sigma / alpha
//! ```
//!
//! `tau2` is how fast noise is exchanged, relative to the SDE that reverses the forward process (1); 0 is the probability-flow ODE. The weights of
//! `x0` sum to `1 - r^(1 + tau2)`.

use super::{Step, combine};
use crate::{Batch, Interval, Noise, Purpose};

/// The coefficients of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    /// Of `x`.
    pub(super) keep: f64,
    /// Of `x0`, if it were constant: `alpha' (1 - r^(1 + tau2))`.
    pub(super) clean: f64,
    /// Of `z`.
    pub(super) noise: f64,
}

impl Exact {
    pub(super) fn new(interval @ Interval { from, to }: Interval, tau2: f64) -> Self {
        let ratio = interval.ratio();
        Self {
            keep: to.sigma / from.sigma * ratio.powf(tau2),
            clean: to.alpha * (1.0 - ratio.powf(1.0 + tau2)),
            noise: to.sigma * (1.0 - ratio.powf(2.0 * tau2)).max(0.0).sqrt(),
        }
    }
}

/// The normals of the Brownian path over `interval`.
pub(super) fn path_noise(
    noise: &mut dyn Noise,
    step: &Step<'_>,
    purpose: Purpose,
    Interval { from, to }: Interval,
    x: &Batch,
) -> Batch {
    let (n, c, h, w) = x.dim();
    noise.brownian(step.index, purpose, [from.sigma_edm(), to.sigma_edm()], n, [c, h, w])
}

/// Normals of this step alone.
pub(super) fn fresh_noise(noise: &mut dyn Noise, step: &Step<'_>, x: &Batch) -> Batch {
    let (n, c, h, w) = x.dim();
    noise.normal(step.index, Purpose::Step, n, [c, h, w])
}

/// The noise of a whole step from those of two halves of equal ratio `q`: what is left of the first one after the second, and the second.
pub(super) fn combined_noise(q: f64, first: &Batch, second: &Batch) -> Batch {
    let whole = q.hypot(1.0);
    combine(q / whole, first, 1.0 / whole, second)
}
