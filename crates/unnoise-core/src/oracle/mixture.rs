//! The mixture of Gaussians.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, ArrayView1, Axis};

use super::{ExactPrior, Gaussian, batch, checked_columns, columns, square};
use crate::{Batch, Error, Linearized, Measurement, Noise, Purpose, Result, Scales, Shape, Streams, check_shape};

/// A mixture of Gaussians, `sum_k w_k N(mu_k, C_k)`, with any covariances.
///
/// ```text
/// r_k = w_k N_k(x_t) / sum_j w_j N_j(x_t),   N_k = N(alpha mu_k, alpha^2 C_k + sigma^2 I)
/// m_k = E[x0 | x_t, k],   s_k = grad log N_k(x_t)
/// E[x0 | x_t] = sum_k r_k m_k
/// J = sum_k r_k (J_k + (m_k - x0_hat) (s_k - s)^T),   s = sum_k r_k s_k
/// ```
///
/// Responsibilities are normalised in logarithms. The last product is not written as the square that it is (of `m_k - x0_hat`, times
/// `alpha / sigma^2`), so that neither `alpha = 0` nor `sigma = 0` divides by zero.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianMixture {
    /// Normalised.
    weights: Vec<f64>,
    components: Vec<Gaussian>,
}

impl GaussianMixture {
    /// The mixture of `components`, in proportion to `weights`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are as many weights as components, at least one, all of one shape; [`Error::Argument`] for a
    /// weight that is negative or not finite, and for weights that are all zero.
    pub fn new(weights: &[f64], components: Vec<Gaussian>) -> Result<Self> {
        let at = "GaussianMixture::new";
        if weights.len() != components.len() || weights.is_empty() {
            return Err(Error::Shape { what: "weights", expected: vec![components.len().max(1)], got: vec![weights.len()], at });
        }
        for component in &components {
            check_shape(&component.mean(), components[0].shape(), "every component", at)?;
        }
        let total: f64 = weights.iter().sum();
        if weights.iter().any(|w| w.is_nan() || *w < 0.0) || total <= 0.0 || !total.is_finite() {
            let expected = "finite, non-negative, not all zero".into();
            return Err(Error::Argument { what: "weights", expected, got: format!("{weights:?}"), at });
        }
        Ok(Self { weights: weights.iter().map(|w| w / total).collect(), components })
    }

    /// The weights; their sum is 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The components.
    pub fn components(&self) -> &[Gaussian] {
        &self.components
    }

    /// `log(w_k N_k(x))` for each column of `x`, `[n][k]`.
    fn log_terms(&self, x: &DMatrix<f64>, scales: Scales) -> Vec<Vec<f64>> {
        let per_component: Vec<_> = self.components.iter().map(|component| component.log_densities(x, scales)).collect();
        let term = |i: usize| per_component.iter().zip(&self.weights).map(|(logs, w)| w.ln() + logs[i]).collect();
        (0..x.ncols()).map(term).collect()
    }

    /// Each component's share, posterior mean and score, the latter two not yet relative to the mixture's.
    fn parts(&self, x: &DMatrix<f64>, scales: Scales) -> Vec<Part<'_>> {
        let responsibilities: Vec<Vec<f64>> = self.log_terms(x, scales).iter().map(|terms| softmax(terms)).collect();
        let part = |(k, component): (usize, _)| Part::new(component, responsibilities.iter().map(|r| r[k]).collect(), x, scales);
        self.components.iter().enumerate().map(part).collect()
    }

    /// The chosen component for a uniform number.
    fn choose(&self, uniform: f64) -> usize {
        let mut below = 0.0;
        let reaches = |w: &f64| {
            below += w;
            uniform < below
        };
        self.weights.iter().position(reaches).unwrap_or(self.weights.len() - 1)
    }
}

/// What one component contributes at each column.
struct Part<'a> {
    component: &'a Gaussian,
    /// `r_k`.
    responsibilities: Vec<f64>,
    /// `m_k - x0_hat`.
    mean_difference: DMatrix<f64>,
    /// `s_k - s`.
    score_difference: DMatrix<f64>,
}

impl<'a> Part<'a> {
    fn new(component: &'a Gaussian, responsibilities: Vec<f64>, x: &DMatrix<f64>, scales: Scales) -> Self {
        let (mean_difference, score_difference) = (component.denoise(x, scales), component.scores(x, scales));
        Self { component, responsibilities, mean_difference, score_difference }
    }
}

impl ExactPrior for GaussianMixture {
    fn shape(&self) -> Shape {
        self.components[0].shape()
    }

    fn mean(&self) -> Batch {
        self.components
            .iter()
            .zip(&self.weights)
            .fold(Batch::zeros(self.components[0].mean().dim()), |sum, (c, w)| sum + c.mean() * *w)
    }

