//! Samplers beside each other, at equal cost.

use std::ops::ControlFlow;

use serde::Serialize;
use unnoise_core::{
    Batch, Counted, Denoiser, Grid, Progress, Sampler, SamplerOptions, Streams, sample, sampler_by_name, sampler_info, start_noise,
};

use crate::{Error, GridKind, Prior, Result};

/// Which samplers are compared, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareConfig {
    /// The samplers' names.
    pub samplers: Vec<String>,
    /// The numbers of network evaluations of an image that each may spend.
    pub evaluations: Vec<usize>,
    /// The grid of all of them.
    pub grid: GridKind,
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
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The images of the probability-flow ODE from the same noise, by many steps.
    pub reference: Batch,
    /// Sampler by sampler, in the order asked for, and each with the budgets in the order asked for; one that cannot be met is left out.
    pub runs: Vec<Compared>,
}

/// Runs every sampler with every budget from the same noise, on the same kind of grid, without clipping.
///
/// An adaptive sampler has no steps to choose: it runs at the tolerance 0.1 for the first budget and at a tenth of the last one's for each
/// further one. `observer` is told the run's number and its progress, and stops everything when it breaks.
///
/// # Errors
/// Those of the names, the grid and the network; [`Error::Argument`] for nothing to compare; `Stopped`.
pub fn compare(
    prior: &Prior,
    config: &CompareConfig,
    observer: &mut dyn FnMut(usize, &Progress<'_>) -> ControlFlow<()>,
) -> Result<Comparison> {
    let argument = |what, expected: &str, got: String| Err(Error::Argument { what, expected: expected.into(), got, at: "compare" });
    if config.samplers.is_empty() || config.evaluations.is_empty() {
        return argument("the samplers and the evaluations", "at least one each", "none".into());
    }
    if let Some(bad) = config.evaluations.iter().find(|budget| !(1..=10_000).contains(*budget)) {
        return argument("the evaluations", "from 1 to 10000", bad.to_string());
    }
    if !(1..=1024).contains(&config.n) {
        return argument("the number of images", "from 1 to 1024", config.n.to_string());
    }
    let grid = |steps: usize| Ok(config.grid.grid(prior.schedule(), steps)?);
    let mut heun = unnoise_core::Heun::default();
    let finest = grid(config.reference_steps)?;
    heun.check(&finest)?;
    // Whatever is refused is refused before the reference is computed.
    let mut planned = Vec::new();
    for name in &config.samplers {
        let info = sampler_info(name)?;
        for (column, &budget) in config.evaluations.iter().enumerate() {
            let options = SamplerOptions { tolerance: 0.1f64.powi(column as i32 + 1), ..SamplerOptions::default() };
            let sampler = sampler_by_name(name, &options)?;
            if let Some(grid) = grid_within_budget(&*sampler, budget, &grid)? {
                planned.push((info, budget, sampler, grid));
            }
        }
    }
    let mut run = |number: usize, sampler: &mut dyn Sampler, grid: &Grid| -> Result<(Batch, f64)> {
        let denoiser = Counted::new(prior);
        let mut streams = Streams::new(config.seed, 0..config.n as u32);
        let x = start_noise(grid, &mut streams, config.n, prior.shape());
        let images = sample(sampler, &denoiser, grid, x, &mut streams, &mut |progress| observer(number, progress))?;
        Ok((images, denoiser.evaluations().forward as f64 / config.n as f64))
    };
    let (reference, _) = run(0, &mut heun, &finest)?;
    let mut runs = Vec::new();
    for (info, budget, mut sampler, grid) in planned {
        let (images, evaluations) = run(1 + runs.len(), &mut *sampler, &grid)?;
        let distance = (!info.stochastic).then(|| rms(&images, &reference));
        runs.push(Compared { sampler: info.name, budget, steps: grid.steps.len(), evaluations, distance, images });
    }
    Ok(Comparison { reference, runs })
}

/// The grid of the most steps whose evaluations of an image stay within the budget, if there is one; of two steps for an adaptive sampler,
/// whose evaluations are not known beforehand.
///
/// # Errors
/// Those of `make`, and of a sampler that refuses the grid.
pub fn grid_within_budget(sampler: &dyn Sampler, budget: usize, make: &impl Fn(usize) -> Result<Grid>) -> Result<Option<Grid>> {
    for steps in (1..=budget).rev() {
        let grid = make(steps)?;
        let fits = match sampler.evaluations(&grid) {
            None => Some(make(2)?),
            Some(evaluations) => (evaluations <= budget).then_some(grid),
        };
        if let Some(grid) = fits {
            sampler.check(&grid)?;
            return Ok(Some(grid));
        }
    }
    Ok(None)
}

fn rms(a: &Batch, b: &Batch) -> f64 {
    let square: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (square / a.len().max(1) as f64).sqrt()
}
