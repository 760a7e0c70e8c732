//! Steps whose length follows from their error, sample by sample.

use ndarray::{Axis, Slice};

use super::{Step, Stepped, combine, heun::is_corrected, predict};
use crate::dormand_prince::stretch;
use crate::{Batch, Denoiser, Error, Interval, Level, Result, norm_sq};

/// The attempts that an interval of the grid may take before the run gives up.
const MOST_ATTEMPTS: usize = 10_000;
/// The first step in `log(sigma / alpha)`: short, as the estimate of a long step's error means nothing. k-diffusion's.
const FIRST: f64 = 0.05;
/// The shortest step in `log(sigma / alpha)`.
const SHORTEST: f64 = 1e-9;

/// What one step of an embedded pair gives.
pub(super) struct Attempt {
    /// The end, by the method of higher order.
    pub x: Batch,
    /// Its difference from that of lower order.
    pub difference: Batch,
    /// The noise at the end, if the method has met it.
    pub eps: Option<Batch>,
}

/// An embedded pair of one-step methods, for one sample.
pub(super) trait Pair {
    /// The sampler whose pair it is.
    fn name(&self) -> &'static str;

    /// The order of the error of one step of the lower method: one more than its own.
    fn local_order(&self) -> f64;

    /// One step from `x`, where the noise is `eps`.
    fn attempt(&self, denoiser: &dyn Denoiser, interval: Interval, x: &Batch, eps: &Batch) -> Result<Attempt>;
}

/// Walks over intervals of a grid in steps of its own, with `lambda = log(alpha / sigma)` as the measure of their lengths `h`.
///
/// ```text
/// E = rms(difference) / (tolerance rms(x'))      accepted if E <= 1      h <- h min(5, max(1/5, 0.9 E^(-1/q)))
/// ```
///
/// `q` is [`Pair::local_order`]. The ratio does not change with the scale of `x`, so that variance-preserving and -exploding runs take the
/// same steps. Each sample has its own error and its own steps; a step that the interval cuts short does not shorten the next.
#[derive(Clone, Debug)]
pub(super) struct Adaptive {
    tolerance: f64,
    /// The length of each sample's next step.
    lengths: Vec<f64>,
}

impl Adaptive {
    pub(super) fn new(tolerance: f64) -> Self {
        Self { tolerance, lengths: Vec::new() }
    }

    /// One interval of the grid. A step to `sigma' = 0`, and one from a level without signal, is Euler's.
    pub(super) fn step(&mut self, pair: &dyn Pair, step: &Step<'_>, x: &Batch) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let (x0, eps) = predict(step.denoiser, x, from)?;
        let mut next = combine(to.alpha, &x0, to.sigma, &eps);
        if step.index == 0 {
            self.lengths.clear();
        }
        if is_corrected(interval) {
            self.lengths.resize(x.dim().0, FIRST);
            for sample in 0..x.dim().0 {
                let alone = |batch: &Batch| batch.slice_axis(Axis(0), Slice::from(sample..=sample)).to_owned();
                let end = self.walk(pair, step.denoiser, interval, sample, alone(x), alone(&eps))?;
                next.index_axis_mut(Axis(0), sample).assign(&end.index_axis(Axis(0), 0));
            }
        }
        Ok(Stepped { x: next, x0_hat: x0 })
    }

    /// One sample's steps over an interval.
    fn walk(
        &mut self,
        pair: &dyn Pair,
        denoiser: &dyn Denoiser,
        Interval { mut from, to }: Interval,
        sample: usize,
        mut x: Batch,
        mut eps: Batch,
    ) -> Result<Batch> {
        let length = &mut self.lengths[sample];
        let mut error = f64::INFINITY;
        for _ in 0..MOST_ATTEMPTS {
            let left = Interval { from, to }.ratio().ln();
            let is_last = *length >= left.abs();
            let used = length.min(left.abs());
            let end = match is_last {
                true => to,
                false => Level::at_sigma_edm(denoiser.schedule(), from.sigma_edm() * used.copysign(left).exp()),
            };
            let attempt = pair.attempt(denoiser, Interval { from, to: end }, &x, &eps)?;
            let scale = self.tolerance * norm_sq(&attempt.x)[0].sqrt();
            let difference = norm_sq(&attempt.difference)[0].sqrt();
            error = if difference == 0.0 { 0.0 } else { difference / scale };
            let proposed = used * stretch(error, pair.local_order());
            if error <= 1.0 {
                *length = if is_last { length.max(proposed) } else { proposed };
                if is_last {
                    return Ok(attempt.x);
                }
                (x, from) = (attempt.x, end);
                eps = match attempt.eps {
                    Some(eps) => eps,
                    None => predict(denoiser, &x, from)?.1,
                };
            } else if used < SHORTEST {
                break;
            } else {
                *length = proposed;
            }
        }
        Err(Error::NotConverged {
            at: pair.name(),
            residual: error * self.tolerance,
            iterations: MOST_ATTEMPTS,
            tolerance: self.tolerance,
        })
    }
}
