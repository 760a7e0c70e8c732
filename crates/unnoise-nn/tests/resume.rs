//! A run that is killed at random moments and resumed ends with the weights of one that was not.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use ndarray::Array4;
use unnoise_core::{Prediction, Purpose, Streams};
use unnoise_nn::{
    Checkpoint, LearningRate, Outcome, Precision, RunDirectory, TrainConfig, Trainer, TrainingImages, UnetConfig, held_out_losses,
};

const DIRECTORY: &str = "UNNOISE_TEST_RUN_DIRECTORY";
const STEPS: u64 = 60;

fn model() -> UnetConfig {
    UnetConfig {
        in_channels: 1,
        out_channels: 1,
        block_out_channels: vec![4, 8],
        down_block_types: ["DownBlock2D", "AttnDownBlock2D"].map(String::from).to_vec(),
        up_block_types: ["AttnUpBlock2D", "UpBlock2D"].map(String::from).to_vec(),
        layers_per_block: 1,
        norm_num_groups: 2,
        attention_head_dim: None,
        ..UnetConfig::default()
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        batch: 4,
        learning_rate: LearningRate { warmup: 5, ..LearningRate::default() },
        flips: true,
        seed: 3,
        checkpoint_every: 3,
        ..TrainConfig::new(model(), STEPS)
    }
}

/// Ten gradients of brightness.
fn images() -> TrainingImages {
    TrainingImages::from_u8(Array4::from_shape_fn((10, 1, 8, 8), |(n, _, i, j)| (20 * n + 8 * i + j) as u8)).unwrap()
}

fn on(_: &Trainer, _: &unnoise_nn::StepReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Starts a run in `directory`, or goes on with the one that is there, to its end.
fn train(directory: &Path) -> Trainer {
    let run = RunDirectory::new(directory);
    let mut trainer = match run.checkpoints().unwrap().is_empty() {
        true => Trainer::new(config(), images(), Device::flex()).unwrap(),
        false => Trainer::resume(&run, images(), Device::flex(), |_| ()).unwrap(),
    };
    assert_eq!(trainer.run(&run, &mut on).unwrap(), Outcome::Finished);
    trainer
}

/// Not a test by itself: what [`killed_runs_end_in_the_same_bits`] starts and kills.
#[test]
fn child() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        train(Path::new(&directory));
    }
}

#[test]
fn killed_runs_end_in_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let expected = train(&folder.path().join("uninterrupted")).checkpoint();
    let whole = start.elapsed().max(Duration::from_millis(100));

    // A child is killed a random moment after a random number of new checkpoints, none or one, so that kills fall everywhere,
    // into saving too, and a slow machine gets through all the same.
    let interval = whole.div_f64((STEPS / config().checkpoint_every) as f64);
    let directory = folder.path().join("killed");
    let run = RunDirectory::new(&directory);
    let newest = || run.checkpoints().unwrap_or_default().last().map_or(0, |(step, _)| *step);
    let draws = Streams::new(1, 0..1).uniform(0, Purpose::Auxiliary, 200).swap_remove(0);
    let mut kills = 0;
    for pair in draws.chunks(2) {
        let wanted = newest() + config().checkpoint_every * (2.0 * pair[0]) as u64;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(DIRECTORY, &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while newest() < wanted && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(interval.mul_f64(pair[1]));
        // If it has ended by itself, this does nothing and the status says so.
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        assert!(status.code().is_none(), "the child failed by itself: {status}");
        kills += 1;
    }
    assert!(kills >= 3, "only {kills} kills");
    println!("{kills} kills");
    let got = Checkpoint::read(&run.newest().unwrap()).unwrap();
    assert_eq!(got.state.step, STEPS);
    assert!(got == expected, "after {kills} kills the weights, averages or moments differ");
    assert_eq!(run.checkpoints().unwrap().len(), 2);
}

