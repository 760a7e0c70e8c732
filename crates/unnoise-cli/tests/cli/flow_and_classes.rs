//! Flow matching and guidance, from training to samples and reconstructions.

use ndarray::{Array1, Array4};
use serde_json::json;
use unnoise::io::{Array, Overwrite, write_npz};

use crate::{Scratch, largest_difference};

// Levels of 16 channels are 16 groups of one, whose normalisation takes out what the class adds to a channel.
const OPTIONS: &str = "--channels 32,32 --layers 1 --batch 4 --steps 6 --warmup 2 --checkpoint-every 3 --sheet-every 3";

fn with_digits() -> Scratch {
    let scratch = Scratch::new();
    let images = Array4::from_shape_fn((30, 1, 16, 16), |(n, _, i, j)| f64::from(u8::from((i + n) % 5 == j % 3)));
    let labels = Array::U8(Array1::from_shape_fn(30, |n| (n % 3) as u8).into_dyn());
    let images = Array::from(images.view().into_dyn());
    write_npz(&scratch.path("digits.npz"), [("images", &images), ("labels", &labels)], Overwrite::Never).unwrap();
    scratch
}

/// A flow is trained, stopped and resumed, and what it leaves is diffusers' configuration of one; it is sampled by any sampler, its
/// Euler's method is deterministic DDIM, and it reconstructs and gives likelihoods as every prior does.
#[test]
fn a_flow_serves_every_command() {
    let scratch = with_digits();
    let flow = format!("train --data digits.npz {OPTIONS} --schedule rectified_flow --times logit_normal --out flow");
    scratch.succeed(&flow);
    assert_eq!(scratch.json("train --data digits.npz --out flow --resume --steps 9 --times logit_normal")["steps_done"], 9);
    assert!(scratch.refused("train --data digits.npz --out flow --resume --times uniform").contains("--times uniform contradicts"));
    let config = std::fs::read_to_string(scratch.path("flow/model/scheduler_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config, json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}));
    let about = scratch.json("inspect flow/model")["about"].clone();
    assert_eq!((&about["prediction"], &about["schedule"]["kind"]), (&json!("velocity"), &json!("rectified_flow")));
    for sampler in ["ddim", "euler", "heun", "ddpm", "flow-euler", "flow-heun", "rk45"] {
        let summary =
            scratch.json(&format!("sample --model flow/model --sampler {sampler} --steps 5 --n 2 --output {sampler}.npy"));
        assert_eq!(summary["grid"], "linspace");
    }
    for euler in ["euler.npy", "flow-euler.npy"] {
        assert!(largest_difference(&scratch.read("ddim.npy"), &scratch.read(euler)) < 1e-5);
    }
    scratch.measure(0.1);
    for method in ["mmps", "dps"] {
        scratch.succeed(&format!(
            "reconstruct --measurement m.npz --model flow/model --method {method} --samples 1 --steps 4 --out {method}"
        ));
    }
    let likelihood = "likelihood --model flow/model --image image.npy --probes 2 --sigma-min 0.2 --sigma-max 50 --tolerance 0.01";
    assert!(scratch.json(likelihood)["bits_per_dim"][0].is_number());
    for (given, expected) in [
        ("--schedule rectified_flow --prediction eps", "velocity on rectified_flow"),
        ("--prediction velocity", "velocity on rectified_flow"),
        ("--times uniform", "--times is an option of the schedule rectified_flow"),
        ("--schedule rectified_flow --times cosine", "known: uniform, logit_normal"),
    ] {
        let message = scratch.refused(&format!("train --data digits.npz --out other {given}"));
        assert!(message.contains(expected), "{given}: {message}");
    }
}

/// A network of classes has one more for none, the last: it is sampled with and without a class and guided, at two evaluations where guidance
/// acts. A prior without classes goes on as one.
#[test]
fn classes_are_left_out_and_guide() {
    let scratch = with_digits();
    scratch.succeed(&format!("train --data digits.npz {OPTIONS} --out plain"));
    scratch.succeed(
        "train --data digits.npz --init plain/model --batch 4 --steps 20 --warmup 2 --sheet-every 0 --lr 0.01 --class-dropout 0.2 --out run",
    );
    assert_eq!(scratch.json("inspect run/model")["about"]["null_class"], 3);
    let sample = |options: &str, file: &str| {
        let summary = scratch.json(&format!("sample --model run/model --steps 4 --n 2 --no-clip {options} --output {file}.npy"));
        (summary["evaluations_per_image"].as_u64().unwrap(), scratch.read(&format!("{file}.npy")))
    };
    let (plain_cost, plain) = sample("--class 1", "plain");
    let (guided_cost, guided) = sample("--class 1 --guidance 3", "guided");
    assert_eq!((plain_cost, guided_cost), (4, 8));
    let (none_cost, none) = sample("", "none");
    assert_eq!(none_cost, 4);
    let apart = [largest_difference(&plain, &guided), largest_difference(&plain, &none)];
    assert!(apart.iter().all(|d| *d > 1e-4), "{apart:?}");
    // Scale 1 and an interval without a level are the class alone, scale 0 is none.
    assert_eq!(sample("--class 1 --guidance 1", "one"), (4, plain.clone()));
    assert_eq!(sample("--class 1 --guidance 3 --guidance-interval 1e6,1e7", "off"), (4, plain.clone()));
    assert!(largest_difference(&sample("--class 1 --guidance 0", "zero").1, &none) < 1e-6);
    assert!(largest_difference(&sample("--class 1 --guidance 3 --guidance-rescale 0.7", "rescaled").1, &guided) > 1e-5);
    let (cost, thresholded) = sample("--class 1 --guidance 3 --threshold 0.9", "thresholded");
    assert!(cost == 8 && largest_difference(&thresholded, &guided) > 1e-4 && thresholded.iter().all(|v| v.abs() < 1.01));
    // Away from a worse network: without classes too, and by nothing if it is the network itself.
    let (guide_cost, away) = sample("--class 1 --guidance 3 --guide plain/model", "away");
    assert!(guide_cost == 8 && largest_difference(&plain, &away) > 1e-4);
    assert!(largest_difference(&sample("--class 1 --guidance 3 --guide run/model", "itself").1, &plain) < 1e-5);
    scratch.succeed(&format!("train --data digits.npz {OPTIONS} --schedule rectified_flow --out flow"));
    for (given, expected) in [
        ("--guidance 3 --guide flow/model", "different noise levels"),
        ("--guide plain/model", "--guidance"),
        ("--threshold 1.5", "the quantile must be in [0, 1]"),
        ("--class 3", "--class must be below 3"),
        ("--guidance 3", "--class"),
        ("--class 1 --guidance 3 --guidance-interval 5,1", "low <= high"),
        ("--class 1 --guidance 3 --guidance-interval 5", "two noise levels"),
        ("--class 1 --guidance 3 --guidance-rescale 2", "in [0, 1]"),
    ] {
        let output = scratch.run(&format!("sample --model run/model --n 1 --steps 2 {given} --output x.npy"));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(expected), "{given}: {message}");
    }
    assert!(scratch.refused("train --data digits.npz --out other --class-dropout 1.5").contains("in [0, 1)"));
    assert!(scratch.refused("train --data digits.npz --out run --resume --class-dropout 0.5").contains("contradicts"));
}
