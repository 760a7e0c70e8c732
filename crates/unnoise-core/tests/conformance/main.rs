//! The numbers that diffusers' own tests pin, reproduced by our samplers on our grids, in double precision, to upstream's tolerances.
//!
//! `tools/fixtures/diffusers_conformance.py` names their source. The loops are upstream's, misuses included, and live in
//! `unnoise-testing`; `docs/deviations.md` says where upstream is wrong.

mod deviations;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use unnoise_core::{
    Batch, EdmSchedule, Grid, Interval, Level, Prediction, Result, SchedulerConfig, VeSchedule, VpSchedule, sampler_by_name,
};
use unnoise_testing::{
    Convention, Dummy, EdmDummy, EveryStep, IpndmDummy, Pin, Pins, RoundedBeta, SIDES, ScoreDummy, Thresholded, TorchGenerator,
    batch_step, batch_wide, inverted, noised, plain, plain_from, rest, retimed, rounded, scaled, scaled_from, start, twice,
};

/// What becomes of a scheduler's cases.
enum Fate {
    /// Reproduced by the sampler of this name.
    By(&'static str),
    /// Not reproduced, and why.
    Not(&'static str),
}
use Fate::{By, Not};

const DISTILLED: &str = "steps of a distilled consistency model, whose output is no posterior mean";

/// Every scheduler with pinned loops, how many, and what becomes of them.
const SCHEDULERS: [(&str, usize, Fate); 27] = [
    ("DDPMScheduler", 3, By("ddpm")),
    ("DDPMParallelScheduler", 4, By("ddpm")),
    ("DDIMScheduler", 5, By("ddim")),
    ("DDIMParallelScheduler", 6, By("ddim")),
    ("DDIMInverseScheduler", 4, By("ddim-inverse")),
    ("PNDMScheduler", 4, By("pndm")),
    ("IPNDMScheduler", 1, By("ipndm")),
    ("DPMSolverMultistepScheduler", 6, By("dpmpp-2m")),
    ("DPMSolverMultistepInverseScheduler", 4, By("dpmpp-2m")),
    ("DPMSolverSinglestepScheduler", 6, By("dpmpp-2s")),
    ("UniPCMultistepScheduler", 10, By("unipc")),
    ("DEISMultistepScheduler", 3, By("deis")),
    ("EulerDiscreteScheduler", 4, By("euler")),
    ("EulerAncestralDiscreteScheduler", 3, By("euler-a")),
    ("HeunDiscreteScheduler", 4, By("heun")),
    ("LMSDiscreteScheduler", 4, By("lms")),
    ("KDPM2DiscreteScheduler", 3, By("kdpm2")),
    ("KDPM2AncestralDiscreteScheduler", 3, By("kdpm2-a")),
    ("EDMEulerScheduler", 1, By("euler")),
    ("EDMDPMSolverMultistepScheduler", 4, By("dpmpp-2m")),
    ("SASolverScheduler", 3, By("sa-solver")),
    ("ScoreSdeVeScheduler", 1, By("pc")),
    ("LCMScheduler", 2, Not(DISTILLED)),
    ("TCDScheduler", 2, Not(DISTILLED)),
    ("CMStochasticIterativeScheduler", 3, Not(DISTILLED)),
    ("UnCLIPScheduler", 2, By("ddpm")),
    ("DPMSolverSDEScheduler", 4, Not("its noise is torchsde's Brownian tree")),
];

/// Cases of those schedulers that are not reproduced all the same.
const EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "PNDMScheduler",
    "test_full_loop_with_v_prediction",
    "upstream extrapolates v and takes it for the noise of the first level",
)];

/// The training steps of which SA-Solver's timesteps 200 and 800 are.
const SA_STEPS: usize = 1000;

fn fate(pin: &Pin) -> &'static Fate {
    let row = SCHEDULERS.iter().find(|row| row.0 == pin.scheduler);
    &row.unwrap_or_else(|| panic!("{} is not in the table", pin.scheduler)).2
}

fn is_exception(pin: &Pin) -> bool {
    EXCEPTIONS.iter().any(|(scheduler, test, _)| *scheduler == pin.scheduler && *test == pin.test)
}

fn pins() -> Pins {
    Pins::read(include_str!("../fixtures/diffusers_conformance.json"))
}

