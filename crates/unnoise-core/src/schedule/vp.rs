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
    rate: LinearRate,
}

impl Default for VpSchedule {
    fn default() -> Self {
        Self { rate: LinearRate { beta_min: 0.1, beta_max: 20.0 } }
    }
}

impl VpSchedule {
    /// The schedule between two rates; equal ones give `alpha = exp(-beta t / 2)`, at 12 the `exp` betas of diffusers.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `0 < beta_min <= beta_max <= 1000` (beyond, `alpha(1)` underflows).
    pub fn new(beta_min: f64, beta_max: f64) -> Result<Self> {
        Ok(Self { rate: LinearRate::new(beta_min, beta_max, "VpSchedule::new")? })
    }
}

impl Schedule for VpSchedule {
    fn scales(&self, t: f64) -> Scales {
        let integral = self.rate.integral(t);
        Scales { alpha: (-0.5 * integral).exp(), sigma: (-(-integral).exp_m1()).sqrt() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let Scales { alpha, sigma } = self.scales(t);
        let half = 0.5 * self.rate.at(t);
        Derivatives { d_alpha: -half * alpha, d_sigma: half * alpha * alpha / sigma }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        // ln(1 + sigma_edm^2), without overflow.
        let integral = 2.0 * if sigma_edm > 1e100 { sigma_edm.ln() } else { 0.5 * (sigma_edm * sigma_edm).ln_1p() };
        if sigma_edm <= 0.0 { 0.0 } else { self.rate.t_from_integral(integral) }
    }

    fn rates(&self, t: f64) -> Rates {
        let beta = self.rate.at(t);
        Rates { drift: -0.5 * beta, diffusion_sq: beta }
    }
}

/// `beta(t)`, linear in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LinearRate {
    pub(super) beta_min: f64,
    pub(super) beta_max: f64,
}

impl LinearRate {
    pub(super) fn new(beta_min: f64, beta_max: f64, at: &'static str) -> Result<Self> {
        let valid = 0.0 < beta_min && beta_min <= beta_max && beta_max <= 1000.0;
        check(valid, "beta_min, beta_max", "0 < beta_min <= beta_max <= 1000", (beta_min, beta_max), at)?;
        Ok(Self { beta_min, beta_max })
    }

    pub(super) fn at(self, t: f64) -> f64 {
        self.beta_min + t.clamp(0.0, 1.0) * (self.beta_max - self.beta_min)
    }

    /// `B = integral_0^t beta`.
    pub(super) fn integral(self, t: f64) -> f64 {
        let t = t.clamp(0.0, 1.0);
        t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))
    }

    /// The root of `beta_min t + (beta_max - beta_min) t^2 / 2 = B`, without cancellation, at most 1.
    pub(super) fn t_from_integral(self, integral: f64) -> f64 {
        let root = (self.beta_min * self.beta_min + 2.0 * (self.beta_max - self.beta_min) * integral).sqrt();
        (2.0 * integral / (self.beta_min + root)).min(1.0)
    }
}
