//! The seam: what every prior offers and every sampler consumes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Batch, Level, Result, Schedule};

/// The vector-Jacobian product at a fixed input: maps `v`, shaped like `x0_hat`, to `J^T v` with `J = d x0_hat / d x_t`.
pub type Vjp<'a> = Box<dyn FnMut(&Batch) -> Result<Batch> + 'a>;

/// A denoiser's posterior mean at an input, and its derivative there.
pub struct Linearized<'a> {
    /// `E[x0 | x_t]`, `[n, c, h, w]`.
    pub x0_hat: Batch,
    /// `v -> J^T v`, sample by sample. May be called any number of times.
    pub vjp: Vjp<'a>,
}

/// A denoiser's posterior mean, and the variance of a step where a network has learned it.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// `E[x0 | x_t]`, `[n, c, h, w]`.
    pub x0_hat: Batch,
    /// Where each pixel's variance lies, in logarithms, between the smallest (0) and the largest (1) that a step of
    /// [`Ddpm`](crate::Ddpm) can have; a network may leave `[0, 1]`. Shaped like `x0_hat`; none from what has not learned it.
    ///
    /// # Reference
    /// Nichol, Dhariwal 2021, arXiv 2102.09672, eq. 15: its `v`.
    pub variance_share: Option<Batch>,
}

impl Estimate {
    /// The estimate with another mean.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn map(self, f: impl FnOnce(Batch) -> Result<Batch>) -> Result<Self> {
        Ok(Self { x0_hat: f(self.x0_hat)?, ..self })
    }
}

/// A prior, seen through its posterior mean.
///
/// ```text
/// x_t = alpha x0 + sigma eps      x0_hat(x_t) = E[x0 | x_t]
/// ```
///
/// # Shapes
/// `x` and the result are `[n, c, h, w]`; samples do not influence each other.
///
/// # Reference
/// The contract `D(x; sigma)` of Karras et al. 2022, arXiv 2206.00364, sec. 2; here with a signal scale `alpha` beside the noise
/// scale, so that variance-preserving and exploding processes are served alike.
pub trait Denoiser: Sync {
    /// The schedule that the denoiser was made for: it ties the `t` of a [`Level`] to its scales.
    fn schedule(&self) -> &dyn Schedule;

    /// The posterior mean of the clean image given `x` at `level`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an input of the wrong shape; [`Error::Denoiser`](crate::Error::Denoiser) for what
    /// fails inside a network.
    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch>;

    /// The posterior mean and the learned variance, in one evaluation. What has none need not say so; what wraps a denoiser passes on
    /// the inner one's, unless it makes another distribution of it.
    ///
    /// # Errors
    /// As [`x0_hat`](Self::x0_hat).
    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        Ok(Estimate { x0_hat: self.x0_hat(x, level)?, variance_share: None })
    }

    /// The posterior mean and its vector-Jacobian product at `x`.
    ///
    /// # Errors
    /// As [`x0_hat`](Self::x0_hat).
    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>>;
}

/// How often a denoiser was evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluations {
    /// Posterior means of one image.
    pub forward: u64,
    /// Vector-Jacobian products of one image.
    pub vjp: u64,
}

/// A denoiser that counts its evaluations, image by image.
pub struct Counted<D> {
    inner: D,
    forward: AtomicU64,
    vjp: AtomicU64,
}

impl<D: Denoiser> Counted<D> {
    /// Wraps `inner` with both counters at zero.
    pub fn new(inner: D) -> Self {
        Self { inner, forward: AtomicU64::new(0), vjp: AtomicU64::new(0) }
    }

    /// The evaluations so far.
    pub fn evaluations(&self) -> Evaluations {
        Evaluations { forward: self.forward.load(Ordering::Relaxed), vjp: self.vjp.load(Ordering::Relaxed) }
    }
}

impl<D: Denoiser> Denoiser for Counted<D> {
    fn schedule(&self) -> &dyn Schedule {
        self.inner.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        self.forward.fetch_add(x.dim().0 as u64, Ordering::Relaxed);
        self.inner.x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        self.forward.fetch_add(x.dim().0 as u64, Ordering::Relaxed);
        self.inner.estimate(x, level)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        self.forward.fetch_add(x.dim().0 as u64, Ordering::Relaxed);
        let Linearized { x0_hat, mut vjp } = self.inner.linearize(x, level)?;
        let vjp = Box::new(move |v: &Batch| {
            self.vjp.fetch_add(v.dim().0 as u64, Ordering::Relaxed);
            vjp(v)
        });
        Ok(Linearized { x0_hat, vjp })
    }
}

