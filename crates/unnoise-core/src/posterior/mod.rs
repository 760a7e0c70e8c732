//! Posterior methods: samples of `p(x0 | y)` from a prior and a measurement.

use crate::{Batch, Capability, Denoiser, Grid, Measurement, Observer, Result, Streams};

/// What a method's samples are, with the limit in which that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Samples of the posterior for any prior, in the named limit.
    ExactForAnyPrior(&'static str),
    /// Samples of the posterior for Gaussian priors, in the named limit.
    ExactForGaussianPriors(&'static str),
    /// No limit in which the samples are the posterior's is known.
    Heuristic,
    /// Aims at one good image rather than at samples.
    ModeSeeking,
}

/// A method that draws posterior samples.
pub trait PosteriorMethod: Sync {
    /// Its name on the command line, the field's own.
    fn name(&self) -> &'static str;

    /// What its samples are.
    fn target(&self) -> Target;

    /// What it needs of the operator.
    fn needs(&self) -> &'static [Capability];

    /// Draws one sample for each stream: `[n, c, h, w]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) when the operator lacks a capability; shape errors at the door; those of the
    /// denoiser; [`Error::Stopped`](crate::Error::Stopped) when `observer` breaks.
    fn sample(
        &self,
        prior: &dyn Denoiser,
        measurement: &Measurement<'_>,
        grid: &Grid,
        streams: &Streams,
        observer: &mut Observer<'_>,
    ) -> Result<Batch>;
}
