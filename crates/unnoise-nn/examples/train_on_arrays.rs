//! Trains on exported batches, for the comparison with PyTorch in `benches/peers/training.py`.
//!
//! ```text
//! train_on_arrays DIR
//! ```
//!
//! Reads `config.json`, `initial.safetensors`, `recipe.json`, `x0.npy`, `eps.npy` and `levels.npy` as `tools/fixtures/training.py`
//! writes them, and writes `unnoise_losses.npy`.

use std::path::Path;

use burn::tensor::Device;
use ndarray::{Array1, Array4, Axis, Ix4};
use unnoise_io::{Array, Limits, Overwrite, read_npy, write_npy};
use unnoise_nn::{LearningRate, Params, TrainConfig, Trainer, TrainingBatch, TrainingImages, UnetConfig};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn images(path: &Path) -> Result<Vec<Array4<f32>>> {
    let Array::F32(all) = read_npy(path, Limits::default())? else {
        return Err(format!("{} is not float32", path.display()).into());
    };
    all.axis_iter(Axis(0)).map(|step| Ok(step.to_owned().into_dimensionality::<Ix4>()?)).collect()
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("usage: train_on_arrays DIR")?;
    let folder = Path::new(&folder);
    let json = |name: &str| -> Result<serde_json::Value> { Ok(serde_json::from_slice(&std::fs::read(folder.join(name))?)?) };
    let model = UnetConfig::from_json(json("config.json")?, folder)?;
    let recipe = json("recipe.json")?;
    let number = |key: &str| recipe[key].as_f64().ok_or_else(|| format!("recipe.json has no number {key}"));
    let (x0, eps) = (images(&folder.join("x0.npy"))?, images(&folder.join("eps.npy"))?);
    let levels = read_npy(&folder.join("levels.npy"), Limits::default())?.to_f64().ok_or("levels.npy is not numeric")?;
    let steps = number("steps")? as u64;
    let config = TrainConfig {
        batch: number("batch")? as usize,
        learning_rate: LearningRate { peak: number("lr")?, warmup: number("warmup")? as u64, cosine_decay: true },
        clip_norm: Some(number("clip")?),
        ema_decay: number("ema")?,
        ..TrainConfig::new(model, steps)
    };
    let weights = Params::read(&folder.join("initial.safetensors"))?;
    let unused = TrainingImages::from_f32(x0[0].clone(), [-1.0, 1.0])?;
    let mut trainer = Trainer::with_weights(config, unused, weights, Device::flex())?;
    let mut losses = Vec::new();
    for ((x0, eps), levels) in x0.into_iter().zip(eps).zip(levels.axis_iter(Axis(0))) {
        let levels = levels.iter().copied().collect();
        losses.push(trainer.step_on(&TrainingBatch { x0, eps, levels, labels: None })?.loss);
    }
    write_npy(&folder.join("unnoise_losses.npy"), &Array::F64(Array1::from(losses).into_dyn()), Overwrite::Force)?;
    Ok(())
}
