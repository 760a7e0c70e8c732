//! Operators that act on columns and rows apart: Gaussian blur and downsampling.

use std::sync::OnceLock;

use ndarray::{Array1, Array2, Array4, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::{
    Boundary, Capability, Operator, Svd, gather, map_samples,
    matrix::{MatrixSvd, cut_negligible},
    scatter,
};
use crate::{Batch, Error, Result, Shape};

/// A matrix along the columns and another along the rows, the same in every channel.
///
/// ```text
/// Y = L X R^T
/// ```
///
/// Its decomposition is made of those of `L` and `R`, when it is first asked for.
pub struct Separable {
    spec: String,
    channels: usize,
    left: Array2<f64>,
    right: Array2<f64>,
    svd: OnceLock<SeparableSvd>,
}

impl Separable {
    /// The operator of `left`, `[h', h]`, and `right`, `[w', w]`; `spec` is what the operator says of itself.
    ///
    /// # Errors
    /// [`Error::Argument`] if a matrix is empty or not finite, or there is no channel.
    pub fn new(channels: usize, left: Array2<f64>, right: Array2<f64>, spec: impl Into<String>) -> Result<Self> {
        for (what, matrix) in [("left matrix", &left), ("right matrix", &right)] {
            if channels == 0 || matrix.is_empty() || matrix.iter().any(|v| !v.is_finite()) {
                let got = format!("{:?} for {channels} channels", matrix.dim());
                let expected = "finite and not empty".into();
                return Err(Error::Argument { what, expected, got, at: "Separable::new" });
            }
        }
        Ok(Self { spec: spec.into(), channels, left, right, svd: OnceLock::new() })
    }

    /// The convolution with the outer product of `kernel` with itself, centred at `floor(size / 2)`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn blur(kernel: &Array1<f64>, boundary: Boundary, shape: Shape, spec: impl Into<String>) -> Result<Self> {
        let [c, h, w] = shape;
        Self::new(c, blur_matrix(kernel, boundary, h), blur_matrix(kernel, boundary, w), spec)
    }

    /// Downsampling by an integer factor along both axes.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `factor` is at least 1 and divides both sides.
    pub fn downsample(factor: usize, kernel: Downsampling, shape: Shape, spec: impl Into<String>) -> Result<Self> {
        let [c, h, w] = shape;
        if factor == 0 || h % factor != 0 || w % factor != 0 {
            let expected = format!("a divisor of both sides of the {h} x {w} image");
            return Err(Error::Argument { what: "factor", expected, got: factor.to_string(), at: "Separable::downsample" });
        }
        Self::new(c, kernel.matrix(factor, h), kernel.matrix(factor, w), spec)
    }
}

/// The weights with which pixels are brought together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Downsampling {
    /// The mean of each block.
    #[default]
    Average,
    /// Keys' cubic with a = -1/2, stretched by the factor against aliasing, the image mirrored at its edges.
    ///
    /// # Reference
    /// Keys 1981, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29; the stretching and the
    /// normalised weights are those of MATLAB's `imresize`, and so of DDRM's `SRConv` for even factors.
    Bicubic,
}

impl Downsampling {
    /// `[n / factor, n]`.
    fn matrix(self, factor: usize, n: usize) -> Array2<f64> {
        let mut matrix = Array2::zeros((n / factor, n));
        let f = factor as f64;
        for (i, mut row) in matrix.rows_mut().into_iter().enumerate() {
            match self {
                Self::Average => (0..factor).for_each(|k| row[i * factor + k] = 1.0 / f),
                Self::Bicubic => {
                    // The block's centre, in pixels, and the kernel's support of two blocks on each side.
                    let centre = (i as f64 + 0.5) * f - 0.5;
                    let support = (centre - 2.0 * f).ceil() as isize..=(centre + 2.0 * f).floor() as isize;
                    for j in support {
                        row[Boundary::Reflect.position(j, n)] += keys((j as f64 - centre) / f);
                    }
                    let sum = row.sum();
                    row /= sum;
                }
            }
        }
        matrix
    }
}

impl std::fmt::Display for Downsampling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Average => "average",
            Self::Bicubic => "bicubic",
        })
    }
}

impl std::str::FromStr for Downsampling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Average, Self::Bicubic].into_iter().find(|known| known.to_string() == name).ok_or_else(|| Error::Unknown {
            kind: "kernel",
            name: name.to_owned(),
            known: vec!["average".into(), "bicubic".into()],
        })
    }
}

/// Keys' cubic with a = -1/2.
fn keys(t: f64) -> f64 {
    let t = t.abs();
    match t {
        ..=1.0 => (1.5 * t - 2.5) * t * t + 1.0,
        ..2.0 => ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0,
        _ => 0.0,
    }
}

