//! The variances and grids that diffusers' tests pin.

use std::sync::Mutex;

use serde_json::Value;
use unnoise_core::{
    Batch, Ddim, Ddpm, Denoiser, EdmSchedule, Estimate, Grid, GridKind, Interval, Level, Linearized, Noise, Purpose,
    RectifiedFlowSchedule, Result, Sampler, Schedule, SchedulerConfig, Shape, Step, Variance, sample, unobserved,
};
use unnoise_testing::{Noiseless, PinnedValues};

use super::pins;

/// Ones for noise.
struct Ones;

impl Noise for Ones {
    fn normal(&mut self, _: usize, _: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        Batch::ones((n, c, h, w))
    }
}

/// A denoiser of which upstream's tests predict the variance 0.5 in [-1, 1].
struct HalfLearned<'a>(Noiseless<'a>);

impl Denoiser for HalfLearned<'_> {
    fn schedule(&self) -> &dyn Schedule {
        self.0.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        self.0.x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        Ok(Estimate { x0_hat: self.x0_hat(x, level)?, variance_share: Some(Batch::from_elem(x.dim(), 0.75)) })
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// What a sampler adds to an image of zeros in a step with noise of size 1: its standard deviation.
fn std(mut sampler: impl Sampler, schedule: &dyn Schedule, step: Interval) -> f64 {
    let grid = Grid { steps: vec![step], start: 1.0 };
    let step = Step { grid: &grid, index: 0, denoiser: &HalfLearned(Noiseless(schedule)) };
    sampler.step(&step, &Batch::zeros((1, 1, 1, 1)), &mut Ones).unwrap().x[[0, 0, 0, 0]]
}

/// A denoiser that notes the timesteps at which it is asked.
struct Recorder<'a>(&'a dyn Schedule, Mutex<Vec<f64>>);

impl Denoiser for Recorder<'_> {
    fn schedule(&self) -> &dyn Schedule {
        self.0
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        self.1.lock().unwrap().push(timestep(level));
        Ok(x.clone())
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// The timestep of a level of a table of 1000 steps; that of a clean image is -1.
fn timestep(level: Level) -> f64 {
    (level.t * 1000.0 - 1.0).round()
}

/// The level after `timestep` steps of the table, -1 for none.
fn level(schedule: &dyn Schedule, timestep: i64) -> Level {
    if timestep < 0 { Level::CLEAN } else { Level::at(schedule, (timestep + 1) as f64 / 1000.0) }
}

/// The timesteps at which the sampler `name` asks the network.
fn asked(config: &SchedulerConfig, name: &str, steps: usize) -> Vec<f64> {
    let schedule = config.discrete_schedule().unwrap();
    let recorder = Recorder(&schedule, Mutex::default());
    let grid = config.grid(name, None, steps).unwrap();
    let mut sampler = config.sampler(name, None, true).unwrap();
    sample(sampler.as_mut(), &recorder, &grid, Batch::ones((1, 1, 1, 1)), &mut Ones, &mut unobserved).unwrap();
    recorder.1.into_inner().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The keys of a map as whole numbers, with its values: `"(420,400)"` gives `[420, 400]`.
fn table(value: &Value) -> Vec<(Vec<i64>, f64)> {
    let key = |text: &str| text.trim_matches(['(', ')']).split(',').map(|part| part.parse().unwrap()).collect();
    value.as_object().unwrap().iter().map(|(text, value)| (key(text), value.as_f64().unwrap())).collect()
}

/// Our numbers beside upstream's, as pairs.
fn pairs(pinned: &PinnedValues) -> Vec<(f64, f64)> {
    let mut config = SchedulerConfig::from_json(&pinned.config.to_string()).unwrap();
    if pinned.scheduler == "UnCLIPScheduler" {
        config.beta_schedule = Some("squaredcos_cap_v2".into());
    }
    let schedule = config.discrete_schedule().unwrap();
    let step = |from, to| Interval { from: level(&schedule, from), to: level(&schedule, to) };
    let ddpm = |variance, t| std(Ddpm { variance, clip: None }, &schedule, step(t, t - 1));
    let rows = |got: &dyn Fn(&[i64]) -> f64| table(&pinned.expected).iter().map(|(key, value)| (got(key), *value)).collect();
    match (pinned.scheduler.as_str(), pinned.quantity.as_str()) {
        ("DDPMScheduler", "_get_variance(t)") => rows(&|t| ddpm(Variance::FixedSmall, t[0]).powi(2)),
        ("DDPMScheduler", _) => {
            let grid = Grid::through(&[100, 87, 50, 1, 0, -1].map(|t| level(&schedule, t)));
            let next = |t: i64| grid.steps.iter().find(|step| timestep(step.from) == t as f64).map(|step| timestep(step.to));
            rows(&|t| next(t[0]).unwrap())
        }
        ("DDIMScheduler", "_get_variance(t,prev_t)") => {
            rows(&|t| std(Ddim { eta: 1.0, clip: None }, &schedule, step(t[0], t[1])).powi(2))
        }
        ("DDIMScheduler", _) => asked(&config, "ddim", 5).into_iter().zip(numbers(&pinned.expected)).collect(),
        ("DDIMInverseScheduler", _) => asked(&config, "ddim-inverse", 5).into_iter().zip(numbers(&pinned.expected)).collect(),
        ("PNDMScheduler", _) => asked(&config, "pndm", 10).into_iter().zip(numbers(&pinned.expected)).collect(),
        ("UnCLIPScheduler", "_get_variance(t) (std)") => rows(&|t| ddpm(Variance::FixedSmall, t[0])),
        ("UnCLIPScheduler", _) => rows(&|t| 2.0 * ddpm(Variance::LearnedRange, t[0]).ln()),
        ("UniPCMultistepScheduler", _) => {
            let karras = Grid::karras(&EdmSchedule::new(0.01, 200.0, 7.0).unwrap(), 5).unwrap();
            let sigmas = karras.steps.iter().map(|step| step.from.sigma).collect();
            let grid = GridKind::Sigmas(sigmas).grid(&RectifiedFlowSchedule, 5).unwrap();
            let levels = grid.steps.iter().map(|step| step.from).chain([grid.steps[4].to]);
            levels.map(|level| level.sigma).zip(numbers(&pinned.expected)).collect()
        }
        other => panic!("{other:?} is not in the table"),
    }
}

/// All nine, to upstream's tolerance, which is 1e-5 where it is not 0, but for one.
#[test]
fn variances_and_grids_are_upstreams() {
    let pins = pins().values;
    assert_eq!(pins.len(), 9);
    for pinned in &pins {
        let pairs = pairs(pinned);
        assert!(pairs.len() >= 3, "{} {}", pinned.scheduler, pinned.quantity);
        for (got, expected) in pairs {
            // In single precision 1 - alpha_bar has an error of 1e-4 of itself near the clean end, and a logarithm shows it.
            let tolerance = if pinned.quantity.ends_with("(log variance)") { 1e-4 } else { 1e-5 };
            assert!((got - expected).abs() < tolerance, "{} {}: {got}, expected {expected}", pinned.scheduler, pinned.quantity);
        }
    }
}
