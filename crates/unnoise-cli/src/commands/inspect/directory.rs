//! What a directory is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use unnoise::io::CsvLog;
use unnoise::nn::{DiffusionModel, RunDirectory};

use super::Facts;
use crate::commands::train::smoothed_loss;

const REPORT: &str = "report.json";
/// No report of a run that ends is larger.
const REPORT_BYTES_LIMIT: u64 = 256 << 20;

pub(super) fn describe(path: &Path) -> Result<Facts> {
    let run = RunDirectory::new(path);
    if path.join(REPORT).is_file() {
        return reconstruction(path);
    }
    if ["config.json", "unet/config.json"].iter().any(|config| path.join(config).is_file()) {
        return model(path);
    }
    if path.join("losses.csv").is_file() || !run.checkpoints()?.is_empty() {
        return training(&run);
    }
    bail!(
        "{} is neither a model directory (it has no config.json, in the root or in unet/), nor a result of reconstruct ({REPORT}), nor a \
         run of train (step-*)",
        path.display()
    )
}

fn reconstruction(path: &Path) -> Result<Facts> {
    let file = path.join(REPORT);
    let length = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
    if length > REPORT_BYTES_LIMIT {
        bail!("{} has {length} bytes, above the limit of {REPORT_BYTES_LIMIT}", file.display());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let report: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    const KEYS: [&str; 20] = [
        "method",
        "target",
        "settings",
        "prior",
        "weights_sha256",
        "operator",
        "sigma_y",
        "samples",
        "samples_requested",
        "steps",
        "grid",
        "seed",
        "chi_square",
        "residual_rms",
        "psnr",
        "ssim",
        "mean_deviation",
        "evaluations",
        "seconds",
        "unnoise",
    ];
    if report.get("method").and(report.get("samples")).is_none() {
        bail!("{} is no report of reconstruct: it states no method or no samples", file.display());
    }
    let facts = KEYS.into_iter().filter_map(|key| Some((key, report.get(key)?.clone())));
    Ok([("kind", "reconstruction".into())].into_iter().chain(facts).collect())
}

fn training(run: &RunDirectory) -> Result<Facts> {
    let checkpoints = run.checkpoints()?;
    let newest = checkpoints.last();
    let planned = newest.and_then(|(_, path)| {
        let state: Value = serde_json::from_str(&fs::read_to_string(path.join("training/state.json")).ok()?).ok()?;
        state.pointer("/config/steps").and_then(Value::as_u64)
    });
    let losses = CsvLog::column(&run.root().join("losses.csv"), "loss")?;
    let (loss, over) = smoothed_loss(run)?;
    let model = run.root().join("model");
    Ok(vec![
        ("kind", "training run".into()),
        ("checkpoint", json!(newest.map(|(_, path)| path))),
        ("steps_done", json!(newest.map_or(0, |(step, _)| *step))),
        ("steps", json!(planned)),
        ("last_logged_step", json!(losses.last().map(|(step, _)| step))),
        ("last_loss", json!(losses.last().map(|(_, loss)| loss))),
        ("loss", json!(loss)),
        ("loss_over", over.into()),
        ("model", json!(model.is_dir().then_some(model))),
    ])
}

fn model(path: &Path) -> Result<Facts> {
    let model = DiffusionModel::read(path)?;
    let mut facts = vec![
        ("kind", "model".into()),
        ("parameters", model.params.count().into()),
        ("weights_sha256", model.params.sha256().into()),
        ("in_channels", model.config.in_channels.into()),
        ("out_channels", model.config.out_channels.into()),
        ("sample_size", json!(model.config.sample_size)),
        ("block_out_channels", json!(model.config.block_out_channels)),
        ("down_block_types", json!(model.config.down_block_types)),
        ("classes", json!(model.config.num_class_embeds)),
    ];
    if let Some(scheduler) = &model.scheduler {
        facts.extend([
            ("train_timesteps", scheduler.train_steps().into()),
            ("prediction", scheduler.prediction_type.as_deref().unwrap_or("epsilon").into()),
            ("beta_schedule", scheduler.beta_schedule.as_deref().unwrap_or("linear").into()),
        ]);
    }
    facts.extend(model.about.map(|about| ("about", about)));
    Ok(facts)
}
