//! `unnoise sample`.

use std::path::PathBuf;

use ndarray::{Array4, Axis};
use unnoise::core::Batch;
use unnoise::io::{Limits, Npz};

use crate::{Scratch, files, fixture, largest_difference};

/// The samples that diffusers 0.42.1 draws with a small trained network (`tools/fixtures/sample_cli.py`), to 1e-3: f32 networks differ
/// by 1e-5 of the largest output, which these samplers amplify to at most 6e-4.
#[test]
fn sample_draws_what_diffusers_draws() {
    assert!(matches_diffusers("tiny", &format!("--noise {}", fixture("tiny/x_T.npy"))) >= 20);
}

/// The same with a random network that gives a variance beside its prediction (`tools/fixtures/learned_cli.py`), and with the noise of this
/// seed in every step of `ddpm`; the other samplers take the prediction alone.
#[test]
fn a_learned_variance_is_diffusers() {
    assert_eq!(matches_diffusers("learned", "--n 2 --seed 5"), 5);
    let scratch = Scratch::new();
    let draw = |model: &str, rest: &str, output: &str| {
        format!("sample --model {model} --sampler ddpm --steps 10 --n 2 --seed 5 {rest} --output {output}")
    };
    let learned = fixture("learned");
    for (variance, output) in [("learned_range", "a.npy"), ("fixed_small", "b.npy")] {
        scratch.succeed(&draw(&learned, &format!("--set variance={variance}"), output));
    }
    scratch.succeed(&draw(&learned, "", "c.npy"));
    assert_eq!(scratch.read("a.npy"), scratch.read("c.npy"));
    assert!(largest_difference(&scratch.read("a.npy"), &scratch.read("b.npy")) > 0.1);
    let message = scratch.refused(&draw(&fixture("tiny"), "--set variance=learned_range", "d.npy"));
    assert!(message.contains("the denoiser gives no variance") && message.contains("fixed_small"), "{message}");
    let message = scratch.refused(&draw(&fixture("tiny"), "--set variance=learned", "d.npy"));
    assert!(message.contains("fixed_small or fixed_large or learned_range"), "{message}");
}

