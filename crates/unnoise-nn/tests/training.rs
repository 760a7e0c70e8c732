//! Training agrees with PyTorch and diffusers, number by number.
//!
//! `fixtures/training` is made by `tools/fixtures/training.py`: a tiny network's initial weights, 20 batches with their levels and
//! noise, and what PyTorch made of them.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ndarray::{Array4, ArrayD, Axis, Ix4};
use unnoise_io::{Array, Limits, read_npy};
use unnoise_nn::{LearningRate, Params, TrainConfig, Trainer, TrainingBatch, TrainingImages, UnetConfig};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training")
}

fn numbers(name: &str) -> ArrayD<f64> {
    read_npy(&folder().join(name), Limits::default()).unwrap().to_f64().unwrap()
}

fn images(name: &str) -> Vec<Array4<f32>> {
    let Array::F32(all) = read_npy(&folder().join(name), Limits::default()).unwrap() else { panic!("{name} is not float32") };
    all.axis_iter(Axis(0)).map(|step| step.to_owned().into_dimensionality::<Ix4>().unwrap()).collect()
}

#[test]
fn losses_norms_and_averages_are_pytorchs() {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(folder().join("config.json")).unwrap()).unwrap();
    let model = UnetConfig::from_json(json, &folder()).unwrap();
    let weights = Params::read(&folder().join("initial.safetensors")).unwrap();
    let (x0, eps, levels) = (images("x0.npy"), images("eps.npy"), numbers("levels.npy"));
    let (losses, norms) = (numbers("losses.npy"), numbers("norms.npy"));
    let config = TrainConfig {
        batch: 4,
        learning_rate: LearningRate { peak: 2e-3, warmup: 5, cosine_decay: true },
        ema_decay: 0.99,
        ..TrainConfig::new(model, 20)
    };
    let unused = TrainingImages::from_f32(x0[0].clone(), [-1.0, 1.0]).unwrap();
    let mut trainer = Trainer::with_weights(config, unused, weights.clone(), Device::flex()).unwrap();
    let mut report = String::new();
    for k in 0..20 {
        let levels = levels.index_axis(Axis(0), k).iter().copied().collect();
        let batch = TrainingBatch { x0: x0[k].clone(), eps: eps[k].clone(), levels, labels: None };
        let step = trainer.step_on(&batch).unwrap();
        for (what, got, expected) in [("loss", step.loss, losses[k]), ("norm", step.grad_norm, norms[k])] {
            let error = (got / expected - 1.0).abs();
            // The gradient's norm amplifies rounding more than the loss does.
            if error > if what == "loss" { 1e-4 } else { 1e-3 } {
                report += &format!("step {k}: {what} {got} instead of {expected}\n");
            }
        }
    }
    assert!(report.is_empty(), "{report}");
    let expected = Params::read(&folder().join("ema.safetensors")).unwrap();
    let (mut error, mut scale) = (0.0, 0.0);
    for ((name, got), (other, expected)) in trainer.state().ema.iter().zip(expected.iter()) {
        assert_eq!(name, other);
        let initial = &weights.get(name).unwrap().values;
        for ((a, b), start) in got.values.iter().zip(&expected.values).zip(initial) {
            error += f64::from(a - b).powi(2);
            scale += f64::from(b - start).powi(2);
        }
    }
    // Relative to how far training moved the weights.
    let error = (error / scale).sqrt();
    assert!(error < 1e-3, "the averages differ by {error}");
}
