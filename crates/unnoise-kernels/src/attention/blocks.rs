//! What all passes do: 16 pixels of a head in the lanes, against a block of the head's pixels in rows.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::Attention;
use crate::parts::Parts;
use crate::product::{PIXELS, Panel, ROWS, product};
use crate::scratch::grow;
use crate::simd::{LANES, Simd, lanes};

/// Pixels of a block, a multiple of [`ROWS`]: the scores of 16 others stay in the first-level cache.
pub(super) const BLOCK: usize = 96;
/// Pixels of a task, all of which meet a block before the next is packed; at least 64, so that packing does not count for much.
pub(super) const TASK: usize = 256;

/// So many products are worth a thread's waking.
const PRODUCTS: usize = 1 << 18;

/// One channel of a block.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([f32; BLOCK]);

/// One head of one image, `[width, pixels]`.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    numbers: &'a [f32],
    pixels: usize,
}

impl<'a> Head<'a> {
    /// Head `i`, counted over all images.
    #[inline(always)]
    pub(super) fn new(shape: &Attention, array: &'a [f32], i: usize) -> Self {
        let size = shape.width * shape.pixels;
        Self { numbers: &array[i * size..][..size], pixels: shape.pixels }
    }

    #[inline(always)]
    pub(super) fn channels(self) -> std::slice::ChunksExact<'a, f32> {
        self.numbers.chunks_exact(self.pixels)
    }

    /// The pixels `at` times `scale`, a panel a channel.
    #[inline(always)]
    pub(super) fn panels(self, at: Range<usize>, scale: f32, out: &mut [Panel]) {
        for (out, channel) in out.iter_mut().zip(self.channels()) {
            *out = panel(&channel[at.clone()]);
            for v in &mut out.0 {
                *v *= scale;
            }
        }
    }

    /// The pixels `at`, a line a channel.
    #[inline(always)]
    pub(super) fn lines(self, at: Range<usize>, out: &mut [Line]) {
        for (out, channel) in out.iter_mut().zip(self.channels()) {
            out.0[..at.len()].copy_from_slice(&channel[at.clone()]);
        }
    }

    /// The pixels `at` times `scale` in groups of six, `[group][channel][pixel]`; behind the last stands what stood there.
    #[inline(always)]
    pub(super) fn sixes(self, at: Range<usize>, scale: f32, out: &mut [[f32; ROWS]]) {
        let width = self.numbers.len() / self.pixels;
        for (d, channel) in self.channels().enumerate() {
            let (sixes, rest) = channel[at.clone()].as_chunks::<ROWS>();
            let mut groups = out[d..].iter_mut().step_by(width);
            // The sixes first: a zip that ends takes one more of its first.
            for (six, out) in sixes.iter().zip(&mut groups) {
                *out = six.map(|v| v * scale);
            }
            if let Some(out) = groups.next() {
                out.iter_mut().zip(rest).for_each(|(out, v)| *out = v * scale);
            }
        }
    }
}

/// Up to 16 numbers, zeros behind them.
#[inline(always)]
pub(super) fn panel(x: &[f32]) -> Panel {
    let mut panel = Panel::ZERO;
    match x.as_array::<PIXELS>() {
        Some(all) => panel.0 = *all,
        None => panel.0[..x.len()].copy_from_slice(x),
    }
    panel
}

/// `out[row] = sum over d of sixes[row][d] lanes[d]`, in whole groups of six rows.
#[inline(always)]
pub(super) fn scores<S: Simd>(s: S, sixes: &[[f32; ROWS]], lanes: &[Panel], out: &mut [Panel]) {
    for (six, out) in sixes.chunks_exact(lanes.len()).zip(out.as_chunks_mut::<ROWS>().0) {
        *out = product(s, six, lanes, [[s.zero(); 2]; ROWS]);
    }
}

/// `sums[d] = shrink sums[d] + sum over the rows of lines[d][row] weights[row]`.
#[inline(always)]
pub(super) fn add<S: Simd>(s: S, lines: &[Line], weights: &[Panel], shrink: [S::V; 2], sums: &mut [Panel]) {
    // Groups of at most six channels, as equal as may be: a group of one or two would wait for its own sums.
    let groups = lines.len().div_ceil(ROWS);
    for group in 0..groups {
        let at = lines.len() * group / groups..lines.len() * (group + 1) / groups;
        let (lines, sums) = (&lines[at.clone()], &mut sums[at]);
        match lines.len() {
            1 => add_to::<S, 1>(s, lines, weights, shrink, sums),
            2 => add_to::<S, 2>(s, lines, weights, shrink, sums),
            3 => add_to::<S, 3>(s, lines, weights, shrink, sums),
            4 => add_to::<S, 4>(s, lines, weights, shrink, sums),
            5 => add_to::<S, 5>(s, lines, weights, shrink, sums),
            _ => add_to::<S, ROWS>(s, lines, weights, shrink, sums),
        }
    }
}

