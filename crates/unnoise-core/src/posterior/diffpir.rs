//! `diffpir`: denoising diffusion models for plug-and-play image restoration.

use serde::{Deserialize, Serialize};

use super::{Diagnostics, Drawn, PosteriorMethod, Target, check_argument, check_measurement};
use crate::{
    Batch, Capability, Denoiser, Evaluations, Grid, Interval, Measurement, Noise, Observer, Purpose, Result, Sampler, Step,
    Stepped, Streams, element_shape,
};

/// Half-quadratic splitting along the chain: the denoised image, then the nearest one that explains the measurement.
///
/// ```text
/// x_hat   = argmin_x |y - A x|^2 + rho |x - x0_hat|^2,   rho = lambda sigma_y^2 / sigma_edm^2
/// eps_hat = (x_t - alpha x_hat) / sigma
/// x'      = alpha' x_hat + sigma' (sqrt(1 - zeta) eps_hat + sqrt(zeta) z)
/// ```
///
/// # Target
/// Heuristic: with `lambda = 1` the proximal point is the posterior mean if `x0` given `x_t` were `N(x0_hat, sigma_edm^2 I)`.
///
/// # Reference
/// Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool 2023, arXiv 2305.08995, algorithm 1. Deviation: the chain starts
/// from noise alone, not from the noised measurement, and the last step has its proximal point too (their code leaves it out). The
/// defaults are what the authors' code runs its deblurring with, in consistent units: its lambda 1 and zeta .1 are multiplied by 7 and 3
/// inside, and its `rho` divides a `sigma_y` of `[0, 1]` images by a `sigma_edm` of `[-1, 1]` ones, which makes 7 there 7 / 4 here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiffPir {
    /// The weight of the prior against the measurement; 1 is the Gaussian model's own.
    pub lambda: f64,
    /// The share of fresh noise in the noise's variance, in `[0, 1]`.
    pub zeta: f64,
    /// The least `sigma_y` that the proximal step assumes, so that it is defined for a noiseless measurement; `[-1, 1]` units.
    pub sigma_y_floor: f64,
}

impl Default for DiffPir {
    fn default() -> Self {
        Self { lambda: 1.75, zeta: 0.3, sigma_y_floor: 0.002 }
    }
}

const NAME: &str = "diffpir";
const NEEDS: &[Capability] = &[Capability::Prox];

impl DiffPir {
    /// Refuses settings outside their domain.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument).
    pub fn check(&self) -> Result<()> {
        let Self { lambda, zeta, sigma_y_floor } = *self;
        check_argument("lambda", lambda, lambda > 0.0, "above 0", NAME)?;
        check_argument("zeta", zeta, (0.0..=1.0).contains(&zeta), "in [0, 1]", NAME)?;
        check_argument("sigma_y_floor", sigma_y_floor, sigma_y_floor > 0.0, "above 0", NAME)
    }
}

/// The steps of [`DiffPir`] for one measurement.
pub struct DiffPirSampler<'a> {
    settings: DiffPir,
    measurement: &'a Measurement<'a>,
}

impl<'a> DiffPirSampler<'a> {
    /// The steps for `measurement`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without a proximal map; [`Error::Shape`](crate::Error::Shape) and
    /// [`Error::Argument`](crate::Error::Argument) for a measurement or settings out of their domain.
    pub fn new(settings: &DiffPir, measurement: &'a Measurement<'a>) -> Result<Self> {
        settings.check()?;
        check_measurement(NAME, NEEDS, measurement)?;
        Ok(Self { settings: settings.clone(), measurement })
    }
}

impl Sampler for DiffPirSampler<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let Measurement { op, y, sigma_y } = self.measurement;
        let DiffPir { lambda, zeta, sigma_y_floor } = self.settings;
        let prior_mean = step.denoiser.x0_hat(x, from)?;
        // As alpha / sigma, which is 0 and not infinite where there is no signal.
        let rho = lambda * (sigma_y.max(sigma_y_floor) * from.alpha / from.sigma).powi(2);
        let x0_hat = match rho > 0.0 {
            true => op.prox(y, &prior_mean, rho).ok_or_else(|| super::lacks(NAME, NEEDS, *op))?,
            false => prior_mean,
        };
        let kept = (1.0 - zeta).sqrt() * to.sigma / from.sigma;
        let mut next = &x0_hat * (to.alpha - kept * from.alpha);
        next.scaled_add(kept, x);
        if to.sigma > 0.0 && zeta > 0.0 {
            next.scaled_add(to.sigma * zeta.sqrt(), &noise.normal(step.index, Purpose::Step, x.dim().0, element_shape(x)));
        }
        Ok(Stepped { x: next, x0_hat })
    }
}

impl PosteriorMethod for DiffPir {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::Heuristic
    }

    fn needs(&self) -> &'static [Capability] {
        NEEDS
    }

    fn evaluations(&self, grid: &Grid) -> Option<Evaluations> {
        Some(Evaluations { forward: grid.steps.len() as u64, vjp: 0 })
    }

    fn sample(
        &self,
        prior: &dyn Denoiser,
        measurement: &Measurement<'_>,
        grid: &Grid,
        streams: &Streams,
        observer: &mut Observer<'_>,
    ) -> Result<Drawn> {
        let mut sampler = DiffPirSampler::new(self, measurement)?;
        let x0 = super::run(&mut sampler, prior, measurement, grid, streams, observer)?;
        Ok(Drawn { x0, diagnostics: Diagnostics::default() })
    }
}
