//! `unnoise sample`: images from the prior alone.

mod trace;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use unnoise::core::{Batch, Progress, sampler_info};
use unnoise::io::{Format, Limits, Range, read_batch, write_images};
use unnoise::nn::{Device, DiffusionModel};
use unnoise::{Error, GuidanceConfig, Prior, SampleConfig, SampleGrid, draw};

use self::trace::Trace;
use crate::args::Common;
use crate::output::{check, count, report};
use crate::{interrupt, progress};

/// Draw images from a prior, with the samplers, grids and defaults of diffusers' schedulers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Sampler, such as ddpm, ddim, heun, dpmpp-2m or unipc; `unnoise samplers` lists them.
    #[arg(long, value_name = "NAME", default_value = "ddim")]
    sampler: String,

    /// Number of steps. Evaluations of the network are reported: heun takes two a step.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,

    /// Where the steps are placed: leading, linspace, trailing, karras, exponential or lu as diffusers has them, the sampler's and the model's
    /// default if not given; or a grid on the model's schedule, such as log-snr, uniform, beta, karras:rho=5, sigmas:80,5,0.1.
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

    /// Share of fresh noise in every step, of samplers that have one: of ddim 0, if not given, which is deterministic; of ancestral ones 1.
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    eta: Option<f64>,

    /// Another option of the sampler, such as `order=3` of deis or `tolerance=1e-4` of rk45; `unnoise explain SAMPLER` lists them.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,

    /// Do not clip the clean image's estimate, whatever the model's configuration says.
    #[arg(long)]
    no_clip: bool,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    /// Scale of guidance: 1 is none, above it what is guided shows more. Towards --class, of a model that was trained with --class-dropout
    /// (classifier-free guidance), or away from --guide. It takes two evaluations.
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f64>,

    /// Guide away from this model directory, a worse version of the model: smaller or less trained (autoguidance).
    #[arg(long, value_name = "DIR", requires = "guidance")]
    guide: Option<PathBuf>,

    /// Guide at noise levels sigma / alpha from LOW to HIGH only.
    #[arg(
        long,
        value_name = "LOW,HIGH",
        value_delimiter = ',',
        num_args = 1,
        requires = "guidance",
        allow_negative_numbers = true
    )]
    guidance_interval: Option<Vec<f64>>,

    /// Share, 0 to 1, by which the guided prediction's spread over the pixels is brought back to the unguided one's.
    #[arg(long, value_name = "SHARE", requires = "guidance", allow_negative_numbers = true)]
    guidance_rescale: Option<f64>,

    /// Clip the clean image's estimate at this quantile of its absolute values, 0 to 1, and scale it back to [-1, 1], where it leaves that range:
    /// dynamic thresholding, for strong guidance.
    #[arg(long, value_name = "QUANTILE", allow_negative_numbers = true)]
    threshold: Option<f64>,

    /// Write the state and the clean image's estimate after every step to this directory: x-0000.npy, x0_hat-0000.npy, ...,
    /// grid.json. After Ctrl-C it holds the steps that were finished.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,

    /// Images that are drawn at a time: memory and speed, not the result.
    #[arg(long, value_name = "N", default_value_t = 16, conflicts_with = "trace")]
    batch: usize,

    /// The images: .npy (float32, [-1, 1], not clipped), or a picture.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Replace the output file, and the trace, if they exist.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let overwrite = check(&args.output, &Format::ALL, args.force)?;
    if let Some(directory) = &args.trace {
        apart(&args.output, directory)?;
    }
    if args.eta.is_some() {
        sampler_info(&args.sampler)?.check_option("eta").with_context(|| format!("--eta with {}", args.sampler))?;
    }
    let device = args.common.open()?;
    let start = args.noise.as_ref().map(|path| read_batch(path, Limits::default())).transpose()?;
    let mut prior = load(&args, start.as_ref(), &device)?;
    if let Some(directory) = &args.guide {
        let guide = guide(directory, &prior, args.class, &device)?;
        prior = prior.with_guide(&guide)?;
    }
    ensure!(
        args.guidance.is_none() || args.guide.is_some() || args.class.is_some(),
        "--guidance needs --class, to guide towards it, or --guide, to guide away from it"
    );
    let n = match (&start, args.n) {
        (Some(start), Some(n)) if n != start.dim().0 => {
            bail!("--n {n} contradicts --noise, which holds {}", count(start.dim().0, "image"))
        }
        (Some(start), _) => start.dim().0,
        (None, n) => n.unwrap_or(16),
    };
    let grid = args.grid.as_deref().map_or(Ok(SampleGrid::default()), SampleGrid::by_name)?;
    let config = SampleConfig {
        sampler: args.sampler.clone(),
        grid: grid.clone(),
        steps: args.steps,
        eta: args.eta,
        options: args.settings.clone(),
        clip: !args.no_clip,
        n,
        seed: args.common.seed(),
        // A trace holds all images of a step in one array.
        batch: if args.trace.is_some() { n } else { args.batch },
        guidance: guidance(&args)?,
        threshold: args.threshold,
    };
    let steps = grid.grid(&prior, &config.sampler, config.steps)?;
    let grid = grid.name(&prior, &config.sampler)?;
    let mut trace = args.trace.as_ref().map(|directory| Trace::create(directory, &steps, overwrite)).transpose()?;
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
        failed = trace.as_mut().and_then(|trace| trace.step(p).err());
        if trace.is_some() {
            progress::log(&bar, || format!("{} of {} done", p.step + 1, count(p.steps, "step")));
        }
        if failed.is_some() { ControlFlow::Break(()) } else { interrupt::go_on() }
    };
    let drawing = draw(&prior, &config, start.as_ref(), &mut observer);
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    let drawing = match drawing {
        Err(error) => return Err(interrupt::stopped(error, &kept(trace)?)),
        Ok(drawing) => drawing,
    };
    write_images(&args.output, &drawing.x0, Range::Symmetric, overwrite)?;
    trace.map(Trace::finish).transpose()?;
    let drawn = drawing.x0.dim().0;
    let per_image = drawing.evaluations.forward / drawn.max(1) as u64;
    let summary = json!({
        "output": args.output, "shape": drawing.x0.shape(), "sampler": args.sampler, "grid": grid, "steps": args.steps,
        "images": drawn, "images_requested": n, "seed": config.seed, "eta": config.eta, "trace": args.trace,
        "class": args.class, "guidance": args.guidance, "guide": args.guide, "guidance_interval": args.guidance_interval,
        "guidance_rescale": args.guidance_rescale, "threshold": args.threshold,
        "evaluations": drawing.evaluations.forward, "evaluations_per_image": per_image,
        "weights_sha256": prior.weights_sha256(), "seconds": started.elapsed().as_secs_f64(),
    });
    let (file, steps) = (args.output.display(), count(args.steps, "step"));
    let text = format!("{file}: {}, {} with {steps}, {per_image} network evaluations each", count(drawn, "image"), args.sampler);
    report(args.common.json, &summary, &text)?;
    ensure!(drawn == n, "stopped: {drawn} of {images} were finished and are in {}", args.output.display());
    Ok(())
}

