//! Judges a prior of digits, as Markdown on stdout; progress goes to stderr.
//!
//! ```text
//! digits_report DATA MODEL [--samples 1000] [--sampler ddim] [--steps 50] [--grid NAME] [--seed 0] [--held-out 1000] [--sheet FILE]
//! ```
//!
//! `DATA` is the folder that `tools/fetch_digits.py` makes, `MODEL` a model directory of diffusers' kind, whose weights are the averaged
//! ones where this project trained it. The grid is the model's own unless `--grid` names one; `--held-out` is the number of held-out
//! digits that the loss is taken over; `--sheet` keeps the samples as .npy, f32 in [-1, 1], or the first hundred as .png. With the
//! defaults the network is evaluated 60,000 times.
//!
//! The yardstick is a small classifier, trained here from a fixed seed. Samples are limited to [-1, 1] before it sees them.

mod classifier;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use classifier::{Classifier, FEATURES, Verdicts, permutation};
use ndarray::{Array4, Axis, Slice, concatenate};
use unnoise_core::{
    Batch, Denoiser, Level, Noise, Purpose, Scales, SchedulerConfig, Spacing, Streams, asymmetry, frechet_distance, sample,
    start_noise,
};
use unnoise_io::{Array, DatasetConfig, Overwrite, Pixels, Range, SheetConfig, read_dataset, sheet, write_npy};
use unnoise_nn::{DiffusionModel, TrainingImages, UnetDenoiser, held_out_losses};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: digits_report DATA MODEL [--samples N] [--sampler NAME] [--steps N] [--grid NAME] [--seed N] [--held-out N] [--sheet FILE]";
const BATCH: usize = 64;
const EPOCHS: usize = 10;
/// Of the classifier, of the choice of real digits and of the held-out noise: a report's yardstick is always the same one.
const FIXED_SEED: u64 = 7;
/// Thousandths of the noise levels at which the loss is taken.
const LEVELS: [usize; 10] = [0, 20, 50, 100, 200, 300, 400, 500, 700, 999];
const SURE: f64 = 0.9;
/// Held-out digits at which the Jacobian is probed.
const PROBES: usize = 64;
/// Samples on a picture.
const SHOWN: usize = 100;

struct Arguments {
    data: PathBuf,
    model: PathBuf,
    samples: usize,
    sampler: String,
    steps: usize,
    grid: Option<Spacing>,
    seed: u64,
    held_out: usize,
    sheet: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (Some(data), Some(model)) = (words.next(), words.next()) else { return Err(USAGE.into()) };
        let mut all = Self {
            data: data.into(),
            model: model.into(),
            samples: 1000,
            sampler: "ddim".into(),
            steps: 50,
            grid: None,
            seed: 0,
            held_out: 1000,
            sheet: None,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match flag.as_str() {
                "--samples" => all.samples = value.parse()?,
                "--sampler" => all.sampler = value,
                "--steps" => all.steps = value.parse()?,
                "--grid" => all.grid = Some(Spacing::by_name(&value)?),
                "--seed" => all.seed = value.parse()?,
                "--held-out" => all.held_out = value.parse()?,
                "--sheet" if [".npy", ".png"].iter().any(|end| value.ends_with(end)) => all.sheet = Some(value.into()),
                _ => return Err(USAGE.into()),
            }
        }
        if all.samples < 2 || all.held_out == 0 { Err("two samples and one held-out digit are the least".into()) } else { Ok(all) }
    }
}

/// Real digits, with their classes.
struct Digits {
    bytes: Array4<u8>,
    labels: Vec<usize>,
}

impl Digits {
    fn read(path: &Path) -> Result<Self> {
        let images = read_dataset(path, DatasetConfig::default())?;
        match (images.pixels, images.labels) {
            (Pixels::U8(bytes), Some(labels)) if bytes.shape()[1..] == [1, 32, 32] => Ok(Self { bytes, labels }),
            _ => Err(format!("{}: expected uint8 [n, 1, 32, 32] with labels", path.display()).into()),
        }
    }

