//! `unnoise predict`: the network's raw output.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use unnoise::io::{Limits, Overwrite, read_batch};
use unnoise::nn::{DiffusionModel, Tracking};

use crate::args::Common;
use crate::output::write_array;

/// Evaluate a network: its raw prediction, all channels, at a timestep of its training grid.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,

    /// The noisy images x_t, .npy or .npz, [n, c, h, w].
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// The timestep, 0 to T - 1.
    #[arg(long, value_name = "K")]
    timestep: u32,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    /// The prediction, .npy or .npz, float32 [n, c, h, w].
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Replace the output file if it exists.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let device = args.common.open()?;
    let model = DiffusionModel::read(&args.model)?;
    let steps = model.scheduler.as_ref().map_or(u32::MAX as usize, |scheduler| scheduler.train_steps());
    ensure!(
        (args.timestep as usize) < steps,
        "--timestep must be below {steps}, the model's training steps, got {}",
        args.timestep
    );
    let x = read_batch(&args.input, Limits::default())?;
    let output = model.unet(&device, Tracking::Frozen)?.predict(&x, f64::from(args.timestep), args.class)?;
    write_array(&args.output, &output, Overwrite::from_flag(args.force))
}
