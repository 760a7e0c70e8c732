//! The input and the gradient of the output at the points.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::Tile;
use super::{BLOCK, Layout};
use crate::parts::Parts;
use crate::scratch::{Line, Scratch};
use crate::simd::{Kernel, LANES, Simd, lanes};

/// A batch of images.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) channels: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

impl<'a> Image<'a> {
    /// Row `y` of eight channels from `first` on, pixel by pixel into half `half` of row `i` of `columns`; zeros for what does not exist.
    #[inline(always)]
    fn load_row<S: Simd, const R: usize>(
        &self,
        s: S,
        [n, first, y]: [usize; 3],
        (i, half): (usize, usize),
        columns: &mut [[Line; R]],
    ) {
        assert!(i < R && half < 2, "a place in the columns");
        if y >= self.h {
            columns.iter_mut().for_each(|column| column[i].0[half] = [0.0; LANES]);
            return;
        }
        let plane = self.h * self.w;
        let start = (n * self.channels + first) * plane + y * self.w;
        // The row of the first channel up to the row of the eighth, if there are eight.
        let rows = self.numbers.get(start..start + 7 * plane + self.w).filter(|_| first + LANES <= self.channels);
        let (eights, rest) = columns.as_chunks_mut::<LANES>();
        for (x, eight) in eights.iter_mut().enumerate() {
            let rows = match rows {
                Some(rows) => lanes!(s, k in LANES => {
                    // SAFETY: k is at most 7, and the eight pixels from 8 x on are still in a row of `w`.
                    s.load(unsafe { &*rows.as_ptr().add(k * plane + x * LANES).cast() })
                }),
                None => lanes!(s, k in LANES => s.load_part(self.pixels(n, first + k, y, x * LANES))),
            };
            let pixels = s.transpose(rows);
            for (p, column) in eight.iter_mut().enumerate() {
                s.store(pixels[p], &mut column[i].0[half]);
            }
        }
        if !rest.is_empty() {
            let pixels = s.transpose(lanes!(s, k in LANES => s.load_part(self.pixels(n, first + k, y, self.w - rest.len()))));
            for (v, column) in pixels.into_iter().zip(rest) {
                s.store(v, &mut column[i].0[half]);
            }
        }
    }

    /// The pixels of a row from `x` on, none if there is no such channel.
    #[inline(always)]
    fn pixels(&self, n: usize, c: usize, y: usize, x: usize) -> &'a [f32] {
        match c < self.channels {
            true => &self.numbers[((n * self.channels + c) * self.h + y) * self.w..][x..self.w],
            false => &[],
        }
    }
}

/// What takes `R x R` pixels to `A x A` points.
pub(super) trait Points<const R: usize, const A: usize> {
    /// How far the pixels reach beyond the upper left of a tile.
    const BORDER: usize;
    fn points<S: Simd>(s: S, d: [S::V; R]) -> [S::V; A];
}

/// `B^T x B` of tiles with their borders.
pub(super) struct OfInput<T, const M: usize>(PhantomData<T>);

impl<T: Tile<M, A>, const M: usize, const A: usize> Points<A, A> for OfInput<T, M> {
    const BORDER: usize = 1;
    #[inline(always)]
    fn points<S: Simd>(s: S, d: [S::V; A]) -> [S::V; A] {
        T::input(s, d)
    }
}

/// `G' dy G'^T` of tiles.
pub(super) struct OfGradient<T>(PhantomData<T>);

impl<T: Tile<M, A>, const M: usize, const A: usize> Points<M, A> for OfGradient<T> {
    const BORDER: usize = 0;
    #[inline(always)]
    fn points<S: Simd>(s: S, dy: [S::V; M]) -> [S::V; A] {
        T::output_gradient(s, dy)
    }
}

/// One block of 16 channels at the points, for the tiles in `rows`.
pub(super) struct Transform<'a, P, const R: usize, const M: usize, const A: usize> {
    image: Image<'a>,
    rows: Range<usize>,
    block: usize,
    layout: Layout,
    out: &'a Parts<'a, Line>,
    points: PhantomData<P>,
}

impl<'a, P, const R: usize, const M: usize, const A: usize> Transform<'a, P, R, M, A> {
    /// # Safety
    /// `out` must have the layout of the image's blocks and of the tiles in `rows`, and nothing else may use the block's lines meanwhile.
    pub(super) unsafe fn new(image: Image<'a>, rows: Range<usize>, block: usize, layout: Layout, out: &'a Parts<'a, Line>) -> Self {
        Self { image, rows, block, layout, out, points: PhantomData }
    }
}

impl<P: Points<R, A>, const R: usize, const M: usize, const A: usize> Kernel for Transform<'_, P, R, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Image { h, w, .. } = self.image;
        let (down, across) = (h.div_ceil(M), w.div_ceil(M));
        let width = across * M + R - M;
        let mut scratch = Scratch::new(width * A);
        // Columns of pixels, and then of points; those outside of the image stay zeros.
        let (columns, _) = scratch.as_chunks_mut::<A>();
        columns.fill([Line::ZERO; A]);
        for (i_row, row) in self.rows.clone().enumerate() {
            let (n, top) = (row / down, row % down * M);
            for (half, first) in [self.block * BLOCK, self.block * BLOCK + LANES].into_iter().enumerate() {
                for i in 0..R {
                    // Above the image the row wraps around to one that does not exist.
                    let y = (top + i).wrapping_sub(P::BORDER);
                    self.image.load_row(s, [n, first, y], (i, half), &mut columns[P::BORDER..P::BORDER + w]);
                }
            }
            for column in columns.iter_mut() {
                for half in 0..2 {
                    let points = P::points(s, lanes!(s, i in R => s.load(&column[i].0[half])));
                    for (v, out) in points.into_iter().zip(column.iter_mut()) {
                        s.store(v, &mut out.0[half]);
                    }
                }
            }
            for (tile, columns) in columns.array_windows::<R>().step_by(M).enumerate() {
                let mut place = self.layout.place(self.block, i_row * across + tile);
                for i in 0..A {
                    let low = P::points(s, lanes!(s, j in R => s.load(&columns[j][i].0[0])));
                    let high = P::points(s, lanes!(s, j in R => s.load(&columns[j][i].0[1])));
                    for (low, high) in low.into_iter().zip(high) {
                        // SAFETY: a line of this block and these tiles, by the contract of `new`.
                        let [line] = unsafe { self.out.array(place) };
                        s.store(low, &mut line.0[0]);
                        s.store(high, &mut line.0[1]);
                        place += self.layout.point;
                    }
                }
            }
        }
    }
}
