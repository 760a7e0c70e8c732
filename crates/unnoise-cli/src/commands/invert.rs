//! `unnoise invert`: the noise that an image comes from.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use unnoise::core::Progress;
use unnoise::io::{Array, Format, write_npy};
use unnoise::{SampleGrid, invert};

use crate::args::{Common, Images};
use crate::output::{check, count, report};
use crate::{interrupt, progress};

/// Find the noise that `sample --sampler ddim` makes given images of, by DDIM inversion.
///
/// `sample --noise FILE --no-clip` with as many steps on the same grid returns the images, nearly: the error falls as one over the
/// number of steps.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    #[command(flatten)]
    images: Images,

    /// Number of steps, each an evaluation of the network.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,

    /// Where the steps are placed, as in sample.
    #[arg(long, value_name = "NAME")]
    grid: Option<String>,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    /// Images that are inverted at a time: memory and speed, not the result.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,

    /// The noise, .npy, [n, c, h, w]. Of an image like the prior's own its variance tends to one with many steps; of few it is less.
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
    let overwrite = check(&args.output, &[Format::Npy], args.force)?;
    let device = args.common.open()?;
    let images = args.images.read()?;
    let (n, _, h, w) = images.dim();
    let prior = super::open_prior(args.model.as_deref(), [h, w], args.class, &device)?;
    let grid = args.grid.as_deref().map_or(Ok(SampleGrid::default()), SampleGrid::by_name)?;
    interrupt::catch()?;
    let started = Instant::now();
    let bar = progress::bar("inverting", n.saturating_mul(args.steps) as u64);
    let mut observer = |first: usize, p: &Progress<'_>| {
        bar.set_position((first * p.steps + p.x.dim().0 * (p.step + 1)) as u64);
        if p.step + 1 == p.steps {
            progress::log(&bar, || format!("{} of {} done", first + p.x.dim().0, count(n, "image")));
        }
        interrupt::go_on()
    };
    let noise = invert(&prior, &images, &grid, args.steps, args.batch, &mut observer);
    bar.finish_and_clear();
    let noise = noise.map_err(|error| interrupt::stopped(error, "no batch of images was finished, and nothing was written"))?;
    write_npy(&args.output, &Array::from(noise.view().into_dyn()), overwrite)?;
    let done = noise.dim().0;
    let rms = (noise.iter().map(|v| v * v).sum::<f64>() / noise.len() as f64).sqrt();
    let summary = json!({
        "output": args.output, "shape": noise.shape(), "grid": grid.name(&prior, "ddim")?, "steps": args.steps,
        "images": done, "images_requested": n, "noise_rms": rms, "class": args.class, "weights_sha256": prior.weights_sha256(),
        "seconds": started.elapsed().as_secs_f64(),
    });
    let text = format!(
        "{}: the noise of {}, root mean square {rms:.3}, by ddim-inverse with {}",
        args.output.display(),
        count(done, "image"),
        count(args.steps, "step")
    );
    report(args.common.json, &summary, &text)?;
    ensure!(done == n, "stopped: {done} of {} were finished and are in {}", count(n, "image"), args.output.display());
    Ok(())
}
