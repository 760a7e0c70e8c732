//! `unnoise likelihood`.

use ndarray::Array4;

use crate::{Scratch, fixture};

fn with_images() -> (Scratch, String) {
    let scratch = Scratch::new();
    scratch.write("images.npy", &Array4::from_shape_fn((3, 1, 16, 16), |(n, _, i, j)| ((n * 31 + i * 7 + j) % 13) as f64 / 12.0));
    (scratch, format!("likelihood --model {} --image images.npy --probes 3 --sigma-min 0.2 --tolerance 0.01", fixture("tiny")))
}

/// An image has the numbers of its place in the file, alone or among others.
#[test]
fn an_image_has_its_own_numbers() {
    let (scratch, base) = with_images();
    let all = scratch.json(&base);
    assert_eq!((&all["images"], &all["dimensions"], &all["dequantised"]), (&3.into(), &256.into(), &true.into()));
    let last = scratch.json(&format!("{base} --index 2 --n 1"));
    let value = |summary: &serde_json::Value, key: &str, i: usize| summary[key][i].as_f64().unwrap();
    for key in ["nats", "standard_error", "bits_per_dim"] {
        let (alone, among) = (value(&last, key, 0), value(&all, key, 2));
        assert!((alone - among).abs() <= 1e-6 * among.abs().max(1.0), "{key}: {alone} {among}");
    }
    let bits = -(value(&all, "nats", 0) / 256.0 + (2.0f64 / 255.0).ln()) / std::f64::consts::LN_2;
    assert!((value(&all, "bits_per_dim", 0) - bits).abs() < 1e-12);
    assert!(all["evaluations"].as_u64() >= all["vjps"].as_u64() && value(&all, "standard_error", 0) > 0.0);
}

#[test]
fn what_would_be_ignored_is_refused() {
    let (scratch, base) = with_images();
    assert!(scratch.refused(&format!("{base} --divergence exact")).contains("--probes cannot be used"));
    assert!(scratch.refused(&format!("{base} --divergence skilling")).contains("rademacher, gaussian, exact"));
    assert!(scratch.refused(&format!("{base} --index 3")).contains("below 3"));
    assert!(scratch.refused(&format!("{base} --n 4")).contains("1 to 3"));
    assert!(scratch.refused(&format!("{base} --sigma-max 0.1")).contains("sigma_min < sigma_max"));
    assert!(scratch.refused(&format!("{base} --class 1")).contains("no classes"));
    scratch.write("small.npy", &Array4::zeros((1, 1, 8, 8)));
    assert!(scratch.refused(&base.replace("images.npy", "small.npy")).contains("shape"));
}
