//! `unnoise train`.

use ndarray::Array4;
use serde_json::json;

use crate::Scratch;

const OPTIONS: &str =
    "--data images.npy --channels 16,16 --layers 1 --batch 4 --steps 60 --warmup 5 --checkpoint-every 7 --sheet-every 0";

fn with_images() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("images.npy", &Array4::from_shape_fn((40, 1, 8, 8), |(n, _, i, j)| f64::from(u8::from((i + n) % 5 == j % 3))));
    scratch
}

#[test]
fn a_run_tells_what_it_made() {
    let scratch = with_images();
    let summary = scratch.json(&format!("train {OPTIONS} --out run").replace("--steps 60", "--steps 9"));
    assert_eq!((&summary["finished"], &summary["steps_done"]), (&json!(true), &json!(9)));
    assert_eq!((&summary["model"], &summary["images"], &summary["shape"]), (&json!("run/model"), &json!(40), &json!([1, 8, 8])));
    let losses = std::fs::read_to_string(scratch.path("run/losses.csv")).unwrap();
    let losses: Vec<f64> = losses.lines().skip(1).map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(losses.len() == 9 && (summary["loss"].as_f64().unwrap() / mean - 1.0).abs() < 1e-12, "{summary}");

    assert_eq!(summary["loss_over"], 9);

    let about = scratch.json("inspect run");
    assert_eq!(about["loss_over"], 9);
    assert_eq!((&about["kind"], &about["steps_done"], &about["steps"]), (&json!("training run"), &json!(9), &json!(9)));
    assert_eq!((about["last_loss"].as_f64(), &about["loss"]), (losses.last().copied(), &summary["loss"]));
    assert_eq!((&about["checkpoint"], &about["model"]), (&json!("run/step-00000009"), &json!("run/model")));
    // The hash of the weights is that of the numbers that are read, in 16 bits here.
    let (model, checkpoint) = (scratch.json("inspect run/model"), scratch.json("inspect run/step-00000009"));
    assert_eq!(model["about"]["weights"]["sha256"], model["weights_sha256"]);
    assert_eq!(checkpoint["about"]["weights"]["sha256"], checkpoint["weights_sha256"]);
    assert_ne!(model["weights_sha256"], checkpoint["weights_sha256"]);
    // What was trained states the size of its images and draws.
    assert_eq!(scratch.json("inspect run/model")["sample_size"], 8);
    scratch.succeed("sample --model run/model --n 1 --steps 2 --output x.npy");
    // And another training starts from it, on images of another size.
    scratch.write("larger.npy", &Array4::from_elem((4, 1, 12, 12), 0.5));
    scratch.succeed("train --data larger.npy --init run/model --batch 2 --steps 2 --out next");
    assert_eq!(scratch.json("inspect next/model")["sample_size"], 12);
}

