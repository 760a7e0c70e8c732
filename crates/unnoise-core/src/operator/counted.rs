//! How often an operator was used.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Capability, Operator, Svd};
use crate::{Batch, Shape};

/// The uses of an operator, image by image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OperatorCalls {
    /// `A x`.
    pub forward: u64,
    /// `A^T y`.
    pub adjoint: u64,
    /// Pseudo-inverses and proximal maps.
    pub inverse: u64,
    /// `U`, `V` and their transposes.
    pub transform: u64,
}

/// An operator that counts its calls.
pub struct CountedOperator<'a> {
    inner: &'a dyn Operator,
    forward: AtomicU64,
    adjoint: AtomicU64,
    inverse: AtomicU64,
    transform: AtomicU64,
}

impl<'a> CountedOperator<'a> {
    /// Wraps `inner` with every counter at zero.
    pub fn new(inner: &'a dyn Operator) -> Self {
        let zero = AtomicU64::default;
        Self { inner, forward: zero(), adjoint: zero(), inverse: zero(), transform: zero() }
    }

    /// The calls so far.
    pub fn calls(&self) -> OperatorCalls {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OperatorCalls {
            forward: load(&self.forward),
            adjoint: load(&self.adjoint),
            inverse: load(&self.inverse),
            transform: load(&self.transform),
        }
    }

    fn transformed(&self, x: &Batch, transform: impl FnOnce(&dyn Svd, &Batch) -> Batch) -> Batch {
        count(&self.transform, x);
        transform(self.inner_svd(), x)
    }

    /// The inner decomposition.
    fn inner_svd(&self) -> &dyn Svd {
        self.inner.svd().expect("the decomposition is offered only if the inner operator has one")
    }
}

fn count(counter: &AtomicU64, batch: &Batch) {
    counter.fetch_add(batch.dim().0 as u64, Ordering::Relaxed);
}

impl Operator for CountedOperator<'_> {
    fn spec(&self) -> String {
        self.inner.spec()
    }

    fn input_shape(&self) -> Shape {
        self.inner.input_shape()
    }

    fn output_shape(&self) -> Shape {
        self.inner.output_shape()
    }

    fn forward(&self, x: &Batch) -> Batch {
        count(&self.forward, x);
        self.inner.forward(x)
    }

    fn adjoint(&self, y: &Batch) -> Batch {
        count(&self.adjoint, y);
        self.inner.adjoint(y)
    }

    fn svd(&self) -> Option<&dyn Svd> {
        self.inner.svd().map(|_| self as &dyn Svd)
    }

    fn pseudo_inverse(&self, y: &Batch) -> Option<Batch> {
        count(&self.inverse, y);
        self.inner.pseudo_inverse(y)
    }

    fn prox(&self, y: &Batch, z: &Batch, rho: f64) -> Option<Batch> {
        count(&self.inverse, z);
        self.inner.prox(y, z, rho)
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.inner.capabilities()
    }
}

impl Svd for CountedOperator<'_> {
    fn singular_values(&self) -> &[f64] {
        self.inner_svd().singular_values()
    }

    fn v_transpose(&self, x: &Batch) -> Batch {
        self.transformed(x, |svd, x| svd.v_transpose(x))
    }

    fn v(&self, coefficients: &Batch) -> Batch {
        self.transformed(coefficients, |svd, x| svd.v(x))
    }

    fn u_transpose(&self, y: &Batch) -> Batch {
        self.transformed(y, |svd, y| svd.u_transpose(y))
    }

    fn u(&self, coefficients: &Batch) -> Batch {
        self.transformed(coefficients, |svd, y| svd.u(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn calls_are_counted_by_the_image() {
        let identity = Identity::new([1, 2, 2]);
        let op = CountedOperator::new(&identity);
        let x = Batch::ones((3, 1, 2, 2));
        op.adjoint(&op.forward(&x));
        op.forward(&x);
        op.prox(&x, &x, 1.0).unwrap();
        let svd = op.svd().unwrap();
        assert_eq!(svd.v(&svd.v_transpose(&x)), x);
        assert_eq!(op.calls(), OperatorCalls { forward: 6, adjoint: 3, inverse: 3, transform: 6 });
    }
}
