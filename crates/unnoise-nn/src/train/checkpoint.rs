//! Checkpoints: diffusers model directories that also hold everything needed to go on training.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use unnoise_core::{Betas, DiscreteConfig, Prediction, SchedulerConfig};

use super::batches::TrainingImages;
use super::config::{FLOW_STEPS, TrainConfig, TrainSchedule};
use super::run_directory::RunDirectory;
use super::trainer::{Trainer, TrainingState};
use crate::files::{read_limited, write_atomically};
use crate::{DiffusionModel, Error, Params, Precision, Result};

const EMA: &str = "diffusion_pytorch_model.safetensors";
const WEIGHTS: &str = "training/weights.safetensors";
const FIRST: &str = "training/first_moment.safetensors";
const SECOND: &str = "training/second_moment.safetensors";
const STATE: &str = "training/state.json";
const STATE_BYTES_LIMIT: u64 = 1 << 24;

/// What a run remembers of its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesSummary {
    /// How many there are.
    pub count: usize,
    /// The shape of one, `[c, h, w]`.
    pub shape: [usize; 3],
    /// The values that the network sees as -1 and 1.
    pub range: [f64; 2],
    /// [`TrainingImages::fingerprint`].
    pub sha256: String,
    /// [`TrainingImages::preparation`]; none in a run that was begun before it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Value>,
}

impl ImagesSummary {
    /// The summary of `images`.
    pub fn of(images: &TrainingImages) -> Self {
        Self {
            count: images.len(),
            shape: images.shape(),
            range: images.range(),
            sha256: images.fingerprint(),
            preparation: images.preparation().cloned(),
        }
    }

    /// What the run in `checkpoint` remembers of its images, read without the weights.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read(checkpoint: &Path) -> Result<Self> {
        Ok(StateFile::read(checkpoint)?.images)
    }

    /// Whether these are the same images, however they were prepared.
    fn is_of(&self, other: &Self) -> bool {
        let pixels = |of: &Self| (of.count, of.shape, of.range, of.sha256.clone());
        pixels(self) == pixels(other)
    }

    /// In words.
    fn describe(&self) -> String {
        let Self { count, shape, range: [low, high], sha256, .. } = self;
        format!("{count} of shape {shape:?} in [{low}, {high}] with SHA-256 {}", sha256.get(..12).unwrap_or(sha256))
    }
}

/// A run at rest.
///
/// ```text
/// config.json, scheduler_config.json, diffusion_pytorch_model.safetensors    a DiffusionModel, whose weights are the average
/// unnoise.json                                                               schedule, prediction, value range, training
/// training/{weights,first_moment,second_moment}.safetensors                  raw weights, Adam's moments
/// training/state.json                                                        updates done, settings, summary of the images
/// ```
///
/// All tensors are f32, so that reading is exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The run's settings.
    pub config: TrainConfig,
    /// The images it trains on.
    pub images: ImagesSummary,
    /// Where it stands.
    pub state: TrainingState,
}

/// The content of `training/state.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    step: u64,
    config: TrainConfig,
    images: ImagesSummary,
    unnoise_version: String,
}

impl StateFile {
    fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(STATE);
        serde_json::from_slice(&read_limited(&path, STATE_BYTES_LIMIT)?)
            .map_err(|error| Error::file(&path, "the training state", "that of a run of this version", error))
    }
}

impl Checkpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file, [`Error::File`] and [`Error::Parameters`] for content that does not fit.
    pub fn read(directory: &Path) -> Result<Self> {
        let file = StateFile::read(directory)?;
        file.config.check()?;
        let shapes = file.config.model.parameter_shapes()?;
        let tensors = |name: &str| -> Result<Params> {
            let path = directory.join(name);
            let params = Params::read(&path)?;
            params.check(&shapes).map_err(|error| error.in_file(&path))?;
            Ok(params)
        };
        let state = TrainingState {
            step: file.step,
            weights: tensors(WEIGHTS)?,
            ema: tensors(EMA)?,
            first: tensors(FIRST)?,
            second: tensors(SECOND)?,
        };
        Ok(Self { config: file.config, images: file.images, state })
    }

    /// The model to sample with: the averaged weights, and in `unnoise.json` what the run was; their hash enters where it is written.
    ///
    /// # Errors
    /// As [`DiffusionModel::new`].
    pub fn model(&self) -> Result<DiffusionModel> {
        let Self { config, images, state } = self;
        let mut model = DiffusionModel::new(config.model.clone(), state.ema.clone(), Some(scheduler(config)))?;
        model.about = Some(json!({
            "format": 1,
            "unnoise_version": env!("CARGO_PKG_VERSION"),
            "schedule": config.schedule.config(),
            "prediction": config.prediction,
            "image_shape": images.shape,
            "value_range": images.range,
            "weights": { "kind": "ema" },
            "training": {
                "steps": state.step,
                "images_seen": state.step * config.batch as u64,
                "images": images,
                "settings": config,
            },
        }));
        if let (Some(about), Some(null)) = (&mut model.about, config.null_class()) {
            about["null_class"] = null.into();
        }
        Ok(model)
    }

    fn write(&self, directory: &Path) -> Result<()> {
        self.model()?.write(directory, Precision::F32)?;
        let training = directory.join("training");
        std::fs::create_dir_all(&training).map_err(Error::io(&training))?;
        for (name, tensors) in [(WEIGHTS, &self.state.weights), (FIRST, &self.state.first), (SECOND, &self.state.second)] {
            tensors.write(&directory.join(name), Precision::F32)?;
        }
        let file = StateFile {
            step: self.state.step,
            config: self.config.clone(),
            images: self.images.clone(),
            unnoise_version: env!("CARGO_PKG_VERSION").into(),
        };
        write_atomically(&directory.join(STATE), format!("{:#}\n", json!(file)).as_bytes())
    }
}

