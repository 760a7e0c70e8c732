//! How fast a network runs on this machine.

use std::time::Instant;

use ndarray::Array4;
use serde::Serialize;
use unnoise_core::{Batch, Denoiser, Noise, Purpose, SchedulerConfig, Streams};
use unnoise_nn::{
    Device, DiffusionModel, OperationProfile, Params, SampleSize, TrainConfig, Trainer, TrainingImages, UnetConfig,
    measured_peak_gflops, profile,
};

use crate::{Error, Result};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BenchMode {
    /// A network evaluation.
    Forward,
    /// An evaluation and a vector-Jacobian product by the image, with frozen weights: one step of a guided method.
    Guided,
    /// A training step: forward, backward, clipping, AdamW and the moving average.
    Train,
}

impl BenchMode {
    /// Every mode by its name.
    pub const ALL: [(&'static str, Self); 3] = [("forward", Self::Forward), ("guided", Self::Guided), ("train", Self::Train)];

    /// The mode of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] with the known ones.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode).ok_or_else(|| Error::Argument {
            what: "the mode",
            expected: Self::ALL.map(|(known, _)| known).join(", "),
            got: format!("'{name}'"),
            at: "bench",
        })
    }
}

/// What a benchmark found.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// What was timed.
    pub mode: BenchMode,
    /// Images at once.
    pub batch: usize,
    /// The shape of an image, `[c, h, w]`.
    pub shape: [usize; 3],
    /// Parameters of the network.
    pub parameters: usize,
    /// CPU threads.
    pub threads: usize,
    /// The median of the runs, milliseconds.
    pub median_ms: f64,
    /// The fastest run, milliseconds.
    pub min_ms: f64,
    /// Images in a second, at the median.
    pub images_per_s: f64,
    /// Convolutions, matrix products and attention in a second, counted as the plain algorithm would do them, 1e9 operations.
    pub gflops: f64,
    /// What the threads reach multiplying and adding in registers, 1e9 operations a second. Winograd's algorithm may exceed it.
    pub peak_gflops: f64,
    /// The most memory that this process has held, MiB; none where the system does not tell.
    pub peak_rss_mib: Option<f64>,
    /// Milliseconds of every run.
    pub runs: Vec<f64>,
    /// One more run, operation by operation, the longest first.
    pub operations: Vec<OperationReport>,
}

/// A kind of operation in one run.
#[derive(Clone, Debug, Serialize)]
pub struct OperationReport {
    /// Its name.
    pub operation: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// Milliseconds it took, summed over the threads that called it.
    pub ms: f64,
    /// 1e9 operations a second, of the plain algorithm; none where memory sets the pace.
    pub gflops: Option<f64>,
}

impl From<OperationProfile> for OperationReport {
    fn from(OperationProfile { operation, calls, seconds, flops }: OperationProfile) -> Self {
        let gflops = (flops > 0.0).then_some(flops / seconds * 1e-9);
        Self { operation, calls, ms: 1e3 * seconds, gflops }
    }
}

/// The most images, runs, rows and columns.
const MOST: usize = 1 << 16;

/// How a network is timed.
#[derive(Clone, Copy, Debug)]
pub struct BenchConfig {
    /// What is timed.
    pub mode: BenchMode,
    /// Images at once.
    pub batch: usize,
    /// Runs that are timed, after two that warm up.
    pub runs: usize,
    /// Rows and columns of the images, where they are not the model's own.
    pub sides: Option<[usize; 2]>,
    /// Seed of the images.
    pub seed: u64,
}

