//! `unnoise inspect`.

use ndarray::{Array4, ArrayD};
use serde_json::json;
use unnoise::io::{Array, Overwrite, write_npz};

use crate::{Scratch, fixture};

#[test]
fn arrays_of_any_values_are_described() {
    let scratch = Scratch::new();
    let mut wide = Array4::from_shape_fn((2, 1, 4, 4), |(n, _, i, _)| n as f64 * 3.0 - i as f64);
    scratch.write("wide.npy", &wide);
    wide[[0, 0, 1, 1]] = f64::NAN;
    wide[[1, 0, 1, 1]] = f64::INFINITY;
    scratch.write("nan.npy", &wide);
    scratch.write("pixels.npy", &Array4::from_elem((1, 1, 4, 4), 0.5));
    let about = scratch.json("inspect wide.npy");
    assert_eq!((&about["kind"], &about["type"], &about["shape"]), (&json!("array"), &json!("float32"), &json!([2, 1, 4, 4])));
    assert_eq!((about["least"].as_f64(), about["largest"].as_f64()), (Some(-3.0), Some(3.0)));
    assert!(about["note"].as_str().is_some_and(|note| note.contains("[0, 1]")), "{about}");
    let about = scratch.json("inspect nan.npy");
    assert_eq!((&about["not_finite"], about["least"].as_f64()), (&json!(2), Some(-3.0)));
    let about = scratch.json("inspect pixels.npy");
    assert!(about.get("note").is_none() && about.get("not_finite").is_none(), "{about}");
    let text = scratch.succeed("inspect wide.npy");
    assert!(text.contains("least  -3\n") && text.contains("shape  [2, 1, 4, 4]"), "{text}");
}

#[test]
fn archives_are_listed() {
    let scratch = Scratch::new();
    let arrays = [
        ("weights", Array::F64(ArrayD::zeros(vec![3, 2]))),
        ("labels", Array::I64(ArrayD::zeros(vec![7]))),
        ("note", Array::Text("hello".into())),
    ];
    write_npz(&scratch.path("many.npz"), arrays.iter().map(|(name, array)| (*name, array)), Overwrite::Never).unwrap();
    write_npz(&scratch.path("one.npz"), [("only", &arrays[0].1)], Overwrite::Never).unwrap();
    let about = scratch.json("inspect many.npz");
    assert_eq!(about["kind"], "archive");
    assert_eq!(about["arrays"][1], json!({ "name": "labels", "type": "int64", "shape": [7] }));
    assert_eq!(about["arrays"].as_array().map(Vec::len), Some(3));
    let text = scratch.succeed("inspect many.npz");
    assert_eq!(text.lines().filter(|line| line.contains("name ")).count(), 3, "{text}");
    let about = scratch.json("inspect one.npz");
    assert_eq!((&about["kind"], &about["name"], &about["shape"]), (&json!("array"), &json!("only"), &json!([3, 2])));
    // numpy's complex numbers are told of, and hide nothing of the others.
    let types = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../unnoise-io/tests/fixtures/types.npz");
    let about = scratch.json(&format!("inspect {}", types.display()));
    let complex = about["arrays"].as_array().unwrap().iter().find(|entry| entry["name"] == "complex").unwrap();
    assert!(complex["error"].as_str().is_some_and(|error| error.contains("'<c8'")), "{complex}");
}

#[test]
fn models_are_described() {
    let scratch = Scratch::new();
    let about = scratch.json(&format!("inspect {} --seed 1 --device cpu --threads 1", fixture("tiny")));
    assert_eq!((&about["kind"], &about["sample_size"], &about["in_channels"]), (&json!("model"), &json!(16), &json!(1)));
    // What the shipped prior says of its weights is true of them.
    let shipped = scratch.json(concat!("inspect ", env!("CARGO_MANIFEST_DIR"), "/../../models/digits"));
    assert_eq!(shipped["about"]["weights"]["sha256"], shipped["weights_sha256"]);
    std::fs::create_dir(scratch.path("empty")).unwrap();
    let message = scratch.refused("inspect empty");
    assert!(["config.json", "report.json", "step-*"].iter().all(|word| message.contains(word)), "{message}");
    assert!(scratch.refused("inspect nowhere").contains("nowhere: there is no such file"));
    assert!(scratch.refused(&format!("inspect {} --device abacus", fixture("tiny"))).contains("abacus"));
}
