//! Forward operators: how an image becomes a measurement.

mod convolution;
mod counted;
mod dense;
mod fourier;
mod identity;
mod kernel;
mod mask;
mod matrix;
mod measurement;
mod separable;
mod solve;
mod spec;

use ndarray::{Array4, ArrayView1, Axis, CowArray, Ix2};

pub use convolution::*;
pub use counted::*;
pub use dense::*;
pub use identity::*;
pub use kernel::*;
pub use mask::*;
pub use measurement::*;
pub use separable::*;
pub use solve::*;
pub use spec::*;

use crate::{Batch, Error, Noise, Purpose, Result, Shape, Streams, element_shape, norm_sq};

/// A capability that an operator may offer beyond [`Operator::forward`] and that a posterior method may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `A^T y`.
    Adjoint,
    /// `A^+ y`, the Moore-Penrose pseudo-inverse.
    PseudoInverse,
    /// `argmin_x |y - A x|^2 + rho |x - z|^2`.
    Prox,
    /// A singular value decomposition with fast transforms.
    Svd,
}

impl Capability {
    /// Every capability: those of an operator with a decomposition.
    pub const ALL: [Self; 4] = [Self::Adjoint, Self::PseudoInverse, Self::Prox, Self::Svd];
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Adjoint => "the adjoint",
            Self::PseudoInverse => "the pseudo-inverse",
            Self::Prox => "the proximal map",
            Self::Svd => "the singular value decomposition",
        })
    }
}

/// A linear forward operator `A`, from images `[n, c, h, w]` to measurements `[n, c', h', w']`.
///
/// Only [`forward`](Self::forward) and [`adjoint`](Self::adjoint) must be written; whoever offers [`svd`](Self::svd) has the
/// pseudo-inverse and the proximal map from it.
///
/// Inputs are checked at the door with [`check_shape`](crate::check_shape); inside, operators are infallible: a shape that was not
/// checked is a programming error.
pub trait Operator: Send + Sync {
    /// The specification that makes the operator again, such as `blur:gaussian,sigma=1.5`.
    fn spec(&self) -> String;

    /// The shape of one image.
    fn input_shape(&self) -> Shape;

    /// The shape of one measurement. A mask's measurement is `[1, 1, m]`: only what was measured.
    fn output_shape(&self) -> Shape;

    /// `A x`.
    fn forward(&self, x: &Batch) -> Batch;

    /// `A^T y`.
    fn adjoint(&self, y: &Batch) -> Batch;

    /// The singular value decomposition, where it is cheap.
    fn svd(&self) -> Option<&dyn Svd> {
        None
    }

    /// `A^+ y`, where it is cheap: by default through the decomposition.
    fn pseudo_inverse(&self, y: &Batch) -> Option<Batch> {
        self.svd().map(|svd| pseudo_inverse_by(svd, self.input_shape().iter().product(), y))
    }

    /// `argmin_x |y - A x|^2 + rho |x - z|^2` for `rho > 0`: by default through the decomposition. `y` holds one measurement for
    /// each sample of `z`, or one for all of them.
    fn prox(&self, y: &Batch, z: &Batch, rho: f64) -> Option<Batch> {
        self.svd().map(|svd| prox_by(svd, y, z, rho))
    }

    /// What the operator offers.
    fn capabilities(&self) -> Vec<Capability> {
        match self.svd() {
            Some(_) => Capability::ALL.to_vec(),
            None => vec![Capability::Adjoint],
        }
    }

    /// The number of measured values, `m`.
    fn measured(&self) -> usize {
        self.output_shape().iter().product()
    }
}

/// `A = U diag(s) V^T` with real orthonormal `U`, `V` and fast transforms.
///
/// Coefficients are `[n, 1, 1, d]` on the image's side (`V^T x`, all `d` of them, so that the null space is there too) and
/// `[n, 1, 1, m]` on the measurement's side; coefficient `i` of both belongs to `singular_values()[i]`, and those beyond the
/// `min(m, d)` singular values belong to none.
pub trait Svd: Send + Sync {
    /// The `min(m, d)` singular values, not necessarily sorted. Those of the size of rounding, at most `max(m, d)` times the double
    /// precision's epsilon times the matrix's norm, are exactly 0, and so they are in the pseudo-inverse.
    fn singular_values(&self) -> &[f64];
    /// `V^T x`.
    fn v_transpose(&self, x: &Batch) -> Batch;
    /// `V x`.
    fn v(&self, coefficients: &Batch) -> Batch;
    /// `U^T y`.
    fn u_transpose(&self, y: &Batch) -> Batch;
    /// `U y`.
    fn u(&self, coefficients: &Batch) -> Batch;
}

