//! The Frechet distance of every sampler's digits, by the network evaluations that they cost.
//!
//! ```text
//! sampler_quality DATA MODEL TABLE.csv [--samples 500] [--samplers NAMES|all] [--evaluations 5,10,20,50] [--grid log-snr]
//! ```
//!
//! `DATA` is the folder that `tools/fetch_digits.py` makes, `MODEL` a model directory. Every run that the table lacks is drawn and appended to
//! it, so that an interrupted one goes on; the whole table is then printed as Markdown. All samplers walk the same grid from the same noise, and
//! the clean image's estimate is clamped to [-1, 1]. An adaptive sampler has a tolerance instead of steps: 0.1 in the first column, a tenth of it
//! in each next one.
//!
//! The features are those of the classifier of `digits_report`, trained here from a fixed seed; the floor is the distance between as many
//! held-out digits and as many training digits.

#[path = "../digits_report/classifier.rs"]
#[allow(dead_code, reason = "shared with digits_report, which uses all of it")]
mod classifier;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::Device;
use classifier::{Classifier, permutation};
use ndarray::{Array2, Axis, Slice, concatenate};
use unnoise::{Prior, grid_within_budget};
use unnoise_core::{
    Batch, Clamped, Counted, Denoiser, GridKind, SAMPLERS, SamplerOptions, Streams, frechet_distance, sample, sampler_by_name,
    sampler_info, start_noise,
};
use unnoise_io::{DatasetConfig, Pixels, read_dataset};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str =
    "usage: sampler_quality DATA MODEL TABLE.csv [--samples N] [--samplers NAMES|all] [--evaluations N,...] [--grid NAME]";
const BATCH: usize = 64;
const EPOCHS: usize = 10;
/// That of `digits_report`.
const FIXED_SEED: u64 = 7;
/// A grid's parameters have commas.
const HEADER: &str = "sampler;grid;samples;budget;steps;evaluations;distance\n";

struct Arguments {
    data: PathBuf,
    model: PathBuf,
    table: PathBuf,
    samples: usize,
    samplers: Vec<String>,
    evaluations: Vec<usize>,
    grid: GridKind,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (Some(data), Some(model), Some(table)) = (words.next(), words.next(), words.next()) else { return Err(USAGE.into()) };
        let mut all = Self {
            data: data.into(),
            model: model.into(),
            table: table.into(),
            samples: 500,
            samplers: vec!["all".into()],
            evaluations: vec![5, 10, 20, 50],
            grid: GridKind::LogSnr,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match flag.as_str() {
                "--samples" => all.samples = value.parse()?,
                "--samplers" => all.samplers = value.split(',').map(String::from).collect(),
                "--evaluations" => all.evaluations = value.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?,
                "--grid" => all.grid = GridKind::by_name(&value)?,
                _ => return Err(USAGE.into()),
            }
        }
        if all.samplers == ["all"] {
            all.samplers = SAMPLERS.iter().filter(|info| info.draws()).map(|info| info.name.into()).collect();
        }
        all.samplers.iter().try_for_each(|name| sampler_info(name).map(|_| ()))?;
        Ok(all)
    }
}

/// Real digits in [-1, 1], with their classes.
fn digits(arguments: &Arguments, name: &str) -> Result<(Batch, Vec<usize>)> {
    let path = arguments.data.join(name);
    let images = read_dataset(&path, DatasetConfig::default())?;
    match (images.pixels, images.labels) {
        (Pixels::U8(bytes), Some(labels)) => Ok((bytes.mapv(|v| f64::from(v) / 127.5 - 1.0), labels)),
        _ => Err(format!("{}: expected uint8 images with labels", path.display()).into()),
    }
}

/// What decides what is right: the classifier, and features of training digits.
struct Judge {
    classifier: Classifier,
    real: Array2<f64>,
    floor: f64,
}

impl Judge {
    fn new(arguments: &Arguments, device: &Device) -> Result<Self> {
        let (train, labels) = digits(arguments, "train.npz")?;
        let (test, _) = digits(arguments, "test.npz")?;
        let n = arguments.samples;
        if !(2..=test.dim().0.min(train.dim().0)).contains(&n) {
            return Err(format!("--samples must be from 2 to {}, got {n}", test.dim().0).into());
        }
        let classifier = Classifier::train(&train, &labels, EPOCHS, FIXED_SEED, device)?;
        let chosen = train.select(Axis(0), &permutation(labels.len(), FIXED_SEED, EPOCHS)[..n]);
        let real = classifier.classify(&chosen)?.features;
        let held_out = classifier.classify(&test.slice_axis(Axis(0), Slice::from(..n)).to_owned())?.features;
        let floor = frechet_distance(&held_out, &real)?;
        Ok(Self { classifier, real, floor })
    }

