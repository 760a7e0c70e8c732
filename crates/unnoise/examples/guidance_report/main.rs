//! What the scale of classifier-free guidance does to digits of a class.
//!
//! ```text
//! cargo run --release -p unnoise --example guidance_report -- DATA MODEL [--samples 500] [--steps 20] [--scales 0,1,2,4] [--sheet FILE.png]
//! ```
//!
//! `DATA` is the folder that `tools/fetch_digits.py` makes, `MODEL` the directory of a model trained with `--class-dropout`. Of each scale, as many
//! samples of every class are drawn, by DPM-Solver++(2M) on the log-SNR grid from the same noise. The classifier of `digits_report` says how many are of
//! the class that was asked for, and its features give the squared Frechet distances: to training digits of all classes, beside which the
//! floor is that of as many held-out ones, and the mean over the classes of the spread, the trace of the features' covariance within a class.
//!
//! The sheet shows a class a row and a scale a block.

#[path = "../digits_report/classifier.rs"]
#[allow(dead_code, reason = "shared with digits_report, which uses all of it")]
mod classifier;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use classifier::{Classifier, Verdicts, permutation};
use ndarray::{Array2, Axis, Slice, concatenate};
use unnoise::Prior;
use unnoise_core::{
    Batch, Clamped, Denoiser, Extrapolated, GridKind, SamplerOptions, Streams, frechet_distance, sample, sampler_by_name,
    start_noise,
};
use unnoise_io::{Cell, DatasetConfig, Overwrite, Pixels, Range, panel, read_dataset};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: guidance_report DATA MODEL [--samples N] [--steps N] [--scales W,...] [--sheet FILE.png]";
const CLASSES: usize = 10;
const EPOCHS: usize = 10;
/// That of `digits_report`.
const FIXED_SEED: u64 = 7;
/// Samples of a class on the sheet.
const SHOWN: usize = 8;

struct Arguments {
    data: PathBuf,
    model: PathBuf,
    samples: usize,
    steps: usize,
    scales: Vec<f64>,
    sheet: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (Some(data), Some(model)) = (words.next(), words.next()) else { return Err(USAGE.into()) };
        let (data, model) = (data.into(), model.into());
        let mut all = Self { data, model, samples: 500, steps: 20, scales: vec![0.0, 1.0, 2.0, 4.0], sheet: None };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match flag.as_str() {
                "--samples" => all.samples = value.parse()?,
                "--steps" => all.steps = value.parse()?,
                "--scales" => all.scales = value.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?,
                "--sheet" => all.sheet = Some(value.into()),
                _ => return Err(USAGE.into()),
            }
        }
        if all.samples < 2 * CLASSES {
            return Err(format!("--samples must be at least {}, got {}", 2 * CLASSES, all.samples).into());
        }
        Ok(all)
    }
}

/// Real digits in [-1, 1], with their classes.
fn digits(folder: &Path, name: &str) -> Result<(Batch, Vec<usize>)> {
    let path = folder.join(name);
    let images = read_dataset(&path, DatasetConfig::default())?;
    match (images.pixels, images.labels) {
        (Pixels::U8(bytes), Some(labels)) => Ok((bytes.mapv(|v| f64::from(v) / 127.5 - 1.0), labels)),
        _ => Err(format!("{}: expected uint8 images with labels", path.display()).into()),
    }
}

/// `each` samples of every class, class by class.
fn draw(priors: &[Prior], scale: f64, each: usize, steps: usize) -> Result<Batch> {
    let mut parts = Vec::new();
    for (class, prior) in priors.iter().enumerate() {
        let guided = Clamped::new(Extrapolated::new(prior, prior.guide()?, scale)?, 1.0);
        let grid = GridKind::LogSnr.grid(prior.schedule(), steps)?;
        let numbers = (class * each) as u32..((class + 1) * each) as u32;
        let mut streams = Streams::new(0, numbers);
        let start = start_noise(&grid, &mut streams, each, prior.shape());
        let mut sampler = sampler_by_name("dpmpp-2m", &SamplerOptions::default())?;
        parts.push(sample(&mut *sampler, &guided, &grid, start, &mut streams, &mut |_| ControlFlow::Continue(()))?);
    }
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(concatenate(Axis(0), &views)?.mapv(|v| v.clamp(-1.0, 1.0)))
}

/// The mean over the classes of the trace of the features' covariance within a class.
fn spread(features: &Array2<f64>, classes: &[usize]) -> f64 {
    let within = |class: usize| {
        let rows: Vec<usize> = (0..classes.len()).filter(|&i| classes[i] == class).collect();
        let of_class = features.select(Axis(0), &rows);
        of_class.var_axis(Axis(0), 1.0).sum()
    };
    (0..CLASSES).map(within).sum::<f64>() / CLASSES as f64
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let device = Device::flex();
    let priors = (0..CLASSES)
        .map(|class| Ok(Prior::load(&arguments.model, &device)?.with_label(Some(class))))
        .collect::<Result<Vec<_>>>()?;
    let each = arguments.samples / CLASSES;
    let n = each * CLASSES;
    let (train, labels) = digits(&arguments.data, "train.npz")?;
    let (test, test_labels) = digits(&arguments.data, "test.npz")?;
    if n > test_labels.len() {
        return Err(format!("--samples must be at most {}, got {}", test_labels.len(), arguments.samples).into());
    }
    let classifier = Classifier::train(&train, &labels, EPOCHS, FIXED_SEED, &device)?;
    let chosen = &permutation(labels.len(), FIXED_SEED, EPOCHS)[..n];
    let real = classifier.classify(&train.select(Axis(0), chosen))?.features;
    let held_out = classifier.classify(&test.slice_axis(Axis(0), Slice::from(..n)).to_owned())?;
    println!("| scale | of the class asked for | Frechet distance | spread within a class |\n|---|---|---|---|");
    let row = |name: &str, verdicts: &Verdicts, asked: &[usize]| -> Result<()> {
        let (right, distance) = (100.0 * verdicts.accuracy(asked), frechet_distance(&verdicts.features, &real)?);
        println!("| {name} | {right:.1} % | {distance:.1} | {:.1} |", spread(&verdicts.features, asked));
        Ok(())
    };
    let asked: Vec<usize> = (0..n).map(|i| i / each).collect();
    let mut drawn = Vec::new();
    for &scale in &arguments.scales {
        let images = draw(&priors, scale, each, arguments.steps)?;
        row(&scale.to_string(), &classifier.classify(&images)?, &asked)?;
        drawn.push(images);
    }
    row("held-out digits", &held_out, &test_labels[..n])?;
    println!(
        "\n{n} samples of each scale, `dpmpp-2m` in {} steps on the log-SNR grid, weights `{}`.",
        arguments.steps,
        priors[0].weights_sha256()
    );
    if let Some(path) = &arguments.sheet {
        let cell = |class: usize, (images, scale): (&Batch, &f64)| {
            let of_class: Vec<_> = images.axis_iter(Axis(0)).skip(class * each).take(each.min(SHOWN)).collect();
            let title = if class == 0 { format!("scale {scale}") } else { String::new() };
            Ok(Cell::new(title, concatenate(Axis(2), &of_class)?.view(), Range::Symmetric))
        };
        let rows = (0..CLASSES)
            .map(|class| drawn.iter().zip(&arguments.scales).map(|of| cell(class, of)).collect())
            .collect::<Result<Vec<_>>>()?;
        panel(&rows, Some(1)).write(path, Overwrite::Force)?;
    }
    Ok(())
}