    /// In [-1, 1].
    fn pixels(&self) -> Batch {
        self.bytes.mapv(|v| f64::from(v) / 127.5 - 1.0)
    }
}

/// Draws `count` samples, limited to [-1, 1].
fn draw(scheduler: &SchedulerConfig, denoiser: &UnetDenoiser, arguments: &Arguments) -> Result<Batch> {
    let Arguments { samples: count, sampler, steps, grid, seed, .. } = arguments;
    let grid = scheduler.grid(sampler, *grid, *steps)?;
    let mut parts = Vec::new();
    for first in (0..*count).step_by(BATCH) {
        let end = (first + BATCH).min(*count);
        let mut noise = Streams::new(*seed, first as u32..end as u32);
        let start = start_noise(&grid, &mut noise, end - first, [1, 32, 32]);
        let mut sampler = scheduler.sampler(sampler, None, true)?;
        parts.push(sample(&mut *sampler, denoiser, &grid, start, &mut noise, &mut |_| ControlFlow::Continue(()))?);
        eprintln!("{end} of {count} samples");
    }
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(concatenate(Axis(0), &views)?.mapv_into(|v| v.clamp(-1.0, 1.0)))
}

/// All samples as an array, or the first as a picture.
fn keep(samples: &Batch, path: &Path) -> Result<()> {
    if path.extension().is_some_and(|end| end == "npy") {
        write_npy(path, &Array::F32(samples.mapv(|v| v as f32).into_dyn()), Overwrite::Force)?;
    } else {
        let shown = samples.slice_axis(Axis(0), Slice::from(..SHOWN.min(samples.dim().0))).to_owned();
        sheet(&shown, Range::Symmetric, SheetConfig { scale: Some(2), ..SheetConfig::default() }).write(path, Overwrite::Force)?;
    }
    Ok(())
}

/// `share +- its standard error`, in per cent.
fn percent(share: f64, n: usize) -> String {
    format!("{:.1} +- {:.1} %", 100.0 * share, 100.0 * (share * (1.0 - share) / n as f64).sqrt())
}

fn print_verdicts(samples: &Verdicts, real: &Verdicts, test: &Verdicts) -> Result<()> {
    println!("| images | how many | surer than {SURE} |\n|---|---|---|");
    for (name, set) in [("samples", samples), ("held-out digits", test)] {
        println!("| {name} | {} | {} |", set.classes.len(), percent(set.surer_than(SURE), set.classes.len()));
    }

    println!("\nSquared Frechet distance in the classifier's {FEATURES} features,");
    println!("`|mu_a - mu_b|^2 + tr C_a + tr C_b - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2`:\n");
    println!("| between | sizes | distance |\n|---|---|---|");
    let most = real.features.nrows();
    for (name, set) in [("samples", samples), ("held-out digits (the floor)", test)] {
        // Equal sizes, since the distance depends on them.
        let features = set.features.slice_axis(Axis(0), Slice::from(..most.min(set.features.nrows()))).to_owned();
        let distance = frechet_distance(&features, &real.features)?;
        println!("| {name}, training digits | {}, {most} | {distance:.2} |", features.nrows());
    }

    println!("\n| class | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |\n|---|---|---|---|---|---|---|---|---|---|---|");
    for (name, verdicts) in [("samples", samples), ("training digits", real), ("held-out digits", test)] {
        let counts = verdicts.histogram().map(|count| format!("{:.1} %", 100.0 * count as f64 / verdicts.classes.len() as f64));
        println!("| {name} | {} |", counts.join(" | "));
    }
    Ok(())
}

