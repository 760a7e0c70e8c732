//! The Laplace schedule in continuous time.

use super::{Derivatives, Scales, Schedule, check};
use crate::Result;

/// The schedule whose `log(alpha^2 / sigma^2)`, at a uniform time, has a Laplace distribution around `mu`: most levels lie where signal
/// and noise are alike.
///
/// ```text
/// log(alpha^2 / sigma^2) = mu - b sgn(1/2 - t) log(1 - |1 - 2 t|)      alpha^2 + sigma^2 = 1
/// sigma / alpha = exp(-mu / 2) (2 t)^(b / 2)           for t <= 1/2
///                 exp(-mu / 2) (2 - 2 t)^(-b / 2)      for t >= 1/2
/// ```
///
/// `alpha(1)` is exactly 0. `sigma` leaves 0 like `t^(b/2)`, so that its derivative at `t = 0` is infinite for `b < 2`; so is `alpha`'s at `t = 1`.
///
/// # Reference
/// Hang et al. 2024, arXiv 2407.03297, with `mu = 0` and `b = 0.5` as there. diffusers' `laplace` betas are a table of `alpha`
/// where `alpha^2` belongs: [`DiscreteSchedule::laplace`](super::DiscreteSchedule::laplace).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaplaceSchedule {
    mu: f64,
    b: f64,
}

impl Default for LaplaceSchedule {
    fn default() -> Self {
        Self { mu: 0.0, b: 0.5 }
    }
}

impl LaplaceSchedule {
    /// The schedule around `mu` with the scale `b`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `|mu| <= 20` and `0 < b <= 10`.
    pub fn new(mu: f64, b: f64) -> Result<Self> {
        check(mu.abs() <= 20.0, "mu", "in [-20, 20]", mu, "LaplaceSchedule::new")?;
        check(b > 0.0 && b <= 10.0, "b", "in (0, 10]", b, "LaplaceSchedule::new")?;
        Ok(Self { mu, b })
    }

    /// Whether `t` is in the clean half, and its distance from that half's end, doubled.
    fn half(t: f64) -> (bool, f64) {
        let t = t.clamp(0.0, 1.0);
        if t <= 0.5 { (true, 2.0 * t) } else { (false, 2.0 * (1.0 - t)) }
    }

    /// What `mu` makes of `sigma / alpha`, or of `alpha / sigma` in the noisy half.
    fn factor(&self, is_clean: bool) -> f64 {
        (if is_clean { -0.5 * self.mu } else { 0.5 * self.mu }).exp()
    }
}

impl Schedule for LaplaceSchedule {
    fn scales(&self, t: f64) -> Scales {
        let (is_clean, distance) = Self::half(t);
        // The smaller of sigma / alpha and alpha / sigma, but for mu.
        let ratio = self.factor(is_clean) * distance.powf(0.5 * self.b);
        let (large, small) = (1.0 / 1f64.hypot(ratio), ratio / 1f64.hypot(ratio));
        if is_clean { Scales { alpha: large, sigma: small } } else { Scales { alpha: small, sigma: large } }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let (is_clean, distance) = Self::half(t);
        let Scales { alpha, sigma } = self.scales(t);
        let (factor, large) = (self.factor(is_clean), if is_clean { alpha } else { sigma });
        // sigma / alpha, or alpha / sigma in the noisy half, is q = factor distance^(b/2), and the other scale (1 + q^2)^(-1/2). In these powers the
        // derivatives are infinite at the ends where they should be, and zero times infinity does not occur.
        let steep = self.b * factor * distance.powf(0.5 * self.b - 1.0) * large.powi(3);
        let flat = self.b * factor.powi(2) * distance.powf(self.b - 1.0) * large.powi(3);
        if is_clean { Derivatives { d_alpha: -flat, d_sigma: steep } } else { Derivatives { d_alpha: -steep, d_sigma: flat } }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        let scaled = sigma_edm.max(0.0) * (0.5 * self.mu).exp();
        let half = |ratio: f64| 0.5 * ratio.powf(2.0 / self.b);
        if scaled <= 1.0 { half(scaled) } else { 1.0 - half(1.0 / scaled) }
    }
}
