//! Denoising: the image itself is measured.

use super::{Operator, Svd, rows};
use crate::{Batch, Shape};

/// `y = x`.
pub struct Identity {
    shape: Shape,
    singular_values: Vec<f64>,
}

impl Identity {
    /// The identity of images of the shape `shape`.
    pub fn new(shape: Shape) -> Self {
        Self { shape, singular_values: vec![1.0; shape.iter().product()] }
    }
}

impl Operator for Identity {
    fn spec(&self) -> String {
        "identity".into()
    }

    fn input_shape(&self) -> Shape {
        self.shape
    }

    fn output_shape(&self) -> Shape {
        self.shape
    }

    fn forward(&self, x: &Batch) -> Batch {
        x.clone()
    }

    fn adjoint(&self, y: &Batch) -> Batch {
        y.clone()
    }

    fn svd(&self) -> Option<&dyn Svd> {
        Some(self)
    }
}

impl Svd for Identity {
    fn singular_values(&self) -> &[f64] {
        &self.singular_values
    }

    fn v_transpose(&self, x: &Batch) -> Batch {
        reshaped(x, [1, 1, self.singular_values.len()])
    }

    fn v(&self, coefficients: &Batch) -> Batch {
        reshaped(coefficients, self.shape)
    }

    fn u_transpose(&self, y: &Batch) -> Batch {
        self.v_transpose(y)
    }

    fn u(&self, coefficients: &Batch) -> Batch {
        self.v(coefficients)
    }
}

fn reshaped(x: &Batch, [c, h, w]: Shape) -> Batch {
    rows(x).into_owned().into_shape_with_order((x.dim().0, c, h, w)).expect("the same number of values")
}
