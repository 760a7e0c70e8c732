//! The cosine schedule in continuous time.

use std::f64::consts::FRAC_PI_2;

use super::{Derivatives, Rates, Scales, Schedule};

/// The offset that keeps the first steps from being too small.
pub(super) const OFFSET: f64 = 0.008;

/// The cosine schedule as a closed form, without the cap on `beta` that its discrete form needs.
///
/// ```text
/// u = (pi / 2) (t + 0.008) / 1.008
/// alpha = cos(u) / cos(u_0)      sigma = sqrt(1 - alpha^2)
/// drift = -u' tan(u)             diffusion_sq = 2 u' tan(u)
/// ```
///
/// `alpha(1)` is exactly 0, where drift and diffusion are infinite; `sigma` leaves 0 like a square root, so that its derivative
/// at `t = 0` is infinite.
///
/// # Reference
/// Nichol, Dhariwal 2021, arXiv 2102.09672, eq. 17.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CosineSchedule;

/// `u'`.
const RATE: f64 = FRAC_PI_2 / (1.0 + OFFSET);

/// `u` at `t = 0`.
const START: f64 = RATE * OFFSET;

/// `cos(u)`, as the sine of the complement, so that it is exactly 0 at `t = 1`.
fn cos_u(t: f64) -> f64 {
    (RATE * (1.0 - t)).sin()
}

impl Schedule for CosineSchedule {
    fn scales(&self, t: f64) -> Scales {
        let t = t.clamp(0.0, 1.0);
        // cos^2 u_0 - cos^2 u = sin(u - u_0) sin(u + u_0), which does not cancel near t = 0.
        let difference = (RATE * t).sin() * (RATE * t + 2.0 * START).sin();
        let alpha = if t == 0.0 { 1.0 } else { cos_u(t) / START.cos() };
        Scales { alpha, sigma: difference.max(0.0).sqrt() / START.cos() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let Scales { alpha, sigma } = self.scales(t);
        let d_alpha = -RATE * (RATE * t.clamp(0.0, 1.0) + START).sin() / START.cos();
        Derivatives { d_alpha, d_sigma: -alpha * d_alpha / sigma }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        if sigma_edm < 1e-150 {
            return 0.0;
        }
        // cos u = cos(u_0) / |(1, sigma_edm)|; then sin and cos of u - u_0, without cancellation for small sigma_edm.
        let (sin0, cos0) = START.sin_cos();
        let inverse = 1.0 / sigma_edm;
        let (norm, inverse_norm) = (1f64.hypot(inverse), inverse / 1f64.hypot(inverse));
        let sin_u = 1f64.hypot(sin0 * inverse) / norm;
        let sin_difference = cos0 / ((1f64.hypot(sin0 * inverse) + sin0 * inverse) * norm);
        let cos_difference = cos0 * inverse_norm * cos0 + sin_u * sin0;
        (sin_difference.atan2(cos_difference) / RATE).clamp(0.0, 1.0)
    }

    fn rates(&self, t: f64) -> Rates {
        let t = t.clamp(0.0, 1.0);
        let half_beta = RATE * (RATE * t + START).sin() / cos_u(t);
        Rates { drift: -half_beta, diffusion_sq: 2.0 * half_beta }
    }
}
