//! Any matrix.

use std::sync::OnceLock;

use ndarray::{Array2, Array4, ArrayView2, linalg::general_mat_mul};

use super::{Capability, Operator, Svd, matrix::MatrixSvd, rows};
use crate::{Batch, Error, Result, Shape};

/// The operator of an explicit matrix.
///
/// ```text
/// vec(y) = M vec(x),   M of m x d, both vectors row-major
/// ```
///
/// Its decomposition, of the order of `max(m, d)^3` operations, is made when it is first asked for.
///
/// # Shapes
/// Images are `input`, with `d` values; measurements are `[1, 1, m]`.
pub struct Dense {
    matrix: Array2<f64>,
    input: Shape,
    svd: OnceLock<DenseSvd>,
}

impl Dense {
    /// The operator of `matrix`, `[m, d]`, on images of the shape `input`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the matrix is empty or does not have as many columns as the image has values; [`Error::Argument`] for an
    /// entry that is not finite.
    pub fn new(matrix: Array2<f64>, input: Shape) -> Result<Self> {
        let (m, d) = matrix.dim();
        if m == 0 || d == 0 || d != input.iter().product::<usize>() {
            let expected = vec![m.max(1), input.iter().product()];
            return Err(Error::Shape { what: "matrix", expected, got: vec![m, d], at: "Dense::new" });
        }
        if let Some(bad) = matrix.iter().find(|v| !v.is_finite()) {
            return Err(Error::Argument { what: "matrix", expected: "finite".into(), got: bad.to_string(), at: "Dense::new" });
        }
        Ok(Self { matrix: matrix.as_standard_layout().into_owned(), input, svd: OnceLock::new() })
    }

    /// The matrix of any operator, from its action on the unit vectors: for small images and for tests.
    pub fn matrix_of(op: &dyn Operator) -> Array2<f64> {
        let [c, h, w] = op.input_shape();
        let (m, d) = (op.measured(), c * h * w);
        let units = Array2::eye(d).into_shape_with_order((d, c, h, w)).expect("d x d values");
        let columns = op.forward(&units);
        let columns = columns.to_shape((d, m)).expect("d measurements");
        columns.t().as_standard_layout().into_owned()
    }

    /// The matrix, `[m, d]`.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.matrix
    }
}

impl Operator for Dense {
    fn spec(&self) -> String {
        "dense".into()
    }

    fn input_shape(&self) -> Shape {
        self.input
    }

    fn output_shape(&self) -> Shape {
        [1, 1, self.matrix.nrows()]
    }

    fn forward(&self, x: &Batch) -> Batch {
        apply(self.matrix.view(), x, self.output_shape())
    }

    fn adjoint(&self, y: &Batch) -> Batch {
        apply(self.matrix.t(), y, self.input)
    }

    /// Known without the decomposition, which may never be asked for.
    fn capabilities(&self) -> Vec<Capability> {
        Capability::ALL.to_vec()
    }

    fn svd(&self) -> Option<&dyn Svd> {
        let make = || DenseSvd { svd: MatrixSvd::new(self.matrix.view()), input: self.input };
        Some(self.svd.get_or_init(make))
    }
}

struct DenseSvd {
    svd: MatrixSvd,
    input: Shape,
}

impl Svd for DenseSvd {
    fn singular_values(&self) -> &[f64] {
        &self.svd.s
    }

    fn v_transpose(&self, x: &Batch) -> Batch {
        apply(self.svd.v.t(), x, [1, 1, self.svd.v.nrows()])
    }

    fn v(&self, coefficients: &Batch) -> Batch {
        apply(self.svd.v.view(), coefficients, self.input)
    }

    fn u_transpose(&self, y: &Batch) -> Batch {
        apply(self.svd.u.t(), y, [1, 1, self.svd.u.nrows()])
    }

    fn u(&self, coefficients: &Batch) -> Batch {
        apply(self.svd.u.view(), coefficients, [1, 1, self.svd.u.nrows()])
    }
}

/// `M vec(x)` for each sample.
fn apply(matrix: ArrayView2<'_, f64>, x: &Batch, [c, h, w]: Shape) -> Batch {
    let n = x.dim().0;
    let mut y = Array2::zeros((n, matrix.nrows()));
    general_mat_mul(1.0, &rows(x), &matrix.t(), 0.0, &mut y);
    Array4::from_shape_vec((n, c, h, w), y.into_raw_vec_and_offset().0).expect("as many values as rows of the matrix")
}
