//! What a training run is, as a file.

use serde::{Deserialize, Serialize};
use unnoise_core::{DiscreteConfig, Prediction};

use super::batches::Sampling;
use super::learning_rate::LearningRate;
use super::optimizer::AdamW;
use crate::{Error, Result, UnetConfig};

/// A training run: with the images, it determines every bit of the weights.
///
/// ```text
/// loss = mean | f(alpha x0 + sigma eps, k) - target |^2      k uniform over the schedule's steps, eps ~ N(0, I)
/// target = eps, x0 or v = alpha eps - sigma x0
/// ```
///
/// # Reference
/// Ho, Jain, Abbeel 2020, arXiv 2006.11239, eq. 14 (`L_simple`); Salimans and Ho 2022, arXiv 2202.00512, app. D, for `v`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The network.
    pub model: UnetConfig,
    /// The noise levels.
    #[serde(default = "DiscreteConfig::ddpm")]
    pub schedule: DiscreteConfig,
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
            schedule: DiscreteConfig::ddpm(),
            prediction: Prediction::Eps,
            batch: 64,
            steps,
            learning_rate: LearningRate::default(),
            optimizer: AdamW::default(),
            clip_norm: Some(1.0),
            ema_decay: 0.999,
            flips: false,
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
        if !matches!(self.prediction, Prediction::Eps | Prediction::X0 | Prediction::V) {
            let what = format!("training with the prediction '{}'", self.prediction.name());
            return Err(Error::NotSupportedYet { what, supported: "eps, x0, v".into() });
        }
        if self.model.out_channels != self.model.in_channels {
            let what =
                format!("training {} output channels for {} input channels", self.model.out_channels, self.model.in_channels);
            return Err(Error::NotSupportedYet { what, supported: "as many outputs as inputs".into() });
        }
        self.model.validate()
    }

    /// How the batches of this run are drawn.
    pub(super) fn sampling(&self, levels: usize) -> Sampling {
        Sampling { seed: self.seed, batch: self.batch, levels, flips: self.flips }
    }
}
