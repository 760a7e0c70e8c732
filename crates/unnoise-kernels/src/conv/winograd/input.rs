//! The input at the points.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::Tile;
use super::{BLOCK, Layout};
use crate::parts::Parts;
use crate::scratch::{Line, Scratch, numbers_mut};
use crate::simd::{Kernel, LANES, Simd, lanes};

/// A batch of images.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) channels: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

impl Image<'_> {
    /// Row `y` of eight channels from `first` on, pixel by pixel into `out[0..w]`; channels that do not exist are zeros.
    #[inline(always)]
    pub(super) fn load_row<S: Simd>(&self, s: S, n: usize, first: usize, y: usize, out: &mut [[f32; LANES]]) {
        let plane = self.h * self.w;
        let there = self.channels.saturating_sub(first).min(LANES);
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        for (k, row) in rows.iter_mut().enumerate().take(there) {
            *row = &self.numbers[(n * self.channels + first + k) * plane + y * self.w..][..self.w];
        }
        for (i, out) in out[..self.w].chunks_mut(LANES).enumerate() {
            let eight = lanes!(s, k in LANES => match rows[k].get(i * LANES..) {
                Some(pixels) => s.load_part(pixels),
                None => s.zero(),
            });
            for (v, out) in s.transpose(eight).into_iter().zip(out) {
                s.store(v, out);
            }
        }
    }
}

/// `V = B^T x B` of one block of 16 channels, for the tiles in `rows`.
pub(super) struct TransformInput<'a, T, const M: usize, const A: usize> {
    pub(super) image: Image<'a>,
    pub(super) rows: Range<usize>,
    pub(super) block: usize,
    pub(super) layout: Layout,
    pub(super) out: &'a Parts<'a, Line>,
    pub(super) tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for TransformInput<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Image { h, w, .. } = self.image;
        let (down, across) = (h.div_ceil(M), w.div_ceil(M));
        let width = across * M + A - M;
        let mut scratch = Scratch::new((A * width).div_ceil(2));
        let (scratch, _) = numbers_mut(&mut scratch).as_chunks_mut::<LANES>();
        for (i_row, row) in self.rows.clone().enumerate() {
            let (n, top) = (row / down, row % down * M);
            for half in 0..2 {
                for (i, line) in scratch.chunks_exact_mut(width).enumerate().take(A) {
                    match (top + i).checked_sub(1).filter(|&y| y < h) {
                        Some(y) => {
                            line[0] = [0.0; LANES];
                            self.image.load_row(s, n, self.block * BLOCK + half * LANES, y, &mut line[1..]);
                            line[1 + w..].fill([0.0; LANES]);
                        }
                        None => line.fill([0.0; LANES]),
                    }
                }
                for x in 0..width {
                    let column = T::input(s, lanes!(s, i in A => s.load(&scratch[i * width + x])));
                    for (i, v) in column.into_iter().enumerate() {
                        s.store(v, &mut scratch[i * width + x]);
                    }
                }
                for tile in 0..across {
                    let place = self.layout.place(self.block, i_row * across + tile);
                    for i in 0..A {
                        let line = &scratch[i * width + tile * M..][..A];
                        let points = T::input(s, lanes!(s, j in A => s.load(&line[j])));
                        for (j, v) in points.into_iter().enumerate() {
                            // SAFETY: every block has its own lines, and no two tasks share a block of the same tiles.
                            let line = unsafe { self.out.part((i * A + j) * self.layout.point + place, 1) };
                            s.store(v, &mut line[0].0[half]);
                        }
                    }
                }
            }
        }
    }
}
