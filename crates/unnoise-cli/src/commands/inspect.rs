//! `unnoise inspect`: what a file or a model directory is.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use unnoise::MeasuredImage;
use unnoise::core::possible_methods;
use unnoise::io::{MeasurementFile, ReadOptions, read_images};
use unnoise::nn::DiffusionModel;

use crate::output::print;

/// Say what a model directory, a measurement file, a picture or an array is.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory or file.
    path: PathBuf,

    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let description = describe(&args.path)?;
    if args.json {
        print(&format!("{description}\n"))?;
    } else if let Some(entries) = description.as_object() {
        let width = entries.keys().map(String::len).max().unwrap_or(0);
        let mut lines = String::new();
        for (key, value) in entries {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            lines += &format!("{key:>width$}  {text}\n");
        }
        print(&lines)?;
    }
    Ok(())
}

fn describe(path: &Path) -> Result<Value> {
    if path.is_dir() {
        return model(path);
    }
    if !path.exists() {
        bail!("{} does not exist", path.display());
    }
    if MeasurementFile::is_one(path) {
        return measurement(path);
    }
    let images = read_images(path, ReadOptions::default())?;
    let (low, high) = images.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    Ok(json!({ "kind": "images", "shape": images.shape(), "range": format!("[{low:.3}, {high:.3}]") }))
}

fn model(path: &Path) -> Result<Value> {
    let model = DiffusionModel::read(path)?;
    let mut description = json!({
        "kind": "model",
        "parameters": model.params.count(),
        "weights_sha256": model.params.sha256(),
        "in_channels": model.config.in_channels,
        "out_channels": model.config.out_channels,
        "block_out_channels": model.config.block_out_channels,
        "down_block_types": model.config.down_block_types,
        "sample_size": model.config.sample_size,
        "classes": model.config.num_class_embeds,
    });
    if let Some(scheduler) = &model.scheduler {
        description["train_timesteps"] = json!(scheduler.train_steps());
        description["prediction"] = json!(scheduler.prediction_type.as_deref().unwrap_or("epsilon"));
        description["beta_schedule"] = json!(scheduler.beta_schedule.as_deref().unwrap_or("linear"));
    }
    if let Some(about) = model.about {
        description["about"] = about;
    }
    Ok(description)
}

fn measurement(path: &Path) -> Result<Value> {
    let measured = MeasuredImage::read(path)?;
    let capabilities: Vec<String> = measured.operator().capabilities().iter().map(ToString::to_string).collect();
    let chi_square = measured.truth().map(|truth| {
        let m = measured.operator().measured() as f64;
        let residual = measured.y() - &measured.operator().forward(truth);
        residual.iter().map(|r| r * r).sum::<f64>() / (m * measured.sigma_y() * measured.sigma_y())
    });
    Ok(json!({
        "kind": "measurement",
        "operator": measured.spec().to_string(),
        "image": measured.operator().input_shape(),
        "measured": measured.operator().measured(),
        "sigma_y": measured.sigma_y(),
        "range": "[0,1]",
        "truth": if measured.truth().is_some() { "included" } else { "absent" },
        "chi_square_of_truth": chi_square.filter(|v| v.is_finite()),
        "operator_offers": capabilities,
        "methods": possible_methods(measured.operator()),
    }))
}