#[test]
fn a_stopped_run_is_saved_and_its_plan_can_change() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::new(folder.path());
    let mut trainer = Trainer::new(config(), images(), Device::flex()).unwrap();
    let stop_at_seven = &mut |_: &Trainer, report: &unnoise_nn::StepReport| match report.step {
        7 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(trainer.run(&run, stop_at_seven).unwrap(), Outcome::Stopped);
    let mut resumed = Trainer::resume(&run, images(), Device::flex(), |config| config.steps = 9).unwrap();
    assert_eq!(resumed.state(), trainer.state());
    assert_eq!(resumed.run(&run, &mut on).unwrap(), Outcome::Finished);
    assert_eq!(resumed.steps_done(), 9);

    let other = TrainingImages::from_u8(Array4::zeros((10, 1, 8, 8))).unwrap();
    let error = Trainer::resume(&run, other, Device::flex(), |_| ()).err().unwrap().to_string();
    assert!(error.contains("the images must be those of the run"), "{error}");

    // The exported model holds the averages in 16 bits, with their hash as they are read back, and diffusers' files.
    let shipped = folder.path().join("shipped");
    resumed.checkpoint().model().unwrap().write(&shipped, Precision::F16).unwrap();
    let scheduler: serde_json::Value =
        serde_json::from_slice(&std::fs::read(shipped.join("scheduler_config.json")).unwrap()).unwrap();
    assert_eq!((&scheduler["num_train_timesteps"], &scheduler["prediction_type"]), (&1000.into(), &"epsilon".into()));
    let weights = unnoise_nn::Params::read(&shipped.join("diffusion_pytorch_model.safetensors")).unwrap();
    let checkpoint = run.newest().unwrap();
    for (directory, params) in [(&shipped, &weights), (&checkpoint, &resumed.state().ema)] {
        let about = unnoise_nn::DiffusionModel::read(directory).unwrap().about.unwrap();
        assert_eq!(about["weights"], serde_json::json!({ "kind": "ema", "sha256": params.sha256() }));
    }
    for ((_, a), (_, b)) in weights.iter().zip(resumed.state().ema.iter()) {
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| (a - b).abs() <= 5e-4 * b.abs().max(6.2e-5)));
    }
}

/// A network of zeros predicts zero: its loss is the mean square of what it should have predicted.
#[test]
fn held_out_loss_of_a_silent_network() {
    let zeros = unnoise_nn::Params::zeros(&model().parameter_shapes().unwrap());
    let losses = |prediction| {
        let config = TrainConfig { prediction, ..config() };
        let trainer = Trainer::with_weights(config, images(), zeros.clone(), Device::flex()).unwrap();
        let model = trainer.checkpoint().model().unwrap();
        held_out_losses(&model, &images(), &[0, 500, 999], 1, &Device::flex()).unwrap()
    };
    let of_eps = losses(Prediction::Eps);
    let n = 10.0 * 64.0;
    assert!(of_eps.iter().all(|loss| (loss - 1.0).abs() < 3.29 * (2.0f64 / n).sqrt()), "{of_eps:?}");
    let of_x0 = losses(Prediction::X0);
    let square: f32 = (0..10).flat_map(|i| images().image(i).into_iter()).map(|v| v * v).sum();
    assert!(of_x0.iter().all(|loss| (loss - f64::from(square) / n).abs() < 1e-6), "{of_x0:?}");
}

#[test]
fn settings_are_checked() {
    let good = config();
    type Change = fn(&mut TrainConfig);
    let cases: [(&str, Change); 6] = [
        ("batch", |c| c.batch = 0),
        ("steps", |c| c.steps = 0),
        ("learning_rate.warmup", |c| c.learning_rate.warmup = STEPS),
        ("clip_norm", |c| c.clip_norm = Some(0.0)),
        ("ema_decay", |c| c.ema_decay = 1.0),
        ("output channels", |c| c.model.out_channels = 2),
    ];
    for (what, change) in cases {
        let mut config = good.clone();
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    let colour = TrainingImages::from_u8(Array4::zeros((2, 3, 8, 8))).unwrap();
    assert!(Trainer::new(good, colour, Device::flex()).err().unwrap().to_string().contains("channels"));
}