#[test]
fn reproduces_what_upstream_pins() {
    let (mut counts, mut failures, mut reproduced) = (BTreeMap::<String, usize>::new(), Vec::new(), 0);
    for pin in pins().cases {
        *counts.entry(pin.scheduler.clone()).or_default() += 1;
        let label = format!("{} {}", pin.scheduler, pin.test);
        let name = match fate(&pin) {
            By(name) => name,
            Not(why) => {
                println!("{label}: not reproduced, {why}");
                continue;
            }
        };
        match (run(&pin, name).map(|x| pin.deviation(&x)), is_exception(&pin)) {
            (Ok(deviation), false) if deviation <= 1.0 => {
                println!("{label}: {deviation:.2} of the tolerance");
                reproduced += 1;
            }
            (Ok(deviation), true) if deviation > 10.0 => {
                println!("{label}: not reproduced, {deviation:.0} times the tolerance off")
            }
            (other, _) => failures.push(format!("{label} {}: {other:?} of the tolerance", pin.config)),
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(counts, SCHEDULERS.iter().map(|(name, count, _)| ((*name).to_owned(), *count)).collect());
    assert_eq!(reproduced, 87);
}

/// The loop of `pin`, by our sampler `name`.
fn run(pin: &Pin, name: &str) -> Result<Batch> {
    if pin.scheduler.starts_with("EDM") {
        return run_edm(pin, name);
    }
    if pin.kind == "sdeve" {
        return run_sde_ve(pin);
    }
    if pin.kind == "ipndm" {
        let grid = twice(&IpndmDummy::grid(pin.num_inference_steps.expect("a number of steps")));
        let mut sampler = sampler_by_name(name, &Default::default())?;
        return plain(
            sampler.as_mut(),
            &IpndmDummy(Arc::new(VpSchedule::default())),
            &grid,
            start(&grid, SIDES),
            &mut TorchGenerator::new(0),
        );
    }
    let config = config(pin);
    let (mut schedule, steps) = (Arc::new(config.discrete_schedule()?), config.train_steps());
    if name == "kdpm2-a" {
        schedule = Arc::new(rounded(&schedule)?);
    }
    // SA-Solver's `scale_model_input` does nothing.
    let scales = pin.kind.starts_with("kscaled") && pin.scheduler != "SASolverScheduler";
    let convention = if scales { Convention::Scaled } else { Convention::Plain };
    let dummy = Dummy::new(schedule.clone(), steps, prediction(&config), convention);
    let mut sampler = config.sampler(name, None, true)?;
    if pin.kind == "batch_step" {
        let levels = [0, 1, 2].map(|step| Level::at(&*schedule, schedule.time(step)));
        // DDPM goes down by one timestep, DDIM by more than there are.
        let to = |step: usize| if name == "ddpm" && step > 0 { levels[step - 1] } else { Level::CLEAN };
        let steps = [0, 1, 2].map(|step| Interval { from: levels[step], to: to(step) });
        return batch_step(sampler.as_mut(), &dummy, steps);
    }

    let mut grid = config.grid(name, None, pin.num_inference_steps.filter(|_| pin.kind != "ddpm_noise").unwrap_or(steps))?;
    if pin.scheduler == "DPMSolverMultistepInverseScheduler" {
        grid = inverted(&grid);
    }
    if pin.scheduler == "DDIMInverseScheduler" {
        grid.start = 1.0;
    }
    let first = match pin.kind.as_str() {
        "ddpm_noise" | "kscaled_noise" => grid.steps.len() - 2,
        _ => pin.loop_params.t_start.or(pin.loop_params.skip).unwrap_or(0),
    };
    let sides = pin.loop_params.sides();
    // The loop `kscaled_noise` takes the state x / alpha that a run starts from for an image.
    let gain = if scales { grid.start / grid.steps[0].from.alpha } else { 1.0 };
    let x = if pin.kind.ends_with("noise") { noised(&grid, first, gain, sides) } else { start(&grid, sides) };
    let noise = &mut TorchGenerator::new(0);
    if name == "lms" {
        return scaled_from(first, sampler.as_mut(), &dummy, &grid, x, noise);
    }
    if name == "dpmpp-2s" {
        return plain_from(first, sampler.as_mut(), &dummy, &grid, x, noise);
    }
    let grid = rest(&grid, first);
    if name == "sa-solver" {
        // Stochastic between timesteps 200 and 800 of any number, which ours is of 1000.
        let dummy = Dummy::new(schedule, SA_STEPS, prediction(&config), Convention::Plain);
        let grid = retimed(&grid, steps as f64 / SA_STEPS as f64);
        return plain(sampler.as_mut(), &dummy, &grid, x, &mut EveryStep::new(0));
    }
    match thresholds(pin) {
        None if matches!(pin.kind.as_str(), "unclip" | "ddpm_noise") => {
            let rounded = match pin.kind.as_str() {
                "unclip" => RoundedBeta::unclip(dummy, 1.0, &schedule, pin.num_inference_steps.is_some()),
                _ => RoundedBeta::ddpm(dummy, 1.0, &schedule),
            };
            plain(config.sampler(name, None, false)?.as_mut(), &rounded, &grid, x, noise)
        }
        Some([ratio, most]) => plain(sampler.as_mut(), &Thresholded { inner: dummy, ratio, most }, &grid, x, noise),
        None if scales => scaled(sampler.as_mut(), &dummy, &grid, x, noise),
        None => plain(sampler.as_mut(), &dummy, &grid, x, noise),
    }
}

/// The loop of the predictor-corrector `pc` on the VE SDE, with norms of the whole batch.
fn run_sde_ve(pin: &Pin) -> Result<Batch> {
    let number = |key: &str| pin.config[key].as_f64().expect("a number");
    let dummy = ScoreDummy(VeSchedule::new(number("sigma_min"), number("sigma_max"))?);
    let steps = pin.num_inference_steps.expect("a number of steps");
    let grid = dummy.grid(steps, number("num_train_timesteps") as usize, number("sampling_eps"));
    batch_wide(number("snr"), &dummy, &grid, start(&grid, SIDES), &mut TorchGenerator::new(0))
}

/// The loops on EDM's own schedule.
fn run_edm(pin: &Pin, name: &str) -> Result<Batch> {
    let number = |key: &str| pin.config[key].as_f64();
    let (sigma_min, sigma_max) = (number("sigma_min").expect("a number"), number("sigma_max").expect("a number"));
    let schedule = Arc::new(EdmSchedule::new(sigma_min, sigma_max, 7.0)?);
    let mut grid = Grid::karras(&*schedule, pin.num_inference_steps.expect("a number of steps"))?;
    if pin.config["final_sigmas_type"] == "sigma_min" {
        // The last step has no length.
        let last = grid.steps.last_mut().expect("a step");
        last.to = last.from;
    }
    let dummy = EdmDummy {
        schedule,
        sigma_data: 0.5,
        sign: if pin.config["prediction_type"] == "v_prediction" { -1.0 } else { 1.0 },
        scales_input: pin.kind == "edm",
    };
    let sides = pin.loop_params.sides();
    // The loop `edm` starts as pipelines do, the others from a batch that is not scaled.
    grid.start = if pin.kind == "edm" { sigma_max.hypot(1.0) } else { 1.0 };
    let first = pin.loop_params.t_start.unwrap_or(0);
    let x = if pin.kind == "plain_noise" { noised(&grid, first, 1.0, sides) } else { start(&grid, sides) };
    let (grid, noise) = (rest(&grid, first), &mut TorchGenerator::new(0));
    let mut sampler = sampler_by_name(name, &Default::default())?;
    match thresholds(pin) {
        Some([ratio, most]) => plain(sampler.as_mut(), &Thresholded { inner: dummy, ratio, most }, &grid, x, noise),
        None => plain(sampler.as_mut(), &dummy, &grid, x, noise),
    }
}

/// The scheduler's configuration, as the class of our sampler reads it.
fn config(pin: &Pin) -> SchedulerConfig {
    let mut config = SchedulerConfig::from_json(&pin.config.to_string()).expect("a configuration of diffusers");
    // The denoiser limits the images.
    config.thresholding = None;
    if pin.scheduler == "UnCLIPScheduler" {
        // It has no keys for these.
        config.beta_schedule = Some("squaredcos_cap_v2".into());
        config.timestep_spacing = Some("linspace".into());
    }
    if pin.scheduler == "DPMSolverMultistepInverseScheduler" {
        // It starts where the other direction ends so.
        config.final_sigmas_type = Some("sigma_min".into());
    }
    config
}

fn prediction(config: &SchedulerConfig) -> Prediction {
    if config.prediction_type.as_deref() == Some("v_prediction") { Prediction::V } else { Prediction::Eps }
}

/// `dynamic_thresholding_ratio` and `sample_max_value`, where upstream's scheduler limits the clean images with them.
fn thresholds(pin: &Pin) -> Option<[f64; 2]> {
    let number = |key: &str| pin.config[key].as_f64();
    let numbers = number("dynamic_thresholding_ratio").zip(number("sample_max_value")).map(|(ratio, most)| [ratio, most]);
    numbers.filter(|_| pin.config["thresholding"] == true)
}
