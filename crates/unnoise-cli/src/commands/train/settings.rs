//! A training run from its options.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use unnoise::core::{BETA_SCHEDULES, Betas, DiscreteConfig, Prediction};
use unnoise::nn::{
    Device, DiffusionModel, LearningRate, Params, RunDirectory, SampleSize, Times, TrainConfig, TrainSchedule, Trainer,
    TrainingImages, UnetConfig,
};

use super::Args;
use crate::output::count;

/// A new run.
pub(super) fn start(args: &Args, images: TrainingImages, device: &Device) -> Result<Trainer> {
    let init = args.init.as_ref().map(|directory| DiffusionModel::read(directory)).transpose()?;
    let model = match &init {
        Some(model) => UnetConfig { sample_size: Some(sides(images.shape())), ..model.config.clone() },
        None => architecture(args, images.shape())?,
    };
    let model = UnetConfig { num_class_embeds: classes(args, &images)?.or(model.num_class_embeds), ..model };
    let steps = args.steps.unwrap_or(10_000);
    let defaults = TrainConfig::new(model, steps);
    let usual = if args.schedule.as_deref() == Some(FLOW) { "velocity" } else { "eps" };
    let config = TrainConfig {
        schedule: schedule(args.schedule.as_deref().unwrap_or("linear"), args.times.as_deref())?,
        prediction: prediction(args.prediction.as_deref().unwrap_or(usual))?,
        batch: args.batch.unwrap_or(defaults.batch),
        learning_rate: LearningRate {
            peak: args.lr.unwrap_or(1e-3),
            warmup: args.warmup.unwrap_or((steps / 10).min(200)),
            cosine_decay: true,
        },
        ema_decay: args.ema.unwrap_or(defaults.ema_decay),
        flips: args.flips,
        class_dropout: args.class_dropout,
        seed: args.common.seed(),
        checkpoint_every: args.checkpoint_every.unwrap_or(500),
        ..defaults
    };
    Ok(match init {
        Some(model) => {
            let params = with_classes(model.params, &config.model, config.seed)?;
            Trainer::with_weights(config, images, params, device.clone())?
        }
        None => Trainer::new(config, images, device.clone())?,
    })
}

/// The rows of the class table that --class-dropout asks for: one a class of the images, and the last for none.
fn classes(args: &Args, images: &TrainingImages) -> Result<Option<usize>> {
    if args.class_dropout.is_none() {
        return Ok(None);
    }
    let Some(labels) = images.labels() else { bail!("--class-dropout needs images with classes, as an .npz with labels") };
    Ok(labels.iter().max().map(|most| most + 2))
}

/// Weights of a network without classes as those of one with them. The last class, none, embeds as zero and leaves what the network computes
/// as it is. The others start at random, half as large as those of a new network: from zero they would hardly be learned, as the loss of the noise
/// levels at which a class shows is a small part of the whole.
fn with_classes(mut params: Params, model: &UnetConfig, seed: u64) -> Result<Params> {
    const TABLE: &str = "class_embedding.weight";
    if let (Some(shape), None) = (model.parameter_shapes()?.get(TABLE), params.get(TABLE)) {
        let new = Params::initialise(&[(TABLE.to_owned(), shape.clone())].into(), seed)?;
        let mut table: Vec<f32> = new.get(TABLE).map_or(Vec::new(), |new| new.values.iter().map(|v| 0.5 * v).collect());
        let none = table.len() - shape.last().copied().unwrap_or(0);
        table[none..].fill(0.0);
        params.insert(TABLE, shape.clone(), table)?;
    }
    Ok(params)
}

/// The run in `run`, to go on with.
pub(super) fn resume(args: &Args, run: &RunDirectory, images: TrainingImages, device: &Device) -> Result<Trainer> {
    let done = run.checkpoints()?.last().map_or(0, |(step, _)| *step);
    if let Some(steps) = args.steps.filter(|steps| *steps < done) {
        bail!("--steps {steps} is less than the {} that the run has done", count(done as usize, "update"));
    }
    let mut checked = Ok(());
    let shape = images.shape();
    let trainer = Trainer::resume(run, images, device.clone(), |config| {
        checked = check_settings(args, config, shape);
        config.steps = args.steps.unwrap_or(config.steps);
    });
    checked.and(Ok(trainer?))
}

