//! `unnoise bench`: its JSON is a contract.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Scratch, files, fixture};

/// How often an operation ran.
fn calls(report: &Value, operation: &str) -> u64 {
    let operations = report["operations"].as_array().unwrap();
    operations.iter().find(|o| o["operation"] == operation).map_or(0, |o| o["calls"].as_u64().unwrap())
}

#[test]
fn every_mode_reports_its_time_its_memory_and_its_operations() {
    let scratch = Scratch::new();
    let model = fixture("tiny");
    let report = |words: &str| scratch.json(&format!("bench --model {model} --batch 3 --runs 2 --threads 1 --side 8 {words}"));
    let modes = ["forward", "guided", "train"].map(|mode| (mode, report(&format!("--mode {mode}"))));
    for (mode, report) in &modes {
        let runs: Vec<f64> = report["runs"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!((report["mode"].as_str(), runs.len()), (Some(*mode), 2), "{report}");
        let [median, rate] = ["median_ms", "images_per_s"].map(|key| report[key].as_f64().unwrap());
        assert!((median - (runs[0] + runs[1]) / 2.0).abs() <= 1e-9 * median, "{report}");
        assert!((rate - 3e3 / median).abs() <= 1e-9 * rate, "{report}");
        assert!(report["gflops"].as_f64().unwrap() > 0.0 && report["peak_gflops"].as_f64().unwrap() > 0.0, "{report}");
        assert!(!cfg!(target_os = "linux") || report["peak_rss_mib"].as_f64().unwrap() > 1.0, "{report}");
    }
    // What a mode does shows in the operations of one run.
    let gradients = |report: &Value, of: &str| calls(report, &format!("conv2d 3x3 {of} gradient"));
    let [forward, guided, train] = modes.map(|(_, report)| report);
    assert!(calls(&forward, "conv2d 3x3") > 0, "{forward}");
    assert_eq!((gradients(&forward, "input"), gradients(&forward, "weight")), (0, 0), "{forward}");
    assert!(gradients(&guided, "input") > 0 && gradients(&guided, "weight") == 0, "{guided}");
    assert!(gradients(&train, "input") > 0 && gradients(&train, "weight") > 0, "{train}");
    // Checkpointing computes normalisations again.
    let again = report("--mode train --gradient-checkpointing");
    assert!(calls(&again, "group norm") > calls(&train, "group norm"), "{again}");
}

#[test]
fn a_network_without_a_scheduler_is_timed_in_every_mode() {
    let scratch = Scratch::new();
    let bare = scratch.path("bare");
    fs::create_dir(&bare).unwrap();
    for file in files(Path::new(&fixture("tiny/unet"))) {
        fs::copy(&file, bare.join(file.file_name().unwrap())).unwrap();
    }
    for mode in ["forward", "guided", "train"] {
        scratch.succeed(&format!("bench --model bare --batch 1 --runs 1 --side 8 --mode {mode}"));
    }
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let scratch = Scratch::new();
    let model = fixture("tiny");
    for (words, expected) in [
        ("--batch 0", "the images at once must be in 1 ..= 65536, got 0"),
        ("--runs 0", "the runs must be in 1 ..= 65536, got 0"),
        ("--side 0", "the rows must be in 1 ..= 65536, got 0"),
        ("--mode bogus", "the mode must be forward, guided, train, got 'bogus'"),
        ("--gradient-checkpointing", "--gradient-checkpointing is an option of --mode train"),
        ("--batch 65536 --side 65536", "the numbers of all images"),
    ] {
        let message = scratch.refused(&format!("bench --model {model} {words}"));
        assert!(message.contains(expected), "{words}: {message}");
    }
    assert!(scratch.refused("bench --model nowhere").contains("nowhere"));
}
