//! Grids by name.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use super::Grid;
use super::levels;
use crate::{Error, Result, Schedule, Shift};

/// Where the steps of a run are placed, on any schedule.
///
/// Every grid has its `n` steps go through falling noise levels, the first of which is the noisiest, and ends at the clean image. In words:
///
/// ```text
/// uniform                           equal steps of t
/// shifted:factor=3,power=1          uniform times, shifted towards the noise
/// beta:alpha=0.6,beta=0.6           uniform times through the quantile function of the beta distribution
/// leading, linspace, trailing       the training steps of a discrete schedule, rounded as in diffusers
/// karras:rho=7                      equal steps of (sigma / alpha)^(1/rho)
/// exponential, log-snr              equal steps of log(sigma / alpha), which is the same as of the log-SNR
/// poly-exponential:rho=1            log(sigma / alpha) falls like (1 - i / (n - 1))^rho
/// lu:rho=1                          equal steps of lambda^(1/rho), lambda = log(alpha / sigma)
/// times:1,0.5,0.1                   these times
/// sigmas:80,5,0.1                   these sigma / alpha
/// ```
///
/// Parameters that are not given take the values shown. `Display` writes them all.
///
/// ```
/// use unnoise_core::GridKind;
/// let kind: GridKind = "karras:rho=5".parse()?;
/// assert_eq!(kind, GridKind::Karras { rho: 5.0 });
/// assert_eq!("beta".parse::<GridKind>()?.to_string(), "beta:alpha=0.6,beta=0.6");
/// # Ok::<(), unnoise_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GridKind {
    /// Equal steps of time.
    ///
    /// ```text
    /// t_i = 1 - i / n
    /// ```
    ///
    /// A schedule that ends in noise takes `n - 1` equal steps to its `t = 0` and one from there to the clean image.
    #[default]
    Uniform,
    /// The times of [`Uniform`](Self::Uniform), [shifted](Shift::apply): how a flow model is sampled that is asked at the shifted time.
    ///
    /// # Reference
    /// Esser et al. 2024, arXiv 2403.03206, eq. 23; diffusers' `FlowMatchEulerDiscreteScheduler`.
    Shifted(Shift),
    /// The times of [`Uniform`](Self::Uniform) through the quantile function of the beta distribution: below 1, the parameters crowd them at the
    /// noisy (`beta`) and the clean (`alpha`) end.
    ///
    /// ```text
    /// t_i = F^-1(1 - i / n)      F the distribution function of Beta(alpha, beta)
    /// ```
    ///
    /// # Reference
    /// Lee et al. 2024, arXiv 2407.12173; the default 0.6 is diffusers'. The paper's quantiles are times, as here; diffusers
    /// (`use_beta_sigmas`) takes them for `sigma / alpha`.
    Beta {
        /// The first parameter of the distribution.
        alpha: f64,
        /// The second one.
        beta: f64,
    },
    /// Training steps that are multiples of `T / n`, rounded down, from 0: it starts below the noisiest one.
    ///
    /// # Reference
    /// Lin et al. 2024, arXiv 2305.08891, table 2, and its objections; diffusers' `timestep_spacing`.
    Leading,
    /// Training steps from `T - 1` to 0, both included, rounded to the nearest; one step starts at `T - 1`.
    ///
    /// # Reference
    /// As [`Leading`](Self::Leading).
    Linspace,
    /// Training steps that are multiples of `T / n`, downwards from `T`, rounded to the nearest, less 1.
    ///
    /// # Reference
    /// As [`Leading`](Self::Leading).
    Trailing,
    /// Equal steps of `(sigma / alpha)^(1/rho)` between the ends of the schedule, then one to the clean image.
    ///
    /// ```text
    /// s_i = (s_max^(1/rho) + i / (n - 1) (s_min^(1/rho) - s_max^(1/rho)))^rho      s = sigma / alpha
    /// ```
    ///
    /// `s_max` is the level at `t = 1`; `s_min` is where the schedule ends in noise, the first step of a discrete one, and `t = 0.001` of a
    /// continuous one that ends clean.
    ///
    /// # Reference
    /// Karras et al. 2022, arXiv 2206.00364, eq. 5.
    Karras {
        /// The exponent.
        rho: f64,
    },
    /// Equal steps of `log(sigma / alpha)` between the ends of [`Karras`](Self::Karras): the same grid as [`LogSnr`](Self::LogSnr), under k-diffusion's
    /// and diffusers' name.
    Exponential,
    /// Equal steps of a power of the position in `log(sigma / alpha)`, between the same ends.
    ///
    /// ```text
    /// log s_i = log s_min + (1 - i / (n - 1))^rho (log s_max - log s_min)
    /// ```
    ///
    /// # Reference
    /// k-diffusion's `get_sigmas_polyexponential`; [`Exponential`](Self::Exponential) at rho = 1.
    PolyExponential {
        /// The exponent: above 1 it crowds the steps at the clean end.
        rho: f64,
    },
    /// Equal steps of the logarithm of the signal-to-noise ratio, between the same ends.
    ///
    /// # Reference
    /// Lu et al. 2022, arXiv 2206.00927: uniform steps in `lambda = log(alpha / sigma)`.
    LogSnr,
    /// Equal steps of a root of `lambda = log(alpha / sigma)`, between the same ends; the root keeps the sign.
    ///
    /// # Reference
    /// diffusers' `use_lu_lambdas`, which fixes rho at 1, where this is [`LogSnr`](Self::LogSnr); its formula has no value at the negative lambdas of
    /// another rho, hence our sign.
    Lu {
        /// The exponent: above 1 it crowds the steps where signal and noise are alike.
        rho: f64,
    },
    /// These times, noisiest first, then the clean image.
    Times(Vec<f64>),
    /// These `sigma / alpha`, noisiest first, then the clean image.
    Sigmas(Vec<f64>),
}

