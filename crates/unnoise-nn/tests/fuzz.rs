//! Model directories, damaged in thousands of ways: an error of one line, or a network that runs; never a panic.
//!
//! The damage is drawn from fixed seeds, so a failure names a case that can be made again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use unnoise_core::Batch;
use unnoise_nn::{Device, DiffusionModel, Error, Params, Tracking};

/// SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// A changed byte, a run of extreme ones, a cut, or a doubled piece; in a safetensors file mostly within the header.
fn damaged(mut bytes: Vec<u8>, header: usize, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let n = bytes.len().max(1);
        let at = if random.below(4) > 0 { random.below(header.min(n)) } else { random.below(n) };
        let end = (at + 1 + random.below(9)).min(bytes.len());
        match random.below(6) {
            _ if at >= bytes.len() => bytes.push(random.next() as u8),
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at..end].fill([0x00, 0xFF, b'9', b'-'][random.below(4)]),
            2 => bytes.truncate(at),
            3 => bytes = [&bytes[..end], &bytes[at..]].concat(),
            _ => digits(&mut bytes, header, random),
        }
    }
    bytes
}

/// Other digits in the place of one: the document stays valid, its numbers do not.
fn digits(bytes: &mut Vec<u8>, within: usize, random: &mut Random) {
    let places: Vec<usize> = (0..within.min(bytes.len())).filter(|i| bytes[*i].is_ascii_digit()).collect();
    if let Some(place) = places.get(random.below(places.len())) {
        let more: Vec<u8> = (0..1 + random.below(12)).map(|_| b'0' + random.below(10) as u8).collect();
        bytes.splice(*place..=*place, more);
    }
}

/// The value of one key of a JSON object becomes another key's, or one of some awkward ones.
fn exchanged(text: &str, random: &mut Random) -> String {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    let keys: Vec<String> = object.keys().cloned().collect();
    let awkward = ["null", "-1", "0", "1e308", "[]", "\"x\"", "18446744073709551615", "[0]", "true", "{}", "3", "[8, 8]"];
    for _ in 0..=random.below(3) {
        let value = match random.below(3) {
            0 => object[&keys[random.below(keys.len())]].clone(),
            _ => serde_json::from_str(awkward[random.below(awkward.len())]).unwrap(),
        };
        object.insert(keys[random.below(keys.len())].clone(), value);
    }
    serde_json::Value::Object(object).to_string()
}

/// What a case must end as; otherwise what happened.
fn verdict<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Err(_) => Err("a panic".into()),
        Ok(Err(error)) if error.to_string().contains('\n') => Err(error.to_string()),
        Ok(result) => Ok(result.ok()),
    }
}

#[test]
fn damaged_weights_are_errors_or_weights() {
    let good = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet/labels/case.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut failures = Vec::new();
    for case in 0..4000 {
        let bytes = damaged(good.clone(), header, &mut Random(case));
        if let Err(what) = verdict(|| Params::from_safetensors(&bytes, Path::new("weights"))) {
            failures.push(format!("{case}: {what}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Configurations of a network and of a scheduler with other values: what is not refused must run.
#[test]
fn damaged_configurations_are_errors_or_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet/plain");
    let config = std::fs::read_to_string(root.join("config.json")).unwrap();
    let weights = std::fs::read(root.join("diffusion_pytorch_model.safetensors")).unwrap();
    let scheduler = r#"{"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02,
        "beta_schedule": "linear", "trained_betas": null, "prediction_type": "epsilon", "clip_sample": true, "clip_sample_range": 1.0,
        "variance_type": "fixed_small", "timestep_spacing": "leading", "steps_offset": 0, "rescale_betas_zero_snr": false}"#;
    let (mut failures, mut ran) = (Vec::new(), 0);
    let x = Batch::zeros((1, 1, 8, 8));
    for case in 0..3000_u64 {
        let mut random = Random(case);
        let mut other = |text: &str| match random.below(4) {
            0 => text.to_owned(),
            1 => String::from_utf8_lossy(&damaged(text.into(), text.len(), &mut random)).into_owned(),
            _ => exchanged(text, &mut random),
        };
        let (config, scheduler) = (other(&config), other(scheduler));
        let run = || {
            let model = DiffusionModel::from_bytes("model", &config, &weights, Some(&scheduler), None)?;
            model.denoiser(&Device::flex())?;
            model.scheduler.as_ref().unwrap().grid("ddim", None, 3)?;
            model.unet(&Device::flex(), Tracking::Frozen)?.predict(&x, 5.0, None)
        };
        match verdict(run) {
            Ok(output) => ran += u64::from(output.is_some()),
            Err(what) => failures.push(format!("{case}: {what}\n{config}\n{scheduler}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(ran > 50, "{ran} ran");
}
