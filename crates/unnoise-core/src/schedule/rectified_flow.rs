//! The straight line from image to noise.

use super::{Derivatives, Rates, Scales, Schedule};

/// Rectified flow (conditional optimal transport): the straight line from `x0` to `eps`.
///
/// ```text
/// alpha = 1 - t      sigma = t      velocity = eps - x0
/// ```
///
/// # Reference
/// Liu, Gong, Liu 2023, arXiv 2209.03003; Lipman et al. 2023, arXiv 2210.02747. Both run time from noise to data; ours
/// runs from data to noise, as every schedule here does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RectifiedFlowSchedule;

impl Schedule for RectifiedFlowSchedule {
    fn scales(&self, t: f64) -> Scales {
        let t = t.clamp(0.0, 1.0);
        Scales { alpha: 1.0 - t, sigma: t }
    }

    fn derivatives(&self, _t: f64) -> Derivatives {
        Derivatives { d_alpha: -1.0, d_sigma: 1.0 }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        if sigma_edm <= 0.0 { 0.0 } else { 1.0 / (1.0 + 1.0 / sigma_edm) }
    }

    fn rates(&self, t: f64) -> Rates {
        let Scales { alpha, sigma } = self.scales(t);
        Rates { drift: -1.0 / alpha, diffusion_sq: 2.0 * sigma / alpha }
    }
}
