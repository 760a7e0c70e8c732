//! A sampler whose denoiser's means are bounded by dynamic thresholding.

use super::{Grid, Sampler, Step, Stepped};
use crate::{Batch, Noise, Result, Thresholded};

/// A sampler that sees its denoiser through [`Thresholded`], as diffusers' scheduler classes have it as an option of theirs.
pub(super) struct Bounded {
    pub(super) sampler: Box<dyn Sampler>,
    pub(super) quantile: f64,
    pub(super) largest: f64,
}

impl Sampler for Bounded {
    fn name(&self) -> &'static str {
        self.sampler.name()
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        self.sampler.evaluations(grid)
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        self.sampler.check(grid)
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let denoiser = Thresholded::new(step.denoiser, self.quantile, self.largest)?;
        self.sampler.step(&Step { denoiser: &denoiser, ..*step }, x, noise)
    }
}
