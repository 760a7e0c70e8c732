//! The table of posterior methods on held-out digits, in `docs/digits.md`.
//!
//! ```text
//! cargo run --release -p unnoise --example digits_table -- tune  DATA     settings, by the CRPS on training digits
//! cargo run --release -p unnoise --example digits_table -- table DATA     the table, on held-out digits
//! cargo run --release -p unnoise --example digits_table -- table prior    the table, on images that the prior draws itself
//! ```
//!
//! `DATA` is the folder that `tools/fetch_digits.py` makes; a method's name behind it leaves the others out, and a number of steps behind that, with
//! settings as JSON behind them, replaces those that were tuned for 100 evaluations. On the prior's own images only the
//! method can be wrong, not the prior. `--model DIR` takes another prior than the built-in one, `--task NAME` one task of the four (`box`, `sr4`,
//! `gaussian`, `motion`). The table is Markdown on stdout, a row as soon as it is known.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use ndarray::Axis;
use serde_json::{Value, json};
use unnoise::core::{
    Batch, OperatorConfig, OperatorSpec, Purpose, Ranks, Streams, chi_square, crps, pseudo_inverse, psnr, sample, ssim,
    start_noise, total_variation,
};
use unnoise::io::{ReadOptions, read_images};
use unnoise::nn::open_device;
use unnoise::{GridKind, MeasuredImage, Prior, ReconstructConfig, Result, reconstruct, to_unit};

const SIGMA_Y: f64 = 0.05;
/// Held-out digits of the table.
const DIGITS: usize = 50;
/// Samples of each: their range is a 90 % interval.
const SAMPLES: usize = 19;
/// Training digits that settings are tuned on, with 6 samples each.
const TUNING_DIGITS: usize = 12;
/// Posterior means and vector-Jacobian products of a sample, together and at most.
const EVALUATIONS: usize = 100;