/// A guide's prior, under the same class if it has classes.
fn guide(directory: &Path, prior: &Prior, class: Option<usize>, device: &Device) -> Result<Prior> {
    let [_, h, w] = prior.shape();
    let guide = Prior::load_for(directory, [h, w], device)?;
    let config = guide.network().unet().config();
    let class = class.filter(|_| config.num_class_embeds.is_some() || config.class_embed_type.is_some());
    super::check_class(config, guide.null_class(), class)?;
    Ok(guide.with_label(class))
}

fn guidance(args: &Args) -> Result<Option<GuidanceConfig>> {
    let interval = args.guidance_interval.as_deref().map(|levels| match levels {
        [low, high] => Ok([*low, *high]),
        _ => bail!("--guidance-interval takes two noise levels, LOW,HIGH, got {}", count(levels.len(), "number")),
    });
    let (interval, rescale) = (interval.transpose()?, args.guidance_rescale.unwrap_or(0.0));
    Ok(args.guidance.map(|scale| GuidanceConfig { scale, interval, rescale }))
}

/// The prior, on images of the size that it states, or that the starting noise has, or `--side`.
fn load(args: &Args, start: Option<&Batch>, device: &Device) -> Result<Prior> {
    let Some(directory) = &args.model else {
        ensure!(
            args.side.is_none(),
            "--side is for models that do not state the size of their images; the built-in one is of 32x32"
        );
        let prior = Prior::digits(device)?;
        super::check_class(prior.network().unet().config(), prior.null_class(), args.class)?;
        return Ok(prior);
    };
    let model = DiffusionModel::read(directory)?;
    super::check_class(&model.config, model.null_class(), args.class)?;
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

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

/// `64` or `48x64`.
fn sides(text: &str) -> Result<[usize; 2], String> {
    let (h, w) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse().ok().filter(|n| (1..=65536).contains(n)).ok_or("expected a side, or HEIGHTxWIDTH");
    Ok([side(h)?, side(w)?])
}

/// Refuses an output within the trace's directory, which appears as a whole, and a trace within the output.
fn apart(output: &Path, trace: &Path) -> Result<()> {
    let [file, directory] = [output, trace].map(resolved);
    ensure!(
        !file.starts_with(&directory) && !directory.starts_with(&file),
        "--output {} and --trace {} are in each other's place",
        output.display(),
        trace.display()
    );
    Ok(())
}

/// The absolute path of what may not exist yet, without the links that do.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let there = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
    there.map_or(path.clone(), |(there, resolved)| {
        path.strip_prefix(there).map_or(path.clone(), |rest| resolved.components().chain(rest.components()).collect())
    })
}

/// What a run leaves that was stopped before its first images were finished: the steps of its trace, if there are any.
fn kept(trace: Option<Trace>) -> Result<String> {
    let nothing = "no batch of images was finished, and nothing was written";
    Ok(match trace {
        Some(trace) if interrupt::requested() && trace.steps() > 0 => {
            let steps = count(trace.steps(), "finished step");
            format!("no image was finished; {steps} are in {}", trace.finish()?.display())
        }
        _ => nothing.into(),
    })
}