fn print_losses(model: &DiffusionModel, digits: &Digits, count: usize, device: &Device) -> Result<()> {
    let schedule = model.schedule()?;
    let steps = model.scheduler.as_ref().map_or(1000, |scheduler| scheduler.train_steps());
    // A step of a table is (step + 1) / T, a flow's timestep is T t.
    let offset = schedule.steps().map_or(0, |_| 1);
    let rows = Slice::from(..count.min(digits.labels.len()));
    let images = TrainingImages::from_u8(digits.bytes.slice_axis(Axis(0), rows).to_owned())?;
    let levels = LEVELS.map(|thousandths| thousandths * steps / 1000);
    let losses = held_out_losses(model, &images, &levels, FIXED_SEED, device)?;
    println!("\nMean squared error of the predicted {} on {} held-out digits:\n", model.prediction()?.name(), images.len());
    println!("| step of {steps} | sigma / alpha | loss |\n|---|---|---|");
    for (level, loss) in levels.into_iter().zip(losses) {
        let Scales { alpha, sigma } = schedule.scales((level + offset) as f64 / steps as f64);
        println!("| {level} | {:.3} | {loss:.5} |", sigma / alpha);
    }
    Ok(())
}

/// How far the network's Jacobian is from symmetric, as a posterior mean's is.
fn print_asymmetry(denoiser: &UnetDenoiser, digits: &Digits) -> Result<()> {
    let n = PROBES.min(digits.labels.len());
    let x0 = digits.pixels().slice_axis(Axis(0), Slice::from(..n)).to_owned();
    let mut streams = Streams::new(FIXED_SEED, 0..n as u32);
    let mut normal = |step| streams.normal(step, Purpose::Auxiliary, n, [1, 32, 32]);
    println!(
        "\nAsymmetry `|J - J^T|_F / |J|_F` of the posterior mean's Jacobian, by a pair of probes on each of {n} held-out digits:\n"
    );
    println!("| t | sigma / alpha | asymmetry |\n|---|---|---|");
    for (i, t) in [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9].into_iter().enumerate() {
        let level = Level::at(denoiser.schedule(), t);
        let x = &x0 * level.alpha + normal(3 * i) * level.sigma;
        let found = asymmetry(&mut denoiser.linearize(&x, level)?, &normal(3 * i + 1), &normal(3 * i + 2))?;
        println!("| {t} | {:.3} | {found:.3} |", level.sigma_edm());
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let device = Device::flex();
    let (train, test) = (Digits::read(&arguments.data.join("train.npz"))?, Digits::read(&arguments.data.join("test.npz"))?);
    let model = DiffusionModel::read(&arguments.model)?;
    let denoiser = model.denoiser(&device)?;
    let scheduler = model.scheduler.as_ref().ok_or("the model has no scheduler_config.json")?;

    let start = Instant::now();
    let (train_pixels, test_pixels) = (train.pixels(), test.pixels());
    let classifier = Classifier::train(&train_pixels, &train.labels, EPOCHS, FIXED_SEED, &device)?;
    let judged_test = classifier.classify(&test_pixels)?;
    let accuracy = judged_test.accuracy(&test.labels);
    eprintln!("classifier: {:.2} % right, {:.0} s", 100.0 * accuracy, start.elapsed().as_secs_f64());

    let start = Instant::now();
    let samples = draw(scheduler, &denoiser, &arguments)?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &arguments.sheet {
        keep(&samples, path)?;
    }
    let n = arguments.samples.min(train.labels.len());
    let chosen = train_pixels.select(Axis(0), &permutation(train.labels.len(), FIXED_SEED, EPOCHS)[..n]);
    let judged_train = classifier.classify(&chosen)?;

    let Arguments { samples: count, sampler, steps, grid, seed, .. } = &arguments;
    let grid = grid.map_or("of the model", Spacing::name);
    println!("# A prior of digits, judged\n");
    println!(
        "Weights `{}`; {count} samples by `{sampler}` in {steps} steps, grid {grid}, seed {seed}, {seconds:.0} s.",
        model.params.sha256()
    );
    println!(
        "Classifier: {EPOCHS} epochs of {} digits, {:.2} % of {} held-out digits right.\n",
        train.labels.len(),
        100.0 * accuracy,
        test.labels.len()
    );
    print_verdicts(&classifier.classify(&samples)?, &judged_train, &judged_test)?;
    print_losses(&model, &test, arguments.held_out, &device)?;
    print_asymmetry(&denoiser, &test)
}
