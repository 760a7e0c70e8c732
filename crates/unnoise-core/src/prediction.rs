//! The five things that a network can predict, and each in terms of each other.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{Batch, Derivatives, Error, Level, Result, Schedule, schedule::check_same_shape};

/// What a network predicts, or what is computed from its prediction.
///
/// ```text
/// x_t = alpha x0 + sigma eps
/// v = alpha eps - sigma x0      score = -eps / sigma      velocity = d x_t / dt = alpha' x0 + sigma' eps
/// ```
///
/// # Reference
/// `v`: Salimans, Ho 2022, arXiv 2202.00512, sec. 4; here it is not assumed that `alpha^2 + sigma^2 = 1`. The velocity: Lipman et
/// al. 2023, arXiv 2210.02747, sec. 4, with time running from the image to the noise, so that rectified flow's is `eps - x0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The clean image.
    X0,
    /// The noise, in units of `sigma`.
    Eps,
    /// The rotation of the two.
    V,
    /// The gradient of the noisy images' log-density.
    Score,
    /// The flow's time derivative.
    Velocity,
}

impl Prediction {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::X0, Self::Eps, Self::V, Self::Score, Self::Velocity];

    /// The name, as in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::X0 => "x0",
            Self::Eps => "eps",
            Self::V => "v",
            Self::Score => "score",
            Self::Velocity => "velocity",
        }
    }

    /// The prediction in terms of `x0` and `eps`; `derivatives` are asked for by the velocity alone.
    fn combination(self, Level { alpha, sigma, .. }: Level, derivatives: impl FnOnce() -> Derivatives) -> Combination {
        let of = |x0, eps| Combination { x0, eps, divisor: 1.0 };
        match self {
            Self::X0 => of(1.0, 0.0),
            Self::Eps => of(0.0, 1.0),
            Self::V => of(-sigma, alpha),
            Self::Score => Combination { divisor: sigma, ..of(0.0, -1.0) },
            Self::Velocity => {
                let Derivatives { d_alpha, d_sigma } = derivatives();
                of(d_alpha, d_sigma)
            }
        }
    }
}

impl std::str::FromStr for Prediction {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(|p| p.name().to_string()).to_vec();
        let unknown = || Error::Unknown { kind: "prediction", name: name.into(), known: known() };
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(unknown)
    }
}

/// `(x0 X0 + eps EPS) / divisor`.
#[derive(Clone, Copy)]
struct Combination {
    x0: f64,
    eps: f64,
    divisor: f64,
}

/// A conversion at one level: `target = x_t X_T + value SOURCE`, two numbers that serve any array type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    /// The factor of the noisy image.
    pub x_t: f64,
    /// The factor of the given prediction.
    pub value: f64,
}

impl Conversion {
    /// The conversion of the prediction `from` into `to` at a level. The velocity takes its derivatives from `schedule` at `level.t`.
    ///
    /// ```text
    /// p = a x0 + b eps,   q = c x0 + d eps,   x_t = alpha x0 + sigma eps:
    /// q = ((c b - d a) x_t + (d alpha - c sigma) p) / (alpha b - sigma a)
    /// ```
    ///
    /// # Errors
    /// [`Error::UndefinedConversion`] where `from` does not determine `to`, as `x0` from `eps` at `alpha = 0`. A prediction always
    /// determines itself, and `v` everything but the score at `sigma = 0` and the velocity where its derivatives are infinite.
    ///
    /// ```
    /// use unnoise_core::{Conversion, CosineSchedule, Level, Prediction};
    /// let pure_noise = Level::at(&CosineSchedule, 1.0);
    /// let error = Conversion::new(Prediction::Eps, Prediction::X0, pure_noise, &CosineSchedule).unwrap_err();
    /// assert_eq!(error.to_string(), "x0 cannot be computed from eps at alpha = 0, sigma = 1; v can");
    /// ```
    pub fn new(from: Prediction, to: Prediction, level: Level, schedule: &dyn Schedule) -> Result<Self> {
        Self::with(from, to, level, || schedule.derivatives(level.t))
    }

    fn with(from: Prediction, to: Prediction, level: Level, derivatives: impl Fn() -> Derivatives) -> Result<Self> {
        let find = |from: Prediction| Self::find(from, to, level, &derivatives);
        find(from).ok_or_else(|| {
            let mut others = [Prediction::V, Prediction::X0, Prediction::Eps].into_iter().filter(|p| *p != to);
            Error::UndefinedConversion {
                target: to.name(),
                source_name: from.name(),
                alpha: level.alpha,
                sigma: level.sigma,
                usable: others.find(|from| find(*from).is_some()).unwrap_or(to).name(),
            }
        })
    }

    fn find(from: Prediction, to: Prediction, level: Level, derivatives: impl Fn() -> Derivatives) -> Option<Self> {
        if from == to {
            return Some(Self { x_t: 0.0, value: 1.0 });
        }
        let (p, q) = (from.combination(level, &derivatives), to.combination(level, &derivatives));
        let across = q.x0 * p.eps - q.eps * p.x0;
        let (x_t, value) = if across == 0.0 {
            // Multiples of each other, as the score and eps: x_t is not needed, nor anything of it.
            (0.0, if p.eps == 0.0 { q.x0 / p.x0 } else { q.eps / p.eps })
        } else {
            let determinant = level.alpha * p.eps - level.sigma * p.x0;
            (across / determinant, (q.eps * level.alpha - q.x0 * level.sigma) / determinant)
        };
        let found = Self { x_t: x_t / q.divisor, value: value * p.divisor / q.divisor };
        (found.x_t.is_finite() && found.value.is_finite()).then_some(found)
    }