/// Draws with `model` what its `expected.npz` holds under NAME_GRID_STEPS, from this start, and counts it.
fn matches_diffusers(model: &str, start: &str) -> usize {
    let scratch = Scratch::new();
    let mut npz = Npz::open(&PathBuf::from(fixture(&format!("{model}/expected.npz"))), Limits::default()).unwrap();
    let (model, names) = (fixture(model), npz.names().to_vec());
    let count = names.len();
    let mut failures = Vec::new();
    for name in names {
        let parts: Vec<&str> = name.split('_').collect();
        let [sampler, grid, steps] = parts[..] else { panic!("{name} is not NAME_GRID_STEPS") };
        scratch.succeed(&format!(
            "sample --model {model} --sampler {sampler} --grid {grid} --steps {steps} {start} --force --output x.npy"
        ));
        let theirs: Batch = npz.require(&name).unwrap().to_f64().unwrap().into_dimensionality().unwrap();
        let difference = largest_difference(&scratch.read("x.npy"), &theirs);
        if difference.is_nan() || difference > 1e-3 {
            failures.push(format!("{name}: {difference:.1e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    count
}

/// To the noise of an image and back, with an error in proportion to a step's length.
#[test]
fn an_inverted_image_is_drawn_again() {
    let scratch = Scratch::new();
    let model = fixture("tiny");
    scratch.succeed(&format!("sample --model {model} --n 3 --steps 50 --no-clip --output drawn.npy"));
    let drawn = scratch.read("drawn.npy").mapv(|v| v.clamp(-1.0, 1.0));
    scratch.write("images.npy", &drawn.mapv(|v| 0.5 + 0.5 * v));
    let round_trip = |steps: usize| {
        let line = format!("invert --model {model} --image images.npy --steps {steps} --batch 2 --force --output noise.npy");
        let summary = scratch.json(&line);
        assert_eq!((&summary["images"], &summary["grid"]), (&3.into(), &"leading".into()));
        let rms = summary["noise_rms"].as_f64().unwrap();
        assert!((0.8..1.2).contains(&rms), "{rms}");
        scratch.succeed(&format!("sample --model {model} --noise noise.npy --steps {steps} --no-clip --force --output again.npy"));
        let difference = scratch.read("again.npy") - &drawn;
        (difference.mapv(|v| v * v).sum() / difference.len() as f64).sqrt()
    };
    let (coarse, fine) = (round_trip(25), round_trip(100));
    assert!(fine < 0.1 && coarse / fine > 2.0, "{coarse} {fine}");
    assert!(scratch.refused(&format!("sample --model {model} --sampler ddim-inverse --output x.npy")).contains("invert"));
    let refused = scratch.refused(&format!("invert --model {model} --image images.npy --steps 0 --output x.npy"));
    assert!(refused.contains("steps must be from 1"), "{refused}");
    let refused = scratch.refused(&format!("invert --model {model} --image images.npy --batch 0 --output x.npy"));
    assert!(refused.contains("the batch must be at least 1, got 0"), "{refused}");
}

/// diffusers' grids by their names, all others on the model's schedule.
#[test]
fn every_grid_is_walked() {
    let scratch = Scratch::new();
    let (model, noise) = (fixture("tiny"), fixture("tiny/x_T.npy"));
    let mut drawn: Vec<Batch> = Vec::new();
    for (grid, name) in [
        ("karras", "karras"),
        ("karras:rho=7", "karras:rho=7"),
        ("log-snr", "log-snr"),
        ("beta", "beta:alpha=0.6,beta=0.6"),
        ("poly-exponential:rho=2", "poly-exponential:rho=2"),
        ("sigmas:100,9,2,0.3", "sigmas:100,9,2,0.3"),
    ] {
        let line = format!("sample --model {model} --sampler heun --grid {grid} --steps 4 --noise {noise} --force --output x.npy");
        assert_eq!(scratch.json(&line)["grid"], name);
        let images = scratch.read("x.npy");
        // The two Karras grids differ in diffusers' rounding alone.
        let apart = |other: &Batch| largest_difference(other, &images) > if grid == "karras:rho=7" { 0.0 } else { 1e-3 };
        assert!(drawn.iter().all(apart) && images.iter().all(|v| v.abs() < 3.0), "{grid}");
        drawn.push(images);
    }
    let list = format!("sample --model {model} --grid sigmas:9,1 --steps 5 --output y.npy");
    assert!(scratch.refused(&list).contains("steps must be"), "{}", scratch.refused(&list));
}

#[test]
fn a_trace_holds_every_state() {
    let scratch = Scratch::new();
    let (model, noise) = (fixture("tiny"), fixture("tiny/x_T.npy"));
    let summary = scratch.json(&format!("sample --model {model} --steps 4 --noise {noise} --n 2 --trace trace --output x.npy"));
    assert_eq!((&summary["evaluations_per_image"], &summary["grid"]), (&4.into(), &"leading".into()));
    assert_eq!(scratch.read("trace/x-0003.npy"), scratch.read("x.npy"));
    let grid: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(scratch.path("trace/grid.json")).unwrap()).unwrap();
    assert_eq!(grid["steps"].as_array().map(Vec::len), Some(4));
    assert_eq!(grid["steps_requested"], 4);
    assert_eq!(files(&scratch.path("trace")).len(), 9);
}

/// A trace is one run's, whatever was in its place before.
#[test]
fn a_trace_is_never_mixed() {
    let scratch = Scratch::new();
    let draw = |steps: usize, rest: &str| format!("sample --model {} --n 1 --steps {steps} --trace trace {rest}", fixture("tiny"));
    scratch.succeed(&draw(4, "--output x.npy"));
    assert!(scratch.refused(&draw(2, "--output y.npy")).contains("trace exists already; --force replaces it"));
    scratch.succeed(&draw(2, "--output x.npy --force"));
    let names = |directory: &str| -> Vec<String> {
        files(&scratch.path(directory)).iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names("trace"), ["grid.json", "x-0000.npy", "x-0001.npy", "x0_hat-0000.npy", "x0_hat-0001.npy"]);
    // A user's own files are spared.
    std::fs::write(scratch.path("trace/x-notes.npy"), "mine").unwrap();
    let message = scratch.refused(&draw(2, "--output x.npy --force"));
    assert!(message.contains("it also holds x-notes.npy"), "{message}");
    std::fs::remove_file(scratch.path("trace/x-notes.npy")).unwrap();
    // What would end in one place is refused before the work.
    for (output, trace) in [
        ("both.npy", "both.npy"),
        ("./both.npy", "both.npy"),
        ("both.npy", "both.npy/deeper"),
        ("trace/x.npy", "trace"),
        ("trace/x-0000.npy", "./trace/../trace"),
    ] {
        let line = format!("sample --model {} --n 1 --steps 1000 --trace {trace} --output {output} --force", fixture("tiny"));
        let message = scratch.refused(&line);
        assert!(message.contains("in each other's place"), "{message}");
    }
    assert_eq!(names("."), ["trace", "x.npy"]);
}

/// Sample 2 of 3 is the same drawn two at a time, to the last bit.
#[test]
fn samples_do_not_depend_on_the_batch() {
    let scratch = Scratch::new();
    let model = fixture("tiny");
    for (batch, output) in [("3", "a.npy"), ("2", "b.npy")] {
        scratch.succeed(&format!("sample --model {model} --steps 5 --n 3 --seed 4 --batch {batch} --output {output}"));
    }
    assert_eq!(scratch.read("a.npy"), scratch.read("b.npy"));
}

/// A model that states no size of its images takes it from `--side`, from the noise, or from the measurement.
#[test]
fn a_model_may_leave_the_size_of_its_images_to_the_user() {
    let scratch = Scratch::new();
    let model = crate::reconstruct::model_without_a_size(&scratch);
    let message = scratch.refused(&format!("sample --model {model} --output x.npy"));
    assert!(message.contains("sample_size") && message.contains("--side"), "{message}");
    scratch.succeed(&format!("sample --model {model} --n 1 --steps 2 --side 16 --output square.npy"));
    scratch.succeed(&format!("sample --model {model} --n 1 --steps 2 --side 8x16 --output wide.npy"));
    scratch.write("noise.npy", &Array4::from_shape_fn((2, 1, 16, 16), |(n, _, i, j)| ((7 * i + 3 * j + n) % 5) as f64 / 2.0 - 1.0));
    scratch.succeed(&format!("sample --model {model} --steps 2 --noise noise.npy --output noise-x.npy"));
    assert_eq!(scratch.read("square.npy").dim(), (1, 1, 16, 16));
    assert_eq!(scratch.read("wide.npy").dim(), (1, 1, 8, 16));
    assert_eq!(scratch.read("noise-x.npy").dim(), (2, 1, 16, 16));
    // The same images as of the model that states its size.
    scratch.succeed(&format!("sample --model {} --n 1 --steps 2 --output stated.npy", fixture("tiny")));
    assert_eq!(scratch.read("stated.npy"), scratch.read("square.npy"));
    assert!(scratch.refused(&format!("sample --model {} --side 16 --output y.npy", fixture("tiny"))).contains("16x16"));
}

#[test]
fn pictures_are_drawn_too() {
    let scratch = Scratch::new();
    let summary = scratch.json(&format!("sample --model {} --n 3 --steps 2 --output x.png", fixture("tiny")));
    assert_eq!((&summary["shape"], &summary["images"]), (&serde_json::json!([3, 1, 16, 16]), &serde_json::json!(3)));
    let sheet = scratch.json("inspect x.png");
    assert_eq!(sheet["kind"], "picture");
    scratch.succeed(&format!("sample --model {} --n 3 --steps 2 --output x.npy", fixture("tiny")));
    assert_eq!(scratch.read("x.npy").len_of(Axis(0)), 3);
}
