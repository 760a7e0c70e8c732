//! Samplers beside each other, at equal cost.

use std::ops::ControlFlow;

use serde::Serialize;
use unnoise_core::{
    Batch, Counted, Denoiser, Grid, Progress, Sampler, SamplerInfo, SamplerOptions, Streams, sample, sampler_by_name, sampler_info,
    start_noise,
};

use crate::{Error, GridKind, Prior, Result};

/// Which samplers are compared, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareConfig {
    /// The samplers' names.
    pub samplers: Vec<String>,
    /// The numbers of network evaluations of an image that each may spend.
    pub evaluations: Vec<usize>,
    /// The grid of all of them; if none is given, [`GridKind::LogSnr`], or [`GridKind::Uniform`] on a schedule that starts without signal.
    pub grid: Option<GridKind>,
    /// The number of images.
    pub n: usize,
    /// The seed; image `i` starts from the same noise in every run.
    pub seed: u64,
    /// The steps of the solution that the deterministic samplers are measured against: Heun's method, two evaluations a step.
    pub reference_steps: usize,
}

/// One sampler at one number of evaluations.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The sampler.
    pub sampler: &'static str,
    /// The evaluations that it might spend.
    pub budget: usize,
    /// Its steps: the most that the budget pays for.
    pub steps: usize,
    /// The tolerance of an adaptive sampler, which chooses its own steps: the least of .1, .01, ... that the budget pays for.
    pub tolerance: Option<f64>,
    /// The evaluations of an image that it spent, on average.
    pub evaluations: f64,
    /// The root mean square difference of its images from the reference's, in units of `[-1, 1]` pixels; none for a stochastic sampler, whose
    /// images have no one solution.
    pub distance: Option<f64>,
    /// Its images, `[n, c, h, w]`, in `[-1, 1]`, not clipped.
    #[serde(skip)]
    pub images: Batch,
}

/// Samplers beside each other.
#[derive(Debug)]
pub struct Comparison {
    /// The grid of all of them.
    pub grid: GridKind,
    /// The images of the probability-flow ODE from the same noise, by many steps.
    pub reference: Batch,
    /// Sampler by sampler, in the order asked for, and each with the budgets in the order asked for; a budget that pays for no step is
    /// left out.
    pub runs: Vec<Compared>,
    /// Why it ended before all were run: an error, or `Stopped`.
    pub ended: Option<Error>,
}

/// Runs every sampler with every budget from the same noise, on the same kind of grid, without clipping.
///
/// `observer` is told the run's number and its progress; when it breaks, or a run fails, the finished runs are returned, with the reason.
/// What can be refused is refused before anything is run.
///
/// # Errors
/// Those of the names, the grid and the network; [`Error::Argument`] for nothing to compare; `Stopped` if no run was finished.
pub fn compare(
    prior: &Prior,
    config: &CompareConfig,
    observer: &mut dyn FnMut(usize, &Progress<'_>) -> ControlFlow<()>,
) -> Result<Comparison> {
    let kind = config.check(prior)?;
    let grid = |steps: usize| Ok(kind.grid(prior.schedule(), steps)?);
    let (mut heun, finest) = (unnoise_core::Heun::default(), grid(config.reference_steps)?);
    heun.check(&finest)?;
    let plans = plan(config, &grid)?;
    let mut run = |number: usize, sampler: &mut dyn Sampler, grid: &Grid| -> Result<(Batch, f64)> {
        let denoiser = Counted::new(prior);
        let mut streams = Streams::new(config.seed, 0..config.n as u32);
        let x = start_noise(grid, &mut streams, config.n, prior.shape());
        let images = sample(sampler, &denoiser, grid, x, &mut streams, &mut |progress| observer(number, progress))?;
        Ok((images, denoiser.evaluations().forward as f64 / config.n as f64))
    };
    let (reference, _) = run(0, &mut heun, &finest)?;
    let mut comparison = Comparison { grid: kind.clone(), reference, runs: Vec::new(), ended: None };
    // What an adaptive sampler has done at falling tolerances.
    let mut ladder: Vec<Compared> = Vec::new();
    for (number, Plan { info, budget, grid }) in plans.into_iter().enumerate() {
        let mut one = |tolerance: Option<f64>| -> Result<Compared> {
            let options = SamplerOptions::default();
            let options = SamplerOptions { tolerance: tolerance.unwrap_or(options.tolerance), ..options };
            let (images, evaluations) = run(number + 1, &mut *sampler_by_name(info.name, &options)?, &grid)?;
            let distance = (!info.stochastic).then(|| rms(&images, &comparison.reference));
            Ok(Compared { sampler: info.name, budget, steps: grid.steps.len(), tolerance, evaluations, distance, images })
        };
        let (found, error) = if is_adaptive(info, &grid)? {
            ladder.retain(|run| run.sampler == info.name);
            climb(&mut ladder, budget, &mut one)
        } else {
            one(None).map_or_else(|error| (None, Some(error)), |run| (Some(run), None))
        };
        comparison.runs.extend(found);
        if let Some(error) = error {
            if comparison.runs.is_empty() {
                return Err(error);
            }
            comparison.ended = Some(error);
            break;
        }
    }
    Ok(comparison)
}

/// One sampler at one budget.
struct Plan {
    info: &'static SamplerInfo,
    budget: usize,
    grid: Grid,
}

impl CompareConfig {
    /// The grid, if there is something to compare.
    fn check(&self, prior: &Prior) -> Result<GridKind> {
        let argument =
            |what, expected: &str, got: String| Err(Error::Argument { what, expected: expected.into(), got, at: "compare" });
        if self.samplers.is_empty() || self.evaluations.is_empty() {
            return argument("the samplers and the evaluations", "at least one each", "none".into());
        }
        if let Some(bad) = self.evaluations.iter().find(|budget| !(1..=10_000).contains(*budget)) {
            return argument("the evaluations", "from 1 to 10000", bad.to_string());
        }
        if !(1..=1024).contains(&self.n) {
            return argument("the number of images", "from 1 to 1024", self.n.to_string());
        }
        match &self.grid {
            Some(list @ (GridKind::Times(_) | GridKind::Sigmas(_))) => {
                argument("the grid", "one of any number of steps", list.to_string())
            }
            Some(GridKind::Leading) => {
                argument("the grid", "one that starts where the reference does, whatever its steps", "leading".into())
            }
            Some(kind) => Ok(kind.clone()),
            None if GridKind::LogSnr.grid(prior.schedule(), 2).is_ok() => Ok(GridKind::LogSnr),
            None => Ok(GridKind::Uniform),
        }
    }
}

/// What can be run.
fn plan(config: &CompareConfig, grid: &impl Fn(usize) -> Result<Grid>) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for name in &config.samplers {
        let info = sampler_info(name)?;
        let sampler = sampler_by_name(name, &SamplerOptions::default())?;
        for &budget in &config.evaluations {
            plans.extend(grid_within_budget(&*sampler, budget, grid)?.map(|grid| Plan { info, budget, grid }));
        }
    }
    if plans.is_empty() {
        let (expected, got) = ("as many as one of the samplers needs".into(), format!("{:?}", config.evaluations));
        return Err(Error::Argument { what: "the evaluations", expected, got, at: "compare" });
    }
    Ok(plans)
}

