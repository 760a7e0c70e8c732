//! The output from the points.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::Tile;
use super::{BLOCK, Layout, Shape};
use crate::conv::weight::Epilogue;
use crate::parts::Parts;
use crate::scratch::{Line, Scratch, numbers_mut};
use crate::simd::{Kernel, LANES, Simd, lanes};

/// `y = A^T M A` and the epilogue, of one block of 16 channels, for the tiles in `rows`.
pub(super) struct TransformOutput<'a, T, const M: usize, const A: usize> {
    pub(super) shape: Shape,
    pub(super) rows: Range<usize>,
    pub(super) block: usize,
    pub(super) layout: Layout,
    pub(super) products: &'a [Line],
    pub(super) epilogue: Epilogue<'a>,
    pub(super) y: &'a Parts<'a>,
    pub(super) tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for TransformOutput<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Shape { c_out, h, w, .. } = self.shape;
        let (down, across) = (h.div_ceil(M), w.div_ceil(M));
        let width = across * M;
        let mut scratch = Scratch::new((M * width).div_ceil(2));
        let (scratch, _) = numbers_mut(&mut scratch).as_chunks_mut::<LANES>();
        for (i_row, row) in self.rows.clone().enumerate() {
            let (n, top) = (row / down, row % down * M);
            for half in 0..2 {
                let first = self.block * BLOCK + half * LANES;
                if first >= c_out {
                    continue;
                }
                let channels = first..c_out.min(first + LANES);
                let constant = s.load_part(&self.constants(n, channels.clone())[..channels.len()]);
                for tile in 0..across {
                    let place = self.layout.place(self.block, i_row * across + tile);
                    let mut lines = [[s.zero(); M]; A];
                    for (i, line) in lines.iter_mut().enumerate() {
                        *line = T::output(
                            s,
                            lanes!(s, j in A => s.load(&self.products[(i * A + j) * self.layout.point + place].0[half])),
                        );
                    }
                    for j in 0..M {
                        let column = T::output(s, lanes!(s, i in A => lines[i][j]));
                        for (i, v) in column.into_iter().enumerate() {
                            s.store(s.add(v, constant), &mut scratch[i * width + tile * M + j]);
                        }
                    }
                }
                for (i, line) in scratch.chunks_exact(width).enumerate().take(M.min(h - top)) {
                    for (x, pixels) in line[..w].chunks(LANES).enumerate() {
                        let eight = lanes!(s, k in LANES => match pixels.get(k) {
                            Some(pixel) => s.load(pixel),
                            None => s.zero(),
                        });
                        for (c, v) in channels.clone().zip(s.transpose(eight)) {
                            self.store(s, v, ((n * c_out + c) * h + top + i) * w + x * LANES, pixels.len());
                        }
                    }
                }
            }
        }
    }
}

impl<T, const M: usize, const A: usize> TransformOutput<'_, T, M, A> {
    /// What is added to every pixel of some channels.
    #[inline(always)]
    fn constants(&self, n: usize, channels: Range<usize>) -> [f32; LANES] {
        let mut constants = [0.0; LANES];
        for (constant, c) in constants.iter_mut().zip(channels) {
            *constant = self.epilogue.constant(self.shape.c_out, n, c);
        }
        constants
    }

    /// Writes up to eight pixels of a row, and adds the residual.
    #[inline(always)]
    fn store<S: Simd>(&self, s: S, v: S::V, start: usize, len: usize) {
        // SAFETY: a task writes the rows of its own tiles and channels, and no two tasks share both.
        let out = unsafe { self.y.part(start, len) };
        let v = match self.epilogue.residual {
            Some(residual) => s.add(v, s.load_part(&residual[start..start + len])),
            None => v,
        };
        s.store_part(v, out);
    }
}
