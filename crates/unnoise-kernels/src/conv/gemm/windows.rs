//! What every pixel of a result sees of an image.

use std::ops::Range;

use super::Conv2d;
use crate::scratch::Line;
use crate::simd::Simd;

/// Pixels `(i, j)` of a grid, and the windows that they see: of every channel of the source, the pixels
/// `(i stride + dy, j stride + dx)` for some taps `(dy, dx)`, zero outside.
pub(super) struct Windows {
    channels: usize,
    /// Rows and columns of the source.
    sides: [usize; 2],
    taps: Vec<[isize; 2]>,
    stride: usize,
    /// Rows and columns of the grid.
    grid: [usize; 2],
    /// Where the grid lies in a plane of the result: its rows and columns, the place of `(0, 0)`, and the step.
    plane: [usize; 2],
    origin: [usize; 2],
    step: usize,
}

impl Windows {
    /// The windows of a convolution.
    pub(super) fn forward(conv: &Conv2d) -> Self {
        let grid = conv.output_sides().expect("the shape was checked at the door");
        let [(top, _), (left, _)] = conv.padding;
        let taps = (0..conv.kernel * conv.kernel)
            .map(|i| [(i / conv.kernel) as isize - top as isize, (i % conv.kernel) as isize - left as isize])
            .collect();
        Self { channels: conv.c_in, sides: [conv.h, conv.w], taps, stride: conv.stride, grid, plane: grid, origin: [0; 2], step: 1 }
    }

    /// The windows of its gradient by the input, class by class, those with the most taps first; and which of the kernel's taps they are.
    /// A class may have no taps, or no pixels.
    ///
    /// ```text
    /// dx[y] = sum over taps a with y + top - a = 0 mod stride of weight[a] dy[(y + top - a) / stride]
    /// ```
    pub(super) fn backward(conv: &Conv2d) -> Vec<(Self, Vec<usize>)> {
        let sides = conv.output_sides().expect("the shape was checked at the door");
        let [(top, _), (left, _)] = conv.padding;
        let step = conv.stride;
        // Where tap `a` of the pixels `p + i step` looks, less `i`.
        let looks = |p: usize, before: usize, a: usize| (p + before).wrapping_sub(a) as isize;
        let hits = |p: usize, before: usize, a: usize| looks(p, before, a).rem_euclid(step as isize) == 0;
        let mut classes = Vec::new();
        for class in 0..step * step {
            let origin = [class / step, class % step];
            let [p, q] = origin;
            let grid = [conv.h.saturating_sub(p).div_ceil(step), conv.w.saturating_sub(q).div_ceil(step)];
            let positions: Vec<usize> = (0..conv.kernel * conv.kernel)
                .filter(|i| hits(p, top, i / conv.kernel) && hits(q, left, i % conv.kernel))
                .collect();
            let taps = positions
                .iter()
                .map(|i| {
                    let (a, b) = (i / conv.kernel, i % conv.kernel);
                    [looks(p, top, a).div_euclid(step as isize), looks(q, left, b).div_euclid(step as isize)]
                })
                .collect();
            let windows = Self { channels: conv.c_out, sides, taps, stride: 1, grid, plane: [conv.h, conv.w], origin, step };
            classes.push((windows, positions));
        }
        classes.sort_by_key(|(_, positions)| std::cmp::Reverse(positions.len()));
        classes
    }

    /// Numbers of a window.
    pub(super) fn size(&self) -> usize {
        self.channels * self.taps.len()
    }

