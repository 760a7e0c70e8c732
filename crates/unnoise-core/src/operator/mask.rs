//! Inpainting: some pixels are measured, the others are missing.

use ndarray::Array2;

use super::{Operator, Svd, gather, map_samples, scatter};
use crate::{Batch, Error, Purpose, Result, Shape, Streams};

/// Keeps some pixels, the same in every channel.
///
/// ```text
/// y_i = x_{p(i)},   p(0) < p(1) < ... the kept positions, channel by channel, row by row
/// ```
///
/// # Shapes
/// The measurement is `[1, 1, m]`: only what was measured, so that no missing pixel can pass for a measured zero.
#[derive(Debug)]
pub struct Mask {
    spec: String,
    shape: Shape,
    /// Every position of the image, the kept ones first, both in ascending order: the permutation `V`.
    order: Vec<usize>,
    singular_values: Vec<f64>,
}

impl Mask {
    /// Keeps the pixels where `keep`, `[h, w]`, is true; `spec` is what the operator says of itself.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask that is not `[h, w]`; [`Error::Argument`] if it keeps nothing.
    pub fn new(keep: &Array2<bool>, shape: Shape, spec: impl Into<String>) -> Result<Self> {
        let [c, h, w] = shape;
        if keep.dim() != (h, w) {
            return Err(Error::Shape { what: "mask", expected: vec![h, w], got: keep.shape().to_vec(), at: "Mask::new" });
        }
        let keep: Vec<bool> = keep.iter().copied().collect();
        let (kept, missing): (Vec<_>, Vec<_>) = (0..c * h * w).partition(|position| keep[position % (h * w)]);
        if kept.is_empty() {
            let got = "none".into();
            return Err(Error::Argument { what: "mask", expected: "at least one kept pixel".into(), got, at: "Mask::new" });
        }
        let singular_values = vec![1.0; kept.len()];
        Ok(Self { spec: spec.into(), shape, order: [kept, missing].concat(), singular_values })
    }

    /// Everything but a box of `size` = `[rows, columns]` whose first corner is `[row, column]`, by default centred (rounded towards
    /// the first row and column).
    ///
    /// # Errors
    /// [`Error::Argument`] if the box is empty, leaves the image or covers it.
    pub fn outside_box(size: [usize; 2], corner: Option<[usize; 2]>, shape: Shape) -> Result<Self> {
        let [_, h, w] = shape;
        let corner = corner.unwrap_or([h.saturating_sub(size[0]) / 2, w.saturating_sub(size[1]) / 2]);
        let end = [corner[0].saturating_add(size[0]), corner[1].saturating_add(size[1])];
        if size.contains(&0) || end[0] > h || end[1] > w || size == [h, w] {
            return Err(Error::Argument {
                what: "box",
                expected: format!("a part of the {h} x {w} image"),
                got: format!("{} x {} at row {}, column {}", size[0], size[1], corner[0], corner[1]),
                at: "Mask::outside_box",
            });
        }
        let inside = |i, j| (corner[0]..end[0]).contains(&i) && (corner[1]..end[1]).contains(&j);
        let keep = Array2::from_shape_fn((h, w), |(i, j)| !inside(i, j));
        let spec = format!("box:{}x{},top={},left={}", size[0], size[1], corner[0], corner[1]);
        Self::new(&keep, shape, spec)
    }

    /// Exactly `round(keep h w)` pixels at random: those with the smallest of one uniform number each.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `0 < keep <= 1` keeps at least one pixel.
    pub fn random(keep: f64, seed: u64, shape: Shape) -> Result<Self> {
        let [_, h, w] = shape;
        let count = (keep * (h * w) as f64).round();
        if !(keep <= 1.0 && count >= 1.0) {
            let expected = "a share in (0, 1] that keeps at least one pixel".into();
            return Err(Error::Argument { what: "keep", expected, got: keep.to_string(), at: "Mask::random" });
        }
        let draws = Streams::new(seed, 0..1).uniform(0, Purpose::Auxiliary, h * w).remove(0);
        let mut pixels: Vec<usize> = (0..h * w).collect();
        pixels.sort_by(|a, b| draws[*a].total_cmp(&draws[*b]));
        let mut kept = Array2::from_elem((h, w), false);
        for pixel in &pixels[..count as usize] {
            kept[[pixel / w, pixel % w]] = true;
        }
        Self::new(&kept, shape, format!("mask:random,keep={keep},seed={seed}"))
    }

    /// Where the image was measured, `[h, w]`.
    pub fn keep(&self) -> Array2<bool> {
        let [_, h, w] = self.shape;
        let mut keep = Array2::from_elem((h, w), false);
        for position in self.kept().iter().filter(|position| **position < h * w) {
            keep[[position / w, position % w]] = true;
        }
        keep
    }

    fn kept(&self) -> &[usize] {
        &self.order[..self.singular_values.len()]
    }
}

impl Operator for Mask {
    fn spec(&self) -> String {
        self.spec.clone()
    }

    fn input_shape(&self) -> Shape {
        self.shape
    }

    fn output_shape(&self) -> Shape {
        [1, 1, self.singular_values.len()]
    }

    fn forward(&self, x: &Batch) -> Batch {
        map_samples(x, self.output_shape(), |x, y| gather(x, self.kept(), y))
    }

    fn adjoint(&self, y: &Batch) -> Batch {
        map_samples(y, self.shape, |y, x| scatter(y, self.kept(), x))
    }

    fn svd(&self) -> Option<&dyn Svd> {
        Some(self)
    }
}

/// `A = [I 0] V^T`, with the permutation `V` that puts the kept pixels first.
impl Svd for Mask {
    fn singular_values(&self) -> &[f64] {
        &self.singular_values
    }

    fn v_transpose(&self, x: &Batch) -> Batch {
        map_samples(x, [1, 1, self.order.len()], |x, coefficients| gather(x, &self.order, coefficients))
    }

    fn v(&self, coefficients: &Batch) -> Batch {
        map_samples(coefficients, self.shape, |coefficients, x| scatter(coefficients, &self.order, x))
    }

    fn u_transpose(&self, y: &Batch) -> Batch {
        y.clone()
    }

    fn u(&self, coefficients: &Batch) -> Batch {
        coefficients.clone()
    }
}