    fn distance(&self, samples: &Batch) -> Result<f64> {
        let samples = samples.mapv(|v| v.clamp(-1.0, 1.0));
        Ok(frechet_distance(&self.classifier.classify(&samples)?.features, &self.real)?)
    }
}

/// One sampler's samples within a budget, the steps, and the evaluations of a sample; nothing if the budget pays for no step.
fn draw(prior: &Prior, arguments: &Arguments, name: &str, column: usize) -> Result<Option<(Batch, usize, f64)>> {
    let options = SamplerOptions { tolerance: 0.1f64.powi(column as i32 + 1), ..SamplerOptions::default() };
    let make = |steps| arguments.grid.grid(prior.schedule(), steps).map_err(unnoise::Error::from);
    let budget = arguments.evaluations[column];
    let Some(grid) = grid_within_budget(&*sampler_by_name(name, &options)?, budget, &make)? else { return Ok(None) };
    let denoiser = Counted::new(Clamped::new(prior, 1.0));
    let mut parts = Vec::new();
    for first in (0..arguments.samples).step_by(BATCH) {
        let end = (first + BATCH).min(arguments.samples);
        let mut streams = Streams::new(0, first as u32..end as u32);
        let start = start_noise(&grid, &mut streams, end - first, prior.shape());
        let mut sampler = sampler_by_name(name, &options)?;
        parts.push(sample(&mut *sampler, &denoiser, &grid, start, &mut streams, &mut |_| ControlFlow::Continue(()))?);
    }
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let evaluations = denoiser.evaluations().forward as f64 / arguments.samples as f64;
    Ok(Some((concatenate(Axis(0), &views)?, grid.steps.len(), evaluations)))
}

/// The distances that the table holds, by sampler and budget, with their evaluations.
type Rows = BTreeMap<(String, usize), (f64, f64)>;

fn read(arguments: &Arguments) -> Result<Rows> {
    let text = fs::read_to_string(&arguments.table).unwrap_or_default();
    let (grid, samples) = (arguments.grid.to_string(), arguments.samples.to_string());
    let mut rows = Rows::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(';').collect();
        if let [sampler, of, n, budget, _, evaluations, distance] = cells[..]
            && of == grid
            && n == samples
        {
            rows.insert((sampler.into(), budget.parse()?), (evaluations.parse()?, distance.parse()?));
        }
    }
    Ok(rows)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let device = Device::flex();
    let prior = Prior::load(&arguments.model, &device)?;
    let judge = Judge::new(&arguments, &device)?;
    let mut rows = read(&arguments)?;
    let mut table = OpenOptions::new().create(true).append(true).open(&arguments.table)?;
    if table.metadata()?.len() == 0 {
        table.write_all(HEADER.as_bytes())?;
    }
    for name in &arguments.samplers {
        for (column, &budget) in arguments.evaluations.iter().enumerate() {
            if rows.contains_key(&(name.clone(), budget)) {
                continue;
            }
            let Some((samples, steps, evaluations)) = draw(&prior, &arguments, name, column)? else { continue };
            let distance = judge.distance(&samples)?;
            eprintln!("{name}, {budget} evaluations: {distance:.2}");
            writeln!(table, "{name};{};{};{budget};{steps};{evaluations};{distance}", arguments.grid, arguments.samples)?;
            rows.insert((name.clone(), budget), (evaluations, distance));
        }
    }
    let budgets: Vec<String> = arguments.evaluations.iter().map(usize::to_string).collect();
    println!("| sampler | {} |\n|---{}|", budgets.join(" | "), "|---".repeat(budgets.len()));
    for name in &arguments.samplers {
        let cell = |budget: &usize| match rows.get(&(name.clone(), *budget)) {
            Some((spent, distance)) if (spent - *budget as f64).abs() < 1.5 => format!("{distance:.1}"),
            Some((spent, distance)) => format!("{distance:.1} ({spent:.0})"),
            None => "-".into(),
        };
        println!("| {name} | {} |", arguments.evaluations.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    println!(
        "\n{} samples each, grid {}, weights `{}`; between as many held-out and training digits it is {:.1}.",
        arguments.samples,
        arguments.grid,
        prior.weights_sha256(),
        judge.floor
    );
    Ok(())
}
