//! `ddnm-plus`: denoising diffusion null-space model, for noisy measurements.

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use super::{Diagnostics, Drawn, PosteriorMethod, Target, check_argument, check_measurement};
use crate::{
    Batch, Capability, Denoiser, Evaluations, Grid, Interval, Level, Measurement, Noise, Observer, Purpose, Result, Sampler, Step,
    Stepped, Streams, Svd, element_shape,
};

/// Null-space sampling: what the measurement determines is taken from it, the rest is sampled from the prior.
///
/// In the coordinates of `A = U diag(s) V^T`, with `y_i = (U^T y)_i / s_i`, whose noise is `n_i = sigma_y / s_i`, and the step's end
/// at `(alpha', sigma')`:
///
/// ```text
/// s_i > 0, sigma' >= alpha' n_i:  x' = alpha' y_i + sqrt(sigma'^2 - (alpha' n_i)^2) z
/// s_i > 0, sigma' <  alpha' n_i:  x' = alpha' (x0_hat + lambda (y_i - x0_hat)) + eta sigma' z,  lambda = sqrt(1 - eta^2) sigma' / (alpha' n_i)
/// s_i = 0 or beyond the rank:     x' = alpha' x0_hat + sigma' (sqrt(1 - eta^2) eps_hat + eta z)
/// ```
///
/// The measurement's own noise, as far as it is let in, and the fresh noise have together exactly the variance `sigma'^2` in every
/// coordinate: `(alpha' n_i)^2 + sigma'^2 - (alpha' n_i)^2` above, `(alpha' lambda n_i)^2 + (eta sigma')^2` below. With `sigma_y = 0`
/// this is DDNM with the fresh noise in the range; with `eta_b = 1` it is DDRM's rule.
///
/// # Target
/// Heuristic: where `s_i` sees a coordinate above the noise, the prior has no say in it.
///
/// # Reference
/// Wang, Yu, Zhang 2022, arXiv 2212.00490, "DDNM+" and its appendix for any singular values; Kawar, Elad, Ermon, Song
/// 2022, arXiv 2201.11793 (DDRM). Deviation: `eta` splits the noise as in DDIM (as their code does; the paper has DDPM's variance), there is no
/// time travel, and a coordinate at equality is a measured one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DdnmPlus {
    /// The share of fresh noise, in `[0, 1]`: the fresh noise's deviation over the whole noise's.
    pub eta: f64,
}

impl Default for DdnmPlus {
    fn default() -> Self {
        Self { eta: 0.85 }
    }
}

const NAME: &str = "ddnm-plus";
const NEEDS: &[Capability] = &[Capability::Svd];

impl DdnmPlus {
    /// Refuses settings outside their domain.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument).
    pub fn check(&self) -> Result<()> {
        check_argument("eta", self.eta, (0.0..=1.0).contains(&self.eta), "in [0, 1]", NAME)
    }
}

/// The steps of [`DdnmPlus`] for one measurement.
pub struct DdnmPlusSampler<'a> {
    eta: f64,
    svd: &'a dyn Svd,
    /// The measured coordinates: index `i` to `(y_i, n_i)`, none where `s_i = 0`.
    measured: Vec<Option<(f64, f64)>>,
}

impl<'a> DdnmPlusSampler<'a> {
    /// The steps for `measurement`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without a singular value decomposition; [`Error::Shape`](crate::Error::Shape)
    /// and [`Error::Argument`](crate::Error::Argument) for a measurement or settings out of their domain.
    pub fn new(settings: &DdnmPlus, measurement: &'a Measurement<'a>) -> Result<Self> {
        settings.check()?;
        check_measurement(NAME, NEEDS, measurement)?;
        let svd = measurement.op.svd().ok_or_else(|| super::lacks(NAME, NEEDS, measurement.op))?;
        let y_hat = svd.u_transpose(&measurement.y);
        let measured =
            svd.singular_values().iter().zip(&y_hat).map(|(s, y)| (*s > 0.0).then(|| (y / s, measurement.sigma_y / s))).collect();
        Ok(Self { eta: settings.eta, svd, measured })
    }

    /// The value of coordinate `i` at the step's end.
    fn advance(&self, i: usize, from: Level, to: Level, x: f64, x0_hat: f64, z: f64) -> f64 {
        let Self { eta, .. } = self;
        let kept = (1.0 - eta * eta).sqrt();
        match self.measured.get(i).copied().flatten() {
            None => to.alpha * x0_hat + to.sigma * (kept * (x - from.alpha * x0_hat) / from.sigma + eta * z),
            Some((y, noise)) if to.sigma >= to.alpha * noise => {
                to.alpha * y + (to.sigma.powi(2) - (to.alpha * noise).powi(2)).sqrt() * z
            }
            Some((y, noise)) => {
                let lambda = kept * to.sigma / (to.alpha * noise);
                to.alpha * (x0_hat + lambda * (y - x0_hat)) + eta * to.sigma * z
            }
        }
    }
}

impl Sampler for DdnmPlusSampler<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let x0_hat = step.denoiser.x0_hat(x, from)?;
        let (n, shape) = (x.dim().0, element_shape(x));
        let (x_v, x0_v) = (self.svd.v_transpose(x), self.svd.v_transpose(&x0_hat));
        let z_v = match to.sigma > 0.0 {
            true => self.svd.v_transpose(&noise.normal(step.index, Purpose::Step, n, shape)),
            false => Array4::zeros(x_v.raw_dim()),
        };
        let mut next = Array4::zeros(x_v.raw_dim());
        let d = shape.iter().product::<usize>();
        for (j, value) in next.iter_mut().enumerate() {
            let at = [j / d, 0, 0, j % d];
            *value = self.advance(j % d, from, to, x_v[at], x0_v[at], z_v[at]);
        }
        Ok(Stepped { x: self.svd.v(&next), x0_hat })
    }
}

impl PosteriorMethod for DdnmPlus {
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
        let mut sampler = DdnmPlusSampler::new(self, measurement)?;
        let x0 = super::run(&mut sampler, prior, measurement, grid, streams, observer)?;
        Ok(Drawn { x0, diagnostics: Diagnostics::default() })
    }
}