/// `train`, killed by SIGKILL at some moment and resumed, ends with the weights of the run that was never killed, and with the same losses.
#[test]
#[cfg(unix)]
fn a_killed_training_resumes_to_the_same_weights() {
    use std::process::Stdio;
    let scratch = with_images();
    scratch.succeed(&format!("train {OPTIONS} --out whole"));
    let start = |extra: &str| {
        let mut command = scratch.command(&format!("train {OPTIONS} --out killed {extra}"));
        command.stderr(Stdio::null()).spawn().expect("the binary runs")
    };
    let newest = || {
        let files = std::fs::read_dir(scratch.path("killed")).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let steps = files.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
        steps.max().unwrap_or(0)
    };
    let mut killed = 0;
    let mut child = start("");
    loop {
        // Long enough for a checkpoint or two, so that every life goes on from where the last one was killed.
        let before = newest();
        let exited = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if newest() > before + 7 {
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
        child = start("--resume");
    }
    assert!(killed > 0, "the run ended before it could be killed");
    let read = |run: &str, file: &str| std::fs::read(scratch.path(run).join("step-00000060").join(file)).unwrap();
    for file in [
        "diffusion_pytorch_model.safetensors",
        "training/weights.safetensors",
        "training/first_moment.safetensors",
        "training/second_moment.safetensors",
    ] {
        assert_eq!(read("whole", file), read("killed", file), "{file} after {killed} kills");
    }
    let losses = |run: &str| -> Vec<String> {
        let text = std::fs::read_to_string(scratch.path(run).join("losses.csv")).unwrap();
        // Without the last column, seconds.
        text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
    };
    assert_eq!(losses("whole"), losses("killed"));
}

/// A resumed run keeps its settings: what says the same is welcome, what says otherwise is refused.
#[test]
fn a_resumed_run_keeps_its_settings() {
    let scratch = with_images();
    let options = OPTIONS.replace("--steps 60", "--steps 8");
    scratch.succeed(&format!("train {options} --out run"));
    scratch.succeed(&format!("train {options} --out run --resume"));
    for (given, expected) in [
        ("--batch 8", "--batch 8 contradicts the run, which was begun with 4"),
        ("--lr 0.5", "--lr 0.5 contradicts"),
        ("--warmup 1", "--warmup 1 contradicts"),
        ("--ema 0.5", "--ema 0.5 contradicts"),
        ("--seed 3", "--seed 3 contradicts"),
        ("--prediction v", "contradicts the run"),
        ("--schedule scaled_linear", "--schedule scaled_linear contradicts"),
        ("--flips", "--flips true contradicts"),
        ("--checkpoint-every 2", "--checkpoint-every 2 contradicts"),
        ("--channels 16,32", "contradict the run, whose levels have [16, 16] channels and 1 layers"),
        ("--steps 3", "--steps 3 is less than the 8 updates that the run has done"),
    ] {
        let message = scratch.refused(&format!("train --data images.npy --out run --resume {given}"));
        assert!(message.contains(expected), "{given}: {message}");
    }
    scratch.write("others.npy", &Array4::from_elem((3, 1, 8, 8), 0.5));
    let message = scratch.refused("train --data others.npy --out run --resume");
    assert!(message.contains("the images must be those of the run, 40 of shape [1, 8, 8]"), "{message}");
    assert_eq!(scratch.json("train --data images.npy --out run --resume --steps 10")["steps_done"], 10);
}

/// What was done to the images is a setting like the others, and what is not said again stays.
#[test]
fn a_resumed_run_prepares_its_images_alike() {
    let scratch = Scratch::new();
    scratch.write("color.npy", &Array4::from_shape_fn((6, 3, 20, 24), |(n, c, i, j)| ((n + 2 * c + 3 * i + j) % 11) as f64 / 10.0));
    let begin = |out: &str, how: &str, steps: usize| {
        format!("train --data color.npy --channels 16,16 --layers 1 --batch 2 --sheet-every 0 {how} --out {out} --steps {steps}")
    };
    scratch.succeed(&begin("run", "--side 8 --gray", 3));
    let resumed = scratch.json("train --data color.npy --out run --resume --steps 5");
    assert_eq!((&resumed["steps_done"], &resumed["shape"]), (&json!(5), &json!([1, 8, 8])));
    scratch.succeed("train --data color.npy --out run --resume --side 8 --steps 6");
    assert_eq!(scratch.json("inspect run/model")["about"]["training"]["images"]["preparation"]["side"], 8);
    scratch.succeed(&begin("whole", "", 2));
    for (run, given, expected) in [
        (
            "run",
            "--side 16",
            "--side 16 contradicts the run, which was begun with --side 8 --gray; a resumed run keeps its settings",
        ),
        ("run", "--pad 32 --gray", "--pad 32 --gray contradicts the run, which was begun with --side 8 --gray"),
        ("whole", "--gray", "--gray contradicts the run, which was begun with the images as they are stored"),
    ] {
        let message = scratch.refused(&format!("train --data color.npy --out {run} --resume {given}"));
        assert!(message.contains(expected), "{given}: {message}");
    }
    // A run from before the preparation was stored takes the options' word.
    let state = scratch.path("run/step-00000006/training/state.json");
    let mut older: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    older["images"].as_object_mut().unwrap().remove("preparation").unwrap();
    std::fs::write(&state, older.to_string()).unwrap();
    assert!(scratch.refused("train --data color.npy --out run --resume --steps 7").contains("the images must be those of the run"));
    scratch.succeed("train --data color.npy --out run --resume --steps 7 --side 8 --gray");
}
