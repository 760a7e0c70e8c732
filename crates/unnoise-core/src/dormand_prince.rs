//! Dormand and Prince's embedded Runge-Kutta pair of orders 5 and 4, and the control of a step's length by its error.
//!
//! Dormand, Prince 1980, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6, table 2 (RK5(4)7M); the control is that of
//! Hairer, Norsett, Wanner 1993, "Solving ordinary differential equations I", eq. II.4.13.

use ndarray::{Array, Dimension};

use crate::Result;

/// The times of the stages after the first, in steps.
const C: [f64; 6] = [1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0];

/// The weights of the stages before each; the last row is the step of order 5, so that its slope is the next step's first.
const A: [&[f64]; 6] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];

/// The step of order 5 less that of order 4.
const E: [f64; 7] = [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

/// What a step gives.
pub(crate) struct Attempt<D: Dimension> {
    /// The state at its end, of order 5.
    pub y: Array<f64, D>,
    /// Its difference from that of order 4.
    pub difference: Array<f64, D>,
    /// The slope at its end.
    pub slope: Array<f64, D>,
}

/// A step of length `h` from `y`, where the slope is `first`; `rate` is given the share of the step and the state there.
///
/// ```text
/// k_i = rate(c_i, y + h sum_j a_ij k_j)      y' = y + h sum_j a_7j k_j      difference = h sum_j e_j k_j
/// ```
pub(crate) fn attempt<D: Dimension>(
    y: &Array<f64, D>,
    h: f64,
    first: &Array<f64, D>,
    mut rate: impl FnMut(f64, &Array<f64, D>) -> Result<Array<f64, D>>,
) -> Result<Attempt<D>> {
    let mut slopes = vec![first.clone()];
    let mut there = y.clone();
    for (share, weights) in C.into_iter().zip(A) {
        there.assign(y);
        add(&mut there, h, weights, &slopes);
        slopes.push(rate(share, &there)?);
    }
    let mut difference = Array::zeros(y.raw_dim());
    add(&mut difference, h, &E, &slopes);
    Ok(Attempt { y: there, difference, slope: slopes.swap_remove(6) })
}

/// Adds `h sum_j weights_j slopes_j` to `y`.
fn add<D: Dimension>(y: &mut Array<f64, D>, h: f64, weights: &[f64], slopes: &[Array<f64, D>]) {
    for (weight, slope) in weights.iter().zip(slopes) {
        y.scaled_add(h * weight, slope);
    }
}

/// The factor from a step's length to the next one's, after an `error` of which 1 is just tolerable and which is of this order in the
/// length.
///
/// ```text
/// min(5, max(1/5, 0.9 error^(-1/order)))
/// ```
///
/// An error that is not a number, as a step that is far too long may give, shortens as much as may be.
pub(crate) fn stretch(error: f64, order: f64) -> f64 {
    let factor = 0.9 * error.powf(-1.0 / order);
    if factor.is_nan() { 0.2 } else { factor.clamp(0.2, 5.0) }
}
