//! `unnoise sample`: images from the prior alone.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use unnoise::core::{Batch, Grid, Level, Progress, Spacing};
use unnoise::io::{Array, Limits, Overwrite, Range, read_batch, write_images, write_npy};
use unnoise::{Prior, SampleConfig, draw};

use crate::args::Common;
use crate::interrupt::stopped;
use crate::output::print;
use crate::{interrupt, progress};

/// Draw images from a prior, with the samplers, grids and defaults of diffusers' schedulers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Sampler: ddpm, ddim, euler, heun, edm or dpmpp-2m.
    #[arg(long, value_name = "NAME", default_value = "ddim")]
    sampler: String,

    /// Number of steps. Evaluations of the network are reported: heun takes two a step.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,

    /// Where the steps are placed: leading, linspace, trailing or karras; the sampler's and the model's default if not given.
    #[arg(long, value_name = "NAME")]
    grid: Option<String>,

    /// Starting noise of unit variance, .npy, [n, c, h, w]; it is scaled to the first noise level here.
    #[arg(long, value_name = "FILE")]
    noise: Option<PathBuf>,

    /// Number of images; with --noise, as many as it holds.
    #[arg(long, value_name = "N", default_value_t = 16)]
    n: usize,

    /// Share of fresh noise in every step of ddim: 0 is deterministic, 1 is as noisy as ddpm.
    #[arg(long, value_name = "E", default_value_t = 0.0)]
    eta: f64,

    /// Do not clip the clean image's estimate, whatever the model's configuration says.
    #[arg(long)]
    no_clip: bool,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    /// Write the state and the clean image's estimate after every step to this directory: x-0000.npy, x0_hat-0000.npy, ...,
    /// grid.json.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,

    /// Images that are drawn at a time: memory and speed, not the result.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,

    /// The images: .npy (float32, [-1, 1], not clipped), or a picture.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Replace the output file if it exists.
    #[arg(long)]
    force: bool,

    /// Print a summary as one JSON object on stdout, and nothing else there.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let overwrite = Overwrite::from_flag(args.force);
    ensure!(args.force || !args.output.exists(), "{} exists already; --force replaces it", args.output.display());
    let device = args.common.open()?;
    let prior = match &args.model {
        Some(directory) => Prior::load(directory, &device)?,
        None => Prior::digits(&device)?,
    };
    let prior = prior.with_label(args.class);
    let start = args.noise.as_ref().map(|path| read_batch(path, Limits::default())).transpose()?;
    let n = start.as_ref().map_or(args.n, |start| start.dim().0);
    let mut config = SampleConfig {
        sampler: args.sampler.clone(),
        spacing: args.grid.as_deref().map(Spacing::by_name).transpose()?,
        steps: args.steps,
        eta: args.eta,
        clip: !args.no_clip,
        n,
        seed: args.common.seed,
        batch: args.batch,
    };
    let trace = args.trace.as_ref().map(|directory| Trace::create(directory, args.force)).transpose()?;
    if trace.is_some() {
        // A trace holds all images of a step in one array.
        config.batch = n;
    }
    if let Some(trace) = &trace {
        trace.grid(&prior.scheduler().grid(&config.sampler, config.spacing, config.steps)?)?;
    }
    let bar = progress::bar("sampling", (n * args.steps) as u64);
    let mut failed = None;
    let mut observer = |first: usize, p: &Progress<'_>| {
        bar.set_position((first * p.steps + p.x.dim().0 * (p.step + 1)) as u64);
        failed = trace.as_ref().and_then(|trace| trace.step(p).err());
        if failed.is_some() || interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let drawing = draw(&prior, &config, start.as_ref(), &mut observer);
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    let drawing = drawing.map_err(|error| stopped(error, "no image was finished, and nothing was written"))?;
    let drawn = drawing.x0.dim().0;
    write_images(&args.output, &drawing.x0, Range::Symmetric, overwrite)?;
    let per_image = drawing.evaluations.forward / drawn.max(1) as u64;
    if args.json {
        let summary = json!({
            "output": args.output, "sampler": args.sampler, "steps": args.steps, "images": drawn, "seed": args.common.seed,
            "evaluations": drawing.evaluations.forward, "evaluations_per_image": per_image,
            "weights_sha256": prior.weights_sha256(),
        });
        print(&format!("{summary}\n"))?;
    } else {
        eprintln!(
            "{}: {drawn} images, {} with {} steps, {per_image} network evaluations each",
            args.output.display(),
            args.sampler,
            args.steps
        );
    }
    ensure!(drawn == n, "stopped: {drawn} of {n} images are in {}", args.output.display());
    Ok(())
}

/// The folder of a trace.
struct Trace(PathBuf);

impl Trace {
    fn create(directory: &Path, force: bool) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
        let mut entries = fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
        let free = force || entries.next().is_none();
        ensure!(free, "the trace's directory {} is not empty; --force writes into it", directory.display());
        Ok(Self(directory.into()))
    }

    fn step(&self, p: &Progress<'_>) -> Result<()> {
        let write = |name: &str, batch: &Batch| {
            let path = self.0.join(format!("{name}-{:04}.npy", p.step));
            write_npy(&path, &Array::from(batch.view().into_dyn()), Overwrite::Force)
        };
        write("x", p.x)?;
        write("x0_hat", p.x0_hat)?;
        Ok(())
    }

    fn grid(&self, grid: &Grid) -> Result<()> {
        let level = |level: Level| json!({ "t": level.t, "alpha": level.alpha, "sigma": level.sigma });
        let steps: Vec<_> = grid.steps.iter().map(|step| json!({ "from": level(step.from), "to": level(step.to) })).collect();
        let text = serde_json::to_string_pretty(&json!({ "start": grid.start, "steps": steps }))?;
        let path = self.0.join("grid.json");
        fs::write(&path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))
    }
}
