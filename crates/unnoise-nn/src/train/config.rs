//! What a training run is, as a file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unnoise_core::{DiscreteConfig, Prediction, Schedule, ScheduleConfig, normal_quantile};

use super::batches::{Levels, Sampling};
use super::learning_rate::LearningRate;
use super::optimizer::AdamW;
use crate::{Error, Result, UnetConfig};

/// A training run: with the images, it determines every bit of the weights.
///
/// ```text
/// loss = mean | f(alpha x0 + sigma eps, k) - target |^2      k uniform over the schedule's steps, eps ~ N(0, I)
/// target = eps, x0, v = alpha eps - sigma x0, or a rectified flow's velocity eps - x0, at any time and the timestep 1000 t
/// ```
///
/// # Reference
/// Ho, Jain, Abbeel 2020, arXiv 2006.11239, eq. 14 (`L_simple`); Salimans and Ho 2022, arXiv 2202.00512, app. D, for `v`; Lipman et al. 2023,
/// arXiv 2210.02747, eq. 23, for the flow (with `sigma_min = 0`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The network.
    pub model: UnetConfig,
    /// The noise levels.
    #[serde(default = "TrainSchedule::ddpm")]
    pub schedule: TrainSchedule,
    /// What the network predicts.
    pub prediction: Prediction,
    /// Images in a batch.
    pub batch: usize,
    /// Updates in all.
    pub steps: u64,
    /// The learning rate over the run.
    #[serde(default)]
    pub learning_rate: LearningRate,
    /// The optimizer's constants.
    #[serde(default)]
    pub optimizer: AdamW,
    /// The largest norm of the whole gradient; none for no clipping.
    pub clip_norm: Option<f64>,
    /// The moving average's final decay, see [`ema_decay`](super::ema_decay).
    pub ema_decay: f64,
    /// Whether half of the images are mirrored left to right: not for digits or text.
    pub flips: bool,
    /// The share of images that are shown without their class, as the network's last class: what guidance needs. None: there is no such
    /// class.
    ///
    /// # Reference
    /// Ho, Salimans 2022, arXiv 2207.12598, algorithm 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_dropout: Option<f64>,
    /// The run's seed.
    pub seed: u64,
    /// Updates between checkpoints.
    pub checkpoint_every: u64,
}

