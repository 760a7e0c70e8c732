//! The output from the points.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::Tile;
use super::{BLOCK, Layout, Shape};
use crate::conv::weight::Epilogue;
use crate::parts::Parts;
use crate::scratch::{Line, Scratch};
use crate::simd::{Kernel, LANES, Simd, lanes};

/// `y = A^T M A` and the epilogue, of one block of 16 channels, for the tiles in `rows`.
pub(super) struct TransformOutput<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    rows: Range<usize>,
    block: usize,
    layout: Layout,
    products: &'a [Line],
    epilogue: Epilogue<'a>,
    y: &'a Parts<'a>,
    tile: PhantomData<T>,
}

impl<'a, T, const M: usize, const A: usize> TransformOutput<'a, T, M, A> {
    /// # Safety
    /// `y` must be the output of `shape`, and nothing else may use the block's channels of these tiles meanwhile.
    pub(super) unsafe fn new(
        (shape, rows, block): (Shape, Range<usize>, usize),
        layout: Layout,
        products: &'a [Line],
        epilogue: Epilogue<'a>,
        y: &'a Parts<'a>,
    ) -> Self {
        Self { shape, rows, block, layout, products, epilogue, y, tile: PhantomData }
    }
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for TransformOutput<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Shape { c_out, h, w, .. } = self.shape;
        let (down, across) = (h.div_ceil(M), w.div_ceil(M));
        let mut scratch = Scratch::new(across * M * M);
        // Tiles of columns of pixels.
        let (columns, _) = scratch.as_chunks_mut::<M>();
        for (i_row, row) in self.rows.clone().enumerate() {
            let (n, top) = (row / down, row % down * M);
            let constants = self.constants(n);
            for (tile, columns) in columns.as_chunks_mut::<M>().0.iter_mut().enumerate() {
                for half in 0..2 {
                    let mut place = self.layout.place(self.block, i_row * across + tile);
                    let mut lines = [[s.zero(); M]; A];
                    for line in &mut lines {
                        let mut points = [s.zero(); A];
                        for v in &mut points {
                            *v = s.load(&self.products[place].0[half]);
                            place += self.layout.point;
                        }
                        *line = T::output(s, points);
                    }
                    let constant = s.load(&constants.0[half]);
                    for (j, column) in columns.iter_mut().enumerate() {
                        let pixels = T::output(s, lanes!(s, i in A => lines[i][j]));
                        for (v, pixel) in pixels.into_iter().zip(column) {
                            s.store(s.add(v, constant), &mut pixel.0[half]);
                        }
                    }
                }
            }
            for half in 0..2 {
                let first = self.block * BLOCK + half * LANES;
                for i in 0..M.min(h - top) {
                    let start = ((n * c_out + first) * h + top + i) * w;
                    self.store_row(s, &columns[..w], (i, half), start, c_out.saturating_sub(first).min(LANES));
                }
            }
        }
    }
}

impl<T, const M: usize, const A: usize> TransformOutput<'_, T, M, A> {
    /// What is added to every pixel of image `n`.
    #[inline(always)]
    fn constants(&self, n: usize) -> Line {
        let mut constants = Line::ZERO;
        let channels = self.block * BLOCK..self.shape.c_out;
        for (constant, c) in constants.0.as_flattened_mut().iter_mut().zip(channels) {
            *constant = self.epilogue.constant(self.shape.c_out, n, c);
        }
        constants
    }

    /// Writes a half of row `i` of the columns to so many channels, the first of them at `start`.
    #[inline(always)]
    fn store_row<S: Simd>(&self, s: S, columns: &[[Line; M]], (i, half): (usize, usize), start: usize, channels: usize) {
        let plane = self.shape.h * self.shape.w;
        let (eights, mut rest) = columns.as_chunks::<LANES>();
        if channels == LANES {
            for (x, eight) in eights.iter().enumerate() {
                let pixels = s.transpose(lanes!(s, p in LANES => s.load(&eight[p][i].0[half])));
                for k in 0..LANES {
                    self.store(s, pixels[k], start + k * plane + x * LANES);
                }
            }
        } else {
            rest = columns;
        }
        for (x, column) in (columns.len() - rest.len()..).zip(rest) {
            for (k, &v) in column[i].0[half].iter().enumerate().take(channels) {
                let at = start + k * plane + x;
                // SAFETY: a pixel of the block's channels and these tiles, by the contract of `new`.
                let [out] = unsafe { self.y.array(at) };
                *out = v + self.epilogue.residual.map_or(0.0, |residual| residual[at]);
            }
        }
    }

    /// Writes eight pixels of a row, and adds the residual.
    #[inline(always)]
    fn store<S: Simd>(&self, s: S, v: S::V, at: usize) {
        let v = match self.epilogue.residual {
            Some(residual) => s.add(v, s.load_part(&residual[at..])),
            None => v,
        };
        // SAFETY: as in `store_row`; eight pixels of one row.
        s.store(v, unsafe { self.y.array(at) });
    }
}
