//! `unnoise predict`.

use std::path::Path;

use ndarray::Array4;
use unnoise::nn::Params;

use crate::{Scratch, files, fixture};

/// The numbers of diffusers 0.42.1 for small random networks (`tools/fixtures/unet.py`): max |a - b| <= 1e-4 max |b|. The first image of each
/// fixture is at timestep 981.
#[test]
fn predict_gives_diffusers_numbers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../unnoise-nn/tests/fixtures/unet");
    let scratch = Scratch::new();
    let (mut compared, mut failures) = (0, Vec::new());
    for model in files(&root) {
        let case = Params::read(&model.join("case.safetensors")).unwrap();
        if case.get("embedding").is_some() {
            continue;
        }
        let first = |name: &str| {
            let tensor = case.get(name).unwrap();
            let [_, c, h, w] = tensor.shape[..] else { panic!("{name} has shape {:?}", tensor.shape) };
            Array4::from_shape_fn((1, c, h, w), |(_, k, i, j)| f64::from(tensor.values[(k * h + i) * w + j]))
        };
        assert_eq!(case.get("timesteps").unwrap().values[0], 981.0);
        let class = case.get("labels").map_or(String::new(), |labels| format!("--class {}", labels.values[0]));
        let name = model.file_name().unwrap().to_string_lossy();
        scratch.write(&format!("{name}.npy"), &first("x"));
        scratch.succeed(&format!(
            "predict --model {} --input {name}.npy --timestep 981 {class} --output {name}-out.npy",
            model.display()
        ));
        let (ours, theirs) = (scratch.read(&format!("{name}-out.npy")), first("output"));
        let scale = theirs.iter().fold(0.0_f64, |largest, v| largest.max(v.abs()));
        let distance = crate::largest_difference(&ours, &theirs) / scale;
        if distance.is_nan() || distance > 1e-4 {
            failures.push(format!("{name}: {distance:.1e}"));
        }
        compared += 1;
    }
    assert!(compared >= 9, "{compared}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn predict_keeps_its_contract() {
    let scratch = Scratch::new();
    let base = format!("predict --model {} --input {} --timestep 500", fixture("tiny"), fixture("tiny/x_T.npy"));
    let summary = scratch.json(&format!("{base} --output eps.npy"));
    assert_eq!((&summary["output"], &summary["shape"]), (&"eps.npy".into(), &serde_json::json!([2, 1, 16, 16])));
    assert_eq!(scratch.read("eps.npy").dim(), (2, 1, 16, 16));
    scratch.succeed(&format!("{base} --output eps.npz"));
    assert_eq!(scratch.read("eps.npz"), scratch.read("eps.npy"));
    assert!(scratch.refused(&format!("{base} --class 3 --output class.npy")).contains("no classes"));
    assert!(scratch.refused(&format!("{base} --output eps.npy")).contains("--force"));
}

/// More images than enter the network at once.
#[test]
fn predict_takes_any_number_of_images() {
    let scratch = Scratch::new();
    let image = |n: usize| Array4::from_shape_fn((n, 1, 16, 16), |(n, _, i, j)| ((n * 31 + i * 7 + j) % 13) as f64 / 6.0 - 1.0);
    scratch.write("many.npy", &image(131));
    scratch.write("few.npy", &image(3));
    for name in ["many", "few"] {
        scratch.succeed(&format!("predict --model {} --input {name}.npy --timestep 7 --output {name}-out.npy", fixture("tiny")));
    }
    let many = scratch.read("many-out.npy");
    assert_eq!(many.dim(), (131, 1, 16, 16));
    let few = scratch.read("few-out.npy");
    assert!(crate::largest_difference(&many.slice(ndarray::s![..3, .., .., ..]).to_owned(), &few) < 1e-5);
}
