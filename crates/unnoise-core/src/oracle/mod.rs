//! Priors whose posterior mean is known exactly: what every sampler and posterior method is checked against.

mod gaussian;
mod mixture;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, Array4};

pub use gaussian::Gaussian;
pub use mixture::GaussianMixture;

use crate::{
    Batch, Denoiser, Error, Level, Linearized, Measurement, Result, Scales, Schedule, Shape, Streams, check_shape, element_shape,
};

/// A distribution of images whose noisy versions, and whose posterior under a linear measurement, are known in closed form.
pub trait ExactPrior: Clone + Send + Sync {
    /// The shape of one image.
    fn shape(&self) -> Shape;

    /// `E[x0]`, `[1, c, h, w]`.
    fn mean(&self) -> Batch;

    /// `Cov[x0]`, `[d, d]`, of the image's values in row-major order.
    fn covariance(&self) -> Array2<f64>;

    /// `E[x0 | x_t]` and its vector-Jacobian product at `x_t = alpha x0 + sigma eps`. The Jacobian is symmetric.
    ///
    /// Where `sigma` is 0 this is the limit from above, also for a prior that has no density.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x`, or a vector given to the product, has the wrong shape.
    fn linearize(&self, x: &Batch, scales: Scales) -> Result<Linearized<'_>>;

    /// `log p_t(x)` for each sample: the density of `alpha x0 + sigma eps`. Scales `(1, 0)` give the prior's own.
    ///
    /// # Errors
    /// [`Error::Shape`].
    fn log_density(&self, x: &Batch, scales: Scales) -> Result<Vec<f64>>;

    /// The gradient of `log p_t` at `x`. Scales `(1, 0)` give the prior's own score, which no denoiser has.
    ///
    /// # Errors
    /// [`Error::Shape`].
    fn score(&self, x: &Batch, scales: Scales) -> Result<Batch>;

    /// `p(x0 | y)`: again of this kind.
    ///
    /// # Errors
    /// [`Error::Shape`] when the measurement's operator is not for these images; [`Error::Unsupported`] when `sigma_y` is 0 and the
    /// evidence that weighs several components has no density.
    fn posterior(&self, measurement: &Measurement<'_>) -> Result<Self>;

    /// One image for each stream.
    fn sample(&self, streams: &Streams) -> Batch;
}

/// An exact prior as a [`Denoiser`].
///
/// ```
/// use std::sync::Arc;
/// use unnoise_core::{Batch, Denoiser, Gaussian, Level, Oracle, VeSchedule};
/// let prior = Oracle::new(Gaussian::standard([1, 1, 1]), Arc::new(VeSchedule::default()));
/// let level = Level { t: 0.5, alpha: 1.0, sigma: 0.7 };
/// let x0_hat = prior.x0_hat(&Batch::from_elem((1, 1, 1, 1), 3.0), level).unwrap();
/// assert!((x0_hat[[0, 0, 0, 0]] - 3.0 / (1.0 + 0.49)).abs() < 1e-15);
/// ```
#[derive(Clone, Debug)]
pub struct Oracle<P> {
    prior: P,
    schedule: Arc<dyn Schedule>,
}

impl<P: ExactPrior> Oracle<P> {
    /// The denoiser of `prior` for `schedule`. It is as exact at levels that are not on the schedule.
    pub fn new(prior: P, schedule: Arc<dyn Schedule>) -> Self {
        Self { prior, schedule }
    }

    /// The prior.
    pub fn prior(&self) -> &P {
        &self.prior
    }
}

impl<P: ExactPrior> Denoiser for Oracle<P> {
    fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        Ok(self.linearize(x, level)?.x0_hat)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        self.prior.linearize(x, Scales { alpha: level.alpha, sigma: level.sigma })
    }
}

/// A batch as a `d x n` matrix, one image a column.
fn columns(batch: &Batch) -> DMatrix<f64> {
    let d = element_shape(batch).iter().product();
    DMatrix::from_iterator(d, batch.dim().0, batch.iter().copied())
}

/// The inverse of [`columns`].
fn batch(columns: &DMatrix<f64>, [c, h, w]: Shape) -> Batch {
    Array4::from_shape_vec((columns.ncols(), c, h, w), columns.as_slice().to_vec()).expect("a column holds c h w values")
}

fn square(matrix: &DMatrix<f64>) -> Array2<f64> {
    Array2::from_shape_fn(matrix.shape(), |index| matrix[index])
}

/// The vectors of a vector-Jacobian product as columns, checked against the batch that it belongs to.
fn checked_columns(v: &Batch, shape: Shape, n: usize) -> Result<DMatrix<f64>> {
    check_shape(v, shape, "v", "the oracle's vector-Jacobian product")?;
    if v.dim().0 != n {
        let [c, h, w] = shape;
        let (expected, got) = (vec![n, c, h, w], v.shape().to_vec());
        return Err(Error::Shape { what: "v", expected, got, at: "the oracle's vector-Jacobian product" });
    }
    Ok(columns(v))
}

/// Eigenvalues, none negative, and eigenvectors of a positive semi-definite matrix. Those below `d` epsilons of the largest are 0.
fn psd_eigen(matrix: DMatrix<f64>) -> (DVector<f64>, DMatrix<f64>) {
    let eigen = matrix.symmetric_eigen();
    let cut = eigen.eigenvalues.len() as f64 * f64::EPSILON * eigen.eigenvalues.amax();
    (eigen.eigenvalues.map(|v| if v > cut { v } else { 0.0 }), eigen.eigenvectors)
}
