//! Dormand and Prince's adaptive Runge-Kutta pair.

use crate::dormand_prince::{A, C, E};
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

impl<R: FnMut(f64, &[f64]) -> Result<Vec<f64>>, E: Fn(f64, &[f64]) -> f64> Problem<R, E> {
    /// The state at `to`, and how many steps were tried.
    ///
    /// ```text
    /// k_i = rate(t + c_i h, y + h sum_j a_ij k_j)      y' = y + h sum_j a_7j k_j      error = h sum_j e_j k_j
    /// h' = h min(5, max(1/5, 0.9 |error|^(-1/5)))
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFinite`] where even the shortest step is not tolerable; those of `rate`.
    ///
    /// # Reference
    /// Dormand, Prince 1980, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6, table 2 (RK5(4)7M); the step's
    /// control: Hairer, Norsett, Wanner, "Solving ordinary differential equations I", sec. II.4.
    pub(super) fn solve(&mut self, mut y: Vec<f64>, from: f64, to: f64) -> Result<(Vec<f64>, usize)> {
        let (mut t, mut h, mut tried) = (from, FIRST * (to - from), 0);
        let mut first = (self.rate)(t, &y)?;
        while t < to {
            h = h.min(to - t);
            let mut slopes = vec![first];
            let mut next = y.clone();
            for (c, weights) in C.iter().zip(A).skip(1) {
                next.copy_from_slice(&y);
                add(&mut next, h, weights, &slopes);
                slopes.push((self.rate)(t + c * h, &next)?);
            }
            let mut difference = vec![0.0; y.len()];
            add(&mut difference, h, &E, &slopes);
            let error = (self.error)(t, &difference);
            tried += 1;
            if error <= 1.0 {
                t = if h < to - t { t + h } else { to };
                y = next;
                first = slopes.swap_remove(6);
            } else if h < SHORTEST * (to - from) {
                return Err(Error::NotFinite { what: "the flow", sample: 0, at: "log_density" });
            } else {
                first = slopes.swap_remove(0);
            }
            // NaN, too, shortens the step.
            let factor = 0.9 * error.powf(-0.2);
            h *= if factor.is_nan() { 0.2 } else { factor.clamp(0.2, 5.0) };
        }
        Ok((y, tried))
    }
}

/// Adds `h sum_j weights_j slopes_j` to `y`.
fn add(y: &mut [f64], h: f64, weights: &[f64], slopes: &[Vec<f64>]) {
    for (weight, slope) in weights.iter().zip(slopes) {
        y.iter_mut().zip(slope).for_each(|(y, k)| *y += h * weight * k);
    }
}
