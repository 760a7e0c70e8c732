//! Noise schedules: how much signal and how much noise there is at each time.

mod config;
mod cosine;
mod discrete;
mod edm;
mod laplace;
mod polynomial;
mod rectified_flow;
mod shifted;
mod sigmoid;
mod sub_vp;
mod trigonometric;
mod ve;
mod vp;

#[cfg(test)]
mod tests;

use std::fmt::Debug;

use crate::{Batch, Error, Result, check_shape, element_shape};

pub use config::{Betas, DiscreteConfig, ScheduleConfig};
pub use cosine::CosineSchedule;
pub use discrete::DiscreteSchedule;
pub use edm::EdmSchedule;
pub use laplace::LaplaceSchedule;
pub use polynomial::PolynomialSchedule;
pub use rectified_flow::RectifiedFlowSchedule;
pub use shifted::{Shift, ShiftedSchedule};
pub use sigmoid::SigmoidSchedule;
pub use sub_vp::SubVpSchedule;
pub use trigonometric::TrigonometricSchedule;
pub use ve::VeSchedule;
pub use vp::VpSchedule;

/// The two scales of `x_t = alpha x0 + sigma eps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// The signal's scale.
    pub alpha: f64,
    /// The noise's scale.
    pub sigma: f64,
}

/// Time derivatives of [`Scales`], right-sided where the schedule has a knot (left-sided at `t = 1`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Derivatives {
    /// `d alpha / dt`.
    pub d_alpha: f64,
    /// `d sigma / dt`.
    pub d_sigma: f64,
}

/// The linear SDE `dx = drift x dt + sqrt(diffusion_sq) dw` whose marginals are the schedule's.
///
/// ```text
/// drift = alpha' / alpha      diffusion_sq = 2 sigma (sigma' - sigma alpha' / alpha)
/// ```
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, eq. 5 (the SDE); Kingma et al. 2021, arXiv 2107.00630, for the expression in
/// `alpha` and `sigma`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The drift coefficient `f(t)`.
    pub drift: f64,
    /// The squared diffusion coefficient `g(t)^2`.
    pub diffusion_sq: f64,
}

/// How far down in noise a schedule reaches at `t = 0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CleanEnd {
    /// `t = 0` is the clean image: `alpha = 1`, `sigma = 0`.
    Clean,
    /// `t = 0` still holds noise of this `sigma / alpha`; a sampler's last step must denoise it away.
    SigmaMin(f64),
}

/// A noise level at which a denoiser is asked.
///
/// `t` is what a network is conditioned on; `alpha` and `sigma` are what the arithmetic uses. For a level on its schedule they
/// agree; a grid that rounds or interpolates (as diffusers' Euler does) may give slightly different ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Time in `[0, 1]`; 0 is the cleanest.
    pub t: f64,
    /// The signal's scale.
    pub alpha: f64,
    /// The noise's scale.
    pub sigma: f64,
}

impl Level {
    /// The noise-free end of every grid.
    pub const CLEAN: Level = Level { t: 0.0, alpha: 1.0, sigma: 0.0 };

    /// The level of `schedule` at time `t`.
    pub fn at(schedule: &dyn Schedule, t: f64) -> Self {
        let Scales { alpha, sigma } = schedule.scales(t);
        Self { t, alpha, sigma }
    }

    /// The level of `schedule` with this `sigma / alpha`. Beyond the schedule's ends it keeps their time and `alpha`.
    pub fn at_sigma_edm(schedule: &dyn Schedule, sigma_edm: f64) -> Self {
        let t = schedule.t_from_sigma_edm(sigma_edm);
        let alpha = schedule.scales(t).alpha;
        Self { t, alpha, sigma: alpha * sigma_edm }
    }

    /// `sigma / alpha`: the noise level of `x / alpha`.
    pub fn sigma_edm(self) -> f64 {
        self.sigma / self.alpha
    }
}

/// A noise schedule, `t in [0, 1]` to signal and noise scales, in closed form.
pub trait Schedule: Debug + Send + Sync {
    /// `alpha` and `sigma` at `t`. Times outside `[0, 1]` are clamped.
    fn scales(&self, t: f64) -> Scales;

    /// The time derivatives of [`scales`](Self::scales).
    fn derivatives(&self, t: f64) -> Derivatives;

    /// The time at which `sigma / alpha` has this value, clamped to `[0, 1]`.
    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64;

    /// The log-SNR, `2 log(alpha / sigma)`: infinite where there is no noise, minus infinite where there is no signal.
    fn log_snr(&self, t: f64) -> f64 {
        let Scales { alpha, sigma } = self.scales(t);
        2.0 * (alpha.ln() - sigma.ln())
    }

    /// The time at which the log-SNR has this value, clamped to `[0, 1]`.
    fn t_from_log_snr(&self, log_snr: f64) -> f64 {
        self.t_from_sigma_edm((-0.5 * log_snr).exp())
    }

    /// Where the schedule ends at `t = 0`.
    fn clean_end(&self) -> CleanEnd {
        CleanEnd::Clean
    }

    /// The number of training steps of a discrete schedule: step `k` is `t = (k + 1) / T`.
    fn steps(&self) -> Option<usize> {
        None
    }

    /// The drift and diffusion of the forward SDE, from the derivatives.
    fn rates(&self, t: f64) -> Rates {
        let Scales { alpha, sigma } = self.scales(t);
        let Derivatives { d_alpha, d_sigma } = self.derivatives(t);
        Rates { drift: d_alpha / alpha, diffusion_sq: 2.0 * sigma * (d_sigma - sigma * d_alpha / alpha) }
    }
}

/// Noises an image directly to the time `t`.
///
/// ```text
/// x_t = alpha(t) x0 + sigma(t) eps
/// ```
///
/// # Errors
/// [`Error::Shape`] when `eps` is not shaped like `x0`.
///
/// # Reference
/// Ho, Jain, Abbeel 2020, arXiv 2006.11239, eq. 4; here for every schedule.
pub fn forward_noise(x0: &Batch, eps: &Batch, schedule: &dyn Schedule, t: f64) -> Result<Batch> {
    check_same_shape(x0, eps, "eps", "forward_noise")?;
    let Scales { alpha, sigma } = schedule.scales(t);
    Ok(alpha * x0 + sigma * eps)
}

/// The lowest time that is a noise level of its own: 0 where the schedule ends in noise, the first step of a discrete one, and 0.001 of a
/// continuous one that ends clean.
pub(crate) fn lowest_time(schedule: &dyn Schedule) -> f64 {
    match (schedule.clean_end(), schedule.steps()) {
        (CleanEnd::SigmaMin(_), _) => 0.0,
        (CleanEnd::Clean, Some(steps)) => 1.0 / steps as f64,
        (CleanEnd::Clean, None) => 1e-3,
    }
}

/// Refuses `other` unless it has all four sides of `batch`.
pub(crate) fn check_same_shape(batch: &Batch, other: &Batch, what: &'static str, at: &'static str) -> Result<()> {
    check_shape(other, element_shape(batch), what, at)?;
    if batch.dim().0 == other.dim().0 {
        return Ok(());
    }
    Err(Error::Shape { what, expected: batch.shape().to_vec(), got: other.shape().to_vec(), at })
}

/// Refuses a number outside its domain, which `expected` words.
fn check(valid: bool, what: &'static str, expected: &str, got: impl Debug, at: &'static str) -> Result<()> {
    if valid { Ok(()) } else { Err(Error::Argument { what, expected: expected.into(), got: format!("{got:?}"), at }) }
}
