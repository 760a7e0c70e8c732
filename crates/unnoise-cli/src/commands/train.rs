//! `unnoise train`: a prior from images.

use std::collections::VecDeque;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use unnoise::core::{Betas, DiscreteConfig, Prediction};
use unnoise::io::{Channels, DatasetConfig, Fit, read_dataset};
use unnoise::nn::{
    Checkpoint, DiffusionModel, LearningRate, Outcome, Precision, RunDirectory, SampleSize, StepReport, TrainConfig, Trainer,
    TrainingImages, UnetConfig,
};
use unnoise::{TrainingRecords, train, training_images};

use crate::args::Common;
use crate::{interrupt, progress};

/// Train a prior on images.
///
/// The run's directory holds checkpoints (each a model directory that every command and diffusers load), losses.csv, TensorBoard
/// events and sheets of samples; a finished run also leaves `model/`, to ship. A run that was stopped or killed goes on with
/// --resume, to the same weights, bit for bit.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The images: a folder, an .npy or .npz, or one of MNIST's own files.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,

    /// Directory of the run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Go on with the run in --out; its settings stay, but --steps may be raised.
    #[arg(long)]
    resume: bool,

    /// Start from the weights of this model directory, whose architecture is taken too.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["resume", "architecture"])]
    init: Option<PathBuf>,

    /// The architecture, a diffusers UNet2DModel config.json; built from --channels and --layers if not given.
    #[arg(long, value_name = "FILE")]
    architecture: Option<PathBuf>,

    /// Channels of the levels, multiples of 16, finest first; each level halves the side. The coarsest has attention.
    #[arg(long, value_name = "C", value_delimiter = ',', default_value = "32,64,64")]
    channels: Vec<usize>,

    /// Residual blocks a level.
    #[arg(long, value_name = "N", default_value_t = 2)]
    layers: usize,

    /// Number of updates.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,

    /// Images in an update.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,

    /// Largest learning rate; reached after --warmup updates, then decaying along a cosine.
    #[arg(long, value_name = "LR", default_value_t = 1e-3)]
    lr: f64,

    /// Updates until the largest learning rate; 200, or a tenth of a short run's, if not given.
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,

    /// Decay of the weights' moving average.
    #[arg(long, value_name = "D", default_value_t = 0.999)]
    ema: f64,

    /// What the network predicts: eps, x0 or v.
    #[arg(long, value_name = "NAME", default_value = "eps")]
    prediction: String,

    /// The noise levels: linear, scaled_linear or squaredcos_cap_v2, 1000 steps.
    #[arg(long, value_name = "NAME", default_value = "linear")]
    schedule: String,

    /// Mirror half of the images left to right.
    #[arg(long)]
    flips: bool,

    /// Convert to gray.
    #[arg(long)]
    gray: bool,

    /// Crop the centre to a square and shrink it to this side.
    #[arg(long, value_name = "PIXELS", conflicts_with = "pad")]
    side: Option<usize>,

    /// Pad to a square of this side with black.
    #[arg(long, value_name = "PIXELS")]
    pad: Option<usize>,

    /// Updates between checkpoints.
    #[arg(long, value_name = "N", default_value_t = 500)]
    checkpoint_every: u64,

    /// Updates between sheets of samples; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    sheet_every: u64,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let device = args.common.open()?;
    let run = RunDirectory::new(&args.out);
    let images = training_images(read_dataset(&args.data, dataset_config(&args))?)?;
    let mut trainer = if args.resume {
        Trainer::resume(&run, images, device.clone(), |config| config.steps = args.steps.unwrap_or(config.steps))?
    } else {
        let there = run.checkpoints().map(|found| !found.is_empty()).unwrap_or(false);
        ensure!(!there, "{} holds a run already; go on with --resume, or choose another directory", args.out.display());
        start(&args, images, &device)?
    };
    let (done, steps, batch) = (trainer.steps_done(), trainer.config().steps, trainer.config().batch);
    eprintln!(
        "{} images of shape {:?}, {} parameters, update {done} of {steps}",
        trainer.images().len(),
        trainer.images().shape(),
        trainer.state().weights.count()
    );
    let bar = progress::bar("training", steps);
    bar.set_position(done);
    bar.reset_eta();
    let mut recent: VecDeque<StepReport> = VecDeque::new();
    let mut observer = |report: &StepReport| {
        recent.push_back(*report);
        if recent.len() > 50 {
            recent.pop_front();
        }
        let (loss, seconds) = recent.iter().fold((0.0, 0.0), |(l, s), r| (l + r.loss, s + r.seconds));
        let rate = (recent.len() * batch) as f64 / seconds;
        bar.set_position(report.step);
        bar.set_message(format!("loss {:.4}  {rate:.0} images/s", loss / recent.len() as f64));
        if bar.is_hidden() && report.step.is_multiple_of(100) {
            eprintln!("update {} of {steps}: loss {:.5}, {rate:.0} images/s", report.step, loss / recent.len() as f64);
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let records = TrainingRecords { sheet_every: args.sheet_every, ..TrainingRecords::default() };
    let outcome = train(&mut trainer, &run, records, &device, &mut observer);
    bar.finish_and_clear();
    match outcome? {
        Outcome::Finished => {
            let model = args.out.join("model");
            Checkpoint::read(&run.newest()?)?.model()?.write(&model, Precision::F16)?;
            eprintln!("finished; the model to use and to ship is {}", model.display());
            Ok(())
        }
        Outcome::Stopped => bail!("stopped after update {}; --resume goes on from there", trainer.steps_done()),
    }
}

fn dataset_config(args: &Args) -> DatasetConfig {
    let fit = match (args.side, args.pad) {
        (Some(side), _) => Fit::CropResize(side),
        (None, Some(side)) => Fit::Pad(side),
        (None, None) => Fit::Exact,
    };
    let channels = if args.gray { Channels::Gray } else { Channels::AsStored };
    DatasetConfig { fit, channels, ..DatasetConfig::default() }
}

fn start(args: &Args, images: TrainingImages, device: &unnoise::nn::Device) -> Result<Trainer> {
    let init = args.init.as_ref().map(|directory| DiffusionModel::read(directory)).transpose()?;
    let model = match (&init, &args.architecture) {
        (Some(model), _) => model.config.clone(),
        (None, Some(path)) => {
            let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let json = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
            UnetConfig::from_json(json, path)?
        }
        (None, None) => architecture(&args.channels, args.layers, images.shape())?,
    };
    let steps = args.steps.unwrap_or(10_000);
    let config = TrainConfig {
        schedule: schedule(&args.schedule)?,
        prediction: match args.prediction.as_str() {
            "eps" => Prediction::Eps,
            "x0" => Prediction::X0,
            "v" => Prediction::V,
            other => bail!("unknown prediction '{other}'; known: eps, x0, v"),
        },
        batch: args.batch,
        learning_rate: LearningRate { peak: args.lr, warmup: args.warmup.unwrap_or((steps / 10).min(200)), cosine_decay: true },
        ema_decay: args.ema,
        flips: args.flips,
        seed: args.common.seed,
        checkpoint_every: args.checkpoint_every,
        ..TrainConfig::new(model, steps)
    };
    Ok(match init {
        Some(model) => Trainer::with_weights(config, images, model.params, device.clone())?,
        None => Trainer::new(config, images, device.clone())?,
    })
}

/// A U-Net for images of this shape, with attention at the coarsest level.
fn architecture(channels: &[usize], layers: usize, [c, h, w]: [usize; 3]) -> Result<UnetConfig> {
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
        sample_size: Some(if h == w { SampleSize::Square(h) } else { SampleSize::Sides([h, w]) }),
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

fn schedule(name: &str) -> Result<DiscreteConfig> {
    let steps = 1000;
    let betas = match name {
        "linear" => Betas::Linear { steps, beta_start: 1e-4, beta_end: 0.02 },
        "scaled_linear" => Betas::ScaledLinear { steps, beta_start: 1e-4, beta_end: 0.02 },
        "squaredcos_cap_v2" => Betas::SquaredcosCapV2 { steps },
        other => bail!("unknown schedule '{other}'; known: linear, scaled_linear, squaredcos_cap_v2"),
    };
    Ok(DiscreteConfig { betas, zero_terminal_snr: false })
}
