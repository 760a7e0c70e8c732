//! The gradients: keys in the lanes for `dk` and `dv`, and queries in the lanes for `dq`.
//!
//! Scores and their gradients are the same products with the roles exchanged, `q` with `k` and `dout` with `v`:
//!
//! ```text
//! p = exp(scale q . k - stats),  ds = p (dout . v - mean),  mean[i] = sum over d of dout[d, i] out[d, i]
//! ```
//!
//! A task that has all keys of a head turns its `ds` and sums `dq` as well: five products. Where a head is cut into tasks, `dq` takes a pass of
//! its own, and the scores and their gradients are computed twice. Both give the same bits: a factor has the same roundings, and a sum the same
//! order.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use rayon::prelude::*;

use super::Attention;
use super::blocks::{BLOCK, Head, Operand, add, cut, panel, scores, tasks, turn, undivided, write};
use crate::parts::Parts;
use crate::product::{PIXELS, Panel};
use crate::simd::{Kernel, LANES, Simd, dispatch};

pub(super) fn backward(
    shape: &Attention,
    [q, k, v]: [&[f32]; 3],
    [out, dout]: [&[f32]; 2],
    stats: &[f32],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let mut means = vec![0.0; stats.len()];
    means.par_chunks_mut(shape.pixels).enumerate().for_each(|(i, means)| {
        dispatch(Means { out: Head::new(shape, out, i), dout: Head::new(shape, dout, i), means });
    });
    let (dq, dk, dv) = (Parts::new(dq), Parts::new(dk), Parts::new(dv));
    let undivided = undivided(shape);
    if !undivided {
        tasks(shape, |i, queries, scratch| {
            let [q, k, v, dout] = [q, k, v, dout].map(|x| Head::new(shape, x, i));
            let [stats, means] = [stats, &means].map(|x| &x[i * shape.pixels..][..shape.pixels]);
            let (lanes, rows, out) = ([q, dout], [k, v], [Some(&dq), None]);
            dispatch(Gradient::<true> { shape, i, lanes, rows, stats, means, at: queries, out, of_rows: None, scratch });
        });
    }
    tasks(shape, |i, keys, scratch| {
        let [q, k, v, dout] = [q, k, v, dout].map(|x| Head::new(shape, x, i));
        let [stats, means] = [stats, &means].map(|x| &x[i * shape.pixels..][..shape.pixels]);
        let (lanes, rows, out, of_rows) = ([k, v], [q, dout], [Some(&dk), Some(&dv)], undivided.then_some(&dq));
        dispatch(Gradient::<false> { shape, i, lanes, rows, stats, means, at: keys, out, of_rows, scratch });
    });
}

/// `means[i] = sum over d of dout[d, i] out[d, i]`.
struct Means<'a> {
    out: Head<'a>,
    dout: Head<'a>,
    means: &'a mut [f32],
}

impl Kernel for Means<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, dout) in self.out.channels().zip(self.dout.channels()) {
            for ((mean, out), dout) in self.means.chunks_mut(LANES).zip(out.chunks(LANES)).zip(dout.chunks(LANES)) {
                s.store_part(s.mul_add(s.load_part(out), s.load_part(dout), s.load_part(mean)), mean);
            }
        }
    }
}

