//! Ctrl-C in a long command stops within a step, or within a solve of a step, and keeps what is done.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ndarray::Array4;
use serde_json::Value;

use crate::{Scratch, fixture};

/// A command that was sent SIGINT when it had said a line that contains `word`: its exit code, stdout and stderr.
///
/// A minute is more than any step of the small network takes, on any machine, and less than any of the runs.
fn interrupted(scratch: &Scratch, line: &str, word: &str) -> (Option<i32>, String, String) {
    let mut child = scratch.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.lines().any(|line| line.contains(word)) {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{line} ended: {said}");
    }
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let code = wait(&mut child, line);
    stderr.read_to_string(&mut said).unwrap();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    (code, stdout, said)
}

fn wait(child: &mut Child, line: &str) -> Option<i32> {
    let sent = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if sent.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{line} did not stop");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn finished_samples_are_kept() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let line = format!(
        "reconstruct --model {} --measurement m.npz --samples 100000 --batch 2 --steps 20 --out out --json",
        fixture("tiny")
    );
    let (code, stdout, stderr) = interrupted(&scratch, &line, "4 of 100000 samples done");
    assert_eq!(code, Some(130), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("one JSON object on stdout");
    let kept = report["samples"].as_u64().unwrap();
    assert!(kept >= 4 && kept.is_multiple_of(2) && report["samples_requested"] == 100_000, "{kept}");
    assert_eq!(scratch.read("out/samples.npy").dim().0 as u64, kept);
    // The evaluations are those of the samples that are kept.
    assert_eq!(report["evaluations"]["forward"].as_u64(), Some(20 * kept));
    assert!(stderr.contains(&format!("stopped: {kept} of 100000 samples were finished and are in out")), "{stderr}");
}

/// One step whose solve never ends.
#[test]
fn a_solve_is_stopped_within() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let line = format!(
        "reconstruct --model {} --measurement m.npz --method mmps --set tolerance=1e-300 --set max_iterations=100000 --samples 1 --steps 1",
        fixture("tiny")
    );
    let (code, _, stderr) = interrupted(&scratch, &line, "0 of 1 sample done");
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("stopped on request after 0 of 1 steps") && stderr.contains("nothing was written"), "{stderr}");
    assert!(!scratch.path("unnoise-out").exists());
    assert_eq!(crate::files(scratch.0.path()).len(), 2, "only the image and its measurement");
}

#[test]
fn finished_images_are_kept() {
    let scratch = Scratch::new();
    let line = format!("sample --model {} --n 100000 --batch 3 --steps 10 --output x.npy", fixture("tiny"));
    let (code, _, stderr) = interrupted(&scratch, &line, "6 of 100000 images done");
    assert_eq!(code, Some(130), "{stderr}");
    let kept = scratch.read("x.npy").dim().0;
    assert!(kept >= 6 && stderr.contains(&format!("stopped: {kept} of 100000 images were finished and are in x.npy")), "{stderr}");
}

/// A trace that is stopped holds the steps that were finished, and says so.
#[test]
fn finished_steps_of_a_trace_are_kept() {
    let scratch = Scratch::new();
    let line = format!("sample --model {} --n 1 --sampler ddpm --steps 1000 --trace trace --output x.npy", fixture("tiny"));
    let (code, _, stderr) = interrupted(&scratch, &line, "1 of 1000 steps done");
    assert_eq!(code, Some(130), "{stderr}");
    let grid: Value = serde_json::from_slice(&std::fs::read(scratch.path("trace/grid.json")).unwrap()).unwrap();
    let kept = grid["steps"].as_array().unwrap().len();
    assert!((1..1000).contains(&kept) && grid["steps_requested"] == 1000, "{kept}");
    assert_eq!(crate::files(&scratch.path("trace")).len(), 1 + 2 * kept);
    let expected = format!("no image was finished; {kept} finished step{} are in trace", if kept == 1 { "" } else { "s" });
    assert!(stderr.contains(&expected), "{stderr}");
    assert_eq!(crate::files(scratch.0.path()).len(), 1, "the trace alone");
}

