//! `unnoise forward` and `simulate`.

use ndarray::Array4;
use serde_json::json;

use crate::Scratch;

#[test]
fn the_strip_of_the_chapter_is_drawn() {
    let scratch = Scratch::new();
    scratch.write("x.npy", &Array4::from_elem((1, 1, 8, 8), 0.5));
    let summary = scratch.json("forward --image x.npy --output strip.npy");
    assert_eq!((&summary["shape"], &summary["levels"]), (&json!([4, 1, 8, 8]), &json!([0.05, 0.2, 0.45, 0.7])));
    scratch.succeed("forward --image x.npy --output strip.png");
    let strip = scratch.read("strip.npy");
    for (level, panel) in [0.05, 0.20, 0.45, 0.70].into_iter().zip(strip.outer_iter()) {
        let mean = panel.mean().unwrap();
        // 64 pixels of deviation sqrt(level), at 99.99 %.
        assert!((mean - 0.5 * (1.0_f64 - level).sqrt()).abs() < 3.9 * f64::sqrt(level / 64.0), "{level}: {mean}");
    }
}

#[test]
fn an_image_is_measured() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let again = scratch.json("simulate --image image.npy --operator box:6 --sigma-y 0.05 --seed 1 --no-truth --output bare.npz");
    assert_eq!((&again["measured"], &again["image"], &again["truth"]), (&json!(220), &json!([1, 16, 16]), &json!(false)));
    assert_eq!(again["operator"], "box:6x6");
    let about = scratch.json("inspect m.npz");
    assert_eq!((&about["kind"], &about["measured"], &about["truth"]), (&json!("measurement"), &json!(220), &json!("included")));
    // 99.9 % of chi-squares of 220 values are within 3.3 deviations.
    let chi_square = about["chi_square_of_truth"].as_f64().unwrap();
    assert!((chi_square - 1.0).abs() < 3.3 * (2.0_f64 / 220.0).sqrt(), "{chi_square}");
}

/// Blurs that let nothing through, and noise levels that no image has.
#[test]
fn measurements_that_cannot_be_are_refused() {
    let scratch = Scratch::new();
    scratch.write("x.npy", &Array4::from_elem((1, 1, 8, 8), 0.5));
    for (name, kernel) in [("zero.npy", [0.0; 9]), ("balanced.npy", [1.0, 0.0, -1.0, 2.0, 0.0, -2.0, 1.0, 0.0, -1.0])] {
        let array = unnoise::io::Array::F64(ndarray::ArrayD::from_shape_vec(vec![3, 3], kernel.to_vec()).unwrap());
        unnoise::io::write_npy(&scratch.path(name), &array, unnoise::io::Overwrite::Never).unwrap();
    }
    for (operator, sigma_y, expected) in [
        ("blur:zero.npy", "0.1", "kernel must be something that lets the image through, got 3 x 3 zeros"),
        ("blur:zero.npy,sum=1", "0.1", "kernel must be of a sum that can be scaled, got a sum of 0"),
        ("blur:balanced.npy,sum=1", "0.1", "kernel must be of a sum that can be scaled, got a sum of 0"),
        ("blur:balanced.npy,sum=0", "0.1", "sum must be other than 0"),
        ("box:4", "inf", "sigma_y must be 0 (no noise) or from 1e-9 to 1e6, for pixels in [0, 1], got inf"),
        ("box:4", "nan", "got NaN"),
        ("box:4", "-0.1", "got -0.1"),
        ("box:4", "1e300", "got 1e300"),
        ("box:4", "1e-12", "sigma_y must be 0 (no noise) or"),
        ("blur:gaussian", "0.1", "--operator blur:gaussian: "),
    ] {
        let message = scratch.refused(&format!("simulate --image x.npy --operator {operator} --sigma-y {sigma_y} --output m.npz"));
        assert!(message.contains(expected), "{operator} {sigma_y}: {message}");
    }
    assert!(!scratch.path("m.npz").exists());
    // A kernel of sum 0 is an operator, an edge detector, as long as nobody asks to scale it.
    scratch.succeed("simulate --image x.npy --operator blur:balanced.npy --sigma-y 0.1 --output m.npz");
}