/// What is measured.
struct Task {
    /// What `--task` calls it.
    name: &'static str,
    title: &'static str,
    operator: &'static str,
    /// The weight of total variation, in the model's units, with the best PSNR on training digits.
    total_variation: f64,
    /// The methods, each with the settings that have the lowest CRPS on training digits: what `tune` printed.
    methods: [(&'static str, Value); 6],
}

fn tasks() -> [Task; 4] {
    let task = |name, title, operator, total_variation, [eta, lambda, prior_variance, zeta]: [f64; 4]| Task {
        name,
        title,
        operator,
        total_variation,
        methods: [
            ("ddnm-plus", json!({ "eta": eta })),
            ("diffpir", json!({ "lambda": lambda, "zeta": 1.0 })),
            ("pigdm", json!({ "prior_variance": prior_variance })),
            ("dps", json!({ "zeta": zeta })),
            ("tds", json!({ "particles": 2 })),
            ("mmps", json!({ "eta": 1.0, "max_iterations": 3, "sampler": "ddim", "tolerance": 0.05 })),
        ],
    };
    [
        task("box", "Box inpainting", "box:12", 0.003, [1.0, 7.0, 0.3, 0.1]),
        task("sr4", "4x super-resolution", "downsample:4,kernel=bicubic", 0.003, [0.85, 0.5, 0.3, 0.3]),
        task("gaussian", "Gaussian blur", "blur:gaussian,sigma=2", 0.003, [1.0, 2.0, 0.3, 0.3]),
        task("motion", "Motion blur", "blur:motion,length=9,angle=30", 0.01, [1.0, 2.0, 0.3, 0.3]),
    ]
}

/// What `tune` tries.
fn candidates(method: &str) -> Vec<Value> {
    let of = |key: &str, values: &[f64]| values.iter().map(|v| json!({ key: v })).collect();
    match method {
        "mmps" => [1, 3].map(|n| json!({ "max_iterations": n, "tolerance": 0.05, "sampler": "ddim", "eta": 1.0 })).to_vec(),
        "tds" => [2, 4].map(|p| json!({ "particles": p })).to_vec(),
        "pigdm" => of("prior_variance", &[0.1, 0.3, 1.0, 3.0]),
        "dps" => of("zeta", &[0.03, 0.1, 0.3, 1.0]),
        "ddnm-plus" => of("eta", &[0.5, 0.85, 1.0]),
        _ => [0.1, 0.5, 2.0, 7.0, 20.0].map(|l| json!({ "lambda": l, "zeta": 1.0 })).to_vec(),
    }
}

/// Steps that spend at most [`EVALUATIONS`] on a sample, half of them where nothing is differentiated: that is the command line's default.
fn steps(method: &str, settings: &Value) -> usize {
    let number = |key: &str| settings[key].as_u64().unwrap_or(1) as usize;
    EVALUATIONS
        / match method {
            // Each particle takes a posterior mean and a product.
            "tds" => 2 * number("particles"),
            // A posterior mean, the solve's products, its residual's, and the shift's own.
            "mmps" => number("max_iterations") + 3,
            _ => 2,
        }
}

/// Images that the prior draws itself, in [0, 1]: ancestral sampling in all its steps.
fn drawn(prior: &Prior, count: usize, seed: u64) -> Result<Vec<Batch>> {
    let scheduler = prior.scheduler();
    let grid = scheduler.grid("ddpm", None, scheduler.train_steps())?;
    let mut noise = Streams::new(seed, 0..count as u32);
    let start = start_noise(&grid, &mut noise, count, prior.shape());
    let mut sampler = scheduler.sampler("ddpm", None, true)?;
    let images = sample(&mut *sampler, prior.network(), &grid, start, &mut noise, &mut |_| ControlFlow::Continue(()))?;
    let images = to_unit(&images).mapv(|v| v.clamp(0.0, 1.0));
    Ok((0..count).map(|i| images.select(Axis(0), &[i])).collect())
}

fn digits(data: &Path, file: &str, count: usize, seed: u64) -> Result<Vec<Batch>> {
    let images = read_images(&data.join(file), ReadOptions::default())?;
    // The digits with the smallest of `seed`'s uniform numbers: a random choice without replacement.
    let keys = Streams::new(seed, 0..1).uniform(0, Purpose::Auxiliary, images.dim().0).remove(0);
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
    Ok(order.into_iter().take(count).map(|i| images.select(Axis(0), &[i])).collect())
}

/// What was found for one method on one task.
#[derive(Default)]
struct Scores {
    /// What its samples are, and with which settings, those that were not named included.
    target: String,
    settings: Value,
    psnr: f64,
    ssim: f64,
    chi_square: f64,
    crps: f64,
    forward: f64,
    vjp: f64,
    seconds: f64,
    /// Linear solves, those that ended above their tolerance, and the largest residual.
    solves: [f64; 3],
}

fn score(
    prior: &Prior,
    spec: &str,
    (method, settings, steps): (&str, &Value, usize),
    images: &[Batch],
    samples: usize,
    ranks: &mut Vec<Ranks>,
) -> Result<Scores> {
    let mut scores = Scores::default();
    let share = 1.0 / images.len() as f64;
    for (i, image) in images.iter().enumerate() {
        let measured =
            MeasuredImage::simulate(image, OperatorConfig::from(spec.parse::<OperatorSpec>()?), SIGMA_Y, i as u64, true)?;
        let config = ReconstructConfig {
            method: method.into(),
            settings: settings.clone(),
            samples,
            steps,
            grid: GridKind::Uniform,
            seed: 1000 + i as u64,
            batch: samples,
        };
        let result = reconstruct(prior, &measured.measurement()?, Some(image), &config, &mut |_| ControlFlow::Continue(()))?;
        let report = &result.report;
        scores.target = report.target.clone();
        scores.settings = report.settings.clone();
        scores.psnr += share * report.psnr.unwrap_or(f64::NAN);
        scores.ssim += share * report.ssim.unwrap_or(f64::NAN);
        scores.chi_square += share * report.chi_square.as_ref().map_or(f64::NAN, |all| all.iter().sum::<f64>() / all.len() as f64);
        // The truth is 0 or 1 almost everywhere; samples are clipped to the same range, and ties are broken at random.
        let clipped = result.samples.mapv(|v| v.clamp(0.0, 1.0));
        scores.crps += share * crps(&clipped, image)?;
        let each = share / samples as f64;
        scores.forward += each * report.evaluations.forward as f64;
        scores.vjp += each * report.evaluations.adjoint as f64;
        scores.seconds += each * report.seconds;
        if let Some(solver) = report.diagnostics.solver {
            let [all, left, worst] = scores.solves;
            scores.solves = [all + solver.solves as f64, left + solver.not_converged as f64, worst.max(solver.worst_residual)];
        }
        let mut of_image = Ranks::new(samples);
        of_image.add(&clipped, image, 0.02, &Streams::new(77, i as u32..i as u32 + 1))?;
        ranks.push(of_image);
    }
    Ok(scores)
}

/// The share of pixels between two order statistics of the samples in per cent, and its standard error by leaving out one image at a time:
/// the pixels of an image are not independent.
fn coverage(ranks: &[Ranks], lower: usize, upper: usize) -> String {
    let counts: Vec<[f64; 2]> =
        ranks.iter().map(|r| [r.counts()[lower..upper].iter().sum::<u64>() as f64, r.pixels() as f64]).collect();
    let pooled = |without: Option<usize>| {
        let kept = counts.iter().enumerate().filter(|(i, _)| Some(*i) != without);
        let [inside, all] = kept.fold([0.0; 2], |[a, b], (_, [inside, all])| [a + inside, b + all]);
        100.0 * inside / all
    };
    let n = counts.len() as f64;
    let left_out: Vec<f64> = (0..counts.len()).map(|i| pooled(Some(i))).collect();
    let mean = left_out.iter().sum::<f64>() / n;
    let error = ((n - 1.0) / n * left_out.iter().map(|v| (v - mean).powi(2)).sum::<f64>()).sqrt();
    format!("{:.1} +- {error:.1}", pooled(None))
}

fn tune(prior: &Prior, tasks: &[Task], data: &Path, only: Option<&str>) -> Result<()> {
    let images = digits(data, "train.npz", TUNING_DIGITS, 5)?;
    println!("| task | method | settings | CRPS | PSNR | chi-square | s |\n|---|---|---|---|---|---|---|");
    for Task { name, operator, methods, .. } in tasks {
        for (method, _) in methods.iter().filter(|(method, _)| only.is_none_or(|only| only == *method)) {
            for settings in candidates(method) {
                let s = score(prior, operator, (method, &settings, steps(method, &settings)), &images, 6, &mut Vec::new())?;
                println!(
                    "| {name} | {method} | `{settings}` | {:.4} | {:.2} | {:.2} | {:.2} |",
                    s.crps, s.psnr, s.chi_square, s.seconds
                );
            }
        }
        for weight in WEIGHTS {
            println!("| {name} | total variation | `{weight}` | | {:.2} | | |", baseline(operator, &images, Some(weight))?.psnr);
        }
    }
    Ok(())
}

/// The weights of total variation that `tune` tries, in the model's units.
const WEIGHTS: [f64; 5] = [0.0003, 0.001, 0.003, 0.01, 0.03];

/// The pseudo-inverse, or total variation with a weight.
fn baseline(spec: &str, images: &[Batch], weight: Option<f64>) -> Result<Scores> {
    let mut scores = Scores::default();
    let share = 1.0 / images.len() as f64;
    for (i, image) in images.iter().enumerate() {
        let measured =
            MeasuredImage::simulate(image, OperatorConfig::from(spec.parse::<OperatorSpec>()?), SIGMA_Y, i as u64, true)?;
        let measurement = measured.measurement()?;
        let started = Instant::now();
        let x = match weight {
            None => pseudo_inverse(&measurement)?,
            Some(weight) => total_variation(&measurement, weight, 1e-4, 5000)?.x,
        };
        scores.seconds += share * started.elapsed().as_secs_f64();
        scores.chi_square += share * chi_square(&measurement, &x)?[0];
        let clipped = to_unit(&x).mapv(|v| v.clamp(0.0, 1.0));
        scores.psnr += share * psnr(&clipped, image, 1.0)?[0];
        scores.ssim += share * ssim(&clipped, image, 1.0)?[0];
    }
    Ok(scores)
}

fn table(prior: &Prior, tasks: &[Task], data: &Path, only: Option<&str>, instead: Option<(usize, Option<Value>)>) -> Result<()> {
    let images = match data.to_str() {
        Some("prior") => drawn(prior, DIGITS, 6)?,
        _ => digits(data, "test.npz", DIGITS, 6)?,
    };
    for Task { title, operator, total_variation, methods, .. } in tasks {
        println!("\n### {title}: `{operator}`, sigma_y {SIGMA_Y}\n");
        println!("| method | settings | evaluations | s | PSNR | SSIM | chi-square | CRPS | 90 % | 50 % | pixels |");
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        let mut notes = String::new();
        for (method, settings) in methods.iter().filter(|(method, _)| only.is_none_or(|only| only == *method)) {
            let mut ranks = Vec::new();
            let (steps, settings) = match &instead {
                None => (steps(method, settings), settings),
                Some((steps, given)) => (*steps, given.as_ref().unwrap_or(settings)),
            };
            let s = score(prior, operator, (method, settings, steps), &images, SAMPLES, &mut ranks)?;
            let (wide, narrow) = (coverage(&ranks, 1, SAMPLES), coverage(&ranks, 5, 15));
            let share = ranks.iter().map(Ranks::share).sum::<f64>() / ranks.len() as f64;
            println!(
                "| `{method}` ({}) | `{}` | {:.0} + {:.0} | {:.2} | {:.2} | {:.3} | {:.2} | {:.4} | {wide} | {narrow} | {:.0} % |",
                s.target,
                s.settings,
                s.forward,
                s.vjp,
                s.seconds,
                s.psnr,
                s.ssim,
                s.chi_square,
                s.crps,
                100.0 * share
            );
            let [all, left, worst] = s.solves;
            if all > 0.0 {
                let share = 100.0 * left / all;
                notes +=
                    &format!("\n`{method}`: {share:.0} % of its solves ended above their tolerance, the worst at {worst:.2}.\n");
            }
        }
        for (name, weight) in [("pseudo-inverse", None), ("total variation", Some(*total_variation))] {
            let s = baseline(operator, &images, weight)?;
            let settings = weight.map_or(String::new(), |w| format!("weight {w}"));
            println!("| {name} | {settings} | | {:.2} | {:.2} | {:.3} | {:.2} | | | | |", s.seconds, s.psnr, s.ssim, s.chi_square);
        }
        print!("{notes}");
    }
    Ok(())
}

/// Takes `name` and the word behind it out of the arguments.
fn option(arguments: &mut Vec<String>, name: &str) -> Option<String> {
    let at = arguments.iter().position(|word| word == name).filter(|at| at + 1 < arguments.len())?;
    arguments.drain(at..at + 2).nth(1)
}

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = open_device("cpu")?;
    let prior = match option(&mut arguments, "--model") {
        Some(folder) => Prior::load(Path::new(&folder), &device)?,
        None => Prior::digits(&device)?,
    };
    let task = option(&mut arguments, "--task");
    let tasks: Vec<Task> = tasks().into_iter().filter(|t| task.as_deref().is_none_or(|task| task == t.name)).collect();
    let word = |i: usize| arguments.get(i).map(String::as_str);
    let (mode, data, only) = (word(0).unwrap_or(""), Path::new(word(1).unwrap_or("")), word(2));
    let settings = word(4).map(serde_json::from_str).transpose();
    let (Ok(steps), Ok(settings)) = (word(3).map(str::parse).transpose(), settings) else {
        eprintln!("STEPS must be a number and SETTINGS a JSON object");
        std::process::exit(2)
    };
    let instead = steps.map(|steps| (steps, settings));
    match mode {
        "tune" if word(1).is_some() && !tasks.is_empty() => tune(&prior, &tasks, data, only),
        "table" if word(1).is_some() && !tasks.is_empty() => table(&prior, &tasks, data, only, instead),
        _ => {
            eprintln!(
                "usage: digits_table tune DATA [METHOD], digits_table table DATA|prior [METHOD [STEPS [SETTINGS]]]; [--model DIR] [--task box|sr4|gaussian|motion]"
            );
            std::process::exit(2)
        }
    }
}