    /// Pixels of the grid.
    pub(super) fn pixels(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Numbers of an image of the source.
    pub(super) fn source(&self) -> usize {
        self.channels * self.sides[0] * self.sides[1]
    }

    /// Numbers of a plane of the result.
    pub(super) fn target(&self) -> usize {
        self.plane[0] * self.plane[1]
    }

    /// Whether the grid is all of a plane.
    pub(super) fn dense(&self) -> bool {
        self.step == 1
    }

    /// Whether every pixel sees itself and nothing else.
    fn pointwise(&self) -> bool {
        self.stride == 1 && self.grid == self.sides && self.taps[..] == [[0, 0]]
    }

    /// Where in a plane the pixels `first .. first + len` of the grid lie.
    #[inline(always)]
    pub(super) fn places(&self, first: usize, len: usize) -> impl Iterator<Item = usize> {
        let [origin_y, origin_x] = self.origin;
        let (columns, step, width) = (self.grid[1], self.step, self.plane[1]);
        (first..first + len).map(move |i| (origin_y + i / columns * step) * width + origin_x + i % columns * step)
    }

    /// What is gathered after the numbers before `k` of some pixels: the next numbers, or else the first ones of the next pixels.
    #[inline(always)]
    pub(super) fn ahead<'a>(&self, image: &'a [f32], k: usize, pixels: Range<usize>, turns: usize) -> Ahead<'a> {
        let [h, w] = self.sides;
        let (columns, taps) = (self.grid[1], self.taps.len().max(1));
        let (pixels, channel) = match k < self.size() {
            true => (pixels, k / taps),
            false => (pixels.end..self.pixels().min(pixels.end + pixels.len()), 0),
        };
        let channels = channel..self.channels.min(channel + super::DEPTH.div_ceil(taps));
        let seen = match self.pointwise() {
            true => pixels,
            false => pixels.start / columns * self.stride * w..(pixels.end.div_ceil(columns) * self.stride * w).min(h * w),
        };
        let planes = image[channels.start * h * w..channels.end * h * w].chunks_exact(h * w);
        Ahead { planes, seen: seen.start.min(seen.end)..seen.end, step: channels.len().div_ceil(turns) }
    }

    /// Number `k` of the windows of the pixels from `first` on.
    #[inline(always)]
    pub(super) fn gather(&self, image: &[f32], k: usize, first: usize, out: &mut [f32]) {
        let [h, w] = self.sides;
        let [dy, dx] = self.taps[k % self.taps.len()];
        let plane = &image[k / self.taps.len() * h * w..][..h * w];
        if self.pointwise() {
            return out.copy_from_slice(&plane[first..first + out.len()]);
        }
        let columns = self.grid[1];
        let (mut i, mut j, mut done) = (first / columns, first % columns, 0);
        while done < out.len() {
            let run = (columns - j).min(out.len() - done);
            let out = &mut out[done..done + run];
            let y = (i * self.stride).wrapping_add_signed(dy);
            match y < h {
                true => copy_row(&plane[y * w..][..w], (j * self.stride) as isize + dx, self.stride, out),
                false => out.fill(0.0),
            }
            (i, j, done) = (i + 1, 0, done + run);
        }
    }
}

/// What will be gathered soon, and is asked for in some turns.
pub(super) struct Ahead<'a> {
    /// The planes of its channels.
    planes: std::slice::ChunksExact<'a, f32>,
    /// What of a plane will be seen.
    seen: Range<usize>,
    /// Planes in a turn.
    step: usize,
}

impl Ahead<'_> {
    #[inline(always)]
    pub(super) fn fetch<S: Simd>(&mut self, s: S) {
        for plane in self.planes.by_ref().take(self.step) {
            plane[self.seen.clone()].chunks(Line::LEN).for_each(|line| s.prefetch(&line[0]));
        }
    }
}

/// `out[i] = row[x + i stride]`, zero outside.
#[inline(always)]
fn copy_row(row: &[f32], x: isize, stride: usize, out: &mut [f32]) {
    let before = if x < 0 { x.unsigned_abs().div_ceil(stride).min(out.len()) } else { 0 };
    let until = (row.len() as isize - x).max(0) as usize;
    let end = until.div_ceil(stride).clamp(before, out.len());
    out[..before].fill(0.0);
    out[end..].fill(0.0);
    let inside = &mut out[before..end];
    let from = (x + (before * stride) as isize) as usize;
    match (stride, inside) {
        (_, []) => {}
        (1, inside) => inside.copy_from_slice(&row[from..from + inside.len()]),
        (2, [inside @ .., last]) => {
            let row = &row[from..];
            for (out, pair) in inside.iter_mut().zip(row.as_chunks::<2>().0) {
                *out = pair[0];
            }
            *last = row[2 * inside.len()];
        }
        (_, inside) => inside.iter_mut().zip(row[from..].iter().step_by(stride)).for_each(|(out, v)| *out = *v),
    }
}
