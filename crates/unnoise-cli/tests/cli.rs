//! The commands as a user or another program calls them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use unnoise::core::Batch;
use unnoise::io::{Array, Limits, Npz, Overwrite, read_batch, write_npy};

fn unnoise(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unnoise")).args(arguments).current_dir(directory).output().expect("the binary runs")
}

fn succeed(arguments: &[&str], directory: &Path) -> String {
    let output = unnoise(arguments, directory);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).display().to_string()
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The files of a directory, hidden ones included.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The samples that diffusers 0.42.1 draws with a small trained network (`tools/fixtures/sample_cli.py`), to 1e-3: f32 networks differ
/// by 1e-5 of the largest output, which these samplers amplify to at most 6e-4.
#[test]
fn sample_draws_what_diffusers_draws() {
    let scratch = scratch();
    let expected = PathBuf::from(fixture("tiny/expected.npz"));
    let mut npz = Npz::open(&expected, Limits::default()).unwrap();
    let names = npz.names().to_vec();
    assert!(names.len() >= 20, "{names:?}");
    let mut failures = Vec::new();
    for name in names {
        let parts: Vec<&str> = name.split('_').collect();
        let [sampler, grid, steps] = parts[..] else { panic!("{name} is not NAME_GRID_STEPS") };
        let (model, noise) = (fixture("tiny"), fixture("tiny/x_T.npy"));
        let arguments = [
            "sample",
            "--model",
            &model,
            "--sampler",
            sampler,
            "--grid",
            grid,
            "--steps",
            steps,
            "--noise",
            &noise,
            "--force",
            "--output",
            "x.npy",
        ];
        succeed(&arguments, scratch.path());
        let ours = read_batch(&scratch.path().join("x.npy"), Limits::default()).unwrap();
        let theirs: Batch = npz.require(&name).unwrap().to_f64().unwrap().into_dimensionality().unwrap();
        let difference = (&ours - &theirs).iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
        if difference.is_nan() || difference > 1e-3 {
            failures.push(format!("{name}: {difference:.1e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_trace_holds_every_state() {
    let scratch = scratch();
    let (model, noise) = (fixture("tiny"), fixture("tiny/x_T.npy"));
    let arguments =
        ["sample", "--model", &model, "--steps", "4", "--noise", &noise, "--trace", "trace", "--output", "x.npy", "--json"];
    let summary: Value = serde_json::from_str(&succeed(&arguments, scratch.path())).expect("one JSON object on stdout");
    assert_eq!(summary["evaluations_per_image"], 4);
    let trace = scratch.path().join("trace");
    let last = read_batch(&trace.join("x-0003.npy"), Limits::default()).unwrap();
    assert_eq!(last, read_batch(&scratch.path().join("x.npy"), Limits::default()).unwrap());
    let grid: Value = serde_json::from_str(&std::fs::read_to_string(trace.join("grid.json")).unwrap()).unwrap();
    assert_eq!(grid["steps"].as_array().map(Vec::len), Some(4));
    assert_eq!(files(&trace).len(), 9);
}

/// Sample 2 of 3 is the same drawn two at a time: the network's kernels may differ in the last bits with the batch, no more.
#[test]
fn samples_do_not_depend_on_the_batch() {
    let scratch = scratch();
    let model = fixture("tiny");
    for (batch, output) in [("3", "a.npy"), ("2", "b.npy")] {
        succeed(
            &["sample", "--model", &model, "--steps", "5", "--n", "3", "--seed", "4", "--batch", batch, "--output", output],
            scratch.path(),
        );
    }
    let read = |name: &str| read_batch(&scratch.path().join(name), Limits::default()).unwrap();
    let difference = (&read("a.npy") - &read("b.npy")).iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
    assert!(difference < 1e-4, "{difference:.1e}");
}

/// One raw evaluation is the difference that one Euler step makes; here its shape and that the class of a network without classes is
/// refused. The numbers are tested against diffusers' in `unnoise-nn`.
#[test]
fn predict_keeps_its_contract() {
    let scratch = scratch();
    let (model, input) = (fixture("tiny"), fixture("tiny/x_T.npy"));
    let base = ["predict", "--model", &model, "--input", &input, "--timestep", "500", "--output", "eps.npy"];
    succeed(&base, scratch.path());
    let output = read_batch(&scratch.path().join("eps.npy"), Limits::default()).unwrap();
    assert_eq!(output.dim(), (2, 1, 16, 16));
    let refused = unnoise(&[&base[..], &["--class", "3", "--force"]].concat(), scratch.path());
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no classes"));
}

#[test]
fn an_image_is_measured_inspected_and_reconstructed() {
    let scratch = scratch();
    let directory = scratch.path();
    let image = Array::from(
        ndarray::Array4::from_shape_fn((1, 1, 16, 16), |(_, _, i, j)| if i > 4 && (6..9).contains(&j) { 1.0 } else { 0.0 })
            .view()
            .into_dyn(),
    );
    write_npy(&directory.join("image.npy"), &image, Overwrite::Never).unwrap();
    succeed(
        &["simulate", "--image", "image.npy", "--operator", "box:6", "--sigma-y", "0.05", "--seed", "1", "--output", "m.npz"],
        directory,
    );
    let about: Value = serde_json::from_str(&succeed(&["inspect", "m.npz", "--json"], directory)).unwrap();
    assert_eq!((about["kind"].as_str(), about["measured"].as_u64()), (Some("measurement"), Some(220)));
    // 99.9 % of chi-squares of 220 values are within 3.3 deviations.
    let chi_square = about["chi_square_of_truth"].as_f64().unwrap();
    assert!((chi_square - 1.0).abs() < 3.3 * (2.0_f64 / 220.0).sqrt(), "{chi_square}");

    let model = fixture("tiny");
    for method in ["dps", "pigdm", "mmps", "ddnm-plus", "diffpir", "tds"] {
        let arguments = [
            "reconstruct",
            "--model",
            &model,
            "--measurement",
            "m.npz",
            "--method",
            method,
            "--samples",
            "3",
            "--steps",
            "8",
            "--out",
            method,
            "--json",
        ];
        let report: Value = serde_json::from_str(&succeed(&arguments, directory)).expect("one JSON object on stdout");
        assert_eq!(report["method"], method);
        assert_eq!(report["samples"], 3);
        assert_eq!(report["chi_square"].as_array().map(Vec::len), Some(3));
        assert!(report["psnr"].as_f64().is_some_and(f64::is_finite), "{report}");
        let samples = read_batch(&directory.join(method).join("samples.npy"), Limits::default()).unwrap();
        assert_eq!(samples.dim(), (3, 1, 16, 16));
        for file in ["panel.png", "mean.npy", "deviation.npy", "truth.npy", "report.json"] {
            assert!(directory.join(method).join(file).is_file(), "{method}: {file}");
        }
    }
    let again = unnoise(
        &["reconstruct", "--model", &model, "--measurement", "m.npz", "--samples", "1", "--steps", "2", "--out", "dps"],
        directory,
    );
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("exists already"));
}

#[test]
fn the_strip_of_the_chapter_is_drawn() {
    let scratch = scratch();
    let image = Array::from(ndarray::Array4::from_elem((1, 1, 8, 8), 0.5).view().into_dyn());
    write_npy(&scratch.path().join("x.npy"), &image, Overwrite::Never).unwrap();
    succeed(&["forward", "--image", "x.npy", "--output", "strip.npy"], scratch.path());
    succeed(&["forward", "--image", "x.npy", "--output", "strip.png"], scratch.path());
    let strip = read_batch(&scratch.path().join("strip.npy"), Limits::default()).unwrap();
    assert_eq!(strip.dim(), (4, 1, 8, 8));
    for (level, panel) in [0.05, 0.20, 0.45, 0.70].into_iter().zip(strip.outer_iter()) {
        let mean = panel.mean().unwrap();
        // 64 pixels of deviation sqrt(level), at 99.99 %.
        assert!((mean - 0.5 * (1.0_f64 - level).sqrt()).abs() < 3.9 * f64::sqrt(level / 64.0), "{level}: {mean}");
    }
}

/// `train`, killed by SIGKILL at some moment and resumed, ends with the weights of the run that was never killed, and with the same losses.
#[test]
#[cfg(unix)]
fn a_killed_training_resumes_to_the_same_weights() {
    let scratch = scratch();
    let directory = scratch.path();
    let images = ndarray::Array4::from_shape_fn((40, 1, 8, 8), |(n, _, i, j)| if (i + n) % 5 == j % 3 { 1.0 } else { 0.0 });
    write_npy(&directory.join("images.npy"), &Array::from(images.view().into_dyn()), Overwrite::Never).unwrap();
    let options = [
        "--data",
        "images.npy",
        "--channels",
        "16,16",
        "--layers",
        "1",
        "--batch",
        "4",
        "--steps",
        "60",
        "--warmup",
        "5",
        "--checkpoint-every",
        "7",
        "--sheet-every",
        "0",
    ];
    succeed(&[&["train", "--out", "whole"], &options[..]].concat(), directory);

    let start = |extra: &[&str]| {
        let arguments = [&["train", "--out", "killed"], &options[..], extra].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_unnoise"));
        command.args(arguments).current_dir(directory).stderr(std::process::Stdio::null()).spawn().expect("the binary runs")
    };
    let newest = || {
        let steps = files(&directory.join("killed"))
            .into_iter()
            .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
        steps.max().unwrap_or(0)
    };
    let mut killed = 0;
    let mut child = start(&[]);
    loop {
        // Long enough for a checkpoint or two, so that every life goes on from where the last one was killed.
        let before = if directory.join("killed").exists() { newest() } else { 0 };
        let exited = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if directory.join("killed").exists() && newest() > before + 7 {
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        if let Some(status) = exited {
            assert!(status.success(), "{status}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        child = start(&["--resume"]);
    }
    assert!(killed > 0, "the run ended before it could be killed");
    let read = |run: &str, file: &str| std::fs::read(directory.join(run).join("step-00000060").join(file)).unwrap();
    for file in [
        "diffusion_pytorch_model.safetensors",
        "training/weights.safetensors",
        "training/first_moment.safetensors",
        "training/second_moment.safetensors",
    ] {
        assert_eq!(read("whole", file), read("killed", file), "{file} after {killed} kills");
    }
    let losses = |run: &str| -> Vec<String> {
        let text = std::fs::read_to_string(directory.join(run).join("losses.csv")).unwrap();
        // Without the last column, seconds.
        text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
    };
    assert_eq!(losses("whole"), losses("killed"));
}

/// Bad input: one clear line, a non-zero exit, no panic, nothing written.
#[test]
fn errors_are_one_clear_line() {
    let scratch = scratch();
    let directory = scratch.path();
    std::fs::write(directory.join("truncated.npy"), b"\x93NUMPY\x01\x00v\x00{'descr'").unwrap();
    std::fs::write(directory.join("text.png"), "no picture").unwrap();
    let mut nan = ndarray::Array4::from_elem((1, 1, 16, 16), 0.5);
    nan[[0, 0, 3, 5]] = f64::NAN;
    write_npy(&directory.join("nan.npy"), &Array::from(nan.view().into_dyn()), Overwrite::Never).unwrap();
    let wide = ndarray::Array4::from_elem((1, 1, 16, 16), 7.0);
    write_npy(&directory.join("wide.npy"), &Array::from(wide.view().into_dyn()), Overwrite::Never).unwrap();
    let small = ndarray::Array4::from_elem((1, 1, 8, 8), 0.5);
    write_npy(&directory.join("small.npy"), &Array::from(small.view().into_dyn()), Overwrite::Never).unwrap();
    let model = fixture("tiny");
    let before = files(directory);
    let mut failures = Vec::new();
    for (arguments, expected) in [
        (vec!["simulate", "--image", "missing.png", "--operator", "box:4", "--sigma-y", "0.1", "--output", "m.npz"], "missing.png"),
        (vec!["simulate", "--image", "text.png", "--operator", "box:4", "--sigma-y", "0.1", "--output", "m.npz"], "text.png"),
        (
            vec!["simulate", "--image", "truncated.npy", "--operator", "box:4", "--sigma-y", "0.1", "--output", "m.npz"],
            "truncated.npy",
        ),
        (vec!["simulate", "--image", "nan.npy", "--operator", "box:4", "--sigma-y", "0.1", "--output", "m.npz"], "NaN"),
        (vec!["simulate", "--image", "wide.npy", "--operator", "box:4", "--sigma-y", "0.1", "--output", "m.npz"], "[0, 1]"),
        (vec!["simulate", "--image", "small.npy", "--operator", "blurr:4", "--sigma-y", "0.1", "--output", "m.npz"], "box:SIZE"),
        (vec!["simulate", "--image", "small.npy", "--operator", "box:40", "--sigma-y", "0.1", "--output", "m.npz"], "40"),
        (vec!["simulate", "--image", "small.npy", "--operator", "box:4", "--sigma-y=-1", "--output", "m.npz"], "sigma_y"),
        (vec!["sample", "--model", "nowhere", "--output", "x.npy"], "nowhere"),
        (vec!["sample", "--model", &model, "--sampler", "dimm", "--output", "x.npy"], "ddim"),
        (vec!["sample", "--model", &model, "--grid", "sideways", "--output", "x.npy"], "trailing"),
        (vec!["sample", "--model", &model, "--steps", "0", "--output", "x.npy"], "steps"),
        (vec!["sample", "--model", &model, "--noise", "small.npy", "--output", "x.npy"], "[1, 8, 8]"),
        (vec!["sample", "--model", &model, "--device", "abacus", "--output", "x.npy"], "abacus"),
        (vec!["predict", "--model", &model, "--input", "truncated.npy", "--timestep", "1", "--output", "y.npy"], "truncated.npy"),
        (vec!["reconstruct", "--model", &model, "--measurement", "nan.npy", "--out", "o"], "nan.npy"),
        (vec!["inspect", "text.png"], "text.png"),
        (vec!["train", "--data", "nowhere", "--out", "run"], "nowhere"),
    ] {
        let output = unnoise(&arguments, directory);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let clear = !output.status.success() && message.starts_with("error: ") && message.trim_end().lines().count() == 1;
        if !clear || !message.contains(expected) || message.contains("panicked") {
            failures.push(format!("{arguments:?}: {} {message}", output.status));
        }
    }
    assert_eq!(files(directory), before, "something was left behind");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