/// The gradients by some pixels of head `i`: queries where `QUERIES`, else keys.
struct Gradient<'a, const QUERIES: bool> {
    shape: &'a Attention,
    i: usize,
    /// `q` and `dout`, or `k` and `v`.
    lanes: [Head<'a>; 2],
    /// The other two.
    rows: [Head<'a>; 2],
    stats: &'a [f32],
    means: &'a [f32],
    at: Range<usize>,
    /// The gradients by the first and the second of the lanes.
    out: [Option<&'a Parts<'a>>; 2],
    /// The gradient by the first of the rows, if the lanes are all of the head.
    of_rows: Option<&'a Parts<'a>>,
    scratch: &'a mut [Operand; 3],
}

impl<const QUERIES: bool> Kernel for Gradient<'_, QUERIES> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Attention { width, pixels, scale, .. } = *self.shape;
        let [a, b, c] = self.scratch;
        let ([a, b], c) = ([a, b].map(|operand| operand.buffers(width, self.at.len())), c.buffers(width, BLOCK));
        // The factor is the keys', whoever they are.
        let (of_lanes, of_rows) = if QUERIES { (1.0, scale * LOG2_E) } else { (scale * LOG2_E, 1.0) };
        let panels = a.lanes.chunks_exact_mut(width).zip(b.lanes.chunks_exact_mut(width));
        for (at, (a, b)) in cut(self.at.clone(), PIXELS).zip(panels) {
            self.lanes[0].panels(at.clone(), of_lanes, a);
            self.lanes[1].panels(at, 1.0, b);
        }
        let (mut weights, mut slopes) = ([Panel::ZERO; BLOCK], [Panel::ZERO; BLOCK]);
        let mut turned = [[Panel::ZERO; BLOCK]; BLOCK / PIXELS];
        for block in cut(0..pixels, BLOCK) {
            self.rows[0].sixes(block.clone(), of_rows, a.sixes);
            self.rows[1].sixes(block.clone(), 1.0, b.sixes);
            self.rows[0].lines(block.clone(), a.lines);
            if !QUERIES {
                self.rows[1].lines(block.clone(), b.lines);
            }
            if self.of_rows.is_some() {
                c.sums.fill(Panel::ZERO);
            }
            let sums = a.sums.chunks_mut(BLOCK / PIXELS * width).zip(b.sums.chunks_mut(BLOCK / PIXELS * width));
            let lanes = a.lanes.chunks(BLOCK / PIXELS * width).zip(b.lanes.chunks(BLOCK / PIXELS * width));
            for (at, ((a_lanes, b_lanes), (a_sums, b_sums))) in cut(self.at.clone(), BLOCK).zip(lanes.zip(sums)) {
                let sums = a_sums.chunks_exact_mut(width).zip(b_sums.chunks_exact_mut(width));
                let panels = a_lanes.chunks_exact(width).zip(b_lanes.chunks_exact(width)).zip(sums);
                for (p, (at, ((a_lanes, b_lanes), (a_sums, b_sums)))) in cut(at.clone(), PIXELS).zip(panels).enumerate() {
                    scores(s, a.sixes, a_lanes, &mut weights);
                    scores(s, b.sixes, b_lanes, &mut slopes);
                    let queries = if QUERIES { at } else { block.clone() };
                    {
                        let (weights, slopes) = (&mut weights[..block.len()], &mut slopes[..block.len()]);
                        soft_max::<S, QUERIES>(s, &self.stats[queries.clone()], &self.means[queries], weights, slopes);
                        add(s, a.lines, slopes, [s.splat(1.0); 2], a_sums);
                        if !QUERIES {
                            add(s, b.lines, weights, [s.splat(1.0); 2], b_sums);
                        }
                    }
                    if self.of_rows.is_some() {
                        turn(s, &slopes, p * PIXELS, &mut turned);
                    }
                }
                if self.of_rows.is_some() {
                    self.lanes[0].lines(at.clone(), c.lines);
                    for (turned, sums) in turned.iter().zip(c.sums.chunks_exact_mut(width)) {
                        add(s, c.lines, &turned[..at.len()], [s.splat(1.0); 2], sums);
                    }
                }
            }
            if let Some(out) = self.of_rows {
                for (at, sums) in cut(block, PIXELS).zip(c.sums.chunks_exact(width)) {
                    // SAFETY: the only task of its head.
                    unsafe { write(s, sums, [s.splat(scale); 2], out, self.shape, self.i, at) };
                }
            }
        }
        for ((sums, factor), out) in [(&a.sums, scale), (&b.sums, 1.0)].into_iter().zip(self.out) {
            let Some(out) = out else { continue };
            for (at, sums) in cut(self.at.clone(), PIXELS).zip(sums.chunks_exact(width)) {
                // SAFETY: a task writes the pixels of its own range of its own head, and no two tasks share one.
                unsafe { write(s, sums, [s.splat(factor); 2], out, self.shape, self.i, at) };
            }
        }
    }
}

/// Takes the scores in `weights`, in units of ln 2, to `p`, and the gradients by `p` in `slopes` to those by the scores; `stats` and
/// `means` are those of the queries in the lanes, or in the rows.
#[inline(always)]
fn soft_max<S: Simd, const QUERIES: bool>(s: S, stats: &[f32], means: &[f32], weights: &mut [Panel], slopes: &mut [Panel]) {
    let mut lanes = if QUERIES { [panel(stats), panel(means)] } else { [Panel::ZERO; 2] };
    lanes[0].0.iter_mut().for_each(|stat| *stat *= LOG2_E);
    for (row, (weight, slope)) in weights.iter_mut().zip(slopes).enumerate() {
        let [stat, mean] = match QUERIES {
            true => [lanes[0].load(s), lanes[1].load(s)],
            false => [[s.splat(stats[row] * LOG2_E); 2], [s.splat(means[row]); 2]],
        };
        let (score, dp) = (weight.load(s), slope.load(s));
        let p = [s.exp2(s.sub(score[0], stat[0])), s.exp2(s.sub(score[1], stat[1]))];
        weight.store(s, p);
        slope.store(s, [s.mul(p[0], s.sub(dp[0], mean[0])), s.mul(p[1], s.sub(dp[1], mean[1]))]);
    }
}
