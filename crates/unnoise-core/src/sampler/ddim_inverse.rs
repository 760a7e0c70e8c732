//! The inversion of DDIM.

use super::{Grid, Sampler, SamplerInfo, Step, Stepped, clipped, combine, eps_from_x0};
use crate::{Batch, Error, Interval, Level, Noise, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "ddim-inverse",
    order: "1",
    stochastic: false,
    evaluations: "1",
    grids: "reversed ones",
    options: &["clip"],
    source: include_str!("ddim_inverse.rs"),
    make: |options| Box::new(DdimInverse { clip: options.clip }),
};

/// DDIM inversion: the deterministic step of DDIM from less noise to more, along a [reversed](Grid::reversed) grid, which leads from an
/// image to the noise that DDIM with `eta = 0` makes this image of.
///
/// ```text
/// x' = alpha' x0 + sigma' eps(x, t')      x0 = (x - sigma eps) / alpha
/// ```
///
/// The network is told the time `t'` of the step's end, at which alone it is asked for `eps` in the first step from the clean image: at
/// `sigma = 0` the noise is what the network predicts for a noiseless image, the limit of `(x - alpha x0) / sigma` for small `sigma`.
/// A denoiser that predicts `x0`, and so says nothing of the noise there, is refused where it differs from the image. A step back,
/// [`Ddim`](super::Ddim)'s, has its noise from the other end: they differ by `O(h^2)`, and a round trip by `O(h)`.
///
/// # Reference
/// Song, Meng, Ermon 2021, arXiv 2010.02502, sec. 4.3 (the ODE in reverse); diffusers' `DDIMInverseScheduler`, whose `t'` it is; Dhariwal,
/// Nichol 2021, arXiv 2105.05233, app. F, ask at `t`. As in diffusers, a clipped `x0` does not change `eps`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DdimInverse {
    /// The largest absolute value of the clean image.
    pub clip: Option<f64>,
}

/// The noise level that stands for none: small beside 1, large beside the rounding of double precision.
const NEARLY_CLEAN: f64 = 1e-6;
/// No prediction of standard normal noise is as large.
const NO_NOISE: f64 = 1e3;

impl Sampler for DdimInverse {
    fn name(&self) -> &'static str {
        "ddim-inverse"
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        let ends = grid.steps.first().zip(grid.steps.last());
        if ends.is_some_and(|(first, last)| first.from.sigma_edm() > last.to.sigma_edm()) {
            return Err(Error::Unsupported {
                what: "ddim-inverse from noise".into(),
                why: "it leads from an image to noise".into(),
                possible: vec!["a reversed grid".into(), "ddim".into()],
            });
        }
        grid.reversed().check()
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let Interval { from, to } = step.interval();
        let asked = Level { t: to.t, sigma: from.sigma.max(NEARLY_CLEAN * from.alpha), ..from };
        let x0 = step.denoiser.x0_hat(x, asked)?;
        let eps = eps_from_x0(x, &x0, asked);
        if from.sigma == 0.0 && eps.iter().any(|eps| eps.abs() > NO_NOISE) {
            return Err(Error::Unsupported {
                what: "ddim-inverse from a clean image with this denoiser".into(),
                why: "its clean image is another, and the noise between them is infinite".into(),
                possible: vec!["a network that predicts eps or v".into(), "a grid that starts with a little noise".into()],
            });
        }
        let x0 = clipped(x0, self.clip);
        Ok(Stepped { x: combine(to.alpha, &x0, to.sigma, &eps), x0_hat: x0 })
    }
}
