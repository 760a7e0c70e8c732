//! First and last steps: every sampler on every grid of every schedule, and with every option.
//!
//! Which of them are served is derived here from a few facts and compared with what the code does, and with the lists of `docs/schedules.md`.

use std::{collections::BTreeSet, sync::Arc};

use ndarray::{Array4, Axis, s};
use unnoise_core::{
    Batch, Denoiser, Error, Grid, GridKind, Interval, Level, Linearized, Oracle, Result, SAMPLERS, Sampler, SamplerInfo,
    SamplerOptions, Schedule, SchedulerConfig, Spacing, Streams, sample, sampler_by_name, start_noise,
};

use super::{SHAPE, gaussian, schedules};

const DOCS: &str = include_str!("../../../../docs/schedules.md");

/// The grids of each kind, and one of each list.
pub(super) fn kinds() -> impl Iterator<Item = GridKind> {
    GridKind::ALL.into_iter().chain([GridKind::Times(vec![0.95, 0.5, 0.01]), GridKind::Sigmas(vec![5.0, 1.0, 0.1])])
}

/// What decides which grids a schedule has: whether it is a table, whose steps are then 1000, and whether it starts with signal.
#[derive(Clone, Copy)]
struct Facts {
    is_table: bool,
    has_signal: bool,
}

impl Facts {
    fn of(schedule_name: &str) -> Self {
        let without_signal = ["cosine", "sigmoid", "laplace", "rectified flow", "polynomial", "trigonometric", "shifted flow"];
        let has_signal = schedule_name != "ddpm linear, zero SNR" && !without_signal.contains(&schedule_name);
        Self { is_table: schedule_name.starts_with("ddpm "), has_signal }
    }

    /// Training steps need a table, and steps in `sigma / alpha` a first one that is finite.
    fn have(self, kind: &GridKind) -> bool {
        match kind.name() {
            "leading" | "linspace" | "trailing" => self.is_table,
            "karras" | "exponential" | "poly-exponential" | "log-snr" | "lu" => self.has_signal,
            _ => true,
        }
    }

    /// The lists begin where there is signal, and so does `leading`, unless it has as many steps as the table.
    fn start_with_signal(self, kind: &GridKind, n: usize) -> bool {
        let begins_below = match kind {
            GridKind::Times(_) | GridKind::Sigmas(_) => true,
            GridKind::Leading => n < 1000,
            _ => false,
        };
        self.has_signal || begins_below
    }

    /// Whether a sampler serves a grid that the schedule has, from what `unnoise samplers` says of it.
    fn serve(self, info: &SamplerInfo, kind: &GridKind, n: usize) -> bool {
        match info.grids {
            "any" | "any, with levels of the denoiser's schedule" => true,
            "those that start with signal" => self.start_with_signal(kind, n),
            "reversed ones" => false,
            other => panic!("{}: grids '{other}' decide nothing", info.name),
        }
    }
}

