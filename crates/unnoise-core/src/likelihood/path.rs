//! The path of one image, in steps whose length follows from their error.

use ndarray::Array1;

use crate::dormand_prince::{Attempt, attempt, stretch};
use crate::{Error, Result};

/// The first step's length and the shortest, in lengths of the whole path.
const FIRST: f64 = 1e-2;
const SHORTEST: f64 = 1e-9;

/// `dy/dt = rate(t, y)`, and the size of a step's error at `t`, where 1 is just tolerable.
pub(super) struct Problem<R, E> {
    /// The slope.
    pub rate: R,
    /// The size of an error.
    pub error: E,
}

impl<R: FnMut(f64, &Array1<f64>) -> Result<Array1<f64>>, E: Fn(f64, &Array1<f64>) -> f64> Problem<R, E> {
    /// The state at `to`, by Dormand and Prince's pair, and how many steps were tried.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where even the shortest step is not tolerable; those of `rate`.
    pub(super) fn solve(&mut self, mut y: Array1<f64>, from: f64, to: f64) -> Result<(Array1<f64>, usize)> {
        let (mut t, mut h, mut tried) = (from, FIRST * (to - from), 0);
        let mut slope = (self.rate)(t, &y)?;
        while t < to {
            h = h.min(to - t);
            let tried_step = attempt(&y, h, &slope, |share, there| (self.rate)(t + share * h, there))?;
            let error = (self.error)(t, &tried_step.difference);
            tried += 1;
            if error <= 1.0 {
                t = if h < to - t { t + h } else { to };
                Attempt { y, slope, .. } = tried_step;
            } else if h < SHORTEST * (to - from) {
                return Err(Error::NotFinite { what: "the flow", sample: 0, at: "log_density" });
            }
            h *= stretch(error, 5.0);
        }
        Ok((y, tried))
    }
}
