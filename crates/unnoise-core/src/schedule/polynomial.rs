//! The polynomial flow.

use super::{Derivatives, Rates, Scales, Schedule, check};
use crate::Result;

/// The straight line from image to noise of [`RectifiedFlowSchedule`](super::RectifiedFlowSchedule), walked at another pace.
///
/// ```text
/// alpha = (1 - t)^n         sigma = 1 - (1 - t)^n
/// drift = -n / (1 - t)      diffusion_sq = 2 n sigma / (1 - t)
/// ```
///
/// # Reference
/// Lipman et al. 2024, arXiv 2412.06264, `PolynomialConvexScheduler` of its library: `alpha = t^n`, with time from noise to
/// data; ours runs from data to noise, as every schedule here does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolynomialSchedule {
    n: f64,
}

impl PolynomialSchedule {
    /// The schedule of the exponent `n`; 1 is rectified flow.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `0 < n <= 20`.
    pub fn new(n: f64) -> Result<Self> {
        check(n > 0.0 && n <= 20.0, "n", "in (0, 20]", n, "PolynomialSchedule::new")?;
        Ok(Self { n })
    }
}

impl Schedule for PolynomialSchedule {
    fn scales(&self, t: f64) -> Scales {
        let t = t.clamp(0.0, 1.0);
        // The logarithm, so that sigma does not cancel near t = 0.
        let log = self.n * (-t).ln_1p();
        Scales { alpha: log.exp(), sigma: -log.exp_m1() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let slope = self.n * (1.0 - t.clamp(0.0, 1.0)).powf(self.n - 1.0);
        Derivatives { d_alpha: -slope, d_sigma: slope }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        // 1 / alpha = 1 + sigma / alpha.
        -(-sigma_edm.max(0.0).ln_1p() / self.n).exp_m1()
    }

    fn rates(&self, t: f64) -> Rates {
        let rate = self.n / (1.0 - t.clamp(0.0, 1.0));
        Rates { drift: -rate, diffusion_sq: 2.0 * rate * self.scales(t).sigma }
    }
}
