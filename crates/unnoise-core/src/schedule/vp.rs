//! The variance-preserving SDE in continuous time.

use super::{Derivatives, Rates, Scales, Schedule, check};
use crate::Result;

/// The variance-preserving SDE whose `beta` grows linearly from `beta_min` to `beta_max`.
///
/// ```text
/// beta(t) = beta_min + t (beta_max - beta_min)
/// alpha = exp(-1/2 integral_0^t beta)      sigma = sqrt(1 - alpha^2)
/// drift = -beta / 2                        diffusion_sq = beta
/// ```
///
/// `sigma` leaves 0 like a square root, so that its derivative at `t = 0` is infinite.
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, eq. 11 and app. C; `beta_min = 0.1` and `beta_max = 20` as there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpSchedule {
    beta_min: f64,
    beta_max: f64,
}

impl Default for VpSchedule {
    fn default() -> Self {
        Self { beta_min: 0.1, beta_max: 20.0 }
    }
}

impl VpSchedule {
    /// The schedule between two rates.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `0 < beta_min <= beta_max <= 1000` (beyond, `alpha(1)` underflows).
    pub fn new(beta_min: f64, beta_max: f64) -> Result<Self> {
        let valid = 0.0 < beta_min && beta_min <= beta_max && beta_max <= 1000.0;
        check(valid, "beta_min, beta_max", "0 < beta_min <= beta_max <= 1000", (beta_min, beta_max), "VpSchedule::new")?;
        Ok(Self { beta_min, beta_max })
    }

    fn beta(&self, t: f64) -> f64 {
        self.beta_min + t.clamp(0.0, 1.0) * (self.beta_max - self.beta_min)
    }
}

impl Schedule for VpSchedule {
    fn scales(&self, t: f64) -> Scales {
        let t = t.clamp(0.0, 1.0);
        let log_alpha_bar = -t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min));
        Scales { alpha: (0.5 * log_alpha_bar).exp(), sigma: (-log_alpha_bar.exp_m1()).sqrt() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let Scales { alpha, sigma } = self.scales(t);
        let half = 0.5 * self.beta(t);
        Derivatives { d_alpha: -half * alpha, d_sigma: half * alpha * alpha / sigma }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        // The root of beta_min t + slope t^2 / 2 = ln(1 + sigma_edm^2), without cancellation.
        let integral = 2.0 * if sigma_edm > 1e100 { sigma_edm.ln() } else { 0.5 * (sigma_edm * sigma_edm).ln_1p() };
        let root = (self.beta_min * self.beta_min + 2.0 * (self.beta_max - self.beta_min) * integral).sqrt();
        if sigma_edm <= 0.0 { 0.0 } else { (2.0 * integral / (self.beta_min + root)).min(1.0) }
    }

    fn rates(&self, t: f64) -> Rates {
        let beta = self.beta(t);
        Rates { drift: -0.5 * beta, diffusion_sq: beta }
    }
}