#[inline(always)]
fn add_to<S: Simd, const N: usize>(s: S, lines: &[Line], weights: &[Panel], shrink: [S::V; 2], sums: &mut [Panel]) {
    let (Some(lines), Some(out)) = (lines.as_array::<N>(), sums.as_mut_array::<N>()) else { return };
    let mut sums = [[s.zero(); 2]; N];
    for (sum, out) in sums.iter_mut().zip(&*out) {
        let v = out.load(s);
        *sum = [s.mul(v[0], shrink[0]), s.mul(v[1], shrink[1])];
    }
    for (row, weight) in weights.iter().enumerate().take(BLOCK) {
        let weight = weight.load(s);
        for (sum, line) in sums.iter_mut().zip(lines) {
            let v = s.splat(line.0[row]);
            *sum = [s.mul_add(v, weight[0], sum[0]), s.mul_add(v, weight[1], sum[1])];
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        out.store(s, sum);
    }
}

/// The rows with their lanes as rows, from row `first` on, in panels of 16 of the former rows.
#[inline(always)]
pub(super) fn turn<S: Simd>(s: S, rows: &[Panel; BLOCK], first: usize, out: &mut [[Panel; BLOCK]; BLOCK / PIXELS]) {
    for (rows, out) in rows.as_chunks::<PIXELS>().0.iter().zip(out) {
        let Some(out) = out[first..].first_chunk_mut::<PIXELS>() else { return };
        for (i, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
            for (j, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let turned = s.transpose(lanes!(s, k in LANES => s.load(&rows[k].0.as_chunks::<LANES>().0[j])));
                for (v, out) in turned.into_iter().zip(out) {
                    s.store(v, &mut out.0.as_chunks_mut::<LANES>().0[i]);
                }
            }
        }
    }
}

/// Writes `factor` times one panel of sums to the pixels `at` of head `i` of `out`.
///
/// # Safety
/// No other task may write or read these pixels of this head.
#[inline(always)]
pub(super) unsafe fn write<S: Simd>(
    s: S,
    sums: &[Panel],
    factor: [S::V; 2],
    out: &Parts,
    shape: &Attention,
    i: usize,
    at: Range<usize>,
) {
    for (d, sum) in sums.iter().enumerate() {
        let (v, mut panel) = (sum.load(s), Panel::ZERO);
        panel.store(s, [s.mul(v[0], factor[0]), s.mul(v[1], factor[1])]);
        // SAFETY: the caller's promise.
        let out = unsafe { out.part((i * shape.width + d) * shape.pixels + at.start, at.len()) };
        match out.as_mut_array::<PIXELS>() {
            Some(all) => *all = panel.0,
            None => out.copy_from_slice(&panel.0[..at.len()]),
        }
    }
}

/// The pixels `at` cut into panels.
#[inline(always)]
pub(super) fn cut(at: Range<usize>, step: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    at.clone().step_by(step).map(move |start| start..at.end.min(start + step))
}

/// One operand's buffers in a thread's scratch.
#[derive(Default)]
pub(super) struct Operand {
    lanes: Vec<Panel>,
    sums: Vec<Panel>,
    sixes: Vec<[f32; ROWS]>,
    lines: Vec<Line>,
}

/// One operand's buffers in a task.
pub(super) struct Buffers<'a> {
    /// What the task's pixels are, `[panel][channel]`.
    pub(super) lanes: &'a mut [Panel],
    /// What they get, from zero.
    pub(super) sums: &'a mut [Panel],
    /// A block, `[group][channel]`.
    pub(super) sixes: &'a mut [[f32; ROWS]],
    /// A block, a line a channel.
    pub(super) lines: &'a mut [Line],
}

impl Operand {
    #[inline(always)]
    pub(super) fn buffers(&mut self, width: usize, pixels: usize) -> Buffers<'_> {
        let panels = width * pixels.div_ceil(PIXELS);
        let sums = grow(&mut self.sums, panels, Panel::ZERO);
        sums.fill(Panel::ZERO);
        Buffers {
            lanes: grow(&mut self.lanes, panels, Panel::ZERO),
            sums,
            sixes: grow(&mut self.sixes, width * BLOCK / ROWS, [0.0; ROWS]),
            lines: grow(&mut self.lines, width, Line([0.0; BLOCK])),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<[Operand; 3]> = RefCell::default();
}

/// The pixels of a task.
fn step(shape: &Attention) -> usize {
    let share = shape.n * shape.heads * shape.pixels / rayon::current_num_threads();
    share.clamp(TASK / 4, TASK).next_multiple_of(PIXELS)
}

/// Whether [`tasks`] gives every head one task.
pub(super) fn undivided(shape: &Attention) -> bool {
    shape.pixels <= step(shape)
}

/// Runs a task for every head `i` of every image and some of its pixels: how many is not seen in the results.
pub(super) fn tasks(shape: &Attention, task: impl Fn(usize, Range<usize>, &mut [Operand; 3]) + Sync) {
    let step = step(shape);
    let count = shape.pixels.div_ceil(step);
    let least = PRODUCTS.div_ceil(2 * step * shape.pixels * shape.width);
    (0..shape.n * shape.heads * count).into_par_iter().with_min_len(least).for_each(|i| {
        let start = i % count * step;
        SCRATCH.with_borrow_mut(|scratch| task(i / count, start..shape.pixels.min(start + step), scratch));
    });
}