#[test]
fn finished_predictions_are_kept() {
    let scratch = Scratch::new();
    scratch.write("many.npy", &Array4::from_elem((40_000, 1, 16, 16), 0.5));
    let line = format!("predict --model {} --input many.npy --timestep 500 --output out.npy --json", fixture("tiny"));
    let (code, stdout, stderr) = interrupted(&scratch, &line, "of 40000 images done");
    assert_eq!(code, Some(130), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object on stdout");
    let kept = summary["images"].as_u64().unwrap();
    assert!((1..40_000).contains(&kept) && summary["images_requested"] == 40_000, "{summary}");
    assert_eq!(scratch.read("out.npy").dim(), (kept as usize, 1, 16, 16));
    assert!(stderr.contains(&format!("stopped: {kept} of 40000 images were finished and are in out.npy")), "{stderr}");
}

#[test]
fn finished_runs_of_a_comparison_are_kept() {
    let scratch = Scratch::new();
    let model = fixture("tiny");
    let line =
        format!("compare --model {model} --samplers ddim,euler --evaluations 2,1000 --n 1000 --reference-steps 1 --out out --json");
    let (code, stdout, stderr) = interrupted(&scratch, &line, "2 of 5 done");
    assert_eq!(code, Some(130), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object on stdout");
    assert_eq!((summary["runs"].as_array().map(Vec::len), &summary["finished"]), (Some(1), &false.into()));
    assert_eq!(std::fs::read_to_string(scratch.path("out/distances.csv")).unwrap().lines().count(), 2);
    assert!(stderr.contains("1 finished run written to out"), "{stderr}");
}

#[test]
fn finished_inversions_are_kept() {
    let scratch = Scratch::new();
    scratch.write("many.npy", &Array4::from_elem((5000, 1, 16, 16), 0.5));
    let line = format!("invert --model {} --image many.npy --batch 3 --output noise.npy --json", fixture("tiny"));
    let (code, stdout, stderr) = interrupted(&scratch, &line, "6 of 5000 images done");
    assert_eq!(code, Some(130), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object on stdout");
    let kept = scratch.read("noise.npy").dim().0;
    assert!(kept >= 6 && summary["images"] == kept && summary["images_requested"] == 5000, "{summary}");
    assert!(stderr.contains(&format!("stopped: {kept} of 5000 images were finished and are in noise.npy")), "{stderr}");
}

#[test]
fn finished_likelihoods_are_kept() {
    let scratch = Scratch::new();
    scratch.write("many.npy", &Array4::from_elem((5000, 1, 16, 16), 0.5));
    let line = format!("likelihood --model {} --image many.npy --probes 2 --tolerance 0.1 --json", fixture("tiny"));
    let (code, stdout, stderr) = interrupted(&scratch, &line, "1 of 5000 images done");
    assert_eq!(code, Some(130), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object on stdout");
    let kept = summary["images"].as_u64().unwrap();
    assert!(kept >= 1 && summary["bits_per_dim"].as_array().map(Vec::len) == Some(kept as usize), "{summary}");
    assert!(stderr.contains(&format!("stopped: {kept} of 5000 images were finished")), "{stderr}");
}

#[test]
fn a_training_goes_on_where_it_was_stopped() {
    let scratch = Scratch::new();
    scratch.write("images.npy", &Array4::from_shape_fn((8, 1, 8, 8), |(n, _, i, j)| f64::from(u8::from((i + n) % 5 == j % 3))));
    let options = "train --data images.npy --channels 16,16 --layers 1 --batch 2 --warmup 5 --sheet-every 0 --out run --json";
    let (code, stdout, stderr) = interrupted(&scratch, &format!("{options} --steps 1000000"), "update 100 of");
    assert_eq!(code, Some(130), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object on stdout");
    let done = summary["steps_done"].as_u64().unwrap();
    assert!(summary["finished"] == false && summary["model"].is_null() && done >= 100, "{summary}");
    assert!(stderr.contains(&format!("stopped after update {done}; --resume goes on from there")), "{stderr}");
    let resumed: Value =
        serde_json::from_str(&scratch.succeed(&format!("{options} --resume --steps {}", done + 2))).expect("one JSON object");
    assert!(resumed["finished"] == true && resumed["steps_done"] == done + 2, "{resumed}");
}
