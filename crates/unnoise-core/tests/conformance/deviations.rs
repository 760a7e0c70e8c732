//! Where upstream is wrong and ours differs: a proof for each row of `docs/deviations.md` that has none elsewhere.

use std::f64::consts::FRAC_PI_2;

use unnoise_core::{Batch, DiscreteSchedule, Error, Grid, GridKind, Prediction, SchedulerConfig, Spacing, sample, unobserved};
use unnoise_testing::{Convention, Dummy, SIDES, TorchGenerator, dummy_sample, plain, start};

use super::{pins, prediction};

fn config(json: &str) -> SchedulerConfig {
    SchedulerConfig::from_json(json).unwrap()
}

/// The sampler `name` with this configuration on ten steps of its grid, from the dummy model.
fn run(config: &SchedulerConfig, name: &str) -> Batch {
    let dummy = Dummy::new(config.schedule().unwrap(), config.train_steps(), Prediction::Eps, Convention::Plain);
    let (grid, mut sampler) = (config.grid(name, None, 10).unwrap(), config.sampler(name, None, true).unwrap());
    sample(sampler.as_mut(), &dummy, &grid, dummy_sample(SIDES), &mut TorchGenerator::new(0), &mut unobserved).unwrap()
}

/// Upstream returns the root of a logarithm, NaN.
#[test]
fn the_large_variance_by_its_logarithm_is_the_large_variance() {
    let [log, plain, small] = ["fixed_large_log", "fixed_large", "fixed_small"]
        .map(|variance| run(&config(&format!(r#"{{ "variance_type": "{variance}" }}"#)), "ddpm"));
    assert_eq!(log, plain);
    assert_ne!(log, small);
}

/// Upstream multiplies an infinite step by zero.
#[test]
fn unipc_bh1_reaches_the_clean_image() {
    let drawn = run(&config(r#"{ "solver_type": "bh1", "final_sigmas_type": "zero" }"#), "unipc");
    assert!(drawn.iter().all(|v| v.abs() < 10.0));
}

/// Upstream takes the root of a network's logarithm of the variance.
#[test]
fn variances_learned_without_a_range_are_refused() {
    let config = config(r#"{ "variance_type": "learned" }"#);
    assert!(matches!(config.sampler("ddpm", None, true), Err(Error::Unsupported { .. })));
}

/// The state is not what the network is shown: no pin of a loop that confuses them is what a run gives.
#[test]
fn the_model_input_is_not_the_state() {
    for pin in pins().cases.iter().filter(|pin| pin.scheduler == "EulerDiscreteScheduler") {
        let config = super::config(pin);
        let dummy = Dummy::new(config.schedule().unwrap(), config.train_steps(), prediction(&config), Convention::Plain);
        let (grid, mut sampler) = (config.grid("euler", None, 10).unwrap(), config.sampler("euler", None, true).unwrap());
        let drawn = plain(sampler.as_mut(), &dummy, &grid, start(&grid, SIDES), &mut TorchGenerator::new(0)).unwrap();
        assert!(pin.deviation(&drawn) > 100.0, "{}", pin.test);
    }
}

/// Whether every step starts where the last one ended.
fn is_connected(grid: &Grid) -> bool {
    grid.steps.windows(2).all(|pair| pair[0].to == pair[1].from)
}

/// diffusers' DDIM goes down by the whole part of `T / n` wherever its next timestep is. Its grids are reproduced, ours are connected.
#[test]
fn native_grids_are_connected() {
    let config = SchedulerConfig::default();
    let schedule = config.schedule().unwrap();
    for (spacing, kind) in [(Spacing::Linspace, GridKind::Linspace), (Spacing::Trailing, GridKind::Trailing)] {
        assert!(!is_connected(&config.grid("ddim", Some(spacing), 13).unwrap()));
        assert!(is_connected(&kind.grid(&*schedule, 13).unwrap()));
    }
}

/// candle and diffusers-rs divide whole numbers: their betas are 0 everywhere and 0.999 at the end.
#[test]
fn the_cosine_betas_are_those_of_a_cosine() {
    let schedule = DiscreteSchedule::squaredcos_cap_v2(1000).unwrap();
    let cosine = |t: f64| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    for (step, got) in schedule.alpha_bars().enumerate().take(999) {
        let expected = cosine((step + 1) as f64 / 1000.0) / cosine(0.0);
        assert!((got - expected).abs() < 1e-12, "{step}: {got}, expected {expected}");
    }
}
