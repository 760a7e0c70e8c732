//! The Gaussian prior of any covariance.

use std::f64::consts::TAU;

use nalgebra::{DMatrix, DVector};
use ndarray::Array2;

use super::{ExactPrior, batch, checked_columns, columns, psd_eigen, square};
use crate::{Batch, Dense, Error, Linearized, Measurement, Noise, Purpose, Result, Scales, Shape, Streams, check_shape};

/// The smallest noise variance that the arithmetic sees: `sigma = 0` is the limit from above.
const TINY: f64 = 1e-200;

/// A Gaussian distribution of images, `N(mu, C)`, with any covariance, singular ones included.
///
/// ```text
/// C = Q diag(lambda) Q^T
/// E[x0 | x_t] = mu + J (x_t - alpha mu)      J = Q diag(alpha lambda / (alpha^2 lambda + sigma^2)) Q^T
/// Cov[x0 | x_t] = (sigma^2 / alpha) J        p_t = N(alpha mu, alpha^2 C + sigma^2 I)
/// ```
///
/// # Reference
/// Linear-Gaussian conditioning, e.g. Bishop 2006, "Pattern recognition and machine learning", eqs. 2.113-2.117.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    shape: Shape,
    pub(super) mean: DVector<f64>,
    /// `lambda`.
    variances: DVector<f64>,
    /// `Q`.
    axes: DMatrix<f64>,
}

impl Gaussian {
    /// The distribution with this mean and covariance, `[d, d]`, of images of `d = c h w` values in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] when sizes disagree; [`Error::Argument`] unless the covariance is finite, symmetric and positive
    /// semi-definite, each to 1e-9 of its largest entry.
    pub fn new(mean: &[f64], covariance: &Array2<f64>, shape: Shape) -> Result<Self> {
        let (at, d) = ("Gaussian::new", shape.iter().product::<usize>());
        if mean.len() != d || d == 0 {
            return Err(Error::Shape { what: "mean", expected: vec![d.max(1)], got: vec![mean.len()], at });
        }
        if covariance.dim() != (d, d) {
            return Err(Error::Shape { what: "covariance", expected: vec![d, d], got: covariance.shape().to_vec(), at });
        }
        let matrix = DMatrix::from_fn(d, d, |i, j| covariance[[i, j]]);
        let argument =
            |what, expected: &str, got: f64| Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at });
        if let Some(bad) = mean.iter().chain(covariance).find(|v| !v.is_finite()) {
            return argument("mean, covariance", "finite", *bad);
        }
        let tolerance = 1e-9 * matrix.amax();
        let skew = (&matrix - matrix.transpose()).amax();
        if skew > tolerance {
            return argument("covariance", "symmetric", skew);
        }
        let lowest = matrix.symmetric_eigenvalues().min();
        if lowest < -tolerance {
            return argument("covariance's smallest eigenvalue", "non-negative", lowest);
        }
        Ok(Self::from_parts(DVector::from_column_slice(mean), matrix, shape))
    }

    /// `N(0, I)`.
    pub fn standard(shape: Shape) -> Self {
        let d = shape.iter().product();
        Self { shape, mean: DVector::zeros(d), variances: DVector::from_element(d, 1.0), axes: DMatrix::identity(d, d) }
    }

    fn from_parts(mean: DVector<f64>, covariance: DMatrix<f64>, shape: Shape) -> Self {
        let (variances, axes) = psd_eigen(covariance);
        Self { shape, mean, variances, axes }
    }

    pub(super) fn covariance_matrix(&self) -> DMatrix<f64> {
        &self.axes * DMatrix::from_diagonal(&self.variances) * self.axes.transpose()
    }

    /// The variances of `alpha x0 + sigma eps` along the axes.
    fn noisy_variances(&self, Scales { alpha, sigma }: Scales) -> DVector<f64> {
        self.variances.map(|lambda| alpha * alpha * lambda + (sigma * sigma).max(TINY))
    }

    /// `f(x - alpha mu)` for each column, with `f` diagonal in the axes.
    fn filter(&self, centred: &DMatrix<f64>, factors: &DVector<f64>) -> DMatrix<f64> {
        &self.axes * scale_rows(self.axes.tr_mul(centred), factors)
    }

    fn centred(&self, x: &DMatrix<f64>, alpha: f64) -> DMatrix<f64> {
        let mut centred = x.clone();
        centred.column_iter_mut().for_each(|mut column| column.axpy(-alpha, &self.mean, 1.0));
        centred
    }

    fn gains(&self, scales: Scales) -> DVector<f64> {
        self.variances.zip_map(&self.noisy_variances(scales), |lambda, noisy| scales.alpha * lambda / noisy)
    }

    /// `E[x0 | x_t]` of each column.
    pub(super) fn denoise(&self, x: &DMatrix<f64>, scales: Scales) -> DMatrix<f64> {
        let mut x0_hat = self.filter(&self.centred(x, scales.alpha), &self.gains(scales));
        x0_hat.column_iter_mut().for_each(|mut column| column += &self.mean);
        x0_hat
    }

    /// `J v` for each column.
    pub(super) fn jacobian_times(&self, v: &DMatrix<f64>, scales: Scales) -> DMatrix<f64> {
        self.filter(v, &self.gains(scales))
    }

    /// The gradient of `log p_t` at each column.
    pub(super) fn scores(&self, x: &DMatrix<f64>, scales: Scales) -> DMatrix<f64> {
        self.filter(&self.centred(x, scales.alpha), &self.noisy_variances(scales).map(|noisy| -1.0 / noisy))
    }

    /// `log p_t` of each column.
    pub(super) fn log_densities(&self, x: &DMatrix<f64>, scales: Scales) -> Vec<f64> {
        let noisy = self.noisy_variances(scales);
        let log_det: f64 = noisy.iter().map(|v| (TAU * v).ln()).sum();
        let along = self.axes.tr_mul(&self.centred(x, scales.alpha));
        let quadratic = |column: nalgebra::DVectorView<'_, f64>| column.zip_fold(&noisy, 0.0, |sum, z, v| sum + z * z / v);
        along.column_iter().map(|column| -0.5 * (quadratic(column) + log_det)).collect()
    }

    /// Maps standard normals to samples.
    pub(super) fn colour(&self, normals: &DMatrix<f64>) -> DMatrix<f64> {
        let mut x = &self.axes * scale_rows(normals.clone(), &self.variances.map(f64::sqrt));
        x.column_iter_mut().for_each(|mut column| column += &self.mean);
        x
    }

    /// `log p(y)`, or nothing if `y` has no density.
    pub(super) fn log_evidence(&self, measurement: &Measurement<'_>) -> Option<f64> {
        let (whitened, residual) = self.whitened(measurement);
        let (mut variances, axes) = psd_eigen(&whitened * whitened.transpose());
        variances.add_scalar_mut(measurement.sigma_y * measurement.sigma_y);
        if variances.min() <= 0.0 {
            return None;
        }
        let along = axes.tr_mul(&residual);
        Some(-0.5 * along.zip_fold(&variances, 0.0, |sum, z, v| sum + z * z / v + (TAU * v).ln()))
    }

    /// `B` and `r` of `y = A mu + r`, `r = B z + sigma_y e`, with `x0 = mu + Q lambda^(1/2) z` and standard normal `z`.
    fn whitened(&self, measurement: &Measurement<'_>) -> (DMatrix<f64>, DVector<f64>) {
        let rows = Dense::matrix_of(measurement.op);
        let a = DMatrix::from_fn(rows.nrows(), rows.ncols(), |i, j| rows[[i, j]]);
        let residual = DVector::from_iterator(a.nrows(), measurement.y.iter().copied()) - &a * &self.mean;
        (a * self.factor(), residual)
    }

    /// `Q lambda^(1/2)`.
    fn factor(&self) -> DMatrix<f64> {
        &self.axes * DMatrix::from_diagonal(&self.variances.map(f64::sqrt))
    }
}

