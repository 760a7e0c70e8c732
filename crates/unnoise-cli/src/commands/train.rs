//! `unnoise train`: a prior from images.

mod preparation;
mod settings;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use unnoise::io::{CsvLog, read_dataset};
use unnoise::nn::{Checkpoint, Outcome, Precision, RunDirectory, StepReport, with_gradient_checkpointing};
use unnoise::{TrainingRecords, train, training_images};

use self::preparation::Preparation;
use crate::args::Common;
use crate::output::{count, report};
use crate::{interrupt, progress};

/// Updates over which losses are averaged for reports, at most.
const SMOOTHED: usize = 50;

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

    /// Go on with the run in --out, on the same --data. Its settings stay, those of the images (--side, --pad, --gray) among them, and
    /// an option that says otherwise is refused; but --steps may be raised.
    #[arg(long)]
    resume: bool,

    /// Start from the weights of this model directory, whose architecture is taken too.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["resume", "architecture", "channels", "layers"])]
    init: Option<PathBuf>,

    /// The architecture, a diffusers UNet2DModel config.json; built from --channels and --layers if not given.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["channels", "layers"])]
    architecture: Option<PathBuf>,

    /// Channels of the levels, multiples of 16, finest first; each level halves the side, and the coarsest has attention. 32,64,64 if
    /// not given.
    #[arg(long, value_name = "C", value_delimiter = ',')]
    channels: Option<Vec<usize>>,

    /// Residual blocks a level, 2 if not given.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,

    /// Number of updates, 10000 if not given.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,

    /// Images in an update, 64 if not given.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// Largest learning rate, 1e-3 if not given; reached after --warmup updates, then decaying along a cosine.
    #[arg(long, value_name = "LR", allow_negative_numbers = true)]
    lr: Option<f64>,

    /// Updates until the largest learning rate; 200, or a tenth of a short run's, if not given.
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,

    /// Decay of the weights' moving average, 0.999 if not given.
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    ema: Option<f64>,

    /// What the network predicts: eps, x0 or v, or velocity on rectified_flow; eps, or velocity there, if not given.
    #[arg(long, value_name = "NAME")]
    prediction: Option<String>,

    /// The noise levels: linear, scaled_linear, squaredcos_cap_v2, sigmoid, laplace or exp, of 1000 steps, or rectified_flow, which has none; linear if not
    /// given.
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,

    /// How the times of rectified_flow are drawn: uniform, or logit_normal, whose logits are standard normal; uniform if not given.
    #[arg(long, value_name = "NAME")]
    times: Option<String>,

    /// Condition on the images' classes, and show this share of them without theirs, as one class more, the last: what sample --guidance
    /// needs.
    #[arg(long, value_name = "P", conflicts_with = "architecture", allow_negative_numbers = true)]
    class_dropout: Option<f64>,

    /// Mirror half of the images left to right.
    #[arg(long)]
    flips: bool,

    #[command(flatten)]
    preparation: Preparation,

    /// Updates between checkpoints, 500 if not given.
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,

    /// Compute cheap activations again in the backward pass instead of keeping them: less memory, the same numbers.
    #[arg(long)]
    gradient_checkpointing: bool,

    /// Updates between sheets of samples; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    sheet_every: u64,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(!args.out.exists() || args.out.is_dir(), "--out {} is a file, not a directory", args.out.display());
    let run = RunDirectory::new(&args.out);
    let holds_a_run = !run.checkpoints()?.is_empty();
    let out = args.out.display();
    ensure!(args.resume || !holds_a_run, "{out} holds a run already; go on with --resume, or choose another directory");
    ensure!(!args.resume || holds_a_run, "{out} holds no checkpoint to go on from; without --resume, a run begins there");
    let device = args.common.open()?;
    let device = if args.gradient_checkpointing { with_gradient_checkpointing(device) } else { device };
    let preparation = if args.resume { args.preparation.of_run(&run)? } else { args.preparation };
    let images = training_images(read_dataset(&args.data, preparation.dataset_config())?)?;
    let images = images.with_preparation(serde_json::to_value(preparation)?);
    let mut trainer =
        if args.resume { settings::resume(&args, &run, images, &device) } else { settings::start(&args, images, &device) }?;
    let (done, steps, batch) = (trainer.steps_done(), trainer.config().steps, trainer.config().batch);
    eprintln!(
        "{} of shape {:?}, {} parameters, update {done} of {steps}",
        count(trainer.images().len(), "image"),
        trainer.images().shape(),
        trainer.state().weights.count()
    );
    interrupt::catch()?;
    let started = Instant::now();
    let bar = progress::bar("training", steps);
    bar.set_position(done);
    bar.reset_eta();
    let mut recent: VecDeque<StepReport> = VecDeque::new();
    let mut observer = |report: &StepReport| {
        recent.push_back(*report);
        if recent.len() > SMOOTHED {
            recent.pop_front();
        }
        let (loss, seconds) = recent.iter().fold((0.0, 0.0), |(l, s), r| (l + r.loss, s + r.seconds));
        let rate = (recent.len() * batch) as f64 / seconds;
        bar.set_position(report.step);
        bar.set_message(format!("loss {:.4}  {rate:.0} images/s", loss / recent.len() as f64));
        if bar.is_hidden() && report.step.is_multiple_of(100) {
            eprintln!("update {} of {steps}: loss {:.5}, {rate:.0} images/s", report.step, loss / recent.len() as f64);
        }
        interrupt::go_on()
    };
    let records = TrainingRecords { sheet_every: args.sheet_every, ..TrainingRecords::default() };
    let outcome = train(&mut trainer, &run, records, &device, &mut observer);
    bar.finish_and_clear();
    let finished = outcome? == Outcome::Finished;
    let checkpoint = run.newest()?;
    let model = args.out.join("model");
    if finished {
        Checkpoint::read(&checkpoint)?.model()?.write(&model, Precision::F16)?;
    }
    let (loss, over) = smoothed_loss(&run)?;
    let summary = json!({
        "run": args.out, "finished": finished, "model": finished.then_some(&model), "checkpoint": checkpoint,
        "steps_done": trainer.steps_done(), "steps": steps, "loss": loss, "loss_over": over,
        "images": trainer.images().len(), "shape": trainer.images().shape(), "parameters": trainer.state().weights.count(),
        "batch": batch, "seed": trainer.config().seed, "seconds": started.elapsed().as_secs_f64(),
    });
    let of_loss = loss.map(|loss| format!(" with a loss of {loss:.5}")).unwrap_or_default();
    let text = format!("{} of {steps} updates done{of_loss}", trainer.steps_done());
    let made = if finished { format!("{text}; the model to use and to ship is {}", model.display()) } else { text };
    report(args.common.json, &summary, &made)?;
    ensure!(finished, "stopped after update {}; --resume goes on from there", trainer.steps_done());
    Ok(())
}

/// The mean loss of a run's last updates, none for a run without any, and how many they are.
pub(super) fn smoothed_loss(run: &RunDirectory) -> Result<(Option<f64>, usize)> {
    let losses = CsvLog::column(&run.root().join("losses.csv"), "loss")?;
    let last = &losses[losses.len().saturating_sub(SMOOTHED)..];
    let mean = (!last.is_empty()).then(|| last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len() as f64);
    Ok((mean, last.len()))
}
