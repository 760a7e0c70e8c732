//! What samplers share with each other, and every sampler on every grid of every schedule.

use std::{collections::BTreeSet, sync::Arc};

use ndarray::{Axis, Slice};
use unnoise_core::{
    Batch, Ddim, Ddpm, Denoiser, DpmSinglestep, DpmSolver, Edm, Error, Euler, FlowEuler, Grid, GridKind, Heun, Interval, Kdpm2,
    Level, Oracle, RectifiedFlowSchedule, SAMPLERS, Sampler, SamplerInfo, SamplerOptions, Schedule, SchedulerConfig, Spacing,
    Streams, Variance, VeSchedule, sampler_by_name, start_noise,
};

use super::{CALM, Mode, SHAPE, gaussian, mixture, modes, print_table, run, schedules, vp};

/// Pairs that are one algorithm, on a mixture, with the same noise.
#[test]
fn equivalent_samplers_agree() {
    type Pair = (&'static str, Box<dyn Sampler>, Box<dyn Sampler>);
    let pairs: [Pair; 6] = [
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
    for (name, mut one, mut other) in pairs {
        for (schedule_name, schedule) in schedules() {
            let denoiser = Oracle::new(mixture(), schedule.clone());
            let grid = Grid::uniform(&*schedule, 20).unwrap();
            let mut streams = Streams::new(3, 0..8);
            let x = start_noise(&grid, &mut streams, 8, SHAPE);
            let a = run(one.as_mut(), &denoiser, &grid, x.clone(), &mut streams);
            let b = run(other.as_mut(), &denoiser, &grid, x, &mut streams);
            let off = largest(&(a - b));
            assert!(off < 1e-9, "{name} on {schedule_name}: {off:.1e}");
        }
    }
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

/// The grids of each kind, and one of each list.
fn grids() -> impl Iterator<Item = GridKind> {
    GridKind::ALL.into_iter().chain([GridKind::Times(vec![0.95, 0.5, 0.01]), GridKind::Sigmas(vec![5.0, 1.0, 0.1])])
}

/// Every sampler on every native grid of every schedule: it starts at the level promised, no step leaves the schedule or rises in noise,
/// it ends clean and finite, and where the steps are of even size in noise, near the prior; or it is refused, with a reason and with
/// what works instead.
#[test]
fn every_sampler_serves_every_native_grid() {
    let (mut served, mut refused) = (0, 0);
    // The schedules' columns: what each grid says to them.
    let mut columns: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for (schedule_name, schedule) in schedules() {
        let cell = |kind: GridKind| {
            let steps = if let GridKind::Times(list) | GridKind::Sigmas(list) = &kind { vec![list.len()] } else { vec![1, 2, 15] };
            let mut refusing = BTreeSet::new();
            for n in steps {
                let what = format!("{kind} on {schedule_name}, {n} steps");
                let grid = match kind.grid(&*schedule, n) {
                    Ok(grid) => grid,
                    Err(error) => {
                        assert_is_refusal(&error, &what);
                        return (None, SAMPLERS.len());
                    }
                };
                assert_is_sound(&grid, &kind, &*schedule, &what);
                let even = n > 10 && matches!(kind.name(), "karras" | "exponential" | "log-snr" | "lu" | "poly-exponential");
                let options = SamplerOptions::default();
                let make = |name: &str| sampler_by_name(name, &options).unwrap();
                refusing.extend(walk(&what, &grid, schedule.clone(), even, make));
            }
            let count = refusing.len();
            (Some(refusing), count)
        };
        let column: Vec<_> = grids().map(cell).collect();
        refused += column.iter().map(|(_, refusing)| refusing).sum::<usize>();
        served += column.iter().map(|(_, refusing)| SAMPLERS.len() - refusing).sum::<usize>();
        let words = column.into_iter().map(|(refusing, _)| match refusing {
            None => "refused".into(),
            Some(names) if names.is_empty() => "all".into(),
            Some(names) => format!("all but {}", names.into_iter().collect::<Vec<_>>().join(", ")),
        });
        let words: Vec<String> = words.collect();
        match columns.iter_mut().find(|(_, same)| *same == words) {
            Some((names, _)) => names.push(schedule_name),
            None => columns.push((vec![schedule_name], words)),
        }
    }
    let header: Vec<String> = columns.iter().map(|(names, _)| names.join(", ")).collect();
    let header: Vec<&str> = ["grid"].into_iter().chain(header.iter().map(String::as_str)).collect();
    let row = |(index, kind): (usize, GridKind)| {
        [kind.name().to_owned()].into_iter().chain(columns.iter().map(move |(_, cells)| cells[index].clone()))
    };
    let rows: Vec<Vec<String>> = grids().enumerate().map(|pair| row(pair).collect()).collect();
    print_table(&format!("Samplers by grid and schedule: {served} served, {refused} refused"), &header, &rows);
    assert!(served > 1000 && refused > 100, "{served} served, {refused} refused");
}

/// A typed error with what is possible instead.
fn assert_is_refusal(error: &Error, what: &str) {
    assert!(matches!(error, Error::Unsupported { possible, .. } if !possible.is_empty()), "{what}: {error}");
}

/// The grid starts where it promises, goes through levels of the schedule that fall in noise, without a gap, and ends clean.
fn assert_is_sound(grid: &Grid, kind: &GridKind, schedule: &dyn Schedule, what: &str) {
    let n = grid.steps.len();
    let first = match kind {
        GridKind::Leading => Level::at(schedule, (1000 / n * (n - 1) + 1) as f64 / 1000.0),
        GridKind::Times(times) => Level::at(schedule, times[0]),
        GridKind::Sigmas(sigmas) => Level::at(schedule, schedule.t_from_sigma_edm(sigmas[0])),
        _ => Level::at(schedule, 1.0),
    };
    assert_eq!((grid.steps[0].from, grid.start), (first, first.sigma), "{what}");
    for (index, step) in grid.steps.iter().enumerate() {
        let Interval { from, to } = *step;
        assert_eq!(from, Level::at(schedule, from.t), "{what}, step {index}");
        assert!((0.0..=1.0).contains(&from.t) && from.sigma > 0.0 && step.ratio() < 1.0, "{what}, step {index}: {step:?}");
        assert_eq!(to, grid.steps.get(index + 1).map_or(Level::CLEAN, |next| next.from), "{what}, step {index}");
    }
}

/// diffusers' grids, the extensions included.
#[test]
fn every_sampler_serves_every_diffusers_grid() {
    for zero_snr in [false, true] {
        let config = SchedulerConfig { rescale_betas_zero_snr: Some(zero_snr), ..Default::default() };
        let schedule: Arc<dyn Schedule> = config.schedule().unwrap();
        for SamplerInfo { name, .. } in SAMPLERS {
            for spacing in Spacing::ALL {
                let what = format!("{name} on {}, zero SNR {zero_snr}", spacing.name());
                let grid = match config.grid(name, Some(spacing), 20) {
                    // The inverse's leads up.
                    Ok(grid) if *name == "ddim-inverse" => grid.reversed(),
                    Ok(grid) => grid,
                    Err(Error::Unsupported { .. }) => {
                        let chooses_levels = !spacing_is_of_timesteps(spacing);
                        assert!(zero_snr && chooses_levels && matches!(*name, "ddpm" | "ddim" | "ddim-inverse"), "{what}");
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
                walk(&what, &grid, schedule.clone(), spacing == Spacing::Karras, |_| config.sampler(name, None, true).unwrap());
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
/// more than a few. (Heun overshoots, as it must, in a step that divides sigma / alpha by thousands.) Returns those that refuse the grid.
fn walk(
    what: &str,
    grid: &Grid,
    schedule: Arc<dyn Schedule>,
    fine: bool,
    make: impl Fn(&str) -> Box<dyn Sampler>,
) -> Vec<&'static str> {
    let denoiser = Oracle::new(gaussian(), schedule);
    let limit = if fine { 5.0 } else { f64::MAX };
    let mut refusing = Vec::new();
    for SamplerInfo { name, .. } in SAMPLERS {
        let (mut sampler, mut streams) = (make(name), Streams::new(4, 0..4));
        if let Err(error) = sampler.check(grid) {
            assert_is_refusal(&error, &format!("{name}, {what}"));
            refusing.push(*name);
            continue;
        }
        let x = start_noise(grid, &mut streams, 4, SHAPE);
        let drawn = run(sampler.as_mut(), &denoiser, grid, x, &mut streams);
        // The corrector's steps are inverse to the score's square, which in three dimensions is small often enough to throw a sample far.
        // SA-Solver's second order grows like the square of the step in log noise; Euler-Maruyama is explicit in t, and stable only where
        // g^2 dt is below 2 sigma^2.
        let limit = match *name {
            "pc" | "pc-ancestral" | "euler-maruyama" => f64::MAX,
            "sa-solver" => 4.0 * limit,
            _ => limit,
        };
        assert!(drawn.iter().all(|v| v.abs() < limit), "{name}, {what}: {drawn}");
    }
    refusing
}