fn is_adaptive(info: &SamplerInfo, grid: &Grid) -> Result<bool> {
    Ok(sampler_by_name(info.name, &SamplerOptions::default())?.evaluations(grid).is_none())
}

/// The run with the least tolerance that stays within the budget and is reached, if there is one, after running those that `ladder` lacks;
/// and why no further one can be run, if it was to be.
fn climb(
    ladder: &mut Vec<Compared>,
    budget: usize,
    one: &mut impl FnMut(Option<f64>) -> Result<Compared>,
) -> (Option<Compared>, Option<Error>) {
    const RUNGS: usize = 8;
    let pays_for = |run: &Compared| run.evaluations <= budget as f64;
    let mut ended = None;
    while ladder.len() < RUNGS && ladder.last().is_none_or(pays_for) {
        match one(Some(10f64.powi(-(ladder.len() as i32) - 1))) {
            Ok(run) => ladder.push(run),
            // A network in single precision has a tolerance that is out of reach.
            Err(Error::Core(unnoise_core::Error::NotConverged { .. })) if !ladder.is_empty() => break,
            Err(error) => {
                ended = Some(error);
                break;
            }
        }
    }
    (ladder.iter().rfind(|run| pays_for(run)).map(|run| Compared { budget, ..run.clone() }), ended)
}

/// The grid of the most steps whose evaluations of an image stay within the budget, if there is one; of two steps for an adaptive sampler,
/// whose evaluations are not known beforehand.
///
/// # Errors
/// Those of a sampler that refuses the grid, and of `make` if it makes none.
pub fn grid_within_budget(sampler: &dyn Sampler, budget: usize, make: &impl Fn(usize) -> Result<Grid>) -> Result<Option<Grid>> {
    let mut refusal = None;
    for steps in (1..=budget).rev() {
        // A discrete schedule has no grid of more steps than its own.
        let grid = match make(steps) {
            Ok(grid) => grid,
            Err(error) => {
                refusal = Some(error);
                continue;
            }
        };
        refusal = None;
        let fits = match sampler.evaluations(&grid) {
            None => Some(make(2)?),
            Some(evaluations) => (evaluations <= budget).then_some(grid),
        };
        if let Some(grid) = fits {
            sampler.check(&grid)?;
            return Ok(Some(grid));
        }
    }
    refusal.map_or(Ok(None), Err)
}

fn rms(a: &Batch, b: &Batch) -> f64 {
    let square: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (square / a.len().max(1) as f64).sqrt()
}
