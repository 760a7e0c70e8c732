//! Judges a prior of digits: held-out loss by level, a sheet of samples, and how a classifier sees them.
//!
//! ```text
//! digits_report MODEL_DIR DATA_DIR OUT_DIR [--samples 1000] [--steps 50] [--sampler ddim] [--seed 1]
//! ```
//!
//! Prints a table and writes `samples.png` and `report.json`. The Frechet distance is in the 64 features of the classifier, whose
//! training this program does itself; it means nothing beside a distance in other features.

mod classifier;
mod frechet;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use classifier::{Classifier, FEATURES};
use frechet::{frechet_distance, self_check};
use ndarray::{Axis, concatenate, s, stack};
use unnoise_core::{Batch, Denoiser, SamplerOptions, Spacing, Streams, sample, start_noise, unobserved};
use unnoise_io::{DatasetConfig, Overwrite, Pixels, Range, SheetConfig, read_dataset, sheet};
use unnoise_nn::{DiffusionModel, TrainingImages, held_out_losses};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const LEVELS: [usize; 10] = [0, 20, 50, 100, 200, 300, 400, 500, 700, 999];
/// Samples drawn at a time.
const CHUNK: usize = 100;
const CONFIDENCE: f64 = 0.9;
const EPOCHS: u64 = 12;

fn read(path: &Path) -> Result<(TrainingImages, Vec<usize>)> {
    let images = read_dataset(path, DatasetConfig::default())?;
    let labels = images.labels.ok_or("the digits need labels")?;
    match images.pixels {
        Pixels::U8(pixels) => Ok((TrainingImages::from_u8(pixels)?, labels)),
        Pixels::F32(pixels) => Ok((TrainingImages::from_f32(pixels, [0.0, 1.0])?, labels)),
    }
}

fn batch(images: &TrainingImages, range: std::ops::Range<usize>) -> Batch {
    let all: Vec<_> = range.map(|i| images.image(i).mapv(f64::from)).collect();
    stack(Axis(0), &all.iter().map(|image| image.view()).collect::<Vec<_>>()).expect("the images have one shape")
}

fn draw(model: &DiffusionModel, name: &str, steps: usize, n: usize, seed: u64) -> Result<Batch> {
    let denoiser = model.denoiser(&Device::flex())?;
    let scheduler = model.scheduler.as_ref().ok_or("the model has no scheduler_config.json")?;
    let grid = scheduler.grid(name, Some(Spacing::Trailing), steps)?;
    let mut chunks = Vec::new();
    for from in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - from);
        let mut noise = Streams::new(seed, from as u32..(from + count) as u32);
        let mut sampler = scheduler.sampler(name, SamplerOptions::default().eta, true)?;
        let x = start_noise(&grid, &mut noise, count, [1, 32, 32]);
        chunks.push(sample(sampler.as_mut(), &denoiser as &dyn Denoiser, &grid, x, &mut noise, &mut unobserved)?);
        eprintln!("{} of {n} samples", from + count);
    }
    Ok(concatenate(Axis(0), &chunks.iter().map(|c| c.view()).collect::<Vec<_>>())?)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, out, ..] = args.as_slice() else { return Err("usage: digits_report MODEL_DIR DATA_DIR OUT_DIR".into()) };
    let option = |flag: &str| args.iter().skip_while(|a| *a != flag).nth(1).map(String::as_str);
    let number = |flag: &str, default: usize| option(flag).map_or(Ok(default), str::parse);
    let (n, steps, seed) = (number("--samples", 1000)?, number("--steps", 50)?, number("--seed", 1)? as u64);
    let (sampler, out) = (option("--sampler").unwrap_or("ddim"), PathBuf::from(out));
    std::fs::create_dir_all(&out)?;
    let ((train, labels), (test, truth)) = (read(&Path::new(data).join("train.npz"))?, read(&Path::new(data).join("test.npz"))?);
    let model = DiffusionModel::read(Path::new(model))?;

    let losses = held_out_losses(&model, &test, &LEVELS, 7, &Device::flex())?;
    println!("held-out loss, {} test digits", test.len());
    LEVELS.iter().zip(&losses).for_each(|(level, loss)| println!("  level {level:>3}  {loss:.5}"));

    let classifier = Classifier::train(&train, &labels, EPOCHS, 1)?;
    let real = classifier.judge(&batch(&test, 0..test.len()));
    self_check(&real.features);
    let right = real.classes().iter().zip(&truth).filter(|(a, b)| a == b).count();
    let (accuracy, real_share) = (right as f64 / test.len() as f64, real.share_above(CONFIDENCE));
    // Real beside real at the same size: n training digits against the test digits.
    let floor = frechet_distance(&classifier.judge(&batch(&train, 0..n.min(train.len()))).features, &real.features);

    let samples = draw(&model, sampler, steps, n, seed)?;
    let shown = samples.slice(s![..n.min(100), .., .., ..]).to_owned();
    sheet(&shown, Range::Symmetric, SheetConfig { columns: Some(10), scale: Some(2) })
        .write(&out.join("samples.png"), Overwrite::Force)?;
    let judged = classifier.judge(&samples);
    let (share, distance) = (judged.share_above(CONFIDENCE), frechet_distance(&judged.features, &real.features));
    let mut classes = [0; 10];
    judged.classes().into_iter().for_each(|class| classes[class] += 1);
    println!("classifier: accuracy {accuracy:.4} on {} test digits, {FEATURES} features", test.len());
    println!("share above {CONFIDENCE}: samples {share:.4} of {n}, real {real_share:.4} of {}", test.len());
    println!("Frechet distance to the {} test digits: {n} samples {distance:.4}, {n} training digits {floor:.4}", test.len());
    println!("classes of the samples: {classes:?}");
    let report = serde_json::json!({
        "levels": LEVELS, "held_out_losses": losses, "test_digits": test.len(), "samples": n, "sampler": sampler, "steps": steps,
        "seed": seed, "classifier_accuracy": accuracy, "confidence": CONFIDENCE, "share": share, "real_share": real_share,
        "features": FEATURES, "frechet_distance": distance, "frechet_floor": floor, "classes": classes,
    });
    std::fs::write(out.join("report.json"), format!("{report:#}\n"))?;
    Ok(())
}