/// A denoiser whose posterior mean is clamped to `[-limit, limit]`, for images that cannot leave that range.
///
/// A network that predicts the noise divides its error by `alpha`, so that at the first levels its estimate of the clean image is far out
/// of the images' range; diffusers' DDPM and DDIM clip it (`clip_sample`), and a chain of few steps needs it.
///
/// The vector-Jacobian product is that of the clamped mean: nothing passes a value that was clamped.
pub struct Clamped<D> {
    inner: D,
    limit: f64,
}

impl<D: Denoiser> Clamped<D> {
    /// Clamps `inner` to `[-limit, limit]`; an infinite limit leaves it as it is.
    pub fn new(inner: D, limit: f64) -> Self {
        Self { inner, limit }
    }

    fn clamp(&self, x0_hat: Batch) -> Batch {
        x0_hat.mapv_into(|v| v.clamp(-self.limit, self.limit))
    }
}

impl<D: Denoiser> Denoiser for Clamped<D> {
    fn schedule(&self) -> &dyn Schedule {
        self.inner.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        Ok(self.clamp(self.inner.x0_hat(x, level)?))
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        self.inner.estimate(x, level)?.map(|x0_hat| Ok(self.clamp(x0_hat)))
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        let Linearized { x0_hat, mut vjp } = self.inner.linearize(x, level)?;
        let clamped = self.clamp(x0_hat.clone());
        let vjp = Box::new(move |v: &Batch| {
            let mut passed = v.clone();
            passed.zip_mut_with(&x0_hat, |v, x0| *v = if x0.abs() <= self.limit { *v } else { 0.0 });
            vjp(&passed)
        });
        Ok(Linearized { x0_hat: clamped, vjp })
    }
}

/// A denoiser that asks before every evaluation and every vector-Jacobian product whether to go on, so that a run ends within one of them:
/// a step of a method that solves a linear system takes many.
pub struct Interruptible<D, F> {
    inner: D,
    go_on: F,
}

impl<D: Denoiser, F: Fn() -> Result<()> + Sync> Interruptible<D, F> {
    /// Wraps `inner`; where `go_on` returns an error, usually [`Error::Stopped`](crate::Error::Stopped), it is not asked and the error is
    /// returned.
    pub fn new(inner: D, go_on: F) -> Self {
        Self { inner, go_on }
    }
}

impl<D: Denoiser, F: Fn() -> Result<()> + Sync> Denoiser for Interruptible<D, F> {
    fn schedule(&self) -> &dyn Schedule {
        self.inner.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        (self.go_on)()?;
        self.inner.x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        (self.go_on)()?;
        self.inner.estimate(x, level)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        (self.go_on)()?;
        let Linearized { x0_hat, mut vjp } = self.inner.linearize(x, level)?;
        let vjp = Box::new(move |v: &Batch| {
            (self.go_on)()?;
            vjp(v)
        });
        Ok(Linearized { x0_hat, vjp })
    }
}

