//! Bits a dimension of images that were stored as whole numbers.

use crate::{Batch, Purpose, Streams};

/// Uniform dequantisation of pixels that were stored as whole numbers `0..levels`.
///
/// The model's range `[-1, 1]` holds `levels` values, `x_k = 2 k / (levels - 1) - 1`. A stored value is given a bin of its own, of the
/// width of the spacing, and a place in it at random:
///
/// ```text
/// w = 2 / (levels - 1)      x = x_k + w (U - 1/2)      P(image) = integral over its bins of p >= w^d exp E_U log p(x)
/// bits/dim = -(log p(x) / d + log w) / log 2           8 bits: -log2 w = log2 127.5 = 6.994
/// ```
///
/// So the mean over images and `U` is an upper bound of the code length of the stored images, for any density `p`.
///
/// # Reference
/// Uria, Murray, Larochelle 2013, arXiv 1306.0186; the bound: Theis, van den Oord, Bethge 2016, arXiv 1511.01844, sec. 3.1. Song et al.
/// map `(k + U) / 256` to `[-1, 1]` instead, whose offset is 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dequantisation {
    levels: u32,
}

impl Dequantisation {
    /// Pixels of 8 bits.
    pub const EIGHT_BITS: Self = Self { levels: 256 };

    /// The width of a bin in the model's units.
    pub fn width(self) -> f64 {
        2.0 / f64::from(self.levels - 1)
    }

    /// `images` of stored values, each value moved to a random place in its bin; the draw is step 0 of each stream. A value between stored ones,
    /// as resizing leaves, is rounded first.
    pub fn dequantise(self, images: &Batch, streams: &Streams) -> Batch {
        let d = images.len() / images.dim().0.max(1);
        let mut moved = images.clone();
        let draws = streams.uniform(0, Purpose::Auxiliary, d).concat();
        let stored = |x: f64| ((x + 1.0) / self.width()).round() * self.width() - 1.0;
        moved.iter_mut().zip(draws).for_each(|(x, uniform)| *x = stored(*x) + self.width() * (uniform - 0.5));
        moved
    }

    /// Bits a dimension of an image of `d` values whose log-density is `nats`.
    pub fn bits_per_dim(self, nats: f64, d: usize) -> f64 {
        -(nats / d as f64 + self.width().ln()) / std::f64::consts::LN_2
    }
}
