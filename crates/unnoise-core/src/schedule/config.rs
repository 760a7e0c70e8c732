//! Schedules as checkpoints write them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    CosineSchedule, DiscreteSchedule, EdmSchedule, LaplaceSchedule, PolynomialSchedule, RectifiedFlowSchedule, Schedule, Shift,
    ShiftedSchedule, SigmoidSchedule, SubVpSchedule, TrigonometricSchedule, VeSchedule, VpSchedule,
};
use crate::Result;

/// A schedule's name and parameters.
///
/// ```
/// use unnoise_core::ScheduleConfig;
/// let config: ScheduleConfig = serde_json::from_str(r#"{ "kind": "vp", "beta_min": 0.1, "beta_max": 20.0 }"#).unwrap();
/// let alpha = config.build().unwrap().scales(1.0).alpha;
/// assert!((alpha - (-10.05f64 / 2.0).exp()).abs() < 1e-15);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// [`DiscreteSchedule`].
    Discrete(DiscreteConfig),
    /// [`CosineSchedule`].
    Cosine,
    /// [`VpSchedule`].
    Vp {
        /// The rate at `t = 0`.
        beta_min: f64,
        /// The rate at `t = 1`.
        beta_max: f64,
    },
    /// [`SubVpSchedule`].
    SubVp {
        /// The rate at `t = 0`.
        beta_min: f64,
        /// The rate at `t = 1`.
        beta_max: f64,
    },
    /// [`SigmoidSchedule`].
    Sigmoid {
        /// Where the piece of the logistic function starts.
        start: f64,
        /// Where it ends.
        end: f64,
        /// The temperature, by which both are divided.
        tau: f64,
    },
    /// [`LaplaceSchedule`].
    Laplace {
        /// The centre of the log-SNR.
        mu: f64,
        /// Its scale.
        b: f64,
    },
    /// [`VeSchedule`].
    Ve {
        /// The noise at `t = 0`.
        sigma_min: f64,
        /// The noise at `t = 1`.
        sigma_max: f64,
    },
    /// [`EdmSchedule`].
    Edm {
        /// The noise at `t = 0`.
        sigma_min: f64,
        /// The noise at `t = 1`.
        sigma_max: f64,
        /// The exponent that spaces the levels between.
        rho: f64,
    },
    /// [`RectifiedFlowSchedule`].
    RectifiedFlow,
    /// [`PolynomialSchedule`].
    Polynomial {
        /// The exponent.
        n: f64,
    },
    /// [`TrigonometricSchedule`].
    Trigonometric,
    /// [`ShiftedSchedule`].
    Shifted {
        /// The schedule at the times before the shift.
        schedule: Box<ScheduleConfig>,
        /// The shift's factor.
        factor: f64,
        /// Its power.
        #[serde(default = "one")]
        power: f64,
    },
}

fn one() -> f64 {
    1.0
}

impl ScheduleConfig {
    /// The schedule.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for parameters outside their domain.
    pub fn build(&self) -> Result<Arc<dyn Schedule>> {
        Ok(match self {
            Self::Discrete(config) => Arc::new(config.build()?),
            Self::Cosine => Arc::new(CosineSchedule),
            Self::Vp { beta_min, beta_max } => Arc::new(VpSchedule::new(*beta_min, *beta_max)?),
            Self::SubVp { beta_min, beta_max } => Arc::new(SubVpSchedule::new(*beta_min, *beta_max)?),
            Self::Sigmoid { start, end, tau } => Arc::new(SigmoidSchedule::new(*start, *end, *tau)?),
            Self::Laplace { mu, b } => Arc::new(LaplaceSchedule::new(*mu, *b)?),
            Self::Ve { sigma_min, sigma_max } => Arc::new(VeSchedule::new(*sigma_min, *sigma_max)?),
            Self::Edm { sigma_min, sigma_max, rho } => Arc::new(EdmSchedule::new(*sigma_min, *sigma_max, *rho)?),
            Self::RectifiedFlow => Arc::new(RectifiedFlowSchedule),
            Self::Polynomial { n } => Arc::new(PolynomialSchedule::new(*n)?),
            Self::Trigonometric => Arc::new(TrigonometricSchedule),
            Self::Shifted { schedule, factor, power } => {
                Arc::new(ShiftedSchedule::new(schedule.build()?, Shift::with_power(*factor, *power)?))
            }
        })
    }
}

/// The parameters of a [`DiscreteSchedule`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiscreteConfig {
    /// The variances.
    pub betas: Betas,
    /// Whether they are rescaled to end without signal.
    #[serde(default)]
    pub zero_terminal_snr: bool,
}

impl DiscreteConfig {
    /// DDPM's own: 1000 steps, linear from `1e-4` to `0.02`.
    pub fn ddpm() -> Self {
        Self { betas: Betas::Linear { steps: 1000, beta_start: 1e-4, beta_end: 0.02 }, zero_terminal_snr: false }
    }

    /// The schedule.
    ///
    /// # Errors
    /// As [`DiscreteSchedule::from_betas`].
    pub fn build(&self) -> Result<DiscreteSchedule> {
        let schedule = match &self.betas {
            Betas::Linear { steps, beta_start, beta_end } => DiscreteSchedule::linear(*steps, *beta_start, *beta_end),
            Betas::ScaledLinear { steps, beta_start, beta_end } => DiscreteSchedule::scaled_linear(*steps, *beta_start, *beta_end),
            Betas::Sigmoid { steps, beta_start, beta_end } => DiscreteSchedule::sigmoid(*steps, *beta_start, *beta_end),
            Betas::Exponential { steps } => DiscreteSchedule::exponential(*steps),
            Betas::Laplace { steps } => DiscreteSchedule::laplace(*steps),
            Betas::SquaredcosCapV2 { steps } => DiscreteSchedule::squaredcos_cap_v2(*steps),
            Betas::Custom(betas) => DiscreteSchedule::from_betas(betas.clone()),
        }?;
        if self.zero_terminal_snr { schedule.with_zero_terminal_snr() } else { Ok(schedule) }
    }
}

/// How the variances of a discrete schedule are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Betas {
    /// [`DiscreteSchedule::linear`].
    Linear {
        /// The number of training steps.
        steps: usize,
        /// The first variance.
        beta_start: f64,
        /// The last variance.
        beta_end: f64,
    },
    /// [`DiscreteSchedule::scaled_linear`].
    ScaledLinear {
        /// The number of training steps.
        steps: usize,
        /// The first variance.
        beta_start: f64,
        /// The last variance.
        beta_end: f64,
    },
    /// [`DiscreteSchedule::sigmoid`].
    Sigmoid {
        /// The number of training steps.
        steps: usize,
        /// The variance that the curve comes from.
        beta_start: f64,
        /// The variance that it goes to.
        beta_end: f64,
    },
    /// [`DiscreteSchedule::exponential`].
    Exponential {
        /// The number of training steps.
        steps: usize,
    },
    /// [`DiscreteSchedule::laplace`].
    Laplace {
        /// The number of training steps.
        steps: usize,
    },
    /// [`DiscreteSchedule::squaredcos_cap_v2`].
    SquaredcosCapV2 {
        /// The number of training steps.
        steps: usize,
    },
    /// [`DiscreteSchedule::from_betas`].
    Custom(Vec<f64>),
}
