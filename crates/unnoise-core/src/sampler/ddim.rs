//! Denoising diffusion implicit models.

use ndarray::Zip;

use super::{Sampler, SamplerInfo, Step, Stepped, clipped, eps_from_x0};
use crate::{Batch, Interval, Noise, Purpose, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "ddim",
    order: "1",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &["eta", "clip"],
    source: include_str!("ddim.rs"),
    make: |options| Box::new(Ddim { eta: options.eta.unwrap_or(0.0), clip: options.clip }),
};

/// DDIM: deterministic at `eta = 0`, ancestral sampling at `eta = 1`.
///
/// ```text
/// std = eta sigma' sqrt(1 - r^2)
/// x'  = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std z
/// ```
///
/// # Reference
/// Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 12 and 16, written for any `alpha`, `sigma` through the ratio `r` of the noise
/// levels `sigma / alpha`. As in diffusers, a clipped `x0` does not change `eps`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ddim {
    /// The share of ancestral noise, in `[0, 1]`.
    pub eta: f64,
    /// The largest absolute value of the clean image.
    pub clip: Option<f64>,
}

impl Sampler for Ddim {
    fn name(&self) -> &'static str {
        "ddim"
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let eps = eps_from_x0(x, &x0, from);
        let x0 = clipped(x0, self.clip);

        let std = self.eta * to.sigma * (1.0 - interval.ratio().powi(2)).max(0.0).sqrt();
        let direction = (to.sigma.powi(2) - std.powi(2)).max(0.0).sqrt();
        let mut next = Zip::from(&x0).and(&eps).map_collect(|x0, eps| to.alpha * x0 + direction * eps);
        if std > 0.0 {
            let (n, c, h, w) = x.dim();
            next.scaled_add(std, &noise.normal(step.index, Purpose::Step, n, [c, h, w]));
        }
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