    fn apply(self, value: &Batch, x_t: &Batch) -> Result<Batch> {
        check_same_shape(x_t, value, "the prediction", "a conversion")?;
        // A factor of 0 stands for "not needed": what is not finite there must not spread.
        Ok(match self {
            Self { x_t: 0.0, value: factor } => value * factor,
            Self { x_t: factor, value: 0.0 } => x_t * factor,
            Self { x_t: factor, value: other } => factor * x_t + other * value,
        })
    }
}

/// Converts a prediction into another, both at `x_t` and `level`.
///
/// # Errors
/// As [`Conversion::new`]; [`Error::Shape`] when `value` is not shaped like `x_t`.
pub fn convert(
    value: &Batch,
    from: Prediction,
    to: Prediction,
    x_t: &Batch,
    level: Level,
    schedule: &dyn Schedule,
) -> Result<Batch> {
    Conversion::new(from, to, level, schedule)?.apply(value, x_t)
}

/// One function a pair: its name, target, source and formula.
macro_rules! pairs {
    ($($name:ident: $to:ident from $from:ident, $formula:literal;)*) => {$(
        #[doc = concat!("```text\n", $formula, "\n```")]
        ///
        /// # Errors
        /// [`Error::UndefinedConversion`] where the formula divides by zero; [`Error::Shape`].
        pub fn $name(value: &Batch, x_t: &Batch, level: Level) -> Result<Batch> {
            let unused = || unreachable!("neither side is the velocity");
            Conversion::with(Prediction::$from, Prediction::$to, level, unused)?.apply(value, x_t)
        }
    )*};
}

/// As [`pairs`], for the velocity: the derivatives are `alpha'` and `sigma'` at the level.
macro_rules! velocity_pairs {
    ($($name:ident: $to:ident from $from:ident, $formula:literal;)*) => {$(
        #[doc = concat!("```text\n", $formula, "\n```")]
        ///
        /// `alpha'` and `sigma'` are [`Schedule::derivatives`] at the level.
        ///
        /// # Errors
        /// [`Error::UndefinedConversion`] where the formula divides by zero; [`Error::Shape`].
        pub fn $name(value: &Batch, x_t: &Batch, level: Level, derivatives: Derivatives) -> Result<Batch> {
            Conversion::with(Prediction::$from, Prediction::$to, level, || derivatives)?.apply(value, x_t)
        }
    )*};
}

pairs! {
    x0_from_eps: X0 from Eps, "x0 = (x_t - sigma eps) / alpha";
    x0_from_v: X0 from V, "x0 = (alpha x_t - sigma v) / (alpha^2 + sigma^2)";
    x0_from_score: X0 from Score, "x0 = (x_t + sigma^2 score) / alpha";
    eps_from_x0: Eps from X0, "eps = (x_t - alpha x0) / sigma";
    eps_from_v: Eps from V, "eps = (sigma x_t + alpha v) / (alpha^2 + sigma^2)";
    eps_from_score: Eps from Score, "eps = -sigma score";
    v_from_x0: V from X0, "v = (alpha x_t - (alpha^2 + sigma^2) x0) / sigma";
    v_from_eps: V from Eps, "v = ((alpha^2 + sigma^2) eps - sigma x_t) / alpha";
    v_from_score: V from Score, "v = -(sigma x_t + sigma (alpha^2 + sigma^2) score) / alpha";
    score_from_x0: Score from X0, "score = (alpha x0 - x_t) / sigma^2";
    score_from_eps: Score from Eps, "score = -eps / sigma";
    score_from_v: Score from V, "score = -(x_t + (alpha / sigma) v) / (alpha^2 + sigma^2)";
}

velocity_pairs! {
    x0_from_velocity: X0 from Velocity, "x0 = (sigma' x_t - sigma velocity) / (alpha sigma' - sigma alpha')";
    eps_from_velocity: Eps from Velocity, "eps = (alpha velocity - alpha' x_t) / (alpha sigma' - sigma alpha')";
    v_from_velocity: V from Velocity, "v = ((alpha^2 + sigma^2) velocity - (alpha alpha' + sigma sigma') x_t) / (alpha sigma' - sigma alpha')";
    score_from_velocity: Score from Velocity, "score = -(alpha velocity - alpha' x_t) / (sigma (alpha sigma' - sigma alpha'))";
    velocity_from_x0: Velocity from X0, "velocity = (sigma' x_t - (alpha sigma' - sigma alpha') x0) / sigma";
    velocity_from_eps: Velocity from Eps, "velocity = (alpha' x_t + (alpha sigma' - sigma alpha') eps) / alpha";
    velocity_from_v: Velocity from V, "velocity = ((alpha alpha' + sigma sigma') x_t + (alpha sigma' - sigma alpha') v) / (alpha^2 + sigma^2)";
    velocity_from_score: Velocity from Score, "velocity = (alpha' x_t - sigma (alpha sigma' - sigma alpha') score) / alpha";
}
