//! Dynamic thresholding.

use ndarray::{ArrayView1, Zip};

use crate::{Batch, Denoiser, Error, Estimate, Level, Linearized, Result, Schedule, samples, scale_samples};

/// A denoiser whose posterior mean is clipped at a quantile of its own absolute values and scaled to the images' range, each sample alone.
///
/// ```text
/// s = min(max(quantile(|x0|, q), 1), s_max)      x0' = clip(x0, -s, s) / s
/// ```
///
/// A sample within `[-1, 1]` stays as it is. Strong guidance drives means far out of that range: a fixed clip ([`Clamped`](crate::Clamped))
/// saturates them, this keeps their contrast.
///
/// The vector-Jacobian product includes that of `s`, which is a value of the image, or between two.
///
/// # Reference
/// Saharia et al. 2022, arXiv 2205.11487, sec. 2.3 (`q` is its percentile `p`); the largest threshold and the quantile's linear interpolation
/// between values: diffusers 0.42.1, `_threshold_sample`, with its defaults `q = 0.995` and `s_max = 1`, at which this is a clip to `[-1, 1]`.
pub struct Thresholded<D> {
    inner: D,
    quantile: f64,
    largest: f64,
}

/// The threshold of one sample.
struct Threshold {
    s: f64,
    /// The values that it depends on, by place, with its derivative in each one's absolute value; none where it is a bound.
    from: Vec<(usize, f64)>,
}

impl<D: Denoiser> Thresholded<D> {
    /// Thresholds `inner` at this quantile, and nowhere above `largest`, which may be infinite.
    ///
    /// # Errors
    /// [`Error::Argument`] for a quantile outside `[0, 1]` and a largest threshold below 1.
    pub fn new(inner: D, quantile: f64, largest: f64) -> Result<Self> {
        let refuse = |what, expected: &str, got: f64| {
            Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at: "Thresholded" })
        };
        if !(0.0..=1.0).contains(&quantile) {
            return refuse("the quantile", "in [0, 1]", quantile);
        }
        if largest.is_nan() || largest < 1.0 {
            return refuse("the largest threshold", "at least 1", largest);
        }
        Ok(Self { inner, quantile, largest })
    }

    fn bound(&self, x0: Batch) -> Batch {
        let thresholds = self.thresholds(&x0);
        apply(x0, &thresholds)
    }

    fn thresholds(&self, x0: &Batch) -> Vec<Threshold> {
        samples(x0).map(|sample| self.threshold(sample)).collect()
    }

    fn threshold(&self, sample: ArrayView1<'_, f64>) -> Threshold {
        let mut places: Vec<usize> = (0..sample.len()).collect();
        places.sort_by(|i, j| sample[*i].abs().total_cmp(&sample[*j].abs()));
        let rank = self.quantile * (sample.len().max(1) - 1) as f64;
        let (below, share) = (rank as usize, rank.fract());
        let from: Vec<_> = [(below, 1.0 - share), (below + 1, share)].into_iter().filter(|(_, weight)| *weight > 0.0).collect();
        let from: Vec<_> = from.into_iter().filter_map(|(k, weight)| Some((*places.get(k)?, weight))).collect();
        let s: f64 = from.iter().map(|(i, weight)| weight * sample[*i].abs()).sum();
        if (1.0..=self.largest).contains(&s) {
            Threshold { s, from }
        } else {
            Threshold { s: s.max(1.0).min(self.largest), from: vec![] }
        }
    }
}

fn apply(mut x0: Batch, thresholds: &[Threshold]) -> Batch {
    for (mut sample, Threshold { s, .. }) in x0.outer_iter_mut().zip(thresholds) {
        sample.mapv_inplace(|v| v.max(-s).min(*s) / s);
    }
    x0
}

/// `J^T v` of [`apply`], with `s` a function of `x0`.
///
/// ```text
/// v_i / s where |x0_i| < s, 0 elsewhere;      less sum_{|x0_i| < s} v_i x0_i / s^2 times the derivative of s
/// ```
fn pull_back(x0: &Batch, thresholds: &[Threshold], v: &Batch) -> Batch {
    let mut passed = v.clone();
    scale_samples(&mut passed, &thresholds.iter().map(|t| 1.0 / t.s).collect::<Vec<_>>());
    for ((mut passed, x0), Threshold { s, from }) in passed.outer_iter_mut().zip(x0.outer_iter()).zip(thresholds) {
        passed.zip_mut_with(&x0, |v, x0| *v = if x0.abs() < *s || from.is_empty() && x0.abs() <= *s { *v } else { 0.0 });
        let along = Zip::from(&passed).and(&x0).fold(0.0, |sum, v, x0| sum + v * x0) / s;
        for (place, weight) in from {
            let (value, x0) = (passed.iter_mut().nth(*place), x0.iter().nth(*place));
            value.into_iter().zip(x0).for_each(|(value, x0)| *value -= along * weight * x0.signum());
        }
    }
    passed
}

impl<D: Denoiser> Denoiser for Thresholded<D> {
    fn schedule(&self) -> &dyn Schedule {
        self.inner.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        Ok(self.bound(self.inner.x0_hat(x, level)?))
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        self.inner.estimate(x, level)?.map(|x0| Ok(self.bound(x0)))
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        let Linearized { x0_hat, mut vjp } = self.inner.linearize(x, level)?;
        let thresholds = self.thresholds(&x0_hat);
        let x0 = apply(x0_hat.clone(), &thresholds);
        let vjp = Box::new(move |v: &Batch| vjp(&pull_back(&x0_hat, &thresholds, v)));
        Ok(Linearized { x0_hat: x0, vjp })
    }
}
