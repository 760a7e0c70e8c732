//! Grids: the noise levels that a run visits.

mod kind;
mod levels;
mod quantile;

#[cfg(test)]
mod tests;

pub use kind::GridKind;

use crate::{Batch, Error, Level, Noise, Purpose, Result, Schedule, Shape};

/// One step of a grid: from a noisier level to a cleaner one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The level at which the step starts.
    pub from: Level,
    /// The level at which it ends.
    pub to: Level,
}

impl Interval {
    /// `r = (sigma' / alpha') / (sigma / alpha)`, the factor by which the noise of `x / alpha` falls: 0 from a level without signal
    /// and to a level without noise.
    pub fn ratio(self) -> f64 {
        self.to.sigma * self.from.alpha / (self.to.alpha * self.from.sigma)
    }
}

/// The steps of a run, noisiest first. Usually each starts where the last one ended; diffusers' DDIM on a `linspace` or
/// `trailing` grid does not, and is reproduced as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The steps.
    pub steps: Vec<Interval>,
    /// The standard deviation of the state that a run starts from (its signal is negligible).
    pub start: f64,
}

impl Grid {
    /// The grid through `levels`, noisiest first, which starts at the first level's `sigma`.
    pub fn through(levels: &[Level]) -> Self {
        let steps = levels.windows(2).map(|pair| Interval { from: pair[0], to: pair[1] }).collect();
        Self { steps, start: levels.first().map_or(0.0, |level| level.sigma) }
    }

    /// [`GridKind::Uniform`]: `n` steps of equal length in `t`.
    ///
    /// # Errors
    /// As [`GridKind::grid`].
    pub fn uniform(schedule: &dyn Schedule, n: usize) -> Result<Self> {
        GridKind::Uniform.grid(schedule, n)
    }

    /// [`GridKind::Karras`] with rho = 7.
    ///
    /// # Errors
    /// As [`GridKind::grid`].
    pub fn karras(schedule: &dyn Schedule, n: usize) -> Result<Self> {
        GridKind::KARRAS.grid(schedule, n)
    }

    /// [`GridKind::LogSnr`].
    ///
    /// # Errors
    /// As [`GridKind::grid`].
    pub fn log_snr(schedule: &dyn Schedule, n: usize) -> Result<Self> {
        GridKind::LogSnr.grid(schedule, n)
    }

    /// The same levels from the last to the first: the way from an image to noise that [`DdimInverse`](super::DdimInverse) goes, and, if
    /// they end in some noise, every sampler that integrates the ODE.
    pub fn reversed(&self) -> Self {
        let steps: Vec<Interval> = self.steps.iter().rev().map(|step| Interval { from: step.to, to: step.from }).collect();
        Self { start: steps.first().map_or(0.0, |step| step.from.sigma), steps }
    }

    /// Whether the last step leaves no noise.
    pub fn ends_clean(&self) -> bool {
        self.steps.last().is_some_and(|step| step.to.sigma == 0.0)
    }

    /// Refuses a grid that no sampler could walk.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no step, or one that starts without noise or ends without signal.
    pub fn check(&self) -> Result<()> {
        let bad =
            |expected: &str, got: String| Err(Error::Argument { what: "grid", expected: expected.into(), got, at: "Grid::check" });
        if self.steps.is_empty() {
            return bad("at least one step", "none".into());
        }
        for (index, step) in self.steps.iter().enumerate() {
            let Interval { from, to } = *step;
            let starts_in_noise = from.sigma > 0.0 && from.sigma.is_finite() && from.alpha >= 0.0;
            // Noise may rise in a step: diffusers' zero-SNR tables do at their end.
            if !(starts_in_noise && to.alpha > 0.0 && to.sigma >= 0.0 && step.ratio().is_finite()) {
                return bad("steps from a positive sigma to a positive alpha", format!("step {index} from {from:?} to {to:?}"));
            }
        }
        Ok(())
    }
}

/// The state that a run over `grid` starts from: unit normals, scaled by [`Grid::start`].
pub fn start_noise(grid: &Grid, noise: &mut dyn Noise, n: usize, shape: Shape) -> Batch {
    noise.normal(0, Purpose::Start, n, shape) * grid.start
}