impl<D: Denoiser + ?Sized> Denoiser for Box<D> {
    fn schedule(&self) -> &dyn Schedule {
        (**self).schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        (**self).x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        (**self).estimate(x, level)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        (**self).linearize(x, level)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn schedule(&self) -> &dyn Schedule {
        (**self).schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        (**self).x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        (**self).estimate(x, level)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        (**self).linearize(x, level)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::{Error, Extrapolated, Gaussian, Noise, Oracle, Purpose, Streams, Thresholded, VpSchedule, dot};

    /// A prior that has learned the share 0.25.
    struct Learned(Oracle<Gaussian>);

    impl Denoiser for Learned {
        fn schedule(&self) -> &dyn Schedule {
            self.0.schedule()
        }

        fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
            self.0.x0_hat(x, level)
        }

        fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
            Ok(Estimate { variance_share: Some(x.mapv(|_| 0.25)), ..self.0.estimate(x, level)? })
        }

        fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
            self.0.linearize(x, level)
        }
    }

    /// What wraps a denoiser changes the mean of an estimate as it changes the mean alone, in one evaluation, and passes the variance on.
    #[test]
    fn a_learned_variance_passes_through() {
        let oracle = || Oracle::new(Gaussian::standard([1, 1, 4]), Arc::new(VpSchedule::default()));
        let (learned, oracle) = (Counted::new(Learned(oracle())), oracle());
        let wrapped: [(&str, Box<dyn Denoiser + '_>); 6] = [
            ("a reference", Box::new(&learned)),
            ("Clamped", Box::new(Clamped::new(&learned, 0.5))),
            ("Interruptible", Box::new(Interruptible::new(&learned, || Ok(())))),
            ("Thresholded", Box::new(Thresholded::new(&learned, 0.5, 2.0).unwrap())),
            ("Extrapolated", Box::new(Extrapolated::new(&learned, &oracle, 3.0).unwrap())),
            ("at scale 1", Box::new(Extrapolated::new(&learned, &oracle, 1.0).unwrap())),
        ];
        let (level, x) = (Level::at(oracle.schedule(), 0.3), Batch::from_shape_fn((2, 1, 1, 4), |(n, _, _, i)| (n + i) as f64));
        for (count, (name, denoiser)) in wrapped.iter().enumerate() {
            let Estimate { x0_hat, variance_share } = denoiser.estimate(&x, level).unwrap();
            assert_eq!(variance_share, Some(x.mapv(|_| 0.25)), "{name}");
            assert_eq!(learned.evaluations().forward, 4 * count as u64 + 2, "{name}");
            assert_eq!(x0_hat, denoiser.x0_hat(&x, level).unwrap(), "{name}");
        }
        assert_eq!(oracle.estimate(&x, level).unwrap().variance_share, None);
    }

    /// Neither an evaluation nor a product of a linearisation made before is served any more.
    #[test]
    fn nothing_runs_after_a_stop() {
        let oracle = Oracle::new(Gaussian::standard([1, 1, 4]), Arc::new(VpSchedule::default()));
        let counted = Counted::new(&oracle);
        let stop = AtomicBool::new(false);
        let go_on = || if stop.load(Ordering::Relaxed) { Err(Error::Stopped { done: 3, steps: 5 }) } else { Ok(()) };
        let denoiser = Interruptible::new(&counted, go_on);
        let (x, level) = (Batch::ones((2, 1, 1, 4)), Level::at(oracle.schedule(), 0.5));
        assert_eq!(denoiser.x0_hat(&x, level).unwrap(), oracle.x0_hat(&x, level).unwrap());
        let mut at = denoiser.linearize(&x, level).unwrap();
        (at.vjp)(&x).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(matches!((at.vjp)(&x), Err(Error::Stopped { done: 3, steps: 5 })));
        assert!(denoiser.x0_hat(&x, level).is_err() && denoiser.linearize(&x, level).is_err());
        assert_eq!(counted.evaluations(), Evaluations { forward: 4, vjp: 2 });
    }

    /// The product of a clamped mean against central differences; a wide prior makes some values leave the range and some not.
    #[test]
    fn the_product_is_that_of_the_clamped_mean() {
        let shape = [1, 1, 6];
        let oracle = Oracle::new(Gaussian::standard(shape), Arc::new(VpSchedule::default()));
        let clamped = Clamped::new(&oracle, 0.5);
        let level = Level::at(oracle.schedule(), 0.3);
        let draw = |step| Streams::new(2, 0..1).normal(step, Purpose::Auxiliary, 1, shape);
        let (x, v, direction) = (draw(0), draw(1), draw(2));
        let mut at = clamped.linearize(&x, level).unwrap();
        let inside = at.x0_hat.iter().filter(|x0| x0.abs() < 0.5).count();
        assert!((1..6).contains(&inside), "{inside} of 6 are inside");
        let h = 1e-6;
        let moved = |h: f64| clamped.x0_hat(&(&x + h * &direction), level).unwrap();
        let numerical = dot(&v, &((moved(h) - moved(-h)) / (2.0 * h)))[0];
        let exact = dot(&(at.vjp)(&v).unwrap(), &direction)[0];
        assert!((numerical - exact).abs() < 1e-8, "{numerical} {exact}");
        assert_eq!(Clamped::new(&oracle, f64::INFINITY).x0_hat(&x, level).unwrap(), oracle.x0_hat(&x, level).unwrap());
    }
}