#[test]
fn every_triple_is_served_or_refused_as_derived() {
    let mut failures = Vec::new();
    let (mut served, mut refused) = (0, 0);
    // Schedules with the same column share it.
    let mut columns: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for (schedule_name, schedule) in schedules() {
        let facts = Facts::of(schedule_name);
        let mut column = Vec::new();
        for kind in kinds() {
            let mut refusing = BTreeSet::new();
            for n in numbers_of_steps(&kind, facts) {
                let what = format!("{kind} on {schedule_name}, {n} steps");
                let grid = match (kind.grid(&*schedule, n), facts.have(&kind)) {
                    (Ok(grid), true) => grid,
                    (Err(error), false) => {
                        assert_is_refusal(&error, &what);
                        continue;
                    }
                    (result, _) => {
                        failures.push(format!("{what}: {result:?}"));
                        continue;
                    }
                };
                assert_is_sound(&grid, &kind, &*schedule, &what);
                for info in SAMPLERS {
                    let what = format!("{}, {what}", info.name);
                    let mut sampler = sampler_by_name(info.name, &SamplerOptions::default()).unwrap();
                    match (sampler.check(&grid), facts.serve(info, &kind, n)) {
                        // As many steps as the table has are only checked.
                        (Ok(()), true) if n == 1000 => {}
                        (Ok(()), true) => failures.extend(walk(&what, sampler.as_mut(), &grid, &schedule, info.stochastic)),
                        (Err(error), false) => {
                            assert_is_refusal(&error, &what);
                            refusing.extend((n < 1000).then_some(info.name));
                        }
                        (result, _) => failures.push(format!("{what}: {result:?}")),
                    }
                }
            }
            let (of_this, words) = match facts.have(&kind) {
                false => (SAMPLERS.len(), "refused".to_owned()),
                true if refusing.is_empty() => (0, "all".to_owned()),
                true => (refusing.len(), format!("all but {}", refusing.into_iter().collect::<Vec<_>>().join(", "))),
            };
            (refused, served) = (refused + of_this, served + SAMPLERS.len() - of_this);
            column.push(words);
        }
        match columns.iter_mut().find(|(_, same)| *same == column) {
            Some((names, _)) => names.push(schedule_name),
            None => columns.push((vec![schedule_name], column)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    let row =
        |first: &str, cells: &mut dyn Iterator<Item = String>| format!("| {first} | {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut table = row("grid", &mut columns.iter().map(|(names, _)| names.join(", ")));
    table += &format!("{}|\n", "|---".repeat(1 + columns.len()));
    for (index, kind) in kinds().enumerate() {
        table += &row(kind.name(), &mut columns.iter().map(|(_, cells)| cells[index].clone()));
    }
    assert_documented(&table);
    assert_documented(&format!("{served} served and {refused} refused"));
}

/// 1, 2 and 15 steps, a table's training steps all of them, or those of the list; another number than there can be is refused.
fn numbers_of_steps(kind: &GridKind, facts: Facts) -> Vec<usize> {
    match kind {
        GridKind::Times(list) | GridKind::Sigmas(list) => vec![list.len()],
        GridKind::Uniform | GridKind::Leading | GridKind::Linspace | GridKind::Trailing if facts.is_table => vec![1, 2, 15, 1000],
        _ => vec![1, 2, 15],
    }
}

/// No steps, more than a table has, and another number than a list has.
#[test]
fn the_number_of_steps_is_checked() {
    for (schedule_name, schedule) in schedules() {
        let facts = Facts::of(schedule_name);
        for kind in kinds().filter(|kind| facts.have(kind)) {
            let bad: &[usize] = match kind {
                GridKind::Times(_) | GridKind::Sigmas(_) => &[0, 2, 4],
                _ if facts.is_table => &[0, 1001],
                _ => &[0],
            };
            for &n in bad {
                let result = kind.grid(&*schedule, n);
                assert!(matches!(result, Err(Error::Argument { what: "steps", .. })), "{kind} on {schedule_name}, {n}: {result:?}");
            }
        }
    }
}

/// Fails with the text that belongs into the page.
fn assert_documented(text: &str) {
    assert!(DOCS.contains(text), "docs/schedules.md lacks this text:\n\n{text}");
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

/// diffusers' grids, the extensions included: each name on the grids of its class, in 20 steps.
///
/// `ddim-inverse` walks them reversed. Chosen noise levels are refused on a table that ends without signal by the classes that walk from
/// timestep to timestep and read `rescale_betas_zero_snr`.
#[test]
fn every_sampler_serves_every_diffusers_grid() {
    let (mut served, mut refused, mut failures) = (0, 0, Vec::new());
    for zero_snr in [false, true] {
        let config = SchedulerConfig { rescale_betas_zero_snr: Some(zero_snr), ..Default::default() };
        let schedule: Arc<dyn Schedule> = config.schedule().unwrap();
        for SamplerInfo { name, stochastic, .. } in SAMPLERS {
            for spacing in Spacing::ALL {
                let what = format!("{name} on {}, zero SNR {zero_snr}", spacing.name());
                let chooses_levels = !matches!(spacing, Spacing::Leading | Spacing::Linspace | Spacing::Trailing);
                let has_grid = !(zero_snr && chooses_levels && matches!(*name, "ddpm" | "ddim" | "ddim-inverse"));
                let grid = match (config.grid(name, Some(spacing), 20), has_grid) {
                    // The inverse's leads up.
                    (Ok(grid), true) if *name == "ddim-inverse" => grid.reversed(),
                    (Ok(grid), true) => grid,
                    (Err(error), false) => {
                        assert_is_refusal(&error, &what);
                        refused += 1;
                        continue;
                    }
                    (result, _) => panic!("{what}: {result:?}"),
                };
                let first = grid.steps[0].from;
                let expected = match spacing {
                    Spacing::Leading if plans_one_more(name) => 941.0,
                    Spacing::Leading => 951.0,
                    // diffusers cuts the last sigma to 4096, below its neighbours', which confuses its search for the timestep.
                    Spacing::Karras | Spacing::Exponential | Spacing::Lu if zero_snr => first.t * 1000.0,
                    _ => 1000.0,
                };
                assert!((first.t * 1000.0 - expected).abs() < 1e-3, "{what} starts at {first:?}");
                // Those that diffusers leaves at its last noise level.
                let stays_noisy = matches!(*name, "pndm" | "plms") && !chooses_levels || matches!(*name, "deis" | "sa-solver");
                assert!(grid.ends_clean() != stays_noisy, "{what}");
                assert!(grid.steps.last().unwrap().to.sigma_edm() < 0.0101, "{what}");
                let mut sampler = config.sampler(name, None, true).unwrap();
                match (sampler.check(&grid), *name != "ddim-inverse") {
                    (Ok(()), true) => {
                        served += 1;
                        failures.extend(walk(&what, sampler.as_mut(), &grid, &schedule, *stochastic));
                    }
                    (Err(error), false) => {
                        assert_is_refusal(&error, &what);
                        let up = sampler.check(&grid.reversed());
                        assert!(up.is_ok(), "{what}, reversed: {up:?}");
                        refused += 1;
                    }
                    (result, _) => panic!("{what}: {result:?}"),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_documented(&format!("{served} served, {refused} refused"));
}

fn plans_one_more(sampler: &str) -> bool {
    ["dpm-solver-", "dpmpp-", "deis", "unipc", "sa-solver"].iter().any(|family| sampler.starts_with(family))
        && !matches!(sampler, "deis-t" | "dpm-solver-1" | "dpm-solver-2" | "dpm-solver-3" | "dpmpp-sde" | "dpmpp-2s-a")
}

/// The other values of an option.
fn values(option: &str) -> &'static [&'static str] {
    match option {
        "eta" => &["0", "0.5", "1"],
        // Beyond the image of `Point`, and within those of the Gaussian.
        "clip" => &["0.75"],
        "variance" => &["fixed_small", "fixed_large"],
        "churn" => &["0", "20"],
        "churn_min" => &["0.5"],
        "churn_max" => &["1"],
        "churn_inflation" => &["1.05"],
        "order" => &["1", "2", "3", "4"],
        "lower_order_final" | "euler_at_final" => &["true", "false"],
        "second_order" => &["midpoint", "heun"],
        "third_order" => &["quadratic", "published"],
        "tolerance" => &["1e-2", "1e-5"],
        "snr" => &["0.1", "0.3"],
        "corrections" => &["1", "3"],
        other => panic!("the option {other} has no values here"),
    }
}

/// Each value of each option that a sampler takes, over a handful of grids: it walks them as with its defaults, and the option matters on one of
/// them at least. `dpm-adaptive` compares two orders that follow each other, and refuses the orders that are none.
#[test]
fn every_option_is_served_and_matters() {
    let schedules: Vec<_> =
        schedules().into_iter().filter(|(name, _)| ["ddpm linear", "vp", "rectified flow"].contains(name)).collect();
    let mut grids = Vec::new();
    for (name, schedule) in &schedules {
        let facts = Facts::of(name);
        let kinds = [GridKind::Uniform, GridKind::Trailing, GridKind::Karras { rho: 7.0 }, GridKind::LogSnr];
        for kind in kinds.into_iter().filter(|kind| facts.have(kind)) {
            grids.extend(
                [1, 2, 9, 20]
                    .map(|n| (format!("{kind} on {name}, {n} steps"), kind.grid(&**schedule, n).unwrap(), facts, schedule)),
            );
        }
        // Not to the clean image: whole blocks of 2 and of 3 steps, few and not few.
        for n in [12, 18] {
            let levels: Vec<Level> = (2..n + 3).rev().map(|i| Level::at(&**schedule, f64::from(i) / f64::from(n + 3))).collect();
            let facts = Facts { has_signal: true, ..facts };
            grids.push((format!("to some noise on {name}, {n} steps"), Grid::through(&levels), facts, schedule));
        }
    }
    let mut failures = Vec::new();
    for info in SAMPLERS.iter().filter(|info| info.draws()) {
        for option in info.options {
            let mut matters = false;
            for value in values(option) {
                let mut options = SamplerOptions::default();
                options.set(option, value).unwrap();
                let noisy = if matches!(*option, "eta" | "churn") { *value != "0" } else { info.stochastic };
                let serves = !(info.name == "dpm-adaptive" && matches!(options.order, Some(1 | 4)));
                let make = |options: &SamplerOptions| sampler_by_name(info.name, options).unwrap();
                for (grid_name, grid, facts, schedule) in &grids {
                    let what = format!("{} with {option} {value}, {grid_name}", info.name);
                    match (make(&options).check(grid), serves && facts.serve(info, &GridKind::Uniform, 1)) {
                        (Ok(()), true) => failures.extend(walk(&what, make(&options).as_mut(), grid, schedule, noisy)),
                        (Err(error), false) => {
                            assert_is_refusal(&error, &what);
                            continue;
                        }
                        (result, _) => panic!("{what}: {result:?}"),
                    }
                    let denoiser = Oracle::new(gaussian(), Arc::clone(schedule));
                    let end = |options: &SamplerOptions| draw(make(options).as_mut(), &denoiser, grid).0;
                    matters = matters || end(&options) != end(&SamplerOptions::default());
                }
            }
            if !matters {
                failures.push(format!("{}: the option {option} changes nothing", info.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The prior of one image, which is its clean estimate everywhere.
struct Point(Arc<dyn Schedule>);

const IMAGE: [f64; 3] = [0.7, -0.4, 0.25];

impl Denoiser for Point {
    fn schedule(&self) -> &dyn Schedule {
        &*self.0
    }

    fn x0_hat(&self, x: &Batch, _: Level) -> Result<Batch> {
        Ok(Array4::from_shape_fn(x.dim(), |(_, _, _, k)| IMAGE[k]))
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// Four samples of which two have the same start: the last state and the last estimate of the clean image, and the start.
fn draw(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, grid: &Grid) -> (Batch, Batch, Batch) {
    let mut streams = Streams::new(4, 0..4);
    let mut start = start_noise(grid, &mut streams, 4, SHAPE);
    let first = start.index_axis(Axis(0), 0).to_owned();
    start.index_axis_mut(Axis(0), 1).assign(&first);
    let mut last = Batch::zeros(start.dim());
    let mut observer = |progress: &unnoise_core::Progress<'_>| {
        last.assign(progress.x0_hat);
        std::ops::ControlFlow::Continue(())
    };
    let end = sample(sampler, denoiser, grid, start.clone(), &mut streams, &mut observer)
        .unwrap_or_else(|error| panic!("{}: {error}", sampler.name()));
    (end, last, start)
}

/// What is wrong with a sampler's run over a grid, if anything.
///
/// - Of one image `x0` is that image and, where no noise is added, `eps` stays as it was at the start. Every method here is exact for such: it ends at
///   `alpha' x0 + sigma' eps`, hence at the image if `sigma' = 0`, with or without noise on the way. What it has left is rounding, relative to
///   the largest `sigma / alpha`; `pndm` and `plms` take up to three noises of a step one from another, which multiplies it by that, over the
///   noise there, each time. To some noise, what draws noise ends within six deviations of it, as do the flow's samplers, which are exact for that in their own time only;
///   `langevin` forgets the first level's noise slowly, and has no more than that.
/// - A last step to `sigma' = 0` returns the estimate of the clean image. Those that extrapolate over it, in `sigma / alpha` or in `t`, do not.
/// - Of two equal starts a deterministic sampler makes one image, and what draws noise makes two, where it has more than a few steps to.
fn walk(what: &str, sampler: &mut dyn Sampler, grid: &Grid, schedule: &Arc<dyn Schedule>, noisy: bool) -> Vec<String> {
    let mut failures = Vec::new();
    let (first, end) = (grid.steps[0].from, grid.steps[grid.steps.len() - 1].to);

    let (drawn, _, start) = draw(sampler, &Point(Arc::clone(schedule)), grid);
    let left = (drawn - &Array4::from_shape_fn((1, 1, 1, 3), |(_, _, _, k)| end.alpha * IMAGE[k])).to_owned();
    let eps = Array4::from_shape_fn(start.dim(), |at| (start[at] - first.alpha * IMAGE[at.3]) / first.sigma);
    let largest = grid.steps.iter().map(|step| step.from.sigma_edm()).filter(|s| s.is_finite()).fold(1.0, f64::max);
    let smallest = grid.steps.iter().map(|step| step.to.sigma_edm()).filter(|s| *s > 0.0).fold(1.0, f64::min);
    let nested =
        if matches!(sampler.name(), "pndm" | "plms") { 1e-15 * largest.powi(2) * largest.max(1.0 / smallest) } else { 0.0 };
    let rounding = 2e-12 * largest + nested;
    let contiguous = grid.steps.windows(2).all(|pair| pair[0].to == pair[1].from);
    let in_time = sampler.name().starts_with("flow");
    let off = |wanted: &Batch| (&left - wanted).iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let (off, limit) = match (noisy || in_time || !contiguous) && end.sigma > 0.0 {
        false => (off(&(eps * end.sigma)), rounding),
        true if sampler.name() == "langevin" => (off(&Batch::zeros(start.dim())), 6.0 * end.alpha * largest),
        true => (off(&Batch::zeros(start.dim())), 6.0 * end.sigma),
    };
    if off.is_nan() || off > limit {
        failures.push(format!("{what}: {off:.1e} off the only image, limit {limit:.1e}"));
    }

    let (drawn, last, _) = draw(sampler, &Oracle::new(gaussian(), Arc::clone(schedule)), grid);
    let extrapolates = matches!(sampler.name(), "lms" | "deis-t" | "ipndm" | "pndm" | "plms");
    if end.sigma == 0.0 && !extrapolates && drawn != last {
        failures.push(format!("{what}: ends at {drawn}, not at the clean image's estimate {last}"));
    }
    let differs = drawn.slice(s![0, .., .., ..]) != drawn.slice(s![1, .., .., ..]);
    if differs != noisy && (!noisy || grid.steps.len() > 8) {
        failures.push(format!("{what}: one start leads to {}", if differs { "two images" } else { "one image" }));
    }
    failures
}
