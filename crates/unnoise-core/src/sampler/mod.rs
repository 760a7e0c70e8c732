//! Samplers: from noise to an image, one step at a time.
//!
//! A step is written with the two predictions of a state, the clean image and the noise in it, and with the ratio of two noise
//! levels, so that a start without signal (`alpha = 0`) and an end without noise (`sigma = 0`) need no special case:
//!
//! ```text
//! x0 = E[x0 | x_t]      eps = (x - alpha x0) / sigma      r = (sigma' / alpha') / (sigma / alpha)
//! ```

mod adams;
mod adaptive;
mod bounded;
mod ddim;
mod ddim_inverse;
mod ddpm;
mod diffusers;
mod diffusers_flow;
mod dpm_adaptive;
mod dpm_multistep;
mod dpm_singlestep;
mod dpm_solver;
mod dpmpp_2s_a;
mod dpmpp_multistep_sde;
mod dpmpp_sde;
mod edm;
mod euler;
mod euler_a;
mod euler_maruyama;
mod flow_euler;
mod flow_heun;
mod grid;
mod heun;
mod ipndm;
mod kdpm2;
mod kdpm2_a;
mod langevin;
mod midpoint;
mod multistep;
mod options;
mod pc;
mod pndm;
mod registry;
mod rk4;
mod rk45;
mod sa_solver;
mod scheduler_class;
mod scheduler_config;
mod sde;
mod seeds;
mod unipc;

pub use adams::{Adams, Coordinate};
pub use ddim::Ddim;
pub use ddim_inverse::DdimInverse;
pub use ddpm::{Ddpm, Variance};
pub use diffusers::Spacing;
pub use dpm_adaptive::DpmAdaptive;
pub use dpm_multistep::{DpmMultistep, Expansion, Form, SecondOrder, ThirdOrder};
pub use dpm_singlestep::DpmSinglestep;
pub use dpm_solver::DpmSolver;
pub use dpmpp_2s_a::DpmPp2sA;
pub use dpmpp_multistep_sde::DpmMultistepSde;
pub use dpmpp_sde::DpmPpSde;
pub use edm::{Churn, Edm};
pub use euler::Euler;
pub use euler_a::EulerA;
pub use euler_maruyama::EulerMaruyama;
pub use flow_euler::FlowEuler;
pub use flow_heun::FlowHeun;
pub use grid::{Grid, GridKind, Interval, start_noise};
pub use heun::Heun;
pub use ipndm::Ipndm;
pub use kdpm2::Kdpm2;
pub use kdpm2_a::Kdpm2A;
pub use langevin::Langevin;
pub use midpoint::Midpoint;
pub use multistep::LowerOrder;
pub use options::SamplerOptions;
pub use pc::Pc;
pub use pndm::{Pndm, StartUp};
pub use registry::{SAMPLERS, SamplerInfo, sampler_by_name, sampler_info};
pub use rk4::Rk4;
pub use rk45::Rk45;
pub use sa_solver::{SaSolver, Tau};
pub use scheduler_config::{BETA_SCHEDULES, SchedulerConfig};
pub use seeds::Seeds;
pub use unipc::{Bh, UniPc};

#[cfg(test)]
mod tests;

use ndarray::Zip;

use crate::{Batch, Denoiser, Error, Level, Noise, Observer, Progress, Result};

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
}

/// What a step returns.
pub struct Stepped {
    /// The state at the end of the step.
    pub x: Batch,
    /// The estimate of the clean image at the step's start, clipped where the sampler clips it.
    pub x0_hat: Batch,
}

/// An algorithm that walks a grid from noise to an image.
pub trait Sampler {
    /// Its name on the command line, the field's own.
    fn name(&self) -> &'static str;

    /// Denoiser evaluations of one image that a run over `grid` makes, if that is known beforehand: one a step, unless it says
    /// otherwise.
    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.len())
    }

    /// Refuses a grid that the algorithm cannot serve: unless it says otherwise, one that [`Grid::check`] refuses.
    ///
    /// # Errors
    /// [`Error::Argument`] for a grid that nothing can walk, [`Error::Unsupported`] for one that others can.
    fn check(&self, grid: &Grid) -> Result<()> {
        grid.check()
    }

    /// Advances `x` over the step `step.index`. Steps are called in order; a sampler that keeps a history forgets it at index 0.
    ///
    /// # Errors
    /// Those of the denoiser.
    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped>;
}

/// Runs `sampler` over `grid` from the state `x`.
///
/// # Errors
/// Those of [`Sampler::check`], [`Error::Stopped`] when `observer` breaks,
/// [`Error::NotFinite`] when a sample leaves the finite numbers, and those of the sampler and the denoiser.
pub fn sample(
    sampler: &mut dyn Sampler,
    denoiser: &dyn Denoiser,
    grid: &Grid,
    mut x: Batch,
    noise: &mut dyn Noise,
    observer: &mut Observer<'_>,
) -> Result<Batch> {
    let steps = grid.steps.len();
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

/// The noise that `x` holds if `x0` is its clean image; `level.sigma > 0`.
fn eps_from_x0(x: &Batch, x0: &Batch, level: Level) -> Batch {
    Zip::from(x).and(x0).map_collect(|x, x0| (x - level.alpha * x0) / level.sigma)
}

/// The two predictions of a state: the clean image and the noise.
fn predict(denoiser: &dyn Denoiser, x: &Batch, level: Level) -> Result<(Batch, Batch)> {
    let x0 = denoiser.x0_hat(x, level)?;
    let eps = eps_from_x0(x, &x0, level);
    Ok((x0, eps))
}

/// The state at the interval's end if `x / alpha` goes there from `x` with the slope `eps` in `sigma / alpha`; `from.alpha > 0`.
fn along(Interval { from, to }: Interval, x: &Batch, eps: &Batch) -> Batch {
    combine(to.alpha / from.alpha, x, to.sigma - to.alpha * from.sigma_edm(), eps)
}

/// `a x + b y`.
fn combine(a: f64, x: &Batch, b: f64, y: &Batch) -> Batch {
    Zip::from(x).and(y).map_collect(|x, y| a * x + b * y)
}

/// `x0` limited to `[-limit, limit]`, if there is a limit.
fn clipped(mut x0: Batch, limit: Option<f64>) -> Batch {
    if let Some(limit) = limit {
        x0.mapv_inplace(|v| v.max(-limit).min(limit));
    }
    x0
}
