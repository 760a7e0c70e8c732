//! The trigonometric flow.

use std::f64::consts::FRAC_PI_2;

use super::{Derivatives, Rates, Scales, Schedule};

/// The quarter circle from image to noise at constant speed: variance-preserving, and the path of flow matching called cosine,
/// trigonometric or generalized variance-preserving.
///
/// ```text
/// alpha = cos(pi t / 2)             sigma = sin(pi t / 2)             sigma / alpha = tan(pi t / 2)
/// drift = -(pi / 2) tan(pi t / 2)   diffusion_sq = pi tan(pi t / 2)
/// ```
///
/// [`CosineSchedule`](super::CosineSchedule) is this one with an offset in time. `alpha(1)` is exactly 0, where drift and diffusion are infinite.
///
/// # Reference
/// Albergo, Vanden-Eijnden 2023, arXiv 2209.15571; Lipman et al. 2024, arXiv 2412.06264 (`CosineScheduler` of its library). Both run time
/// from noise to data; ours runs from data to noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrigonometricSchedule;

impl Schedule for TrigonometricSchedule {
    fn scales(&self, t: f64) -> Scales {
        let t = t.clamp(0.0, 1.0);
        // cos as the sine of the complement, so that it is exactly 0 at t = 1.
        let alpha = if t == 0.0 { 1.0 } else { (FRAC_PI_2 * (1.0 - t)).sin() };
        Scales { alpha, sigma: (FRAC_PI_2 * t).sin() }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let Scales { alpha, sigma } = self.scales(t);
        Derivatives { d_alpha: -FRAC_PI_2 * sigma, d_sigma: FRAC_PI_2 * alpha }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        sigma_edm.max(0.0).atan() / FRAC_PI_2
    }

    fn rates(&self, t: f64) -> Rates {
        let Scales { alpha, sigma } = self.scales(t);
        Rates { drift: -FRAC_PI_2 * sigma / alpha, diffusion_sq: 2.0 * FRAC_PI_2 * sigma / alpha }
    }
}
