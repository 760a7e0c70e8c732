//! The shift of time that a model of larger images needs.

use std::{ops::RangeInclusive, sync::Arc};

use super::{CleanEnd, Derivatives, Scales, Schedule, check};
use crate::Result;

/// A map of `[0, 1]` onto itself that moves times towards the noise.
///
/// ```text
/// 1 / t' - 1 = (1 / t - 1)^power / factor            for power = 1:  t' = factor t / (1 + (factor - 1) t)
/// ```
///
/// At power 1 it multiplies the `sigma / alpha` of rectified flow by the factor: larger images keep more of their signal under the same
/// noise, and a factor above 1 makes up for it.
///
/// # Reference
/// Esser et al. 2024, arXiv 2403.03206, eq. 23, with `factor = sqrt(m / n)` for `m` pixels in place of `n`, and 3 for images of 1024 pixels a
/// side. Powers, and factors that depend on the image, are diffusers' (`FlowMatchEulerDiscreteScheduler`, `use_dynamic_shifting`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    factor: f64,
    power: f64,
}

impl Shift {
    /// Stable Diffusion 3's, for images of 1024 pixels a side: the factor 3.
    pub const SD3: Self = Self { factor: 3.0, power: 1.0 };

    /// The factors that are taken.
    pub(crate) const FACTORS: RangeInclusive<f64> = 1e-3..=1e3;
    /// The powers that are taken.
    pub(crate) const POWERS: RangeInclusive<f64> = 0.1..=10.0;

    /// The shift by a factor, at power 1: diffusers' `shift`, and its `mu` of `time_shift_type: linear`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless the factor lies in `[1e-3, 1e3]`.
    pub fn new(factor: f64) -> Result<Self> {
        Self::with_power(factor, 1.0)
    }

    /// The shift by a factor and a power.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless the factor lies in `[1e-3, 1e3]` and the power in `[0.1, 10]`.
    pub fn with_power(factor: f64, power: f64) -> Result<Self> {
        check(Self::FACTORS.contains(&factor), "factor", "in [0.001, 1000]", factor, "Shift")?;
        check(Self::POWERS.contains(&power), "power", "in [0.1, 10]", power, "Shift")?;
        Ok(Self { factor, power })
    }

    /// The shift by `exp(mu)`: diffusers' `time_shift_type: exponential`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn exponential(mu: f64) -> Result<Self> {
        Self::new(mu.exp())
    }

    /// The exponential shift for an image of that many tokens, whose `mu` is on the line through 0.5 at 256 tokens and 1.15 at 4096:
    /// diffusers' dynamic shift (`calculate_shift`), as for Flux.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_tokens(tokens: usize) -> Result<Self> {
        Self::exponential(0.5 + (tokens as f64 - 256.0) * (1.15 - 0.5) / (4096.0 - 256.0))
    }

    /// The factor.
    pub fn factor(self) -> f64 {
        self.factor
    }

    /// The power.
    pub fn power(self) -> f64 {
        self.power
    }

    /// `t'`.
    pub fn apply(self, t: f64) -> f64 {
        let t = t.clamp(0.0, 1.0);
        let (noise, signal) = (self.factor * t.powf(self.power), (1.0 - t).powf(self.power));
        noise / (noise + signal)
    }

    /// `t` of a `t'`.
    pub fn invert(self, shifted: f64) -> f64 {
        let shifted = shifted.clamp(0.0, 1.0);
        let (noise, signal) = (shifted.powf(1.0 / self.power), (self.factor * (1.0 - shifted)).powf(1.0 / self.power));
        noise / (noise + signal)
    }

    /// `dt' / dt`.
    pub fn derivative(self, t: f64) -> f64 {
        let t = t.clamp(0.0, 1.0);
        let sum = self.factor * t.powf(self.power) + (1.0 - t).powf(self.power);
        self.factor * self.power * (t * (1.0 - t)).powf(self.power - 1.0) / (sum * sum)
    }
}

/// Another schedule, at shifted times.
///
/// ```text
/// alpha(t) = alpha_inner(t')      sigma(t) = sigma_inner(t')      t' = shift(t)
/// ```
///
/// Its `t` is the time before the shift. A network that is asked at `t'`, as Stable Diffusion 3 is, keeps its own schedule and is sampled on a
/// shifted grid instead: [`GridKind::Shifted`](crate::GridKind::Shifted).
#[derive(Clone, Debug)]
pub struct ShiftedSchedule {
    inner: Arc<dyn Schedule>,
    shift: Shift,
}

impl ShiftedSchedule {
    /// `inner` at shifted times.
    pub fn new(inner: Arc<dyn Schedule>, shift: Shift) -> Self {
        Self { inner, shift }
    }
}

impl Schedule for ShiftedSchedule {
    fn scales(&self, t: f64) -> Scales {
        self.inner.scales(self.shift.apply(t))
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let at = |t: f64| {
            let (Derivatives { d_alpha, d_sigma }, rate) = (self.inner.derivatives(self.shift.apply(t)), self.shift.derivative(t));
            [rate * d_alpha, rate * d_sigma]
        };
        // Where zero meets infinity, at an end, the value a hair inside.
        let ([d_alpha, d_sigma], inside) = (at(t), at(t.clamp(1e-100, 1.0 - f64::EPSILON)));
        let or = |value: f64, inside: f64| if value.is_nan() { inside } else { value };
        Derivatives { d_alpha: or(d_alpha, inside[0]), d_sigma: or(d_sigma, inside[1]) }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        self.shift.invert(self.inner.t_from_sigma_edm(sigma_edm))
    }

    fn clean_end(&self) -> CleanEnd {
        self.inner.clean_end()
    }
}
