//! The variance-exploding SDE.

use super::{CleanEnd, Derivatives, Scales, Schedule, check};
use crate::Result;

/// The variance-exploding SDE: the signal keeps its scale and the noise grows geometrically.
///
/// ```text
/// alpha = 1      sigma = sigma_min (sigma_max / sigma_min)^t
/// drift = 0      diffusion_sq = 2 sigma^2 ln(sigma_max / sigma_min)
/// ```
///
/// Its clean end is `sigma_min`, not zero ([`CleanEnd::SigmaMin`]).
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, eq. 9 and app. C; `sigma_min = 0.01` and `sigma_max = 50` as for their CIFAR-10, whose images
/// are in `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VeSchedule {
    sigma_min: f64,
    sigma_max: f64,
}

impl Default for VeSchedule {
    fn default() -> Self {
        Self { sigma_min: 0.01, sigma_max: 50.0 }
    }
}

impl VeSchedule {
    /// The schedule between two noise levels, in the units of the image.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `0 < sigma_min < sigma_max`, both finite.
    pub fn new(sigma_min: f64, sigma_max: f64) -> Result<Self> {
        let valid = 0.0 < sigma_min && sigma_min < sigma_max && sigma_max.is_finite();
        check(valid, "sigma_min, sigma_max", "0 < sigma_min < sigma_max, finite", (sigma_min, sigma_max), "VeSchedule::new")?;
        Ok(Self { sigma_min, sigma_max })
    }

    fn log_ratio(&self) -> f64 {
        (self.sigma_max / self.sigma_min).ln()
    }
}

impl Schedule for VeSchedule {
    fn scales(&self, t: f64) -> Scales {
        Scales { alpha: 1.0, sigma: self.sigma_min * (t.clamp(0.0, 1.0) * self.log_ratio()).exp() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        Derivatives { d_alpha: 0.0, d_sigma: self.scales(t).sigma * self.log_ratio() }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        let ratio = sigma_edm.max(self.sigma_min) / self.sigma_min;
        (ratio.ln() / self.log_ratio()).min(1.0)
    }

    fn clean_end(&self) -> CleanEnd {
        CleanEnd::SigmaMin(self.sigma_min)
    }
}
