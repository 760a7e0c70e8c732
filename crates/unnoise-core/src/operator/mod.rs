//! Forward operators: how an image becomes a measurement.

use crate::{Batch, Shape};

/// A capability that an operator may offer beyond [`Operator::forward`] and its adjoint, and that a posterior method may need.
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

/// A linear forward operator `A`, from images `[n, c, h, w]` to measurements `[n, c', h', w']`.
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

    /// `A^+ y`, where it is cheap. Given by the decomposition if there is one.
    fn pseudo_inverse(&self, y: &Batch) -> Option<Batch>;

    /// `argmin_x |y - A x|^2 + rho |x - z|^2` for `rho > 0`. Given by the decomposition if there is one.
    fn prox(&self, y: &Batch, z: &Batch, rho: f64) -> Option<Batch>;

    /// What the operator offers.
    fn capabilities(&self) -> Vec<Capability>;

    /// The number of measured values, `m`.
    fn measured(&self) -> usize {
        self.output_shape().iter().product()
    }
}

/// `A = U diag(s) V^T` with real orthonormal `U`, `V` and fast transforms.
///
/// Coefficients are `[n, 1, 1, d]` on the image's side (`V^T x`, all `d` of them, so that the null space is there too) and
/// `[n, 1, 1, m]` on the measurement's side; coefficient `i` of both belongs to `singular_values()[i]`.
pub trait Svd {
    /// The `min(m, d)` singular values, not necessarily sorted; those below the operator's stated cut-off are exactly 0.
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

/// A measurement `y = A x + sigma_y e` in the model's units: images in `[-1, 1]`.
///
/// One `y`, `[1, c', h', w']`, whatever the number of posterior samples.
pub struct Measurement<'a> {
    /// The forward operator.
    pub op: &'a dyn Operator,
    /// What was measured, `[1, c', h', w']`.
    pub y: Batch,
    /// The noise's standard deviation, in the units of `y`.
    pub sigma_y: f64,
}