/// The matrix of a one-dimensional convolution.
fn blur_matrix(kernel: &Array1<f64>, boundary: Boundary, n: usize) -> Array2<f64> {
    let centre = (kernel.len() / 2) as isize;
    let mut matrix = Array2::zeros((n, n));
    for i in 0..n {
        for (a, weight) in kernel.iter().enumerate() {
            matrix[[i, boundary.position(i as isize - a as isize + centre, n)]] += weight;
        }
    }
    matrix
}

impl Operator for Separable {
    fn spec(&self) -> String {
        self.spec.clone()
    }

    fn input_shape(&self) -> Shape {
        [self.channels, self.left.ncols(), self.right.ncols()]
    }

    fn output_shape(&self) -> Shape {
        [self.channels, self.left.nrows(), self.right.nrows()]
    }

    fn forward(&self, x: &Batch) -> Batch {
        both_sides(self.left.view(), x, self.right.view())
    }

    fn adjoint(&self, y: &Batch) -> Batch {
        both_sides(self.left.t(), y, self.right.t())
    }

    /// Known without the decomposition, which may never be asked for.
    fn capabilities(&self) -> Vec<Capability> {
        Capability::ALL.to_vec()
    }

    fn svd(&self) -> Option<&dyn Svd> {
        Some(self.svd.get_or_init(|| SeparableSvd::new(self.left.view(), self.right.view(), self.channels)))
    }
}

/// `U_L S_L V_L^T X (U_R S_R V_R^T)^T`: coefficient `(i, j)` of a channel belongs to `s_L[i] s_R[j]`.
struct SeparableSvd {
    left: MatrixSvd,
    right: MatrixSvd,
    channels: usize,
    /// Where each coefficient stands in `V_L^T X V_R` and `U_L^T Y U_R`, the paired ones first.
    image_order: Vec<usize>,
    measurement_order: Vec<usize>,
    singular_values: Vec<f64>,
}

impl SeparableSvd {
    fn new(left: ArrayView2<'_, f64>, right: ArrayView2<'_, f64>, channels: usize) -> Self {
        let left_svd = MatrixSvd::new(left);
        let right_svd = if left == right { left_svd.clone() } else { MatrixSvd::new(right) };
        let (p, q) = (left_svd.s.len(), right_svd.s.len());
        let order = |h: usize, w: usize| {
            let (paired, free): (Vec<_>, Vec<_>) = (0..channels * h * w).partition(|k| k / w % h < p && k % w < q);
            [paired, free].concat()
        };
        let image_order = order(left.ncols(), right.ncols());
        let measurement_order = order(left.nrows(), right.nrows());
        let products: Vec<f64> = left_svd.s.iter().flat_map(|a| right_svd.s.iter().map(move |b| a * b)).collect();
        let mut singular_values = products.repeat(channels);
        // One matrix wide and the other tall: there are more pairs of coefficients than products.
        singular_values.resize(image_order.len().min(measurement_order.len()), 0.0);
        cut_negligible(&mut singular_values, image_order.len().max(measurement_order.len()));
        Self { left: left_svd, right: right_svd, channels, image_order, measurement_order, singular_values }
    }
}

impl Svd for SeparableSvd {
    fn singular_values(&self) -> &[f64] {
        &self.singular_values
    }

    fn v_transpose(&self, x: &Batch) -> Batch {
        ordered(&both_sides(self.left.v.t(), x, self.right.v.t()), &self.image_order)
    }

    fn v(&self, coefficients: &Batch) -> Batch {
        let shape = [self.channels, self.left.v.nrows(), self.right.v.nrows()];
        both_sides(self.left.v.view(), &placed(coefficients, &self.image_order, shape), self.right.v.view())
    }

    fn u_transpose(&self, y: &Batch) -> Batch {
        ordered(&both_sides(self.left.u.t(), y, self.right.u.t()), &self.measurement_order)
    }

    fn u(&self, coefficients: &Batch) -> Batch {
        let shape = [self.channels, self.left.u.nrows(), self.right.u.nrows()];
        both_sides(self.left.u.view(), &placed(coefficients, &self.measurement_order, shape), self.right.u.view())
    }
}

fn ordered(x: &Batch, order: &[usize]) -> Batch {
    map_samples(x, [1, 1, order.len()], |x, coefficients| gather(x, order, coefficients))
}

fn placed(coefficients: &Batch, order: &[usize], shape: Shape) -> Batch {
    map_samples(coefficients, shape, |coefficients, x| scatter(coefficients, order, x))
}

/// `L X R^T` for each channel of each sample.
fn both_sides(left: ArrayView2<'_, f64>, x: &Batch, right: ArrayView2<'_, f64>) -> Batch {
    let (n, c, ..) = x.dim();
    let mut y = Array4::zeros((n, c, left.nrows(), right.nrows()));
    for (x, mut y) in x.axis_iter(Axis(0)).zip(y.axis_iter_mut(Axis(0))) {
        for (x, mut y) in x.axis_iter(Axis(0)).zip(y.axis_iter_mut(Axis(0))) {
            y.assign(&left.dot(&x).dot(&right.t()));
        }
    }
    y
}
