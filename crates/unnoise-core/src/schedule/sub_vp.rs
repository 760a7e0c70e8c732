//! The sub-variance-preserving SDE.

use super::vp::LinearRate;
use super::{Derivatives, Rates, Scales, Schedule};
use crate::Result;

/// The sub-VP SDE: the signal of [`VpSchedule`](super::VpSchedule) with less noise, whose variance stays below 1.
///
/// ```text
/// B = integral_0^t beta,  beta(t) = beta_min + t (beta_max - beta_min)
/// alpha = exp(-B / 2)      sigma = 1 - exp(-B)                    sigma / alpha = 2 sinh(B / 2)
/// drift = -beta / 2        diffusion_sq = beta (1 - exp(-2 B))
/// ```
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, eq. 12 (the SDE) and app. B (its marginals); `beta_min = 0.1` and `beta_max = 20` as there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubVpSchedule {
    rate: LinearRate,
}

impl Default for SubVpSchedule {
    fn default() -> Self {
        Self { rate: LinearRate { beta_min: 0.1, beta_max: 20.0 } }
    }
}

impl SubVpSchedule {
    /// The schedule between two rates.
    ///
    /// # Errors
    /// As [`VpSchedule::new`](super::VpSchedule::new).
    pub fn new(beta_min: f64, beta_max: f64) -> Result<Self> {
        Ok(Self { rate: LinearRate::new(beta_min, beta_max, "SubVpSchedule::new")? })
    }
}

impl Schedule for SubVpSchedule {
    fn scales(&self, t: f64) -> Scales {
        let integral = self.rate.integral(t);
        Scales { alpha: (-0.5 * integral).exp(), sigma: -(-integral).exp_m1() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let (alpha, beta) = (self.scales(t).alpha, self.rate.at(t));
        Derivatives { d_alpha: -0.5 * beta * alpha, d_sigma: beta * alpha * alpha }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        self.rate.t_from_integral(2.0 * (0.5 * sigma_edm.clamp(0.0, f64::MAX)).asinh())
    }

    fn rates(&self, t: f64) -> Rates {
        let beta = self.rate.at(t);
        Rates { drift: -0.5 * beta, diffusion_sq: beta * -(-2.0 * self.rate.integral(t)).exp_m1() }
    }
}
