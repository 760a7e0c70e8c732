//! The register block of a product of matrices: six rows by 16 pixels, whose twelve sums fill the registers.

use crate::simd::{LANES, Simd};

/// Rows of the register block.
pub(crate) const ROWS: usize = 6;
/// Pixels of the register block.
pub(crate) const PIXELS: usize = 16;

/// 16 pixels of one row.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Panel(pub(crate) [f32; PIXELS]);

impl Panel {
    pub(crate) const ZERO: Self = Self([0.0; PIXELS]);

    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, s: S) -> [S::V; 2] {
        let (halves, _) = self.0.as_chunks::<LANES>();
        [s.load(&halves[0]), s.load(&halves[1])]
    }

    #[inline(always)]
    pub(crate) fn store<S: Simd>(&mut self, s: S, v: [S::V; 2]) {
        let (halves, _) = self.0.as_chunks_mut::<LANES>();
        s.store(v[0], &mut halves[0]);
        s.store(v[1], &mut halves[1]);
    }
}

/// `sums += packed rows times panels`: six rows, 16 pixels.
#[inline(always)]
pub(crate) fn product<S: Simd>(s: S, rows: &[[f32; ROWS]], panels: &[Panel], mut sums: [[S::V; 2]; ROWS]) -> [Panel; ROWS] {
    for (row, panel) in rows.iter().zip(panels) {
        let pixels = panel.load(s);
        for (sum, &v) in sums.iter_mut().zip(row) {
            let v = s.splat(v);
            *sum = [s.mul_add(v, pixels[0], sum[0]), s.mul_add(v, pixels[1], sum[1])];
        }
    }
    let mut out = [Panel::ZERO; ROWS];
    for (sum, out) in sums.into_iter().zip(&mut out) {
        out.store(s, sum);
    }
    out
}