impl ExactPrior for Gaussian {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn mean(&self) -> Batch {
        batch(&DMatrix::from_column_slice(self.mean.len(), 1, self.mean.as_slice()), self.shape)
    }

    fn covariance(&self) -> Array2<f64> {
        square(&self.covariance_matrix())
    }

    fn linearize(&self, x: &Batch, scales: Scales) -> Result<Linearized<'_>> {
        check_shape(x, self.shape, "x", "Gaussian::linearize")?;
        let n = x.dim().0;
        let x0_hat = batch(&self.denoise(&columns(x), scales), self.shape);
        let vjp = move |v: &Batch| {
            let v = checked_columns(v, self.shape, n)?;
            Ok(batch(&self.jacobian_times(&v, scales), self.shape))
        };
        Ok(Linearized { x0_hat, vjp: Box::new(vjp) })
    }

    fn log_density(&self, x: &Batch, scales: Scales) -> Result<Vec<f64>> {
        check_shape(x, self.shape, "x", "Gaussian::log_density")?;
        Ok(self.log_densities(&columns(x), scales))
    }

    fn score(&self, x: &Batch, scales: Scales) -> Result<Batch> {
        check_shape(x, self.shape, "x", "Gaussian::score")?;
        Ok(batch(&self.scores(&columns(x), scales), self.shape))
    }

    /// ```text
    /// B^T B = W diag(e) W^T      z | y ~ N(W diag(1 / (e + sigma_y^2)) W^T B^T r, W diag(sigma_y^2 / (e + sigma_y^2)) W^T)
    /// ```
    ///
    /// in the whitened coordinates `x0 = mu + Q lambda^(1/2) z`, where nothing cancels. Without noise, what is measured is fixed and
    /// the rest keeps its prior.
    fn posterior(&self, measurement: &Measurement<'_>) -> Result<Self> {
        check_shape(&self.mean(), measurement.op.input_shape(), "the prior's images", "Gaussian::posterior")?;
        let (whitened, residual) = self.whitened(measurement);
        let (e, w) = psd_eigen(whitened.tr_mul(&whitened));
        let noise = measurement.sigma_y * measurement.sigma_y;
        let precision = e.map(|e| if e + noise > 0.0 { 1.0 / (e + noise) } else { 0.0 });
        let z = &w * w.tr_mul(&whitened.tr_mul(&residual)).component_mul(&precision);
        let deviations = e.map(|e| if e > 0.0 { (noise / (e + noise)).sqrt() } else { 1.0 });
        let root = self.factor() * w * DMatrix::from_diagonal(&deviations);
        Ok(Self::from_parts(&self.mean + self.factor() * z, &root * root.transpose(), self.shape))
    }

    fn sample(&self, streams: &Streams) -> Batch {
        let normals = streams.clone().normal(0, Purpose::Auxiliary, streams.len(), self.shape);
        batch(&self.colour(&columns(&normals)), self.shape)
    }
}

fn scale_rows(mut matrix: DMatrix<f64>, factors: &DVector<f64>) -> DMatrix<f64> {
    matrix.column_iter_mut().for_each(|mut column| column.component_mul_assign(factors));
    matrix
}