/// `A^+ y = V diag(1 / s) U^T y` for images of `d` values, with 0 in the place of 1 / 0.
fn pseudo_inverse_by(svd: &dyn Svd, d: usize, y: &Batch) -> Batch {
    let y_hat = svd.u_transpose(y);
    let mut x_hat = Array4::zeros((y.dim().0, 1, 1, d));
    for (mut x_hat, y_hat) in x_hat.axis_iter_mut(Axis(0)).zip(y_hat.axis_iter(Axis(0))) {
        for ((x, y), s) in x_hat.iter_mut().zip(y_hat).zip(svd.singular_values()) {
            *x = if *s > 0.0 { y / s } else { 0.0 };
        }
    }
    svd.v(&x_hat)
}

/// `argmin_x |y - A x|^2 + rho |x - z|^2`, whose coefficients are `(s y + rho z) / (s^2 + rho)`.
fn prox_by(svd: &dyn Svd, y: &Batch, z: &Batch, rho: f64) -> Batch {
    let y_hat = svd.u_transpose(y);
    let mut x_hat = svd.v_transpose(z);
    for (mut x_hat, y_hat) in x_hat.axis_iter_mut(Axis(0)).zip(y_hat.axis_iter(Axis(0)).cycle()) {
        for ((x, y), s) in x_hat.iter_mut().zip(y_hat).zip(svd.singular_values()) {
            *x = (s * y + rho * *x) / (s * s + rho);
        }
    }
    svd.v(&x_hat)
}

/// Refuses an operator that does not offer what a method needs.
///
/// # Errors
/// [`Error::Unsupported`], which names the missing capabilities and lists the operators that would work.
pub fn require(op: &dyn Operator, needs: &[Capability], method: &str) -> Result<()> {
    let offered = op.capabilities();
    if needs.iter().all(|need| offered.contains(need)) { Ok(()) } else { Err(lacks(op, needs, method, &WITH_SVD)) }
}

/// Slightly more than the largest squared singular value, by power iteration where there is no decomposition.
pub(crate) fn operator_norm_sq(op: &dyn Operator) -> f64 {
    if let Some(svd) = op.svd() {
        return svd.singular_values().iter().fold(f64::MIN_POSITIVE, |max: f64, s| max.max(s * s));
    }
    let mut x = Streams::new(0, 0..1).normal(0, Purpose::Auxiliary, 1, op.input_shape());
    let mut largest = f64::MIN_POSITIVE;
    for _ in 0..50 {
        let next = op.adjoint(&op.forward(&x));
        largest = (norm_sq(&next)[0] / norm_sq(&x)[0]).sqrt();
        if largest == 0.0 {
            return f64::MIN_POSITIVE;
        }
        x = &next / norm_sq(&next)[0].sqrt();
    }
    1.1 * largest
}

/// The error for an operator that does not offer what a method needs, with what is possible instead.
pub(crate) fn lacks(op: &dyn Operator, needs: &[Capability], method: &str, possible: &[&str]) -> Error {
    let offered = op.capabilities();
    let missing: Vec<_> = needs.iter().filter(|need| !offered.contains(need)).map(Capability::to_string).collect();
    Error::Unsupported {
        what: format!("{method} with the operator {}", op.spec()),
        why: format!("it needs {}, which this operator does not offer", missing.join(" and ")),
        possible: possible.iter().map(ToString::to_string).collect(),
    }
}

/// The operators that offer every capability.
const WITH_SVD: [&str; 7] = ["identity", "box", "mask", "dense", "downsample", "blur:gaussian", "any blur with boundary=circular"];

/// One row of values per sample.
fn rows(batch: &Batch) -> CowArray<'_, f64, Ix2> {
    let (n, d) = (batch.dim().0, element_shape(batch).iter().product::<usize>());
    batch.to_shape((n, d)).expect("a batch has n times its element's values")
}

/// A batch of elements of the shape `shape`, each made in place from the values of one of `from`.
fn map_samples(from: &Batch, [c, h, w]: Shape, mut fill: impl FnMut(ArrayView1<'_, f64>, &mut [f64])) -> Batch {
    let mut to = Array4::zeros((from.dim().0, c, h, w));
    for (row, mut sample) in rows(from).rows().into_iter().zip(to.axis_iter_mut(Axis(0))) {
        fill(row, sample.as_slice_mut().expect("a new array is row-major"));
    }
    to
}

/// `to[i] = from[positions[i]]`.
fn gather(from: ArrayView1<'_, f64>, positions: &[usize], to: &mut [f64]) {
    to.iter_mut().zip(positions).for_each(|(to, position)| *to = from[*position]);
}

/// `to[positions[i]] = from[i]`.
fn scatter(from: ArrayView1<'_, f64>, positions: &[usize], to: &mut [f64]) {
    from.iter().zip(positions).for_each(|(from, position)| to[*position] = *from);
}

#[cfg(test)]
mod tests;