impl GridKind {
    /// Karras' own exponent.
    pub(super) const KARRAS: Self = Self::Karras { rho: 7.0 };

    /// Every grid that is not a list, with its default parameters.
    pub const ALL: [Self; 11] = [
        Self::Uniform,
        Self::Shifted(Shift::SD3),
        Self::Beta { alpha: 0.6, beta: 0.6 },
        Self::Leading,
        Self::Linspace,
        Self::Trailing,
        Self::KARRAS,
        Self::Exponential,
        Self::PolyExponential { rho: 1.0 },
        Self::LogSnr,
        Self::Lu { rho: 1.0 },
    ];

    /// Its name, without parameters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Shifted(_) => "shifted",
            Self::Beta { .. } => "beta",
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
            Self::Karras { .. } => "karras",
            Self::Exponential => "exponential",
            Self::PolyExponential { .. } => "poly-exponential",
            Self::LogSnr => "log-snr",
            Self::Lu { .. } => "lu",
            Self::Times(_) => "times",
            Self::Sigmas(_) => "sigmas",
        }
    }

    /// The grid of this name, with its parameters, if it is followed by some: `karras`, `karras:rho=5`, `times:1,0.5`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name or a parameter that does not exist, with those that do; [`Error::Argument`] for a value outside its domain.
    pub fn by_name(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let list = || rest.unwrap_or("").split(',').map(|value| number("levels", value)).collect::<Result<_>>();
        let kind = match name {
            "times" => Self::Times(list()?),
            "sigmas" => Self::Sigmas(list()?),
            _ => match Self::ALL.into_iter().find(|kind| kind.name() == name) {
                Some(kind) => rest.map_or(Ok(kind.clone()), |rest| kind.with(rest))?,
                None => {
                    let known =
                        Self::ALL.iter().map(ToString::to_string).chain(["times:T,...".into(), "sigmas:S,...".into()]).collect();
                    return Err(Error::Unknown { kind: "grid", name: name.into(), known });
                }
            },
        };
        kind.check()?;
        Ok(kind)
    }

    /// The grid of `n` steps on `schedule`, from its noisiest level (with [`Leading`](Self::Leading) and the lists: from theirs) to the clean image.
    ///
    /// # Errors
    /// [`Error::Argument`] for no step, more than a discrete schedule has, more than can be told apart, or another number than a list has;
    /// for parameters outside their domain and levels that the schedule does not have. [`Error::Unsupported`], naming the grids that
    /// work, for training steps on a schedule in continuous time, and for steps in `sigma / alpha` where that starts infinite.
    pub fn grid(&self, schedule: &dyn Schedule, n: usize) -> Result<Grid> {
        self.check()?;
        if let Some(why) = self.refusal(schedule) {
            let possible = Self::ALL.iter().filter(|kind| kind.refusal(schedule).is_none());
            return Err(Error::Unsupported {
                what: format!("the grid {} on this schedule", self.name()),
                why: why.into(),
                possible: possible.map(|kind| kind.name().into()).collect(),
            });
        }
        levels::grid(self, schedule, n)
    }

    /// Why the schedule cannot be walked so, if it cannot.
    pub(super) fn refusal(&self, schedule: &dyn Schedule) -> Option<&'static str> {
        match self {
            Self::Leading | Self::Linspace | Self::Trailing => {
                schedule.steps().is_none().then_some("it goes through training steps, and the schedule is in continuous time")
            }
            Self::Karras { .. } | Self::Exponential | Self::PolyExponential { .. } | Self::LogSnr | Self::Lu { .. } => {
                let signal = schedule.scales(1.0).alpha;
                (signal <= 0.0).then_some("the schedule starts without signal, where sigma / alpha is infinite")
            }
            Self::Uniform | Self::Shifted(_) | Self::Beta { .. } | Self::Times(_) | Self::Sigmas(_) => None,
        }
    }

    /// The parameters' names, values and domains.
    fn parameters(&self) -> Vec<(&'static str, f64, RangeInclusive<f64>)> {
        match *self {
            Self::Shifted(shift) => vec![("factor", shift.factor(), Shift::FACTORS), ("power", shift.power(), Shift::POWERS)],
            Self::Beta { alpha, beta } => vec![("alpha", alpha, 0.1..=20.0), ("beta", beta, 0.1..=20.0)],
            Self::Karras { rho } => vec![("rho", rho, 0.5..=100.0)],
            Self::PolyExponential { rho } | Self::Lu { rho } => vec![("rho", rho, 0.1..=10.0)],
            _ => vec![],
        }
    }

    /// This grid with the parameters of `text`, `NAME=VALUE` separated by commas.
    fn with(self, text: &str) -> Result<Self> {
        let mut parameters = self.parameters();
        for item in text.split(',') {
            let (name, value) = item.split_once('=').ok_or_else(|| argument("grid parameter", "NAME=VALUE".into(), item))?;
            let known = parameters.iter().map(|(name, ..)| (*name).to_owned()).collect();
            let parameter = parameters.iter_mut().find(|(known, ..)| *known == name);
            let unknown = || Error::Unknown { kind: "grid parameter", name: name.into(), known };
            let (name, old, _) = parameter.ok_or_else(unknown)?;
            *old = number(name, value)?;
        }
        let value = |index: usize| parameters[index].1;
        Ok(match self {
            Self::Shifted(_) => Self::Shifted(Shift::with_power(value(0), value(1))?),
            Self::Beta { .. } => Self::Beta { alpha: value(0), beta: value(1) },
            Self::Karras { .. } => Self::Karras { rho: value(0) },
            Self::PolyExponential { .. } => Self::PolyExponential { rho: value(0) },
            Self::Lu { .. } => Self::Lu { rho: value(0) },
            other => other,
        })
    }

    fn check(&self) -> Result<()> {
        for (name, value, domain) in self.parameters() {
            if !domain.contains(&value) {
                return Err(argument(name, format!("in [{}, {}]", domain.start(), domain.end()), value));
            }
        }
        let (Self::Times(list) | Self::Sigmas(list)) = self else { return Ok(()) };
        let falls = list.windows(2).all(|pair| pair[1] < pair[0]) && list.iter().all(|v| v.is_finite());
        if list.is_empty() || !falls {
            return Err(argument("levels", "at least one, finite and falling".into(), format!("{list:?}")));
        }
        Ok(())
    }
}

impl FromStr for GridKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::by_name(text)
    }
}

impl fmt::Display for GridKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = match self {
            Self::Times(list) | Self::Sigmas(list) => list.iter().map(ToString::to_string).collect(),
            _ => self.parameters().iter().map(|(name, value, _)| format!("{name}={value}")).collect::<Vec<_>>(),
        };
        let separator = if values.is_empty() { "" } else { ":" };
        write!(f, "{}{separator}{}", self.name(), values.join(","))
    }
}

fn number(what: &'static str, text: &str) -> Result<f64> {
    text.trim().parse().map_err(|_| argument(what, "a number".into(), text))
}

fn argument(what: &'static str, expected: String, got: impl ToString) -> Error {
    Error::Argument { what, expected, got: got.to_string(), at: "GridKind" }
}
