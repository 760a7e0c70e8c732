//! The sigmoid schedule in continuous time.

use super::{Derivatives, Scales, Schedule, check};
use crate::Result;

/// The schedule whose `alpha^2` falls like a piece of the logistic function `S`, from 1 to 0.
///
/// ```text
/// x = (start + t (end - start)) / tau
/// alpha^2 = (S(end / tau) - S(x)) / (S(end / tau) - S(start / tau))      sigma = sqrt(1 - alpha^2)
/// ```
///
/// `alpha(1)` is exactly 0, where its derivative and the SDE's rates are infinite; `sigma` leaves 0 like a square root. The betas that
/// diffusers calls `sigmoid` are another schedule: [`DiscreteSchedule::sigmoid`](super::DiscreteSchedule::sigmoid).
///
/// # Reference
/// Jabri, Fleet, Chen 2023, arXiv 2212.11972; Chen 2023, arXiv 2301.10972, whose code has it (`sigmoid_schedule`), with `start = -3`,
/// `end = 3`, `tau = 1` and a floor of 1e-9 under `alpha^2`, which is not here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SigmoidSchedule {
    /// `start / tau` and `end / tau`.
    start: f64,
    end: f64,
}

impl Default for SigmoidSchedule {
    fn default() -> Self {
        Self { start: -3.0, end: 3.0 }
    }
}

impl SigmoidSchedule {
    /// The schedule of the piece from `start` to `end` at the temperature `tau`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `start < end`, `tau > 0` and `start / tau`, `end / tau` lie in `[-30, 30]` (beyond,
    /// the logistic function is flat to rounding).
    pub fn new(start: f64, end: f64, tau: f64) -> Result<Self> {
        let at = "SigmoidSchedule::new";
        check(tau > 0.0, "tau", "positive", tau, at)?;
        let valid = start < end && -30.0 <= start / tau && end / tau <= 30.0;
        check(valid, "start, end", "start < end, both within 30 tau of 0", (start, end), at)?;
        Ok(Self { start: start / tau, end: end / tau })
    }

    /// Half of the whole piece, and half of what lies before `t`.
    fn halves(&self, t: f64) -> (f64, f64) {
        let whole = 0.5 * (self.end - self.start);
        (whole, t.clamp(0.0, 1.0) * whole)
    }

    /// `alpha^2` and `sigma^2`: by `S(a) - S(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2))`, neither cancels.
    fn squares(&self, t: f64) -> (f64, f64) {
        let (whole, before) = self.halves(t);
        let common = whole.sinh() * (0.5 * self.start + before).cosh();
        let alpha_sq = (whole - before).sinh() * (0.5 * self.start).cosh() / common;
        (alpha_sq, before.sinh() * (0.5 * self.end).cosh() / common)
    }
}

impl Schedule for SigmoidSchedule {
    fn scales(&self, t: f64) -> Scales {
        let (alpha_sq, sigma_sq) = self.squares(t);
        match t {
            t if t <= 0.0 => Scales { alpha: 1.0, sigma: 0.0 },
            t if t >= 1.0 => Scales { alpha: 0.0, sigma: 1.0 },
            _ => Scales { alpha: alpha_sq.sqrt(), sigma: sigma_sq.sqrt() },
        }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let Scales { alpha, sigma } = self.scales(t);
        let (whole, before) = self.halves(t);
        // S' = 1 / (4 cosh^2(x / 2)).
        let slope = 0.25 / (0.5 * self.start + before).cosh().powi(2) * 2.0 * whole;
        let span = whole.sinh() / (2.0 * (0.5 * self.start).cosh() * (0.5 * self.end).cosh());
        let d_sigma_sq = slope / span;
        Derivatives { d_alpha: -0.5 * d_sigma_sq / alpha, d_sigma: 0.5 * d_sigma_sq / sigma }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        let (whole, _) = self.halves(0.0);
        let (low, high) = ((0.5 * self.start).cosh(), (0.5 * self.end).cosh());
        // q = sigma^2 / alpha^2 = sinh(before) high / (sinh(whole - before) low), solved for the smaller of before and whole - before.
        let solved = |q: f64, a: f64, b: f64| (q * a * whole.sinh() / (b + q * a * whole.cosh())).atanh() / whole;
        let q = sigma_edm.max(0.0).powi(2);
        if q <= 1.0 { solved(q, low, high) } else { 1.0 - solved(1.0 / q, high, low) }
    }
}
