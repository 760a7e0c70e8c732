//! `unnoise bench`: how fast a network runs here.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use unnoise::nn::{DiffusionModel, with_gradient_checkpointing};
use unnoise::{BenchConfig, BenchMode, BenchReport, bench, digits_model};

use crate::args::Common;
use crate::output::{count, print};

/// Time a network on this machine: an evaluation, a guided step or a training step, and where the time goes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// What is timed: forward, guided (forward and the gradient by the image, weights frozen) or train (forward, backward, clipping,
    /// AdamW and moving average).
    #[arg(long, value_name = "NAME", default_value = "forward")]
    mode: String,

    /// Images at once.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,

    /// Runs that are timed, after two that warm up.
    #[arg(long, value_name = "N", default_value_t = 7)]
    runs: usize,

    /// Side of the images, in pixels, where it is not the model's own.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,

    /// In training, compute cheap activations again in the backward pass instead of keeping them.
    #[arg(long)]
    gradient_checkpointing: bool,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let device = args.common.open()?;
    let device = if args.gradient_checkpointing { with_gradient_checkpointing(device) } else { device };
    let mode = BenchMode::by_name(&args.mode)?;
    ensure!(!args.gradient_checkpointing || mode == BenchMode::Train, "--gradient-checkpointing is an option of --mode train");
    let model = match &args.model {
        Some(directory) => DiffusionModel::read(directory)?,
        None => digits_model()?,
    };
    let sides = args.side.map(|side| [side, side]);
    let config = BenchConfig { mode, batch: args.batch, runs: args.runs, sides, seed: args.common.seed() };
    let report = bench(model, &config, &device)?;
    if args.common.json { print(&format!("{}\n", serde_json::to_string(&report)?)) } else { print(&table(&report)?) }
}

fn table(r: &BenchReport) -> Result<String> {
    let mut text = String::new();
    let [c, h, w] = r.shape;
    let (images, threads) = (count(r.batch, "image"), count(r.threads, "thread"));
    writeln!(text, "{} of {images} {c}x{h}x{w}, {} parameters, {threads}", name(r.mode), r.parameters)?;
    writeln!(text, "  {:.2} ms (median of {}; best {:.2}), {:.1} images/s", r.median_ms, r.runs.len(), r.min_ms, r.images_per_s)?;
    writeln!(text, "  {:.1} GFLOP/s of the plain algorithms; these threads' peak is {:.1}", r.gflops, r.peak_gflops)?;
    if let Some(mib) = r.peak_rss_mib {
        writeln!(text, "  {mib:.0} MiB at most")?;
    }
    writeln!(text, "\n  {:<24} {:>6} {:>10} {:>7} {:>9}", "operation", "calls", "ms", "share", "GFLOP/s")?;
    for o in &r.operations {
        let gflops = o.gflops.map_or(String::new(), |g| format!("{g:.1}"));
        let share = 100.0 * o.ms / r.median_ms;
        writeln!(text, "  {:<24} {:>6} {:>10.2} {share:>5.1} % {gflops:>9}", o.operation, o.calls, o.ms)?;
    }
    Ok(text)
}

fn name(mode: BenchMode) -> &'static str {
    match mode {
        BenchMode::Forward => "evaluation",
        BenchMode::Guided => "evaluation and gradient by the image",
        BenchMode::Train => "training step",
    }
}
