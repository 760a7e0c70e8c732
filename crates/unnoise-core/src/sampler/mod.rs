//! Samplers: from noise to an image, one step at a time.

use crate::{Batch, Denoiser, Error, Level, Noise, Observer, Progress, Purpose, Result, Shape};

/// One step of a grid: from a noisier level to a cleaner one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The level at which the step starts.
    pub from: Level,
    /// The level at which it ends.
    pub to: Level,
}

/// The steps of a run, noisiest first. Usually each starts where the last one ended; diffusers' DDIM on a `linspace` or
/// `trailing` grid does not, and is reproduced as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The steps.
    pub steps: Vec<Interval>,
}

/// What a step is given.
pub struct Step<'a> {
    /// The steps of the whole run.
    pub grid: &'a Grid,
    /// Which of them this is.
    pub index: usize,
    /// The prior.
    pub denoiser: &'a dyn Denoiser,
}

impl Step<'_> {
    /// The step's levels.
    pub fn interval(&self) -> Interval {
        self.grid.steps[self.index]
    }

    /// Whether no step follows.
    pub fn is_last(&self) -> bool {
        self.index + 1 == self.grid.steps.len()
    }
}

/// What a step returns.
pub struct Stepped {
    /// The state at the end of the step.
    pub x: Batch,
    /// The estimate of the clean image at the step's start.
    pub x0_hat: Batch,
}

/// An algorithm that walks a grid from noise to an image.
pub trait Sampler {
    /// Its name on the command line, the field's own.
    fn name(&self) -> &'static str;

    /// Denoiser evaluations of one image that a run over `grid` makes.
    fn evaluations(&self, grid: &Grid) -> usize;

    /// Refuses a grid that the algorithm cannot serve.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming the grids that work.
    fn check(&self, _grid: &Grid) -> Result<()> {
        Ok(())
    }

    /// Advances `x` over the step `step.index`. Steps are called in order; a sampler that keeps a history forgets it at index 0.
    ///
    /// # Errors
    /// Those of the denoiser.
    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped>;
}

/// The state that a run over `grid` starts from: unit normals at the first level's total scale.
///
/// The scale is `sigma` for a variance-preserving start and `sigma` as well for an exploding one, whose signal is negligible
/// there.
pub fn start_noise(grid: &Grid, noise: &mut dyn Noise, n: usize, shape: Shape) -> Batch {
    let sigma = grid.steps.first().map_or(0.0, |step| step.from.sigma);
    noise.normal(0, Purpose::Start, n, shape) * sigma
}

/// Runs `sampler` over `grid` from the state `x`.
///
/// # Errors
/// [`Error::Argument`] for an empty grid, [`Error::Stopped`] when `observer` breaks, [`Error::NotFinite`] when a sample leaves
/// the finite numbers, and those of the sampler and the denoiser.
pub fn sample(
    sampler: &mut dyn Sampler,
    denoiser: &dyn Denoiser,
    grid: &Grid,
    mut x: Batch,
    noise: &mut dyn Noise,
    observer: &mut Observer<'_>,
) -> Result<Batch> {
    let steps = grid.steps.len();
    if steps == 0 {
        return Err(Error::Argument { what: "grid", expected: "at least one step".into(), got: "none".into(), at: "sample" });
    }
    sampler.check(grid)?;
    for index in 0..steps {
        let stepped = sampler.step(&Step { grid, index, denoiser }, &x, noise)?;
        x = stepped.x;
        check_finite(&x, "the state", "sample")?;
        let Interval { from, to } = grid.steps[index];
        let progress = Progress { step: index, steps, from, to, x: &x, x0_hat: &stepped.x0_hat };
        if observer(&progress).is_break() {
            return Err(Error::Stopped { done: index + 1, steps });
        }
    }
    Ok(x)
}

/// Refuses a batch with a number that is not finite, naming the sample.
pub(crate) fn check_finite(batch: &Batch, what: &'static str, at: &'static str) -> Result<()> {
    match crate::samples(batch).position(|sample| sample.iter().any(|v| !v.is_finite())) {
        Some(sample) => Err(Error::NotFinite { what, sample, at }),
        None => Ok(()),
    }
}
