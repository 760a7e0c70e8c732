//! What samplers share with each other, and every sampler on every grid of every schedule.

use ndarray::{Axis, Slice};
use unnoise_core::{
    Ddim, Ddpm, Edm, Error, Euler, Grid, Heun, Level, Oracle, SAMPLERS, Sampler, SamplerInfo, SamplerOptions, SchedulerConfig,
    Spacing, Streams, Variance, sampler_by_name, start_noise,
};

use super::{CALM, Mode, SHAPE, gaussian, mixture, modes, run, schedules, vp};

/// Pairs that are one algorithm, on a mixture, with the same noise.
#[test]
fn equivalent_samplers_agree() {
    type Pair = (&'static str, Box<dyn Sampler>, Box<dyn Sampler>);
    let pairs: [Pair; 3] = [
        ("ddim with eta 0 is euler", Box::new(Ddim { eta: 0.0, clip: None }), Box::new(Euler)),
        (
            "ddim with eta 1 is ddpm with the small variance",
            Box::new(Ddim { eta: 1.0, clip: None }),
            Box::new(Ddpm { variance: Variance::FixedSmall, clip: None }),
        ),
        ("edm without churn is heun", Box::new(Edm { churn: CALM }), Box::new(Heun::default())),
    ];
    for (name, mut one, mut other) in pairs {
        for (schedule_name, schedule) in schedules() {
            let denoiser = Oracle::new(mixture(), schedule.clone());
            let grid = Grid::uniform(&*schedule, 20).unwrap();
            let mut streams = Streams::new(3, 0..8);
            let x = start_noise(&grid, &mut streams, 8, SHAPE);
            let a = run(one.as_mut(), &denoiser, &grid, x.clone(), &mut streams);
            let b = run(other.as_mut(), &denoiser, &grid, x, &mut streams);
            let off = (a - b).iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            assert!(off < 1e-9, "{name} on {schedule_name}: {off:.1e}");
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let denoiser = Oracle::new(gaussian(), vp());
    let grid = Grid::karras(&*vp(), 10).unwrap();
    for Mode { name, mut sampler, .. } in modes() {
        let mut draw = |mut streams: Streams| {
            let n = streams.len();
            let x = start_noise(&grid, &mut streams, n, SHAPE);
            run(sampler.as_mut(), &denoiser, &grid, x, &mut streams)
        };
        let all = draw(Streams::new(9, 0..64));
        let alone = draw(Streams::new(9, 7..8));
        assert_eq!(all.slice_axis(Axis(0), Slice::from(7..8)), alone, "{name}");
    }
}

/// A run uses as many evaluations as the sampler announces.
#[test]
fn evaluations_are_as_announced() {
    for (schedule_name, schedule) in schedules() {
        let grid = Grid::uniform(&*schedule, 9).unwrap();
        for Mode { name, mut sampler, .. } in modes() {
            let counted = unnoise_core::Counted::new(Oracle::new(gaussian(), schedule.clone()));
            let mut streams = Streams::new(1, 0..2);
            let x = start_noise(&grid, &mut streams, 2, SHAPE);
            run(sampler.as_mut(), &counted, &grid, x, &mut streams);
            if let Some(announced) = sampler.evaluations(&grid) {
                assert_eq!(counted.evaluations().forward, 2 * announced as u64, "{name} on {schedule_name}");
            }
        }
    }
}

/// Native grids: from the schedule's noisy end to the clean image, with a result near the prior.
#[test]
fn every_sampler_serves_every_native_grid() {
    type Make = fn(&dyn unnoise_core::Schedule, usize) -> unnoise_core::Result<Grid>;
    let makers: [(&str, Make); 3] = [("uniform", Grid::uniform), ("karras", Grid::karras), ("log-snr", Grid::log_snr)];
    for (schedule_name, schedule) in schedules() {
        let starts_without_signal = schedule.scales(1.0).alpha <= 0.0;
        for (grid_name, make) in makers {
            for steps in [1, 2, 15] {
                let grid = match make(&*schedule, steps) {
                    Ok(grid) => grid,
                    Err(Error::Unsupported { possible, .. }) => {
                        assert!(starts_without_signal && grid_name != "uniform", "{grid_name} on {schedule_name}");
                        assert_eq!(possible, ["uniform"]);
                        continue;
                    }
                    Err(other) => panic!("{grid_name} on {schedule_name}: {other}"),
                };
                assert_eq!(grid.steps[0].from, Level::at(&*schedule, 1.0));
                assert!(grid.ends_clean() && grid.steps.len() == steps);
                walk(
                    &format!("{grid_name} on {schedule_name}, {steps} steps"),
                    &grid,
                    grid_name != "uniform" && steps > 10,
                    |name| sampler_by_name(name, &SamplerOptions::default()).unwrap(),
                );
            }
        }
    }
}

/// diffusers' grids, the extensions included.
#[test]
fn every_sampler_serves_every_diffusers_grid() {
    for zero_snr in [false, true] {
        let config = SchedulerConfig { rescale_betas_zero_snr: Some(zero_snr), ..Default::default() };
        for SamplerInfo { name, .. } in SAMPLERS {
            for spacing in Spacing::ALL {
                let what = format!("{name} on {}, zero SNR {zero_snr}", spacing.name());
                let grid = match config.grid(name, Some(spacing), 20) {
                    Ok(grid) => grid,
                    Err(Error::Unsupported { .. }) => {
                        let chooses_levels = !spacing_is_of_timesteps(spacing);
                        assert!(zero_snr && chooses_levels && matches!(*name, "ddpm" | "ddim"), "{what}");
                        continue;
                    }
                    Err(other) => panic!("{what}: {other}"),
                };
                let first = grid.steps[0].from;
                let expected = match (spacing, *name) {
                    (Spacing::Leading, _) if plans_one_more(name) => 941.0,
                    (Spacing::Leading, _) => 951.0,
                    // diffusers cuts the last sigma to 4096, below its neighbours', which confuses its search for the timestep.
                    (Spacing::Karras | Spacing::Exponential | Spacing::Lu, _) if zero_snr => first.t * 1000.0,
                    _ => 1000.0,
                };
                assert!((first.t * 1000.0 - expected).abs() < 1e-3, "{what} starts at {first:?}");
                // Those that diffusers leaves at its last noise level.
                let stays_noisy =
                    matches!(*name, "pndm" | "plms") && spacing_is_of_timesteps(spacing) || matches!(*name, "deis" | "sa-solver");
                assert!(grid.ends_clean() != stays_noisy, "{what}");
                assert!(grid.steps.last().unwrap().to.sigma_edm() < 0.0101, "{what}");
                walk(&what, &grid, spacing == Spacing::Karras, |_| config.sampler(name, None, true).unwrap());
            }
        }
    }
}

fn plans_one_more(sampler: &str) -> bool {
    ["dpm-solver-", "dpmpp-", "deis", "unipc", "sa-solver"].iter().any(|family| sampler.starts_with(family))
        && !matches!(sampler, "deis-t" | "dpm-solver-1" | "dpm-solver-2" | "dpm-solver-3" | "dpmpp-sde" | "dpmpp-2s-a")
}

fn spacing_is_of_timesteps(spacing: Spacing) -> bool {
    matches!(spacing, Spacing::Leading | Spacing::Linspace | Spacing::Trailing)
}

/// Runs samplers over the grid; what they draw must be finite, and of the prior's size where `fine`: steps of even size in noise,
/// more than a few. (Heun overshoots, as it must, in a step that divides sigma / alpha by thousands.)
fn walk(what: &str, grid: &Grid, fine: bool, make: impl Fn(&str) -> Box<dyn Sampler>) {
    let denoiser = Oracle::new(gaussian(), vp());
    let limit = if fine { 5.0 } else { f64::MAX };
    for SamplerInfo { name, .. } in SAMPLERS {
        let mut streams = Streams::new(4, 0..4);
        let x = start_noise(grid, &mut streams, 4, SHAPE);
        let drawn = run(make(name).as_mut(), &denoiser, grid, x, &mut streams);
        assert!(drawn.iter().all(|v| v.abs() < limit), "{name}, {what}: {drawn}");
    }
}
