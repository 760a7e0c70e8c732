//! Where a run's randomness comes from.

use crate::{Batch, Shape};

/// What a draw is for: draws of different purposes are independent even within one step. The numbers are part of every seed's meaning
/// and stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The initial state `x_T`.
    Start = 0,
    /// The noise that a stochastic step adds.
    Step = 1,
    /// The noise that is added before a step (EDM's churn).
    Churn = 2,
    /// Resampling of particles.
    Resample = 3,
    /// The measurement's noise.
    Measurement = 4,
    /// The second half of a stochastic step that has an evaluation within.
    SecondHalf = 5,
    /// Training: images, levels and noise.
    Training = 6,
    /// Anything random that is not part of a run: masks, kernels, tie-breaking.
    Auxiliary = 7,
    /// Brownian paths: their "step" is a place in the tree.
    Brownian = 8,
    /// The third part of a stochastic step that has two evaluations within.
    ThirdPart = 9,
    /// Langevin steps, counted through the run.
    Langevin = 10,
}

/// A source of standard normal noise for a whole batch.
///
/// A trait, so that a test can feed unit vectors and read a sampler's coefficients off its response.
pub trait Noise {
    /// Standard normals for every sample of the batch, `[n, c, h, w]`; the same `(step, purpose)` gives the same numbers.
    fn normal(&mut self, step: usize, purpose: Purpose, n: usize, shape: Shape) -> Batch;

    /// The increment of a Brownian path between two noise levels `sigma / alpha`, divided by its standard deviation: standard normals,
    /// and independent ones for intervals that do not overlap. A source that has a path returns its increments, whatever the steps
    /// that ask for them; one that has none returns [`normal`](Self::normal).
    fn brownian(&mut self, step: usize, purpose: Purpose, _between: [f64; 2], n: usize, shape: Shape) -> Batch {
        self.normal(step, purpose, n, shape)
    }
}
