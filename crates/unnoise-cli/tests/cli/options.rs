//! Options: none is ignored without a word, and `--json` is a contract of every command.

use ndarray::Array4;

use crate::{Scratch, fixture};

#[test]
fn options_that_would_be_ignored_are_refused() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let (model, noise) = (fixture("tiny"), fixture("tiny/x_T.npy"));
    let sample = format!("sample --model {model} --steps 2 --output x.npy");
    for (line, expected) in [
        (format!("{sample} --sampler heun --eta 0.5"), "--eta with heun: unknown option of this sampler 'eta'; known: clip"),
        (format!("{sample} --sampler ddpm --eta 0"), "unknown option of this sampler 'eta'; known: variance, clip"),
        (format!("{sample} --sampler ddim --eta 2"), "eta must be in [0, 1], got 2"),
        (format!("{sample} --sampler euler --set order=2"), "unknown option of this sampler 'order'; known: none"),
        (format!("{sample} --sampler deis --set order=two"), "a sampler's option must be a whole number, got order = two"),
        (format!("{sample} --sampler deis --set order=7"), "order must be from 1 to 4, got 7"),
        (format!("{sample} --sampler dpmpp-3m --set third_order=x"), "must be quadratic or published, got third_order = x"),
        (format!("{sample} --noise {noise} --n 3"), "--n 3 contradicts --noise, which holds 2 images"),
        (format!("{sample} --trace t --batch 1"), "--batch"),
        (format!("{sample} --class 1"), "the network has no classes"),
        (format!("{sample} --n 0"), "the number of images must be 1 to 1048576, got 0"),
        (format!("{sample} --batch 0"), "the batch must be at least 1, got 0"),
        (format!("reconstruct --model {model} --measurement m.npz --class 1"), "the network has no classes"),
        (format!("reconstruct --model {model} --measurement m.npz --set foo=1"), "unknown setting of ddnm-plus 'foo'; known: eta"),
        (format!("reconstruct --model {model} --measurement m.npz --set eta=1 --set eta=0"), "--set eta is given twice"),
        (format!("reconstruct --model {model} --measurement m.npz --set eta=much"), "got eta = \"much\", whose default is"),
        ("train --data image.npy --out run --architecture c.json --layers 2".into(), "--layers"),
        (format!("train --data image.npy --out run --init {model} --channels 16"), "--channels"),
        ("train --data image.npy --out run --side 8 --pad 8".into(), "--pad"),
        ("train --data image.npy --out run --resume".into(), "run holds no checkpoint to go on from"),
        ("simulate --image image.npy --operator box:4 --sigma-y 0.1 --device abacus --output y.npz".into(), "abacus"),
        ("forward --image image.npy --threads 9999 --output y.npy".into(), "--threads must be at most 1024, got 9999"),
    ] {
        let output = scratch.run(&line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(expected), "{line}: {message}");
    }
    for file in ["x.npy", "run", "t", "unnoise-out"] {
        assert!(!scratch.path(file).exists(), "{file} was written");
    }
    // The same number twice contradicts nothing.
    scratch.succeed(&format!("{sample} --noise {noise} --n 2 --eta 0.5 --sampler ddim"));
}

#[test]
fn exact_convolutions_round_otherwise() {
    let scratch = Scratch::new();
    let predict = format!("predict --model {} --input {} --timestep 3", fixture("tiny"), fixture("tiny/x_T.npy"));
    scratch.succeed(&format!("{predict} --output fast.npy"));
    scratch.succeed(&format!("{predict} --exact --output exact.npy"));
    let off = (scratch.read("fast.npy") - scratch.read("exact.npy")).iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    assert!(off > 0.0 && off < 1e-4, "{off:e}");
}

/// One JSON object on stdout, what was written in it, and nothing on stdout without it but what is the command's answer.
#[test]
fn every_command_has_json() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let model = fixture("tiny");
    scratch.write("images.npy", &Array4::from_shape_fn((4, 1, 8, 8), |(n, _, i, j)| ((n + i * j) % 4) as f64 / 3.0));
    for (i, (line, written)) in [
        (format!("predict --model {model} --input {} --timestep 3 --output FILE.npy", fixture("tiny/x_T.npy")), "output"),
        (format!("sample --model {model} --steps 2 --n 1 --output FILE.npy"), "output"),
        ("simulate --image image.npy --operator box:4 --sigma-y 0.1 --output FILE.npz".into(), "output"),
        ("forward --image image.npy --output FILE.png".into(), "output"),
        ("train --data images.npy --channels 16 --layers 1 --batch 2 --steps 2 --sheet-every 0 --out FILE".into(), "run"),
    ]
    .into_iter()
    .enumerate()
    {
        let json = scratch.json(&line.replace("FILE", &format!("json-{i}")));
        let file = json[written].as_str().unwrap_or_else(|| panic!("{line}: {json}"));
        assert!(scratch.path(file).exists() && json["seconds"].as_f64().is_some_and(|s| s >= 0.0), "{line}: {json}");
        let output = scratch.run(&line.replace("FILE", &format!("text-{i}")));
        assert!(output.status.success() && output.stdout.is_empty(), "{line}: {}", String::from_utf8_lossy(&output.stdout));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains('\u{1b}') && !stderr.contains('\r'), "{line}: a log is plain text, got {stderr:?}");
    }
}

#[test]
fn images_are_counted_in_english() {
    let scratch = Scratch::new();
    let one = scratch.run(&format!("sample --model {} --steps 1 --n 1 --output x.npy", fixture("tiny")));
    let text = String::from_utf8_lossy(&one.stderr).into_owned();
    assert!(text.contains("x.npy: 1 image, ddim with 1 step, 1 network evaluations each"), "{text}");
}
