//! `unnoise predict`: the network's raw output.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use ndarray::{Axis, Slice, concatenate};
use serde_json::json;
use unnoise::io::{Format, Limits, read_batch};
use unnoise::nn::{DEFAULT_CHUNK, DiffusionModel, Tracking};

use crate::args::Common;
use crate::output::{check, count, report, write_array};
use crate::{interrupt, progress};

/// Evaluate a network: its raw prediction, all channels, at a timestep of its training grid.
///
/// Ctrl-C keeps the predictions that are finished, those of the first images.
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
    let overwrite = check(&args.output, &[Format::Npy, Format::Npz], args.force)?;
    let device = args.common.open()?;
    let model = DiffusionModel::read(&args.model)?;
    let steps = model.scheduler.as_ref().map_or(u32::MAX as usize, |scheduler| scheduler.train_steps());
    ensure!(
        (args.timestep as usize) < steps,
        "--timestep must be below {steps}, the model's training steps, got {}",
        args.timestep
    );
    super::check_class(&model.config, model.null_class(), args.class)?;
    let x = read_batch(&args.input, Limits::default())?;
    interrupt::catch()?;
    let started = Instant::now();
    let unet = model.unet(&device, Tracking::Frozen)?;
    let n = x.dim().0;
    let images = count(n, "image");
    let bar = progress::bar("predicting", n as u64);
    let mut parts = Vec::new();
    for first in (0..n).step_by(DEFAULT_CHUNK) {
        let end = n.min(first + DEFAULT_CHUNK);
        let part = x.slice_axis(Axis(0), Slice::from(first..end)).to_owned();
        parts.push(unet.predict(&part, f64::from(args.timestep), args.class.or(model.null_class()))?);
        bar.set_position(end as u64);
        progress::log(&bar, || format!("{end} of {images} done"));
        if interrupt::requested() {
            break;
        }
    }
    bar.finish_and_clear();
    let output = concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>())?;
    write_array(&args.output, &output, overwrite)?;
    let done = output.dim().0;
    let summary = json!({
        "output": args.output, "shape": output.shape(), "images": done, "images_requested": n, "timestep": args.timestep,
        "class": args.class,
        "weights_sha256": model.params.sha256(), "seconds": started.elapsed().as_secs_f64(),
    });
    let file = args.output.display();
    report(args.common.json, &summary, &format!("{file}: {} of shape {:?}", count(done, "prediction"), &output.shape()[1..]))?;
    ensure!(done == n, "stopped: {done} of {images} were finished and are in {file}");
    Ok(())
}