/// Times a network.
///
/// The model is taken, so that nothing but the network holds its parameters. Without a scheduler configuration it runs at the middle of
/// DDPM's schedule.
///
/// # Errors
/// [`Error::Argument`] for no images or no runs; those of the network.
pub fn bench(mut model: DiffusionModel, config: &BenchConfig, device: &Device) -> Result<BenchReport> {
    let BenchConfig { mode, batch, runs, sides, seed } = *config;
    let [h, w] = sides.or(model.config.sample_size.map(SampleSize::sides)).unwrap_or([32, 32]);
    let shape = [model.config.in_channels, h, w];
    let limits = [("the images at once", batch, MOST), ("the runs", runs, MOST), ("the rows", h, MOST), ("the columns", w, MOST)];
    let numbers = shape.iter().fold(batch, |product, side| product.saturating_mul(*side));
    for (what, got, most) in limits.into_iter().chain([("the numbers of all images", numbers, 1 << 28)]) {
        if !(1..=most).contains(&got) {
            return Err(Error::Argument { what, expected: format!("in 1 ..= {most}"), got: got.to_string(), at: "bench" });
        }
    }
    let (parameters, peak_gflops) = (model.params.count(), measured_peak_gflops());
    model.scheduler.get_or_insert_default();
    let x = Streams::new(seed, 0..batch as u32).normal(0, Purpose::Start, batch, shape);
    let mut run = prepare(model, mode, x, device)?;
    for _ in 0..2 {
        run()?;
    }
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    let (result, operations) = profile(run);
    result?;
    let median_ms = median(&times);
    Ok(BenchReport {
        mode,
        batch,
        shape,
        parameters,
        threads: rayon::current_num_threads(),
        median_ms,
        min_ms: times.iter().copied().fold(f64::INFINITY, f64::min),
        images_per_s: 1e3 * batch as f64 / median_ms,
        gflops: operations.iter().map(|o| o.flops).sum::<f64>() / median_ms * 1e-6,
        peak_gflops,
        peak_rss_mib: peak_rss_mib(),
        runs: times,
        operations: operations.into_iter().map(OperationReport::from).collect(),
    })
}

type Run = Box<dyn FnMut() -> Result<()>>;

/// One run, ready to go.
fn prepare(mut model: DiffusionModel, mode: BenchMode, x: Batch, device: &Device) -> Result<Run> {
    if mode == BenchMode::Train {
        let DiffusionModel { config, params, .. } = model;
        let mut trainer = trainer(config, params, &x, device)?;
        return Ok(Box::new(move || Ok(trainer.step().map(|_| ())?)));
    }
    let label = model.config.num_class_embeds.map(|_| 0);
    let denoiser = model.take_denoiser(device)?.with_label(label).with_chunk(x.dim().0);
    let level = middle(&model.scheduler.unwrap_or_default())?;
    Ok(match mode {
        BenchMode::Forward => Box::new(move || Ok(denoiser.x0_hat(&x, level).map(|_| ())?)),
        _ => Box::new(move || {
            let mut at = denoiser.linearize(&x, level)?;
            Ok((at.vjp)(&x).map(|_| ())?)
        }),
    })
}

/// The middle of the grid of one step a level.
fn middle(scheduler: &SchedulerConfig) -> Result<unnoise_core::Level> {
    let grid = scheduler.grid("ddim", None, scheduler.train_steps().min(100))?;
    Ok(grid.steps[grid.steps.len() / 2].from)
}

fn trainer(config: UnetConfig, params: Params, x: &Batch, device: &Device) -> Result<Trainer> {
    let batch = x.dim().0;
    let pixels: Array4<u8> = x.mapv(|v| (127.5 + 60.0 * v).clamp(0.0, 255.0) as u8);
    let labels = config.num_class_embeds.map(|_| vec![0; batch]);
    let images = TrainingImages::from_u8(pixels)?;
    let images = match labels {
        Some(labels) => images.with_labels(labels)?,
        None => images,
    };
    let config = TrainConfig { batch, ..TrainConfig::new(config, 1 << 23) };
    Ok(Trainer::with_weights(config, images, params, device.clone())?)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { 0.5 * (sorted[half - 1] + sorted[half]) }
}

/// The high-water mark that Linux keeps.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
