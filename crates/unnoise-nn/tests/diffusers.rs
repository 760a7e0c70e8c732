//! The network computes what diffusers 0.42.1 computes: small random models of `tools/fixtures/unet.py`.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use unnoise_core::SchedulerConfig;
use unnoise_nn::{DiffusionModel, Parameter, Params, Precision, Tracking, Unet};

/// `max|a - b| / max|b|`.
const TOLERANCE: f32 = 1e-4;

struct Case {
    name: String,
    model: DiffusionModel,
    data: Params,
}

impl Case {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert_eq!(paths.len(), 10);
        let read = |path: PathBuf| Self {
            name: path.file_name().unwrap().to_string_lossy().into(),
            model: DiffusionModel::read(&path).unwrap(),
            data: Params::read(&path.join("case.safetensors")).unwrap(),
        };
        paths.into_iter().map(read).collect()
    }

    fn with_gradients() -> Vec<Self> {
        let cases: Vec<Self> = Self::all().into_iter().filter(|case| case.data.get("v").is_some()).collect();
        assert_eq!(cases.len(), 4);
        cases
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Option<Tensor<D>> {
        let Parameter { shape, values } = self.data.get(name)?;
        Some(Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device))
    }

    fn forward(&self, unet: &Unet, x: Tensor<4>) -> Tensor<4> {
        let timesteps: Vec<f64> = self.data.get("timesteps").unwrap().values.iter().map(|t| f64::from(*t)).collect();
        if let Some(embedding) = self.tensor::<2>("embedding", &Device::flex()) {
            return unet.forward_with_embedding(x, &timesteps, embedding).unwrap();
        }
        let labels: Option<Vec<usize>> = self.data.get("labels").map(|p| p.values.iter().map(|l| *l as usize).collect());
        unet.forward(x, &timesteps, labels.as_deref()).unwrap()
    }

    /// The relative distance to the numbers `name`, over the largest of them or `floor`.
    fn distance(&self, name: &str, got: &[f32], floor: f32) -> f32 {
        let expected = &self.data.get(name).unwrap().values;
        assert_eq!(got.len(), expected.len(), "{}: {name}", self.name);
        let scale = expected.iter().fold(floor, |m, v| m.max(v.abs()));
        got.iter().zip(expected).fold(0.0, |m: f32, (a, b)| m.max((a - b).abs())) / scale
    }

    /// The gradient of `<v, output>`: leaves must be tracked by the network or the input.
    fn backward(&self, unet: &Unet, x: Tensor<4>) -> burn::tensor::Gradients {
        (self.forward(unet, x) * self.tensor::<4>("v", &Device::flex()).unwrap()).sum().backward()
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn outputs_agree() {
    let mut failures = Vec::new();
    for case in Case::all() {
        let unet = case.model.unet(&Device::flex(), Tracking::Frozen).unwrap();
        let output = case.forward(&unet, case.tensor("x", &Device::flex()).unwrap());
        let distance = case.distance("output", &values(output), 0.0);
        println!("{:20} {distance:.1e}", case.name);
        if distance.is_nan() || distance > TOLERANCE {
            failures.push(format!("{}: {distance:.1e}", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn input_gradients_agree() {
    for case in Case::with_gradients() {
        for tracking in [Tracking::Frozen, Tracking::Trained] {
            let unet = case.model.unet(&Device::flex(), tracking).unwrap();
            let x = case.tensor::<4>("x", &Device::flex().autodiff()).unwrap().require_grad();
            let gradients = case.backward(&unet, x.clone());
            let distance = case.distance("grad.x", &values(x.grad(&gradients).unwrap()), 0.0);
            assert!(distance <= TOLERANCE, "{} {tracking:?}: {distance:.1e}", case.name);
            assert_eq!(unet.gradients(&gradients).is_ok(), tracking == Tracking::Trained);
        }
    }
}

#[test]
fn parameter_gradients_agree() {
    for case in Case::with_gradients() {
        let unet = case.model.unet(&Device::flex(), Tracking::Trained).unwrap();
        let gradients = case.backward(&unet, case.tensor("x", &Device::flex()).unwrap());
        let gradients = unet.gradients(&gradients).unwrap();
        assert_eq!(gradients.shapes(), case.model.params.shapes());
        // Some gradients are zero but for rounding (an attention's key offset, an offset before a group of one channel), so the whole
        // gradient's size is a yardstick too.
        let largest = gradients.iter().flat_map(|(_, p)| &p.values).fold(0.0, |m: f32, v| m.max(v.abs()));
        let mut compared = 0;
        for (name, parameter) in gradients.iter() {
            let name = format!("grad.{name}");
            if case.data.get(&name).is_some() {
                let distance = case.distance(&name, &parameter.values, 1e-2 * largest);
                assert!(distance <= TOLERANCE, "{} {name}: {distance:.1e}", case.name);
                compared += 1;
            }
        }
        assert!(compared > 40, "{compared}");
    }
}

/// Writes every model again with a scheduler, for `python tools/fixtures/unet.py --check DIRECTORY` to read with diffusers.
#[test]
#[ignore = "half of a check whose other half is Python's"]
fn write_for_diffusers() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rewritten");
    println!("{}", root.display());
    for Case { name, model, .. } in Case::all() {
        let scheduler = SchedulerConfig { prediction_type: Some("v_prediction".into()), ..SchedulerConfig::default() };
        DiffusionModel { scheduler: Some(scheduler), ..model }.write(&root.join(name), Precision::F32).unwrap();
    }
}