impl Trainer {
    /// Goes on from the newest checkpoint of `directory`. `adjust` may change the run's plan, as its number of steps: the learning rate
    /// then follows the new plan from here on; left as it is, the run continues bit for bit.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read`]; [`Error::Argument`] if the images are not those that the run began with.
    pub fn resume(
        directory: &RunDirectory,
        images: TrainingImages,
        device: Device,
        adjust: impl FnOnce(&mut TrainConfig),
    ) -> Result<Self> {
        let Checkpoint { mut config, images: expected, state } = Checkpoint::read(&directory.newest()?)?;
        adjust(&mut config);
        let got = ImagesSummary::of(&images);
        if !got.is_of(&expected) {
            let (expected, got) = (format!("those of the run, {}", expected.describe()), got.describe());
            return Err(Error::Argument { what: "the images", expected, got, at: "Trainer::resume" });
        }
        Self::with_state(config, images, state, device)
    }

    /// Writes a checkpoint of the run as it is now and returns where it is.
    ///
    /// # Errors
    /// [`Error::Io`]; earlier checkpoints are then untouched.
    pub fn save(&self, directory: &RunDirectory) -> Result<PathBuf> {
        directory.write(self.steps_done(), |d| self.checkpoint().write(d))
    }

    /// The run at rest.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { config: self.config().clone(), images: self.images_summary().clone(), state: self.state().clone() }
    }
}

/// The schedule as diffusers' `DDPMScheduler` has it, or `FlowMatchEulerDiscreteScheduler`.
fn scheduler(config: &TrainConfig) -> SchedulerConfig {
    let TrainSchedule::Discrete(DiscreteConfig { betas, zero_terminal_snr }) = &config.schedule else {
        return SchedulerConfig::flow(FLOW_STEPS);
    };
    let (name, steps, ends, trained) = match betas {
        Betas::Linear { steps, beta_start, beta_end } => ("linear", *steps, Some((*beta_start, *beta_end)), None),
        Betas::ScaledLinear { steps, beta_start, beta_end } => ("scaled_linear", *steps, Some((*beta_start, *beta_end)), None),
        Betas::SquaredcosCapV2 { steps } => ("squaredcos_cap_v2", *steps, None, None),
        Betas::Sigmoid { steps, beta_start, beta_end } => ("sigmoid", *steps, Some((*beta_start, *beta_end)), None),
        Betas::Laplace { steps } => ("laplace", *steps, None, None),
        // DDPMScheduler does not know their name.
        Betas::Exponential { steps } => ("linear", *steps, None, Some(vec![-(-12.0 / *steps as f64).exp_m1(); *steps])),
        Betas::Custom(betas) => ("linear", betas.len(), None, Some(betas.clone())),
    };
    let prediction = match config.prediction {
        Prediction::X0 => "sample",
        Prediction::V => "v_prediction",
        _ => "epsilon",
    };
    SchedulerConfig {
        class_name: Some("DDPMScheduler".into()),
        num_train_timesteps: Some(steps),
        beta_start: ends.map(|(start, _)| start),
        beta_end: ends.map(|(_, end)| end),
        beta_schedule: Some(name.into()),
        trained_betas: trained,
        prediction_type: Some(prediction.into()),
        clip_sample: Some(true),
        clip_sample_range: Some(1.0),
        variance_type: Some("fixed_small".into()),
        timestep_spacing: Some("leading".into()),
        steps_offset: Some(0),
        rescale_betas_zero_snr: Some(*zero_terminal_snr),
        ..SchedulerConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnetConfig;

    /// What diffusers reads is the schedule that was trained on, but for its single precision.
    #[test]
    fn the_scheduler_has_the_trained_schedule() {
        let (steps, beta_start, beta_end) = (100, 2e-4, 0.03);
        let cases = [
            Betas::Linear { steps, beta_start, beta_end },
            Betas::ScaledLinear { steps, beta_start, beta_end },
            Betas::SquaredcosCapV2 { steps },
            Betas::Sigmoid { steps, beta_start, beta_end },
            Betas::Laplace { steps },
            Betas::Exponential { steps },
            Betas::Custom(vec![0.01, 0.1, 0.3]),
        ];
        for betas in cases {
            let schedule = DiscreteConfig { betas, zero_terminal_snr: false };
            let config =
                TrainConfig { schedule: TrainSchedule::Discrete(schedule.clone()), ..TrainConfig::new(UnetConfig::default(), 1) };
            let (read, trained) = (scheduler(&config).discrete_schedule().unwrap(), schedule.build().unwrap());
            assert_eq!(read.betas().len(), trained.betas().len());
            let close = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 1e-6;
            assert!(read.betas().iter().zip(trained.betas()).all(close), "{schedule:?}");
        }
    }
}
