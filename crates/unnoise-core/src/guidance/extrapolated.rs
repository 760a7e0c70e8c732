//! Classifier-free guidance and autoguidance: away from a worse denoiser.

use std::ops::RangeInclusive;

use ndarray::Axis;

use crate::{
    Batch, Conversion, Denoiser, Error, Estimate, Level, Linearized, Prediction, Result, Schedule, dot, norm_sq, scale_samples,
};

/// The posterior mean of `main`, extrapolated away from that of `guide`.
///
/// ```text
/// g = guide + scale (main - guide)
/// ```
///
/// Classifier-free guidance has a conditional `main` and the unconditional `guide`; autoguidance has as `guide` a worse version of `main`,
/// smaller or less trained, under the same condition. Scale 1 is `main` itself, 0 the guide; above 1 samples crowd where `main` is
/// likelier than the guide. A posterior mean, `eps`, `v`, the score and the velocity are affine in one another, so that this is the
/// extrapolation of any of them.
///
/// Where the scale is 1, as everywhere outside an interval, the guide is not evaluated. Both must have one schedule. A learned variance is
/// that of `main`.
///
/// # Reference
/// Ho, Salimans 2022, arXiv 2207.12598, eq. 6, whose `w` is `scale - 1`; Karras et al. 2024, arXiv 2406.02507, sec. 3 (autoguidance),
/// whose `w` is our scale. The interval: Kynkaanniemi et al. 2024, arXiv 2404.07724, sec. 3. The rescaling: Lin et al. 2024, arXiv
/// 2305.08891, algorithm 2.
///
/// ```
/// use std::sync::Arc;
/// use unnoise_core::{Batch, Denoiser, Extrapolated, Gaussian, Level, Oracle, VpSchedule};
/// let prior = |mean: f64| {
///     Oracle::new(Gaussian::new(&[mean], &ndarray::array![[0.5]], [1, 1, 1]).unwrap(), Arc::new(VpSchedule::default()))
/// };
/// // Two Gaussians of one covariance: guidance moves the mean to 0 + 3 (1 - 0).
/// let guided = Extrapolated::new(prior(1.0), prior(0.0), 3.0).unwrap();
/// let (x, level) = (Batch::ones((1, 1, 1, 1)), Level::at(guided.schedule(), 0.4));
/// let (got, want) = (guided.x0_hat(&x, level).unwrap(), prior(3.0).x0_hat(&x, level).unwrap());
/// assert!((got - want)[[0, 0, 0, 0]].abs() < 1e-15);
/// ```
pub struct Extrapolated<M, G> {
    main: M,
    guide: G,
    scale: f64,
    interval: Option<RangeInclusive<f64>>,
    rescale: Option<Rescale>,
}

/// By how much, and of which prediction, the spread is restored.
#[derive(Clone, Copy)]
struct Rescale {
    share: f64,
    of: Prediction,
}

impl<M: Denoiser, G: Denoiser> Extrapolated<M, G> {
    /// `main`, guided by `guide` at every level.
    ///
    /// # Errors
    /// [`Error::Argument`] for a scale that is not finite.
    pub fn new(main: M, guide: G, scale: f64) -> Result<Self> {
        check(scale.is_finite(), "scale", "finite", scale)?;
        Ok(Self { main, guide, scale, interval: None, rescale: None })
    }

    /// Guides at noise levels `sigma / alpha` within `levels` alone; elsewhere the mean is that of `main`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `0 <= low <= high`.
    pub fn within(self, levels: RangeInclusive<f64>) -> Result<Self> {
        let (low, high) = (*levels.start(), *levels.end());
        check(0.0 <= low && low <= high, "the interval of noise levels", "0 <= low <= high", format!("{low}, {high}"))?;
        Ok(Self { interval: Some(levels), ..self })
    }

    /// Restores, by `share` between 0 and 1, the spread over its pixels that a sample's prediction `of` has under `main`.
    ///
    /// ```text
    /// q = prediction of g,  p = that of main:      q' = (share std(p) / std(q) + 1 - share) q
    /// ```
    ///
    /// The paper does so with the prediction that its network makes (`v`), diffusers with whichever the network makes; of `x0` it is the
    /// image's own contrast.
    ///
    /// # Errors
    /// [`Error::Argument`] for a share outside `[0, 1]`. An evaluation where `x0` is not determined by the prediction, as by `eps` at
    /// `alpha = 0`, is [`Error::UndefinedConversion`].
    pub fn rescaled(self, share: f64, of: Prediction) -> Result<Self> {
        check((0.0..=1.0).contains(&share), "the share of rescaling", "in [0, 1]", share)?;
        Ok(Self { rescale: (share > 0.0).then_some(Rescale { share, of }), ..self })
    }

    /// Whether the guide takes part at this level.
    fn guides(&self, level: Level) -> bool {
        self.scale != 1.0 && self.interval.as_ref().is_none_or(|levels| levels.contains(&level.sigma_edm()))
    }

