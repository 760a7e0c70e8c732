//! Posterior methods: samples of `p(x0 | y)` from a prior and a measurement.
//!
//! A method that can be a conditioned denoiser is one: [`Dps`], [`Pigdm`] and [`Mmps`] are a [`Guidance`], which [`Conditioned`]
//! turns into a [`Denoiser`] that any [`Sampler`](crate::Sampler) can run. [`DdnmPlus`] and [`DiffPir`] have a step rule of their
//! own, and [`Tds`] is sequential Monte Carlo over the prior's chain.
//!
//! `y` and `sigma_y` are in the model's units throughout: images in `[-1, 1]`, so a noise level known for `[0, 1]` pixels is doubled
//! before it comes here.

mod ddnm_plus;
mod diagnostics;
mod diffpir;
mod dps;
mod guided;
mod mmps;
mod particles;
mod pigdm;
mod registry;
mod tds;
mod weighed;

pub use ddnm_plus::*;
pub use diagnostics::*;
pub use diffpir::*;
pub use dps::*;
pub use guided::*;
pub use mmps::*;
pub use particles::*;
pub use pigdm::*;
pub use registry::*;
pub use tds::*;
pub use weighed::{LinearSolver, Weighed};

use std::fmt;

use crate::{
    Batch, Capability, Denoiser, Error, Evaluations, Grid, Measurement, Observer, Result, Sampler, Streams, sample, start_noise,
};
use registry::lacks;
use weighed::solve;

/// What a method's samples are, with the limit in which that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Samples of the posterior for any prior, in the named limit.
    ExactForAnyPrior(&'static str),
    /// Samples of the posterior for Gaussian priors, in the named limit.
    ExactForGaussianPriors(&'static str),
    /// No limit in which the samples are the posterior's for a general prior or a general Gaussian one is known.
    Heuristic,
    /// Aims at one good image rather than at samples.
    ModeSeeking,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExactForAnyPrior(limit) => write!(f, "exact for any prior when {limit}"),
            Self::ExactForGaussianPriors(limit) => write!(f, "exact for Gaussian priors when {limit}"),
            Self::Heuristic => f.write_str("heuristic"),
            Self::ModeSeeking => f.write_str("mode-seeking"),
        }
    }
}

/// What a posterior method returns.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// One posterior sample for each stream, `[n, c, h, w]`.
    pub x0: Batch,
    /// What the run tells about itself.
    pub diagnostics: Diagnostics,
}

/// A method that draws posterior samples.
pub trait PosteriorMethod: Send + Sync {
    /// Its name on the command line, the field's own.
    fn name(&self) -> &'static str;

    /// What its samples are.
    fn target(&self) -> Target;

    /// What it needs of the operator.
    fn needs(&self) -> &'static [Capability];

    /// The denoiser evaluations of one sample over `grid`, unless its sampler is adaptive. Where a solve's iterations depend on the
    /// prior, the most that there can be: wrap the prior in [`Counted`](crate::Counted) for what a run really took.
    fn evaluations(&self, grid: &Grid) -> Option<Evaluations>;

    /// Draws one sample for each stream: `[n, c, h, w]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the operator lacks a capability or the method cannot serve the noise level or the grid; shape
    /// errors at the door; those of the denoiser; [`Error::Stopped`] when `observer` breaks.
    fn sample(
        &self,
        prior: &dyn Denoiser,
        measurement: &Measurement<'_>,
        grid: &Grid,
        streams: &Streams,
        observer: &mut Observer<'_>,
    ) -> Result<Drawn>;
}

/// Refuses a measurement that the method cannot serve: an operator without what it needs, a `y` or a noise level out of its domain.
fn check_measurement(name: &str, needs: &[Capability], measurement: &Measurement<'_>) -> Result<()> {
    let offered = measurement.op.capabilities();
    if !needs.iter().all(|need| offered.contains(need)) {
        return Err(lacks(name, needs, measurement.op));
    }
    Measurement::new(measurement.op, measurement.y.clone(), measurement.sigma_y).map(|_| ())
}

/// Refuses a number outside its domain, or one that is not finite.
fn check_argument(what: &'static str, value: f64, inside: bool, domain: &str, at: &'static str) -> Result<()> {
    if inside && value.is_finite() {
        return Ok(());
    }
    Err(Error::Argument { what, expected: format!("finite and {domain}"), got: value.to_string(), at })
}

/// `y - A x` for every sample of `x`.
fn residual(measurement: &Measurement<'_>, x: &Batch) -> Batch {
    let mut residual = measurement.op.forward(x);
    residual.mapv_inplace(|v| -v);
    residual += &measurement.y;
    residual
}

/// Runs a method's own steps from noise to the end of `grid`, one sample for each stream.
fn run(
    sampler: &mut dyn Sampler,
    prior: &dyn Denoiser,
    measurement: &Measurement<'_>,
    grid: &Grid,
    streams: &Streams,
    observer: &mut Observer<'_>,
) -> Result<Batch> {
    let mut noise = streams.clone();
    let x = start_noise(grid, &mut noise, streams.len(), measurement.op.input_shape());
    sample(sampler, prior, grid, x, &mut noise, observer)
}
