//! The output, and the logarithms of the sums. Scores are in units of ln 2, whose exponentials are powers of two.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use super::Attention;
use super::blocks::{BLOCK, Buffers, Head, Operand, TASK, add, cut, scores, tasks, write};
use crate::parts::Parts;
use crate::product::{PIXELS, Panel};
use crate::simd::{Kernel, Simd, dispatch};

pub(super) fn forward(shape: &Attention, [q, k, v]: [&[f32]; 3], out: &mut [f32], stats: Option<&mut [f32]>) {
    let (out, stats) = (Parts::new(out), stats.map(Parts::new));
    tasks(shape, |i, queries, scratch| {
        let [q, k, v] = [q, k, v].map(|x| Head::new(shape, x, i));
        dispatch(Forward { shape, i, q, k, v, queries, out: &out, stats: stats.as_ref(), scratch });
    });
}

/// Some queries of head `i`.
struct Forward<'a> {
    shape: &'a Attention,
    i: usize,
    q: Head<'a>,
    k: Head<'a>,
    v: Head<'a>,
    queries: Range<usize>,
    out: &'a Parts<'a>,
    stats: Option<&'a Parts<'a>>,
    scratch: &'a mut [Operand; 3],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Attention { width, pixels, scale, .. } = *self.shape;
        let Buffers { lanes, sums, sixes, lines } = self.scratch[0].buffers(width, self.queries.len());
        let mut running = [Running::START; TASK / PIXELS];
        for (at, lanes) in cut(self.queries.clone(), PIXELS).zip(lanes.chunks_exact_mut(width)) {
            self.q.panels(at, scale * LOG2_E, lanes);
        }
        let mut weights = [Panel::ZERO; BLOCK];
        for keys in cut(0..pixels, BLOCK) {
            self.k.sixes(keys.clone(), 1.0, sixes);
            self.v.lines(keys.clone(), lines);
            for ((lanes, sums), running) in lanes.chunks_exact(width).zip(sums.chunks_exact_mut(width)).zip(&mut running) {
                scores(s, sixes, lanes, &mut weights);
                let weights = &mut weights[..keys.len()];
                let shrink = running.update(s, weights);
                add(s, lines, weights, shrink, sums);
            }
        }
        for ((at, sums), running) in cut(self.queries, PIXELS).zip(sums.chunks_exact(width)).zip(&running) {
            let total = running.total.load(s);
            let factor = [s.div(s.splat(1.0), total[0]), s.div(s.splat(1.0), total[1])];
            // SAFETY: a task writes the queries of its own range of its own head, and no two tasks share one.
            unsafe { write(s, sums, factor, self.out, self.shape, self.i, at.clone()) };
            if let Some(stats) = self.stats {
                // SAFETY: as above.
                let stats = unsafe { stats.part(self.i * pixels + at.start, at.len()) };
                for (stat, (top, total)) in stats.iter_mut().zip(running.top.0.iter().zip(running.total.0)) {
                    *stat = (top + total.log2()) * LN_2;
                }
            }
        }
    }
}

/// The soft-max of 16 queries over the keys so far.
#[derive(Clone, Copy)]
struct Running {
    /// The largest score.
    top: Panel,
    /// The sum of `2^(score - top)`.
    total: Panel,
}

impl Running {
    const START: Self = Self { top: Panel([f32::NEG_INFINITY; PIXELS]), total: Panel::ZERO };

    /// Takes some keys' scores to `2^(score - top)`; returns the factor of what was summed with the former `top`.
    #[inline(always)]
    fn update<S: Simd>(&mut self, s: S, scores: &mut [Panel]) -> [S::V; 2] {
        let old = self.top.load(s);
        let mut top = old;
        for score in &*scores {
            let score = score.load(s);
            top = [s.max(top[0], score[0]), s.max(top[1], score[1])];
        }
        let shrink = [s.exp2(s.sub(old[0], top[0])), s.exp2(s.sub(old[1], top[1]))];
        let total = self.total.load(s);
        let mut total = [s.mul(total[0], shrink[0]), s.mul(total[1], shrink[1])];
        for score in scores {
            let v = score.load(s);
            let weight = [s.exp2(s.sub(v[0], top[0])), s.exp2(s.sub(v[1], top[1]))];
            total = [s.add(total[0], weight[0]), s.add(total[1], weight[1])];
            score.store(s, weight);
        }
        self.top.store(s, top);
        self.total.store(s, total);
        shrink
    }
}