/// Refuses options that contradict the settings of the run that is resumed.
fn check_settings(args: &Args, config: &TrainConfig, shape: [usize; 3]) -> Result<()> {
    fn same<T: PartialEq + std::fmt::Debug>(option: &str, given: Option<T>, of_run: T) -> Result<()> {
        match given {
            Some(given) if given != of_run => {
                bail!("--{option} {given:?} contradicts the run, which was begun with {of_run:?}; a resumed run keeps its settings")
            }
            _ => Ok(()),
        }
    }
    same("batch", args.batch, config.batch)?;
    same("lr", args.lr, config.learning_rate.peak)?;
    same("warmup", args.warmup, config.learning_rate.warmup)?;
    same("ema", args.ema, config.ema_decay)?;
    same("seed", args.common.seed, config.seed)?;
    same("checkpoint-every", args.checkpoint_every, config.checkpoint_every)?;
    same("prediction", args.prediction.as_deref().map(prediction).transpose()?, config.prediction)?;
    same("flips", args.flips.then_some(true), config.flips)?;
    same("class-dropout", args.class_dropout.map(Some), config.class_dropout)?;
    if let Some(name) = args.times.as_deref() {
        ensure!(
            schedule(FLOW, Some(name))? == config.schedule,
            "--times {name} contradicts the run; a resumed run keeps its settings"
        );
    }
    if let Some(name) = &args.schedule {
        let given = match (&config.schedule, name.as_str()) {
            (flow @ TrainSchedule::Flow { .. }, FLOW) => flow.clone(),
            _ => schedule(name, None)?,
        };
        ensure!(given == config.schedule, "--schedule {name} contradicts the run; a resumed run keeps its settings");
    }
    if args.architecture.is_some() || args.channels.is_some() || args.layers.is_some() {
        let given = UnetConfig { num_class_embeds: config.model.num_class_embeds, ..architecture(args, shape)? };
        ensure!(
            given == config.model,
            "--architecture, --channels and --layers contradict the run, whose levels have {:?} channels and {} layers",
            config.model.block_out_channels,
            config.model.layers_per_block
        );
    }
    Ok(())
}

fn sides([_, h, w]: [usize; 3]) -> SampleSize {
    if h == w { SampleSize::Square(h) } else { SampleSize::Sides([h, w]) }
}

/// The architecture that the options describe, for images of this shape.
fn architecture(args: &Args, shape: [usize; 3]) -> Result<UnetConfig> {
    let Some(path) = &args.architecture else {
        return unet(args.channels.as_deref().unwrap_or(&[32, 64, 64]), args.layers.unwrap_or(2), shape);
    };
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    Ok(UnetConfig { sample_size: Some(sides(shape)), ..UnetConfig::from_json(json, path)? })
}

/// A U-Net for images of this shape, with attention at the coarsest level.
fn unet(channels: &[usize], layers: usize, [c, h, w]: [usize; 3]) -> Result<UnetConfig> {
    ensure!(
        !channels.is_empty() && channels.iter().all(|c| c % 16 == 0 && *c > 0),
        "--channels must be multiples of 16, got {channels:?}"
    );
    let multiple = 1 << (channels.len() - 1);
    ensure!(
        h % multiple == 0 && w % multiple == 0,
        "the images' sides must be multiples of {multiple} for {} levels, got {h}x{w}; --pad or --side changes them",
        channels.len()
    );
    let blocks = |attention: &str, plain: &str| -> Vec<String> {
        (0..channels.len()).map(|i| if i + 1 == channels.len() { attention.into() } else { plain.into() }).collect()
    };
    Ok(UnetConfig {
        sample_size: Some(sides([c, h, w])),
        in_channels: c,
        out_channels: c,
        block_out_channels: channels.to_vec(),
        down_block_types: blocks("AttnDownBlock2D", "DownBlock2D"),
        up_block_types: blocks("AttnUpBlock2D", "UpBlock2D").into_iter().rev().collect(),
        layers_per_block: layers,
        norm_num_groups: 16,
        attention_head_dim: Some(32.min(channels[channels.len() - 1])),
        ..UnetConfig::default()
    })
}

const FLOW: &str = "rectified_flow";

fn schedule(name: &str, times: Option<&str>) -> Result<TrainSchedule> {
    if name == FLOW {
        return Ok(TrainSchedule::Flow {
            rectified_flow: match times {
                None | Some("uniform") => Times::Uniform,
                Some("logit_normal") => Times::LogitNormal { mean: 0.0, deviation: 1.0 },
                Some(other) => bail!("unknown times '{other}'; known: uniform, logit_normal"),
            },
        });
    }
    ensure!(times.is_none(), "--times is an option of the schedule {FLOW}; {name} has steps, all alike");

    let steps = 1000;
    let betas = match name {
        "linear" => Betas::Linear { steps, beta_start: 1e-4, beta_end: 0.02 },
        "scaled_linear" => Betas::ScaledLinear { steps, beta_start: 1e-4, beta_end: 0.02 },
        "squaredcos_cap_v2" => Betas::SquaredcosCapV2 { steps },
        "sigmoid" => Betas::Sigmoid { steps, beta_start: 1e-4, beta_end: 0.02 },
        "laplace" => Betas::Laplace { steps },
        "exp" => Betas::Exponential { steps },
        other => bail!("unknown schedule '{other}'; known: {}, {FLOW}", BETA_SCHEDULES.join(", ")),
    };
    Ok(TrainSchedule::Discrete(DiscreteConfig { betas, zero_terminal_snr: false }))
}

fn prediction(name: &str) -> Result<Prediction> {
    Ok(match name {
        "eps" => Prediction::Eps,
        "x0" => Prediction::X0,
        "v" => Prediction::V,
        "velocity" => Prediction::Velocity,
        other => bail!("unknown prediction '{other}'; known: eps, x0, v, velocity"),
    })
}
