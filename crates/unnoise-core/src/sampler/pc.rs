//! Predictor-corrector sampling.

use super::{Ddpm, Grid, Sampler, SamplerInfo, Step, Stepped, Variance, eps_from_x0};
use crate::{Batch, Interval, Noise, Purpose, Result};
use ndarray::{Axis, Zip};

/// With the reverse-diffusion predictor.
pub(super) const PC: SamplerInfo = SamplerInfo {
    name: "pc",
    order: "0 (the corrector's bias stays)",
    stochastic: true,
    evaluations: "1 and 1 a correction",
    grids: "any",
    options: &["snr", "corrections"],
    source: include_str!("pc.rs"),
    make: |options| Box::new(Pc::new(Variance::FixedLarge, options.snr, options.corrections.unwrap_or(1))),
};

/// With the ancestral predictor.
pub(super) const PC_ANCESTRAL: SamplerInfo = SamplerInfo {
    name: "pc-ancestral",
    make: |options| Box::new(Pc::new(Variance::FixedSmall, options.snr, options.corrections.unwrap_or(1))),
    ..PC
};

/// Predictor-corrector: at each level Langevin steps, whose length keeps a ratio of score to noise, then a step of the reverse process.
///
/// ```text
/// corrector, some times:   score = -eps / sigma
///                          delta = 2 (alpha / alpha')^2 (snr |z| / |score|)^2         norms of each sample
///                          x    <- x + delta score + sqrt(2 delta) z
/// predictor:               x'    = alpha' (1 - r^2) x0 + r (sigma' / sigma) x + std z
///                          std   = sigma sqrt(1 - r^2)   pc            (reverse diffusion; ddpm with the large variance)
///                          std   = sigma' sqrt(1 - r^2)  pc-ancestral  (ddpm with the small variance)
/// ```
///
/// No noise is added in a step to `sigma' = 0`. The Langevin steps have a bias of the order of `snr^2` in variance, whatever the number of
/// levels: `E[1 / |x|^2]` of a standard normal in `d` dimensions becomes `1 / ((1 + snr^2) (d + 2))`.
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, algorithms 2 to 5, and its code; diffusers' `ScoreSdeVeScheduler`. We deviate: norms are per sample, theirs
/// are means over the batch, so that a sample depends on its neighbours; for VP the predictor's mean is the ancestral one, of which theirs is the
/// expansion to first order in `1 - (alpha / alpha')^2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pc {
    predictor: Ddpm,
    snr: f64,
    corrections: usize,
}

impl Pc {
    /// The sampler with this predictor's variance, ratio of score to noise, and number of corrections at each level.
    pub fn new(variance: Variance, snr: f64, corrections: usize) -> Self {
        Self { predictor: Ddpm { variance, clip: None }, snr, corrections }
    }

    fn correct(&self, step: &Step<'_>, x: &mut Batch, z: &Batch) -> Result<()> {
        let Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let score = eps_from_x0(x, &x0, from) / -from.sigma;
        let alpha_sq = (from.alpha / to.alpha).powi(2).min(1.0);
        for ((mut x, score), z) in x.axis_iter_mut(Axis(0)).zip(score.axis_iter(Axis(0))).zip(z.axis_iter(Axis(0))) {
            let square = |v: &ndarray::ArrayView3<'_, f64>| v.iter().map(|v| v * v).sum::<f64>();
            // Where the score vanishes there is no length that fits.
            let delta = Some(2.0 * alpha_sq * self.snr.powi(2) * square(&z) / square(&score)).filter(|delta| delta.is_finite());
            let delta = delta.unwrap_or(0.0);
            Zip::from(&mut x).and(&score).and(&z).for_each(|x, score, z| *x += delta * score + (2.0 * delta).sqrt() * z);
        }
        Ok(())
    }
}

impl Sampler for Pc {
    fn name(&self) -> &'static str {
        if self.predictor.variance == Variance::FixedLarge { PC.name } else { PC_ANCESTRAL.name }
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.len() * (1 + self.corrections))
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let (n, c, h, w) = x.dim();
        let mut x = x.clone();
        for k in 0..self.corrections {
            let z = noise.normal(step.index * self.corrections + k, Purpose::Langevin, n, [c, h, w]);
            self.correct(step, &mut x, &z)?;
        }
        self.predictor.step(step, &x, noise)
    }
}
