//! The noise levels of "Elucidating the design space of diffusion models".

use super::{CleanEnd, Derivatives, Scales, Schedule, check};
use crate::Result;

/// EDM: the signal keeps its scale, and uniform times are Karras' noise levels.
///
/// ```text
/// alpha = 1      sigma = (a + t (b - a))^rho,   a = sigma_min^(1/rho),  b = sigma_max^(1/rho)
/// ```
///
/// EDM itself identifies time with `sigma`. Ours runs over `[0, 1]` as every schedule's does, and the map chosen is EDM's own
/// sampling grid: a uniform grid in `t` is the Karras grid. Its clean end is `sigma_min` ([`CleanEnd::SigmaMin`]).
///
/// # Reference
/// Karras et al. 2022, arXiv 2206.00364, eq. 5 (with `t` for `1 - i / (N - 1)`) and table 1: `sigma_min = 0.002`,
/// `sigma_max = 80`, `rho = 7`, for images in `[-1, 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdmSchedule {
    sigma_min: f64,
    sigma_max: f64,
    rho: f64,
}

impl Default for EdmSchedule {
    fn default() -> Self {
        Self { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 }
    }
}

impl EdmSchedule {
    /// The schedule between two noise levels, in the units of the image.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `0 < sigma_min < sigma_max`, both finite, and `1 <= rho <= 100`.
    pub fn new(sigma_min: f64, sigma_max: f64, rho: f64) -> Result<Self> {
        let (at, valid) = ("EdmSchedule::new", 0.0 < sigma_min && sigma_min < sigma_max && sigma_max.is_finite());
        check(valid, "sigma_min, sigma_max", "0 < sigma_min < sigma_max, finite", (sigma_min, sigma_max), at)?;
        check((1.0..=100.0).contains(&rho), "rho", "in [1, 100]", rho, at)?;
        Ok(Self { sigma_min, sigma_max, rho })
    }

    fn root(&self, sigma: f64) -> f64 {
        sigma.powf(1.0 / self.rho)
    }

    fn slope(&self) -> f64 {
        self.root(self.sigma_max) - self.root(self.sigma_min)
    }

    fn base(&self, t: f64) -> f64 {
        self.root(self.sigma_min) + t.clamp(0.0, 1.0) * self.slope()
    }
}

impl Schedule for EdmSchedule {
    fn scales(&self, t: f64) -> Scales {
        Scales { alpha: 1.0, sigma: self.base(t).powf(self.rho) }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        Derivatives { d_alpha: 0.0, d_sigma: self.rho * self.base(t).powf(self.rho - 1.0) * self.slope() }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        let sigma = sigma_edm.max(self.sigma_min).min(self.sigma_max);
        ((self.root(sigma) - self.root(self.sigma_min)) / self.slope()).clamp(0.0, 1.0)
    }

    fn clean_end(&self) -> CleanEnd {
        CleanEnd::SigmaMin(self.sigma_min)
    }
}
