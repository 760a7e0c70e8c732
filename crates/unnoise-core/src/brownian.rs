//! One Brownian path for each pixel of each sample, which every grid of noise levels sees.

mod normals;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range};

use ndarray::Array4;
use rayon::prelude::*;

use crate::{Batch, Purpose, Shape};
use normals::{GROUP, fill_normal};

/// Levels of the tree: 2^14 cells in `[0, 1]`, a few for each of 1000 steps.
const DEPTH: u32 = 14;
/// Levels whose midpoints are remembered between queries: those that the steps of short runs share.
const KEPT: usize = 6;
/// Pixels that are walked together, in whole groups of normals: what they need fits a cache.
const PIECE: usize = 16 * GROUP;

/// The Brownian paths of a batch: `W(0) = 0`, and `W(c)` a pure function of seed, sample, pixel and `c` in `[0, 1]`.
///
/// ```text
/// c    = s^(1/7) / (1 + s^(1/7))                                        s = sigma / alpha, from 0 to infinity
/// W(1) = z_0,   W((a + b) / 2) = (W(a) + W(b)) / 2 + sqrt(b - a) / 2 z      down to cells of length 2^-14
/// W(c) = (1 - f) W(a) + f W(b) + sqrt(f (1 - f) (b - a)) z                  at the fraction f of the cell [a, b]
/// ```
///
/// Every node and every cell has its own normal `z`. At times in different cells this is exactly a Brownian motion; two times in one cell share
/// the cell's `z`, so that [`crosses`](Self::crosses) tells whether an increment is one of the path. The root of 7 spreads the cells over noise
/// levels as Karras' grids spread steps.
///
/// # Reference
/// Lévy's construction, with each midpoint's normal computed from its place in the tree: the "virtual Brownian tree" of Li et al. 2020, arXiv
/// 2001.01328, sec. 4, which torchsde and k-diffusion use. Theirs stops at a tolerance; ours adds the bridge within a cell, which needs no
/// rounding of times.
#[derive(Default)]
pub(crate) struct Paths {
    seed: u64,
    samples: Range<u32>,
    shape: Shape,
    pieces: Vec<Piece>,
}

/// Some neighbouring pixels of one sample, and what is remembered of their paths.
struct Piece {
    sample: u32,
    /// The number of its first counter.
    block: u64,
    /// `W(1)`.
    whole: Vec<f64>,
    /// The midpoints above the last time that was asked for, from the top.
    kept: Vec<Node>,
    /// The last time that was asked for.
    last: Option<(f64, Vec<f64>)>,
}

/// The place of a midpoint in the tree, numbered from 1 as in a heap, and `W` there.
struct Node {
    place: u32,
    values: Vec<f64>,
}

impl Paths {
    /// Whether two times lie in different cells.
    pub(crate) fn crosses([from, to]: [f64; 2]) -> bool {
        cell(from).0 != cell(to).0
    }

    /// `(W(to) - W(from)) / sqrt(|to - from|)` of the samples' pixels, `[n, c, h, w]`, for times in different cells.
    pub(crate) fn increment(&mut self, seed: u64, samples: &Range<u32>, [from, to]: [f64; 2], shape: Shape) -> Batch {
        if (self.seed, &self.samples, self.shape) != (seed, samples, shape) {
            *self = Self::new(seed, samples.clone(), shape);
        }
        let [c, h, w] = shape;
        let mut batch = Array4::zeros((samples.len(), c, h, w));
        let pixels = batch.as_slice_mut().expect("a new array is row-major");
        let chunks: Vec<&mut [f64]> = pixels.chunks_mut((c * h * w).max(1)).flat_map(|sample| sample.chunks_mut(PIECE)).collect();
        let scale = (to - from).abs().sqrt().recip();
        self.pieces.par_iter_mut().zip(chunks).for_each(|(piece, chunk)| {
            let start = piece.last.take().filter(|(time, _)| *time == from);
            let start = start.map_or_else(|| piece.at(seed, from), |(_, values)| values);
            let end = piece.at(seed, to);
            chunk.iter_mut().zip(start).zip(&end).for_each(|((out, start), end)| *out = scale * (end - start));
            piece.last = Some((to, end));
        });
        batch
    }

    fn new(seed: u64, samples: Range<u32>, shape: Shape) -> Self {
        let pixels = shape.iter().product();
        let places = samples.clone().flat_map(|sample| (0..pixels).step_by(PIECE).map(move |first| (sample, first)));
        let pieces = places.map(|(sample, first)| Piece::new(seed, sample, first, PIECE.min(pixels - first))).collect();
        Self { seed, samples, shape, pieces }
    }
}

impl Piece {
    fn new(seed: u64, sample: u32, first: usize, len: usize) -> Self {
        let block = (first / 4) as u64;
        let mut whole = vec![0.0; len];
        fill_normal(seed, sample, Purpose::Brownian as u32, block, &mut whole);
        Self { sample, block, whole, kept: Vec::new(), last: None }
    }

    /// `W(time)`: a walk from the root to the cell that holds it.
    fn at(&mut self, seed: u64, time: f64) -> Vec<f64> {
        let (cell, fraction) = cell(time);
        let (mut left, mut right) = (vec![0.0; self.whole.len()], self.whole.clone());
        let mut length = 1.0;
        for level in 0..DEPTH {
            let place = (1 << level) | (cell >> (DEPTH - level));
            let middle = match self.kept.get(level as usize) {
                Some(node) if node.place == place => node.values.clone(),
                _ => {
                    let values = self.bridge(seed, place, &left, &right, 0.5, length);
                    if (level as usize) < KEPT {
                        self.kept.truncate(level as usize);
                        self.kept.push(Node { place, values: values.clone() });
                    }
                    values
                }
            };
            let goes_left = (cell >> (DEPTH - 1 - level)) & 1 == 0;
            *(if goes_left { &mut right } else { &mut left }) = middle;
            length *= 0.5;
        }
        self.bridge(seed, (1 << DEPTH) | cell, &left, &right, fraction, length)
    }

    /// `W` at a fraction of an interval, from its ends.
    fn bridge(&self, seed: u64, place: u32, left: &[f64], right: &[f64], fraction: f64, length: f64) -> Vec<f64> {
        let mut values = vec![0.0; left.len()];
        fill_normal(seed, self.sample, (place << 8) | Purpose::Brownian as u32, self.block, &mut values);
        let std = (fraction * (1.0 - fraction) * length).sqrt();
        let ends = left.iter().zip(right).map(|(left, right)| left + fraction * (right - left));
        values.iter_mut().zip(ends).for_each(|(value, mean)| *value = mean + std * *value);
        values
    }
}

/// The time of a noise level `sigma / alpha`.
pub(crate) fn time(sigma_edm: f64) -> f64 {
    1.0 / (1.0 + sigma_edm.max(0.0).powf(-1.0 / 7.0))
}

/// The cell that holds a time, and the fraction of it below.
fn cell(time: f64) -> (u32, f64) {
    let cells = f64::from(1u32 << DEPTH);
    let cell = (time * cells).floor().min(cells - 1.0);
    (cell as u32, time * cells - cell)
}

/// What is remembered is no part of the streams' identity: a copy starts without it, and all are equal.
impl Clone for Paths {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Paths {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Paths {}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paths")
    }
}