    /// The mean of `main` at `x`, guided.
    fn guided(&self, x: &Batch, main: Batch, level: Level) -> Result<Batch> {
        if !self.guides(level) {
            return Ok(main);
        }
        let guided = self.extrapolate(&main, self.guide.x0_hat(x, level)?);
        Ok(self.restore(x, &main, &guided, level)?.map_or(guided, |restored| restored.mean()))
    }

    fn extrapolate(&self, main: &Batch, guide: Batch) -> Batch {
        guide * (1.0 - self.scale) + main * self.scale
    }

    fn restore(&self, x: &Batch, main: &Batch, guided: &Batch, level: Level) -> Result<Option<Restored>> {
        let Some(Rescale { share, of }) = self.rescale else { return Ok(None) };
        // x0 = a x + b q: the prediction q is in proportion to x0 - a x.
        let offset = x * Conversion::new(of, Prediction::X0, level, self.schedule())?.x_t;
        let (guided, main_centred) = (guided - &offset, centred(main - &offset));
        let guided_centred = centred(guided.clone());
        let ratio = |(p, q): (f64, f64)| if q > 0.0 { (p / q).sqrt() } else { 1.0 };
        let ratios = norm_sq(&main_centred).into_iter().zip(norm_sq(&guided_centred)).map(ratio).collect();
        Ok(Some(Restored { share, offset, guided, main_centred, guided_centred, ratios }))
    }
}

/// A rescaling at one input, with what its derivative needs. Predictions are as `x0 - a x`, to which they are in proportion.
struct Restored {
    share: f64,
    /// `a x`.
    offset: Batch,
    /// The guided prediction `q`.
    guided: Batch,
    /// `p - mean p` and `q - mean q`.
    main_centred: Batch,
    guided_centred: Batch,
    /// `std(p) / std(q)`, each sample's.
    ratios: Vec<f64>,
}

impl Restored {
    fn factors(&self) -> Vec<f64> {
        self.ratios.iter().map(|ratio| self.share * ratio + 1.0 - self.share).collect()
    }

    /// The mean `x0 = a x + factor q`.
    fn mean(&self) -> Batch {
        let mut q = self.guided.clone();
        scale_samples(&mut q, &self.factors());
        q + &self.offset
    }

    /// What a cotangent of the mean is of `q` and of `p`.
    ///
    /// ```text
    /// v_q = factor v - share ratio (v . q) (q - mean q) / |q - mean q|^2
    /// v_p =            share ratio (v . q) (p - mean p) / |p - mean p|^2
    /// ```
    fn pull_back(&self, v: &Batch) -> (Batch, Batch) {
        let along: Vec<f64> = dot(v, &self.guided).iter().zip(&self.ratios).map(|(vq, ratio)| self.share * ratio * vq).collect();
        let direction = |of: &Batch| {
            let mut direction = of.clone();
            let over = |(along, norm): (&f64, f64)| if norm > 0.0 { along / norm } else { 0.0 };
            scale_samples(&mut direction, &along.iter().zip(norm_sq(of)).map(over).collect::<Vec<_>>());
            direction
        };
        let mut of_guided = v.clone();
        scale_samples(&mut of_guided, &self.factors());
        (of_guided - direction(&self.guided_centred), direction(&self.main_centred))
    }
}

impl<M: Denoiser, G: Denoiser> Denoiser for Extrapolated<M, G> {
    fn schedule(&self) -> &dyn Schedule {
        self.main.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        self.guided(x, self.main.x0_hat(x, level)?, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        self.main.estimate(x, level)?.map(|main| self.guided(x, main, level))
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        let mut main = self.main.linearize(x, level)?;
        if !self.guides(level) {
            return Ok(main);
        }
        let mut guide = self.guide.linearize(x, level)?;
        let guided = self.extrapolate(&main.x0_hat, guide.x0_hat);
        let scale = self.scale;
        let Some(restored) = self.restore(x, &main.x0_hat, &guided, level)? else {
            let vjp = move |v: &Batch| Ok((main.vjp)(&(v * scale))? + (guide.vjp)(&(v * (1.0 - scale)))?);
            return Ok(Linearized { x0_hat: guided, vjp: Box::new(vjp) });
        };
        let Rescale { of, .. } = self.rescale.expect("it was restored");
        let a = Conversion::new(of, Prediction::X0, level, self.schedule())?.x_t;
        let x0_hat = restored.mean();
        let vjp = move |v: &Batch| {
            let (of_guided, of_main) = restored.pull_back(v);
            let through = (main.vjp)(&(&of_guided * scale + &of_main))? + (guide.vjp)(&(&of_guided * (1.0 - scale)))?;
            Ok(through + a * (v - of_guided - of_main))
        };
        Ok(Linearized { x0_hat, vjp: Box::new(vjp) })
    }
}

/// Each sample less its mean.
fn centred(mut batch: Batch) -> Batch {
    for mut sample in batch.axis_iter_mut(Axis(0)) {
        let mean = sample.mean().unwrap_or(0.0);
        sample -= mean;
    }
    batch
}

fn check(valid: bool, what: &'static str, expected: &str, got: impl ToString) -> Result<()> {
    if valid { Ok(()) } else { Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at: "Extrapolated" }) }
}
