//! Whether posterior samples are as uncertain as they should be.

use crate::{Batch, Error, Purpose, Result, Shape, Streams, check_shape, element_shape, samples};

/// The ranks of the truth's pixels among posterior samples, pooled over images.
///
/// If the samples and the truth come from the same posterior, each of the `n + 1` ranks that the truth can have among `n` samples is
/// equally likely. So the interval between two order statistics covers the truth with a probability that is known exactly:
///
/// ```text
/// P(x_(lower) < truth < x_(upper)) = (upper - lower) / (n + 1)
/// ```
///
/// For 19 samples, the range (1 to 19) is a 90 % interval and 5 to 15 a 50 % interval. Ties, as of values that were rounded or
/// clipped, are broken at random.
///
/// Pixels that the posterior is sure of, as a picture's black border, say nothing and are left out; their share is told. They are
/// told by the deviation of all `n + 1` values, samples and truth alike: given the set of values, each is still equally likely to be
/// the truth, so that the ranks of the pixels that are kept stay exactly uniform. The samples' deviation alone would keep the pixels
/// whose samples happen to spread, which cover the truth too often: 95 % instead of 90 % where the threshold is the posterior's
/// own deviation.
///
/// ```
/// use unnoise_core::{Batch, Ranks, Streams};
/// let mut ranks = Ranks::new(3);
/// let samples = Batch::from_shape_vec((3, 1, 1, 2), vec![0.1, 0.5, 0.3, 0.5, 0.2, 0.5]).unwrap();
/// let truth = Batch::from_shape_vec((1, 1, 1, 2), vec![0.25, 0.5]).unwrap();
/// ranks.add(&samples, &truth, 0.02, &Streams::new(0, 0..1)).unwrap();
/// assert_eq!(ranks.counts(), [0, 0, 1, 0]);   // two of the three samples lie below the first pixel
/// assert_eq!(ranks.share(), 0.5);             // the second has no spread
/// ```
///
/// # Reference
/// Talts et al. 2018, arXiv 1804.06788 (uniform ranks); here of pixels, which are not independent, so that the error of a
/// coverage is that of the number of images rather than of pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    counts: Vec<u64>,
    seen: u64,
}

impl Ranks {
    /// No pixel yet, for `n` samples an image.
    pub fn new(n: usize) -> Self {
        Self { counts: vec![0; n + 1], seen: 0 }
    }

    /// Adds an image: `n` samples, `[n, c, h, w]`, and the truth, `[1, c, h, w]`. Counts the pixels where the deviation of these `n + 1`
    /// values (with `n` in the denominator) exceeds `threshold`, in the images' units. `tie_breaker` is the image's own stream.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes or the number of samples are others, or there is not exactly one stream.
    pub fn add(&mut self, images: &Batch, truth: &Batch, threshold: f64, tie_breaker: &Streams) -> Result<()> {
        let (at, n) = ("Ranks::add", self.counts.len() - 1);
        let shape = element_shape(images);
        check_count("samples", images, n, shape, at)?;
        check_shape(truth, shape, "truth", at)?;
        check_count("truth", truth, 1, shape, at)?;
        if tie_breaker.len() != 1 {
            return Err(Error::Shape { what: "tie_breaker", expected: vec![1], got: vec![tie_breaker.len()], at });
        }
        let images: Vec<_> = samples(images).collect();
        let uniforms = &tie_breaker.uniform(0, Purpose::Auxiliary, truth.len())[0];
        for (pixel, (truth, uniform)) in truth.iter().zip(uniforms).enumerate() {
            let values = || images.iter().map(|image| image[pixel]);
            self.seen += 1;
            if deviation(values().chain([*truth])) > threshold {
                let below = values().filter(|v| v < truth).count();
                let ties = values().filter(|v| v == truth).count();
                self.counts[below + (uniform * (ties + 1) as f64) as usize] += 1;
            }
        }
        Ok(())
    }

    /// How often the truth had each rank: `n + 1` counts, of the number of samples below it.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The number of pixels that were counted.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share of all pixels that were counted.
    pub fn share(&self) -> f64 {
        self.pixels() as f64 / self.seen as f64
    }

    /// The share of counted pixels between two order statistics of the samples, which are counted from 1; and what it would be for
    /// the true posterior.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `1 <= lower < upper <= n`.
    pub fn coverage(&self, lower: usize, upper: usize) -> Result<Coverage> {
        let n = self.counts.len() - 1;
        if lower < 1 || lower >= upper || upper > n {
            let (expected, got) = (format!("1 <= lower < upper <= {n}"), format!("{lower}, {upper}"));
            return Err(Error::Argument { what: "lower, upper", expected, got, at: "Ranks::coverage" });
        }
        let inside: u64 = self.counts[lower..upper].iter().sum();
        Ok(Coverage { found: inside as f64 / self.pixels() as f64, nominal: (upper - lower) as f64 / (n + 1) as f64 })
    }
}

/// How often an interval holds the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The share that was found; NaN when nothing was counted.
    pub found: f64,
    /// The share under the true posterior.
    pub nominal: f64,
}

fn check_count(what: &'static str, batch: &Batch, n: usize, [c, h, w]: Shape, at: &'static str) -> Result<()> {
    if batch.dim().0 == n {
        return Ok(());
    }
    Err(Error::Shape { what, expected: vec![n, c, h, w], got: batch.shape().to_vec(), at })
}

/// The standard deviation, with `n - 1`; 0 for a single value.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (values.map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt()
}