    fn covariance(&self) -> Array2<f64> {
        let weighted = || self.components.iter().zip(&self.weights);
        let mean: DVector<f64> = weighted().map(|(c, w)| &c.mean * *w).sum();
        let spread = |c: &Gaussian| (&c.mean - &mean) * (&c.mean - &mean).transpose();
        square(&weighted().map(|(c, w)| (c.covariance_matrix() + spread(c)) * *w).sum())
    }

    fn linearize(&self, x: &Batch, scales: Scales) -> Result<Linearized<'_>> {
        let shape = self.shape();
        check_shape(x, shape, "x", "GaussianMixture::linearize")?;
        let (x, n) = (columns(x), x.dim().0);
        let mut parts = self.parts(&x, scales);
        let x0_hat = average(&parts, |part| &part.mean_difference);
        let score = average(&parts, |part| &part.score_difference);
        for part in &mut parts {
            part.mean_difference -= &x0_hat;
            part.score_difference -= &score;
        }
        let vjp = move |v: &Batch| {
            let v = checked_columns(v, shape, n)?;
            let mut result = DMatrix::zeros(v.nrows(), n);
            for part in &parts {
                let within = part.component.jacobian_times(&v, scales);
                for (i, &r) in part.responsibilities.iter().enumerate().filter(|(_, r)| **r > 0.0) {
                    let between = part.mean_difference.column(i).dot(&v.column(i));
                    result.column_mut(i).axpy(r, &within.column(i), 1.0);
                    result.column_mut(i).axpy(r * between, &part.score_difference.column(i), 1.0);
                }
            }
            Ok(batch(&result, shape))
        };
        Ok(Linearized { x0_hat: batch(&x0_hat, shape), vjp: Box::new(vjp) })
    }

    fn log_density(&self, x: &Batch, scales: Scales) -> Result<Vec<f64>> {
        check_shape(x, self.shape(), "x", "GaussianMixture::log_density")?;
        Ok(self.log_terms(&columns(x), scales).iter().map(|terms| log_sum_exp(terms)).collect())
    }

    fn score(&self, x: &Batch, scales: Scales) -> Result<Batch> {
        check_shape(x, self.shape(), "x", "GaussianMixture::score")?;
        Ok(batch(&average(&self.parts(&columns(x), scales), |part| &part.score_difference), self.shape()))
    }

    /// Each component's own posterior, weighted by how well the component explains the measurement:
    ///
    /// ```text
    /// w_k <- w_k N(y; A mu_k, A C_k A^T + sigma_y^2 I) / sum_j ...
    /// ```
    fn posterior(&self, measurement: &Measurement<'_>) -> Result<Self> {
        let components: Vec<Gaussian> = self.components.iter().map(|c| c.posterior(measurement)).collect::<Result<_>>()?;
        let term = |(component, w): (&Gaussian, &f64)| component.log_evidence(measurement).map(|log| w.ln() + log);
        let terms: Option<Vec<f64>> = self.components.iter().zip(&self.weights).map(term).collect();
        let terms = terms.ok_or_else(|| Error::Unsupported {
            what: "the exact posterior of a mixture under this measurement".into(),
            why: "sigma_y is 0 and a component gives the measurement no density".into(),
            possible: vec!["sigma_y > 0".into()],
        })?;
        Ok(Self { weights: softmax(&terms), components })
    }

    fn sample(&self, streams: &Streams) -> Batch {
        let normals = streams.clone().normal(0, Purpose::Auxiliary, streams.len(), self.shape());
        let mut samples = normals.clone();
        for (i, uniform) in streams.uniform(1, Purpose::Auxiliary, 1).iter().enumerate() {
            let normal = columns(&normals.slice_axis(Axis(0), (i..i + 1).into()).to_owned());
            let coloured = self.components[self.choose(uniform[0])].colour(&normal);
            let mut sample = samples.index_axis_mut(Axis(0), i);
            let flat = ArrayView1::from(coloured.as_slice());
            sample.iter_mut().zip(flat).for_each(|(to, from)| *to = *from);
        }
        samples
    }
}

/// `sum_k r_k value_k`, column by column. A component without responsibility does not count, whatever its value.
fn average<'p>(parts: &'p [Part<'_>], value: impl Fn(&'p Part<'p>) -> &'p DMatrix<f64>) -> DMatrix<f64> {
    let (d, n) = value(&parts[0]).shape();
    let mut sum = DMatrix::zeros(d, n);
    for part in parts {
        for (i, &r) in part.responsibilities.iter().enumerate().filter(|(_, r)| **r > 0.0) {
            sum.column_mut(i).axpy(r, &value(part).column(i), 1.0);
        }
    }
    sum
}

fn log_sum_exp(terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top.is_finite() { top + terms.iter().map(|term| (term - top).exp()).sum::<f64>().ln() } else { top }
}

/// The terms' exponentials, divided by their sum. Where all vanish they are equal.
fn softmax(terms: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(terms);
    let equal = 1.0 / terms.len() as f64;
    terms.iter().map(|term| if total.is_finite() { (term - total).exp() } else { equal }).collect()
}
