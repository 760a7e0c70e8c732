//! `unnoise likelihood`: how likely images are under a prior.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use ndarray::{Axis, Slice};
use serde_json::json;
use unnoise::core::{
    Counted, Denoiser, Dequantisation, Divergence, LikelihoodConfig, LogDensity, Streams, check_shape, log_density,
};

use crate::args::{Common, Images};
use crate::output::{count, report};
use crate::{interrupt, progress};

/// How likely images are under a prior, in bits a dimension, by the probability-flow ODE.
///
/// The density is that of the image and noise of the lowest level. Pixels are taken as whole numbers of 8 bits, those that --side has made new rounded, and each is moved to a
/// random place in its bin, so that the mean over images bounds the length of a code for them; --as-is leaves them where they are.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    #[command(flatten)]
    images: Images,

    /// The trace of the flow's Jacobian: rademacher or gaussian probes, or exact, which takes a vector-Jacobian product for every value of
    /// the image in every evaluation.
    #[arg(long, value_name = "NAME", default_value = "rademacher")]
    divergence: String,

    /// Random probes of an image, at least 2; 16 if not given. Their spread is the standard error.
    #[arg(long, value_name = "N")]
    probes: Option<usize>,

    /// The lowest noise level sigma / alpha, for pixels in [-1, 1]; the schedule's if not given.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    sigma_min: Option<f64>,

    /// The highest noise level; the schedule's, or 1000, if not given.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    sigma_max: Option<f64>,

    /// Largest error of a step: of the state in standard deviations of its noise, of the result in nats a dimension.
    #[arg(long, value_name = "E", default_value_t = 1e-4, allow_negative_numbers = true)]
    tolerance: f64,

    /// Take the pixels as they are, and not at random places in the bins of 8 bits.
    #[arg(long)]
    as_is: bool,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let config = LikelihoodConfig {
        divergence: args.divergence()?,
        sigma_min: args.sigma_min,
        sigma_max: args.sigma_max,
        tolerance: args.tolerance,
        ..LikelihoodConfig::default()
    };
    let device = args.common.open()?;
    let x = args.images.read()?;
    let (n, _, h, w) = x.dim();
    let prior = super::open_prior(args.model.as_deref(), [h, w], args.class, &device)?;
    check_shape(&x, prior.shape(), "the images", "likelihood")?;
    let [sigma_min, sigma_max] = config.levels(prior.schedule())?;
    let (seed, dequantisation) = (args.common.seed(), Dequantisation::EIGHT_BITS);
    interrupt::catch()?;
    let started = Instant::now();
    let counted = Counted::new(&prior);
    let bar = progress::bar("likelihood", n as u64 * PARTS);
    let mut done: Vec<LogDensity> = Vec::new();
    for i in 0..n {
        // An image's numbers are those of its place in the file.
        let place = (args.images.index + i) as u32;
        let streams = Streams::new(seed, place..place + 1);
        let stored = x.slice_axis(Axis(0), Slice::from(i..i + 1)).to_owned();
        let image = if args.as_is { stored } else { dequantisation.dequantise(&stored, &streams) };
        let mut observer = |_, share: f64| {
            bar.set_position(i as u64 * PARTS + (share * PARTS as f64) as u64);
            interrupt::go_on()
        };
        match log_density(&counted, &image, &config, &streams, &mut observer) {
            Ok(density) => done.extend(density),
            Err(_) if interrupt::requested() => break,
            Err(error) => return Err(error.into()),
        }
        progress::log(&bar, || format!("{} of {} done", i + 1, count(n, "image")));
    }
    bar.finish_and_clear();
    ensure!(!done.is_empty(), "stopped: no image was finished");
    let bits: Vec<f64> = done.iter().map(|density| density.bits_per_dim(dequantisation)).collect();
    let [mean, deviation] = moments(&bits);
    let error = deviation / (bits.len() as f64).sqrt();
    let column = |of: fn(&LogDensity) -> f64| done.iter().map(of).collect::<Vec<_>>();
    let evaluations = counted.evaluations();
    let probes = match config.divergence {
        Divergence::Exact => None,
        Divergence::Rademacher(k) | Divergence::Gaussian(k) => Some(k),
    };
    let summary = json!({
        "images": done.len(), "images_requested": n, "dimensions": done[0].d, "nats": column(|d| d.nats),
        "nats_per_dim": column(LogDensity::nats_per_dim), "bits_per_dim": bits, "standard_error": column(|d| d.standard_error),
        "end_bound_nats_per_dim": config.end_bound(prior.schedule())?, "mean_bits_per_dim": mean, "mean_bits_per_dim_error": (bits.len() > 1).then_some(error),
        "divergence": args.divergence, "probes": probes, "sigma_min": sigma_min, "sigma_max": sigma_max,
        "tolerance": config.tolerance, "dequantised": !args.as_is, "bin": dequantisation.width(), "class": args.class, "seed": seed,
        "solver_steps": done.iter().map(|d| d.steps).collect::<Vec<_>>(), "evaluations": evaluations.forward,
        "vjps": evaluations.vjp, "weights_sha256": prior.weights_sha256(), "seconds": started.elapsed().as_secs_f64(),
    });
    let spread = if bits.len() > 1 { format!(" +- {error:.4}") } else { String::new() };
    let text = format!(
        "{mean:.4}{spread} bits a dimension, mean of {}; the probes' standard error of one is {:.4} on average",
        count(bits.len(), "image"),
        moments(&column(|d| d.standard_error))[0] / done[0].d as f64 / std::f64::consts::LN_2,
    );
    report(args.common.json, &summary, &text)?;
    ensure!(done.len() == n, "stopped: {} of {} were finished", done.len(), count(n, "image"));
    Ok(())
}

/// Ticks of the bar for an image.
const PARTS: u64 = 1000;

impl Args {
    fn divergence(&self) -> Result<Divergence> {
        let probes = self.probes.unwrap_or(16);
        Ok(match self.divergence.as_str() {
            "rademacher" => Divergence::Rademacher(probes),
            "gaussian" => Divergence::Gaussian(probes),
            "exact" => {
                ensure!(self.probes.is_none(), "--probes cannot be used with --divergence exact, which has none");
                Divergence::Exact
            }
            other => anyhow::bail!("unknown divergence '{other}'; known: rademacher, gaussian, exact"),
        })
    }
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> [f64; 2] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    [mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt()]
}
