//! The array type that samplers, operators and denoisers exchange.

use ndarray::{Array4, ArrayView1, Axis, Zip};

use crate::{Error, Result};

/// A batch of images (or of any vectors: `d` numbers are `[n, 1, 1, d]`), `[n, c, h, w]`, row-major.
///
/// Images are in the model's range, `[-1, 1]`, unless a name says otherwise.
pub type Batch = Array4<f64>;

/// The shape of one element of a [`Batch`], `[c, h, w]`.
pub type Shape = [usize; 3];

/// `[c, h, w]` of a batch.
pub fn element_shape(batch: &Batch) -> Shape {
    let (_, c, h, w) = batch.dim();
    [c, h, w]
}

/// Checks that the elements of `batch` have the shape `expected`.
///
/// # Errors
/// [`Error::Shape`] that names `what` was checked and the function it was given to (`at`).
pub fn check_shape(batch: &Batch, expected: Shape, what: &'static str, at: &'static str) -> Result<()> {
    let got = element_shape(batch);
    if got == expected { Ok(()) } else { Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec(), at }) }
}

/// One flat view per sample.
///
/// # Panics
/// Never for a row-major batch, which every function of this crate returns.
pub fn samples(batch: &Batch) -> impl Iterator<Item = ArrayView1<'_, f64>> {
    let d = element_shape(batch).iter().product::<usize>();
    batch
        .axis_iter(Axis(0))
        .map(move |sample| sample.into_shape_with_order(d).expect("a batch is row-major, so each sample is contiguous"))
}

/// The inner product of each sample with its partner: `n` numbers.
pub fn dot(a: &Batch, b: &Batch) -> Vec<f64> {
    a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0))).map(|(a, b)| Zip::from(&a).and(&b).fold(0.0, |sum, a, b| sum + a * b)).collect()
}

/// The squared Euclidean norm of each sample.
pub fn norm_sq(a: &Batch) -> Vec<f64> {
    dot(a, a)
}

/// Multiplies sample `i` by `factors[i]`.
pub fn scale_samples(batch: &mut Batch, factors: &[f64]) {
    for (mut sample, factor) in batch.axis_iter_mut(Axis(0)).zip(factors) {
        sample *= *factor;
    }
}