impl TrainConfig {
    /// A run with the usual settings: noise prediction on DDPM's schedule, batches of 64, clipping at 1, averaging at .999.
    pub fn new(model: UnetConfig, steps: u64) -> Self {
        Self {
            model,
            schedule: TrainSchedule::ddpm(),
            prediction: Prediction::Eps,
            batch: 64,
            steps,
            learning_rate: LearningRate::default(),
            optimizer: AdamW::default(),
            clip_norm: Some(1.0),
            ema_decay: 0.999,
            flips: false,
            class_dropout: None,
            seed: 0,
            checkpoint_every: 500,
        }
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// [`Error::Argument`] and [`Error::NotSupportedYet`], naming the setting; those of [`UnetConfig::validate`].
    pub fn check(&self) -> Result<()> {
        let at = "TrainConfig";
        let require = |holds: bool, what, expected: &str, got: String| {
            if holds { Ok(()) } else { Err(Error::Argument { what, expected: expected.into(), got, at }) }
        };
        let AdamW { beta1, beta2, eps, weight_decay } = self.optimizer;
        let LearningRate { peak, warmup, .. } = self.learning_rate;
        require((1..1 << 24).contains(&self.batch), "batch", "in 1..2^24", self.batch.to_string())?;
        require((1..1 << 24).contains(&self.steps), "steps", "in 1..2^24", self.steps.to_string())?;
        require(self.checkpoint_every > 0, "checkpoint_every", "positive", "0".into())?;
        require(peak > 0.0 && peak.is_finite(), "learning_rate.peak", "positive", peak.to_string())?;
        require(warmup < self.steps, "learning_rate.warmup", "below steps", warmup.to_string())?;
        require((0.0..1.0).contains(&beta1), "optimizer.beta1", "in [0, 1)", beta1.to_string())?;
        require((0.0..1.0).contains(&beta2), "optimizer.beta2", "in [0, 1)", beta2.to_string())?;
        require(eps > 0.0, "optimizer.eps", "positive", eps.to_string())?;
        require((0.0..1.0 / peak).contains(&weight_decay), "optimizer.weight_decay", "in [0, 1/lr)", weight_decay.to_string())?;
        require(self.clip_norm.is_none_or(|c| c > 0.0), "clip_norm", "positive", format!("{:?}", self.clip_norm))?;
        require((0.0..1.0).contains(&self.ema_decay), "ema_decay", "in [0, 1)", self.ema_decay.to_string())?;
        let flow = matches!(self.schedule, TrainSchedule::Flow { .. });
        if self.prediction == Prediction::Score || flow != (self.prediction == Prediction::Velocity) {
            let what = format!("training with the prediction '{}' on {}", self.prediction.name(), self.schedule.name());
            return Err(Error::NotSupportedYet { what, supported: "eps, x0, v on betas, velocity on rectified_flow".into() });
        }
        if let Some(share) = self.class_dropout {
            require((0.0..1.0).contains(&share), "class_dropout", "in [0, 1)", share.to_string())?;
            let classes = self.model.num_class_embeds.unwrap_or(0);
            require(classes > 1, "num_class_embeds", "a class and the one for none, for class_dropout", classes.to_string())?;
        }
        self.schedule.check()?;
        if self.model.out_channels != self.model.in_channels {
            let what =
                format!("training {} output channels for {} input channels", self.model.out_channels, self.model.in_channels);
            return Err(Error::NotSupportedYet { what, supported: "as many outputs as inputs, without a learned variance".into() });
        }
        self.model.validate()
    }

    /// The class that stands for none, the network's last.
    pub fn null_class(&self) -> Option<usize> {
        self.class_dropout.and(self.model.num_class_embeds)?.checked_sub(1)
    }

    /// How the batches of this run are drawn.
    pub(super) fn sampling(&self, schedule: &dyn Schedule) -> Sampling {
        let levels = match &self.schedule {
            TrainSchedule::Flow { rectified_flow } => Levels::Times(*rectified_flow),
            TrainSchedule::Discrete(_) => Levels::Steps(schedule.steps().unwrap_or(FLOW_STEPS)),
        };
        let dropout = self.null_class().zip(self.class_dropout);
        Sampling { seed: self.seed, batch: self.batch, levels, flips: self.flips, dropout }
    }
}

/// The timestep of a flow's network at `t = 1`.
pub(super) const FLOW_STEPS: usize = 1000;

/// The noise levels of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrainSchedule {
    /// A table of betas.
    Discrete(DiscreteConfig),
    /// A rectified flow.
    Flow {
        /// How its times are drawn.
        rectified_flow: Times,
    },
}

/// How the times of a flow are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Times {
    /// Uniform in `(0, 1)`.
    Uniform,
    /// `logit t = log(t / (1 - t))` is normal: the middle of the path more often than its ends.
    ///
    /// # Reference
    /// Esser et al. 2024, arXiv 2403.03206, eq. 19, whose `t` is ours.
    LogitNormal {
        /// The mean of the logits.
        mean: f64,
        /// Their standard deviation.
        deviation: f64,
    },
}

impl Times {
    /// A time, from `u` uniform in `(0, 1)`.
    pub fn time(self, u: f64) -> f64 {
        match self {
            Self::Uniform => u,
            Self::LogitNormal { mean, deviation } => 1.0 / (1.0 + (-mean - deviation * normal_quantile(u)).exp()),
        }
    }
}

impl TrainSchedule {
    /// DDPM's own: 1000 steps, linear from `1e-4` to `0.02`.
    pub fn ddpm() -> Self {
        Self::Discrete(DiscreteConfig::ddpm())
    }

    /// The schedule.
    ///
    /// # Errors
    /// As [`DiscreteConfig::build`].
    pub fn build(&self) -> Result<Arc<dyn Schedule>> {
        Ok(self.config().build()?)
    }

    /// The schedule as files name it.
    pub fn config(&self) -> ScheduleConfig {
        match self {
            Self::Discrete(config) => ScheduleConfig::Discrete(config.clone()),
            Self::Flow { .. } => ScheduleConfig::RectifiedFlow,
        }
    }

    fn name(&self) -> &'static str {
        if matches!(self, Self::Flow { .. }) { "rectified_flow" } else { "betas" }
    }

    fn check(&self) -> Result<()> {
        let Self::Flow { rectified_flow: Times::LogitNormal { mean, deviation } } = self else { return Ok(()) };
        if mean.abs() <= 10.0 && *deviation > 0.0 && *deviation <= 10.0 {
            return Ok(());
        }
        let (expected, got) = ("a mean in [-10, 10] and a deviation in (0, 10]".into(), format!("{mean}, {deviation}"));
        Err(Error::Argument { what: "logit_normal", expected, got, at: "TrainConfig" })
    }
}
