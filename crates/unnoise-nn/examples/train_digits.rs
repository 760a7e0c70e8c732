//! Trains the digits prior: the settings of the shipped model, on what `tools/fetch_digits.py` writes.
//!
//! ```text
//! train_digits RUN_DIR DATA_DIR [--resume] [--steps N] [--batch N] [--checkpoint N] [--shards N] [--seed N]
//! ```
//!
//! Ends with `RUN_DIR/export`, the model to ship, and the held-out loss at ten levels.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use unnoise_io::{CsvLog, DatasetConfig, Pixels, read_dataset};
use unnoise_nn::{
    LearningRate, Precision, RunDirectory, SampleSize, StepReport, TrainConfig, Trainer, TrainingImages, UnetConfig,
    held_out_losses,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Updates between two lines on the screen.
const WINDOW: usize = 20;

fn model() -> UnetConfig {
    let names = |names: [&str; 3]| names.map(String::from).to_vec();
    UnetConfig {
        sample_size: Some(SampleSize::Square(32)),
        in_channels: 1,
        out_channels: 1,
        block_out_channels: vec![32, 64, 64],
        down_block_types: names(["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"]),
        up_block_types: names(["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]),
        layers_per_block: 2,
        norm_num_groups: 16,
        attention_head_dim: Some(32),
        ..UnetConfig::default()
    }
}

fn read(path: &Path) -> Result<TrainingImages> {
    Ok(match read_dataset(path, DatasetConfig::default())?.pixels {
        Pixels::U8(images) => TrainingImages::from_u8(images)?,
        Pixels::F32(images) => TrainingImages::from_f32(images, [0.0, 1.0])?,
    })
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [run, data, ..] = args.as_slice() else { return Err("usage: train_digits RUN_DIR DATA_DIR [options]".into()) };
    let number = |flag: &str| -> Option<u64> { args.iter().skip_while(|a| *a != flag).nth(1)?.parse().ok() };
    let (run, data) = (RunDirectory::new(run), PathBuf::from(data));
    let (images, device) = (read(&data.join("train.npz"))?, Device::flex());
    let adjust = |config: &mut TrainConfig| {
        config.steps = number("--steps").unwrap_or(config.steps);
        config.batch = number("--batch").map_or(config.batch, |n| n as usize);
        config.checkpoint_every = number("--checkpoint").unwrap_or(config.checkpoint_every);
        config.shards = number("--shards").map_or(config.shards, |n| n as usize);
        config.seed = number("--seed").unwrap_or(config.seed);
    };
    let mut trainer = if args.iter().any(|a| a == "--resume") {
        Trainer::resume(&run, images, device.clone(), adjust)?
    } else {
        let learning_rate = LearningRate { peak: 1e-3, warmup: 200, cosine_decay: true };
        let mut config = TrainConfig { learning_rate, seed: 1, ..TrainConfig::new(model(), 10_000) };
        adjust(&mut config);
        Trainer::new(config, images, device.clone())?
    };
    let (parameters, steps) = (trainer.state().weights.count(), trainer.config().steps);
    eprintln!("{parameters} parameters, step {} of {steps}", trainer.steps_done());
    std::fs::create_dir_all(run.root())?;
    let mut log = CsvLog::resume(&run.root().join("losses.csv"), &["loss", "lr", "grad_norm", "seconds"], trainer.steps_done())?;

    let (mut window, mut failure) = (Vec::new(), None);
    let outcome = trainer.run(&run, &mut |trainer: &Trainer, report: &StepReport| {
        let StepReport { step, loss, lr, grad_norm, seconds } = *report;
        window.push((loss, seconds));
        if window.len() == WINDOW {
            let (loss, seconds) = window.drain(..).fold((0.0, 0.0), |(a, b), (l, s)| (a + l / WINDOW as f64, b + s));
            let rate = (WINDOW * trainer.config().batch) as f64 / seconds;
            let left = (steps - step) as f64 * seconds / WINDOW as f64 / 60.0;
            eprintln!("step {step} loss {loss:.5} lr {lr:.2e} norm {grad_norm:.3} {rate:.0} images/s, {left:.0} min left");
        }
        failure = log.row(step, &[loss, lr, grad_norm, seconds]).err();
        if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    eprintln!("{outcome:?} at step {}", trainer.steps_done());
    let model = trainer.checkpoint().model()?;
    model.write(&run.root().join("export"), Precision::F16)?;
    let levels = [0, 20, 50, 100, 200, 300, 400, 500, 700, 999];
    let losses = held_out_losses(&model, &read(&data.join("test.npz"))?, &levels, 7, &device)?;
    println!("level,held_out_loss");
    levels.iter().zip(losses).for_each(|(level, loss)| println!("{level},{loss:.6}"));
    Ok(())
}
