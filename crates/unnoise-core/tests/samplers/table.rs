//! What samplers share with each other, and every sampler on every grid of every schedule.

use std::{collections::BTreeSet, sync::Arc};

use ndarray::{Axis, Slice};
use unnoise_core::{
    Batch, Ddim, Ddpm, Denoiser, DpmSinglestep, DpmSolver, Edm, Euler, FlowEuler, Grid, GridKind, Heun, Kdpm2, Level, Oracle,
    RectifiedFlowSchedule, SAMPLERS, Sampler, Schedule, Streams, Variance, VeSchedule, start_noise,
};

use super::{CALM, Mode, SHAPE, gaussian, grids::kinds, mixture, modes, run, schedules, vp};

/// Every sampler that draws has a mode, so that none escapes what is asserted of all of them.
#[test]
fn every_sampler_has_a_mode() {
    let names: BTreeSet<&str> = modes().iter().map(|mode| mode.sampler.name()).collect();
    let drawing: BTreeSet<&str> = SAMPLERS.iter().filter(|info| info.draws()).map(|info| info.name).collect();
    assert_eq!(names, drawing);
}

/// Pairs that are one algorithm, on every grid of every schedule, on a mixture, with the same noise.
#[test]
fn equivalent_samplers_agree() {
    type Pair = (&'static str, Box<dyn Sampler>, Box<dyn Sampler>);
    let mut pairs: [Pair; 6] = [
        ("ddim with eta 0 is euler", Box::new(Ddim { eta: 0.0, clip: None }), Box::new(Euler)),
        (
            "ddim with eta 1 is ddpm with the small variance",
            Box::new(Ddim { eta: 1.0, clip: None }),
            Box::new(Ddpm { variance: Variance::FixedSmall, clip: None }),
        ),
        ("edm without churn is heun", Box::new(Edm { churn: CALM }), Box::new(Heun::default())),
        ("dpm-solver-1 is ddim with eta 0", Box::new(DpmSolver::First), Box::new(Ddim::default())),
        ("dpm-solver++ of order 1 is ddim with eta 0", Box::new(DpmSinglestep::new(1, false)), Box::new(Ddim::default())),
        ("dpm-solver-2 is kdpm2", Box::new(DpmSolver::Second), Box::new(Kdpm2)),
    ];
    let mut grids = 0;
    for (schedule_name, schedule) in schedules() {
        let denoiser = Oracle::new(mixture(), schedule.clone());
        for kind in kinds() {
            let steps = if let GridKind::Times(list) | GridKind::Sigmas(list) = &kind { list.len() } else { 20 };
            // Which schedules refuse which kinds is asserted in `grids`.
            let Ok(grid) = kind.grid(&*schedule, steps) else { continue };
            grids += 1;
            let mut streams = Streams::new(3, 0..8);
            let x = start_noise(&grid, &mut streams, 8, SHAPE);
            for (name, one, other) in &mut pairs {
                let a = run(one.as_mut(), &denoiser, &grid, x.clone(), &mut streams);
                let b = run(other.as_mut(), &denoiser, &grid, x.clone(), &mut streams);
                let off = largest(&(a - &b));
                assert!(off < 1e-9 * largest(&b).max(1.0), "{name} on {schedule_name}, {kind}: {off:.1e}");
            }
        }
    }
    // Lists and grids in t everywhere, training steps on 7 tables, steps in sigma / alpha on the 10 schedules that start with signal.
    assert_eq!(grids, 18 * 5 + 7 * 3 + 10 * 5);
}

/// DDIM with eta 0 is exponential Euler in `lambda = log(alpha / sigma)`, and Euler on `x / alpha` over `sigma / alpha`.
#[test]
fn ddim_is_euler_in_two_coordinates() {
    for (schedule_name, schedule) in schedules() {
        let denoiser = Oracle::new(mixture(), schedule.clone());
        // Without the ends, where either coordinate is infinite.
        let levels: Vec<Level> = (1..20).rev().map(|i| Level::at(&*schedule, f64::from(i) / 20.0)).collect();
        let grid = Grid::through(&levels);
        let start = start_noise(&grid, &mut Streams::new(3, 0..8), 8, SHAPE);
        let ddim = run(&mut Ddim::default(), &denoiser, &grid, start.clone(), &mut Streams::new(3, 0..8));

        let (mut exponential, mut u) = (start.clone(), start / levels[0].alpha);
        for step in &grid.steps {
            let (from, to) = (step.from, step.to);
            let h = (to.alpha / to.sigma).ln() - (from.alpha / from.sigma).ln();
            let x0 = denoiser.x0_hat(&exponential, from).unwrap();
            exponential = exponential * (to.sigma / from.sigma) - x0 * (to.alpha * (-h).exp_m1());
            let x0 = denoiser.x0_hat(&(&u * from.alpha), from).unwrap();
            u = &u + (&u - &x0) / from.sigma_edm() * (to.sigma_edm() - from.sigma_edm());
        }
        assert!(largest(&(exponential - &ddim)) < 1e-12, "{schedule_name}");
        assert!(largest(&(u * levels[18].alpha - &ddim)) < 1e-12, "{schedule_name}");
    }
}

/// On the straight path Euler in the schedule's time is DDIM with eta 0, from the start without signal to the clean image.
#[test]
fn flow_euler_is_ddim_on_the_straight_path() {
    let denoiser = Oracle::new(mixture(), Arc::new(RectifiedFlowSchedule));
    let grid = Grid::uniform(denoiser.schedule(), 20).unwrap();
    let x = start_noise(&grid, &mut Streams::new(3, 0..8), 8, SHAPE);
    let end = |sampler: &mut dyn Sampler| run(sampler, &denoiser, &grid, x.clone(), &mut Streams::new(3, 0..8));
    assert!(largest(&(end(&mut FlowEuler) - end(&mut Ddim::default()))) < 1e-12);
}

/// What is deterministic gives the same `x / alpha` at the same `sigma / alpha`, whether it keeps the variance or lets it explode: all but
/// the flow's samplers and deis-t, whose coordinate is the schedule's time, and pndm, whose first steps halve it.
#[test]
fn deterministic_samplers_agree_on_vp_and_ve() {
    let ve: Arc<dyn Schedule> = Arc::new(VeSchedule::new(0.01, 50.0).unwrap());
    let grid = |schedule: &dyn Schedule| {
        let sigma_edm = |i: i32| 40.0 * (0.02f64 / 40.0).powf(f64::from(i) / 20.0);
        Grid::through(&(0..=20).map(|i| Level::at_sigma_edm(schedule, sigma_edm(i))).collect::<Vec<_>>())
    };
    let in_time = |name: &str| name.starts_with("flow") || matches!(name, "deis-t" | "pndm");
    for Mode { name, mut sampler, .. } in modes().into_iter().filter(|mode| mode.is_deterministic() && !in_time(mode.name)) {
        let mut end = |schedule: &Arc<dyn Schedule>| {
            let grid = grid(&**schedule);
            let last = grid.steps[19].to;
            let mut streams = Streams::new(6, 0..8);
            let x = start_noise(&grid, &mut streams, 8, SHAPE);
            run(sampler.as_mut(), &Oracle::new(mixture(), Arc::clone(schedule)), &grid, x, &mut streams) / last.alpha
        };
        let off = largest(&(end(&vp()) - end(&ve)));
        assert!(off < 1e-9, "{name}: {off:.1e}");
    }
}

fn largest(batch: &Batch) -> f64 {
    batch.iter().fold(0.0, |most: f64, v| most.max(v.abs()))
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
        for Mode { name, mut sampler, .. } in modes().into_iter().filter(|mode| mode.sampler.check(&grid).is_ok()) {
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
