//! `unnoise sample`: images from the prior alone.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use unnoise::core::{Batch, Grid, Level, Progress, Spacing};
use unnoise::io::{Array, Format, Limits, Overwrite, Range, read_batch, write_atomic, write_images, write_npy};
use unnoise::nn::{Device, DiffusionModel};
use unnoise::{Error, Prior, SampleConfig, draw};

use crate::args::Common;
use crate::output::{check, count, report};
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

    /// Number of images; 16 if not given, or with --noise as many as it holds.
    #[arg(long, value_name = "N")]
    n: Option<usize>,

    /// Side of the images, for a model whose config.json states none; or `HEIGHTxWIDTH`.
    #[arg(long, value_name = "PIXELS", value_parser = sides)]
    side: Option<[usize; 2]>,

    /// Share of fresh noise in every step of ddim: 0, if not given, is deterministic, 1 is as noisy as ddpm.
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    eta: Option<f64>,

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
    #[arg(long, value_name = "N", default_value_t = 16, conflicts_with = "trace")]
    batch: usize,

    /// The images: .npy (float32, [-1, 1], not clipped), or a picture.
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
    let overwrite = check(&args.output, &Format::ALL, args.force)?;
    // The other samplers have no share of noise to choose.
    ensure!(args.eta.is_none() || args.sampler == "ddim", "--eta is an option of the sampler ddim; {} has none", args.sampler);
    let device = args.common.open()?;
    let start = args.noise.as_ref().map(|path| read_batch(path, Limits::default())).transpose()?;
    let prior = load(&args, start.as_ref(), &device)?;
    let n = match (&start, args.n) {
        (Some(start), Some(n)) if n != start.dim().0 => {
            bail!("--n {n} contradicts --noise, which holds {}", count(start.dim().0, "image"))
        }
        (Some(start), _) => start.dim().0,
        (None, n) => n.unwrap_or(16),
    };
    let config = SampleConfig {
        sampler: args.sampler.clone(),
        spacing: args.grid.as_deref().map(Spacing::by_name).transpose()?,
        steps: args.steps,
        eta: args.eta.unwrap_or(0.0),
        clip: !args.no_clip,
        n,
        seed: args.common.seed(),
        // A trace holds all images of a step in one array.
        batch: if args.trace.is_some() { n } else { args.batch },
    };
    let grid = prior.scheduler().grid(&config.sampler, config.spacing, config.steps)?;
    let trace = args.trace.as_ref().map(|directory| Trace::create(directory, args.force)).transpose()?;
    if let Some(trace) = &trace {
        trace.grid(&grid)?;
    }
    interrupt::catch()?;
    let started = Instant::now();
    let bar = progress::bar("sampling", n.saturating_mul(args.steps) as u64);
    let images = count(n, "image");
    let mut failed = None;
    let mut observer = |first: usize, p: &Progress<'_>| {
        bar.set_position((first * p.steps + p.x.dim().0 * (p.step + 1)) as u64);
        if p.step + 1 == p.steps {
            progress::log(&bar, || format!("{} of {images} done", first + p.x.dim().0));
        }
        failed = trace.as_ref().and_then(|trace| trace.step(p).err());
        if failed.is_some() { ControlFlow::Break(()) } else { interrupt::go_on() }
    };
    let drawing = draw(&prior, &config, start.as_ref(), &mut observer);
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    let drawing = drawing.map_err(|error| interrupt::stopped(error, "no batch of images was finished, and nothing was written"))?;
    write_images(&args.output, &drawing.x0, Range::Symmetric, overwrite)?;
    let drawn = drawing.x0.dim().0;
    let per_image = drawing.evaluations.forward / drawn.max(1) as u64;
    let summary = json!({
        "output": args.output, "shape": drawing.x0.shape(), "sampler": args.sampler, "grid": args.grid, "steps": args.steps,
        "images": drawn, "images_requested": n, "seed": config.seed, "eta": config.eta, "trace": args.trace,
        "evaluations": drawing.evaluations.forward, "evaluations_per_image": per_image,
        "weights_sha256": prior.weights_sha256(), "seconds": started.elapsed().as_secs_f64(),
    });
    let (file, steps) = (args.output.display(), count(args.steps, "step"));
    let text = format!("{file}: {}, {} with {steps}, {per_image} network evaluations each", count(drawn, "image"), args.sampler);
    report(args.common.json, &summary, &text)?;
    ensure!(drawn == n, "stopped: {drawn} of {images} were finished and are in {}", args.output.display());
    Ok(())
}

/// The prior, on images of the size that it states, or that the starting noise has, or `--side`.
fn load(args: &Args, start: Option<&Batch>, device: &Device) -> Result<Prior> {
    let Some(directory) = &args.model else {
        ensure!(
            args.side.is_none(),
            "--side is for models that do not state the size of their images; the built-in one is of 32x32"
        );
        let prior = Prior::digits(device)?;
        super::check_class(prior.network().unet().config(), args.class)?;
        return Ok(prior);
    };
    let model = DiffusionModel::read(directory)?;
    super::check_class(&model.config, args.class)?;
    if let (Some(stated), Some(_)) = (model.config.sample_size, args.side) {
        let [h, w] = stated.sides();
        bail!("--side is for models that do not state the size of their images; {} is of {h}x{w}", directory.display());
    }
    let noise = start.map(|start| [start.dim().2, start.dim().3]);
    match Prior::new(&directory.display().to_string(), model, args.side.or(noise), device) {
        Ok(prior) => Ok(prior.with_label(args.class)),
        Err(error @ Error::ImageSize { .. }) => Err(anyhow::anyhow!("{error}; --side gives it")),
        Err(error) => Err(error.into()),
    }
}

/// `64` or `48x64`.
fn sides(text: &str) -> Result<[usize; 2], String> {
    let (h, w) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse().ok().filter(|n| (1..=65536).contains(n)).ok_or("expected a side, or HEIGHTxWIDTH");
    Ok([side(h)?, side(w)?])
}

/// The folder of a trace.
struct Trace(PathBuf);

impl Trace {
    fn create(directory: &Path, force: bool) -> Result<Self> {
        let at = || format!("the trace's directory {}", directory.display());
        ensure!(directory.is_dir() || !directory.exists(), "{} is a file", at());
        fs::create_dir_all(directory).with_context(at)?;
        let free = force || fs::read_dir(directory).with_context(at)?.next().is_none();
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
        Ok(write_atomic(&self.0.join("grid.json"), Overwrite::Force, |file| file.write_all((text + "\n").as_bytes()))?)
    }
}
