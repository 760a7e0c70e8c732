//! Eight lanes of `f32`, written once and run on the widest instruction set of the CPU.
//!
//! A kernel is a struct with its arguments and a [`Kernel::run`] that is generic over the lanes. [`dispatch`] picks the instruction
//! set and enters it through one function carrying `#[target_feature]`, into which `run` and all that it calls must be inlined
//! (`#[inline(always)]`): code that stays outside such a function is compiled for the baseline and runs ten times slower. A closure
//! cannot promise that, so no closure touches lanes; [`lanes!`] stands where `array::from_fn` would.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
pub(crate) use portable::Portable;

/// `[f(0), f(1), ...]` of eight lanes each: `lanes!(s, i in N => f(i))`.
macro_rules! lanes {
    ($s:expr, $i:ident in $n:expr => $lanes:expr) => {{
        let mut out = [$s.zero(); $n];
        for $i in 0..$n {
            out[$i] = $lanes;
        }
        out
    }};
}
pub(crate) use lanes;

/// The number of lanes.
pub(crate) const LANES: usize = 8;

/// Operations on eight lanes; a value of the implementing type proves that the CPU has the instructions.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Eight `f32`.
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn store(self, v: Self::V, y: &mut [f32; LANES]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`, rounded once where the CPU can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a b`, rounded once where the CPU can.
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of the two; where one is not a number, either.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `v` limited to `[low, high]`; NaN stays.
    fn clamp(self, v: Self::V, low: f32, high: f32) -> Self::V;
    /// The nearest integer.
    fn round(self, v: Self::V) -> Self::V;
    /// `2^v` for integers in [-126, 127].
    fn pow2(self, v: Self::V) -> Self::V;
    /// The sum of the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// The sums of the lanes of each, in the order of [`sum`](Self::sum) or another.
    fn sums(self, v: [Self::V; 4]) -> [f32; 4];
    /// Asks for the cache line at `place` to be in the second-level cache soon.
    fn prefetch<T>(self, place: &T);
    /// Row `i`, lane `j` becomes row `j`, lane `i`.
    fn transpose(self, rows: [Self::V; LANES]) -> [Self::V; LANES];

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// The first eight numbers, zeros behind them where there are fewer.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::V {
        if let Some(eight) = x.first_chunk() {
            return self.load(eight);
        }
        let mut lanes = [0.0; LANES];
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane = x;
        }
        self.load(&lanes)
    }

    /// The first `y.len()` lanes, at most eight.
    #[inline(always)]
    fn store_part(self, v: Self::V, y: &mut [f32]) {
        if let Some(eight) = y.first_chunk_mut() {
            return self.store(v, eight);
        }
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for (y, lane) in y.iter_mut().zip(lanes) {
            *y = lane;
        }
    }

    /// `2^v` to 2 ulp for |v| < 126, saturating outside; NaN stays.
    ///
    /// ```text
    /// v = n + r,  |r| <= 1/2,   2^v = 2^n p(r)
    /// ```
    /// where `p` is the polynomial of degree six with `p(0) = 1` whose largest relative error, 2e-9, is the smallest.
    #[inline(always)]
    fn exp2(self, v: Self::V) -> Self::V {
        let v = self.clamp(v, -126.0, 126.0);
        let n = self.round(v);
        let r = self.sub(v, n);
        let mut p = self.splat(1.535_336_2e-4);
        for c in [1.339_887_5e-3, 9.618_437e-3, 5.550_332_4e-2, 0.240_226_48, std::f32::consts::LN_2, 1.0] {
            p = self.mul_add(p, r, self.splat(c));
        }
        self.mul(p, self.pow2(n))
    }

    /// The sum of all numbers, in four independent chains of eight lanes.
    #[inline(always)]
    fn sum_of(self, x: &[f32]) -> f32 {
        let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
        let mut sums = [self.zero(); 4];
        for four in fours {
            for (sum, v) in sums.iter_mut().zip(four.as_chunks::<LANES>().0) {
                *sum = self.add(*sum, self.load(v));
            }
        }
        for v in rest.chunks(LANES) {
            sums[0] = self.add(sums[0], self.load_part(v));
        }
        self.sum(self.add(self.add(sums[0], sums[1]), self.add(sums[2], sums[3])))
    }

    /// `1 / (1 + 2^(-v log2 e))`. The exponent's rounding is worth `|v|` half ulps of the power: of the result where it is small, of nothing where it
    /// is nearly 1.
    #[inline(always)]
    fn sigmoid(self, v: Self::V) -> Self::V {
        let one = self.splat(1.0);
        self.div(one, self.add(one, self.exp2(self.mul(v, self.splat(-std::f32::consts::LOG2_E)))))
    }
}

/// A computation that is generic over the instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it; implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

static PORTABLE_ONLY: AtomicBool = AtomicBool::new(false);

/// Makes every later call in this process take the portable path, to compare it with the instruction set's own.
pub fn force_portable(yes: bool) {
    PORTABLE_ONLY.store(yes, Ordering::Relaxed);
}

/// Runs a kernel on the widest instruction set there is.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if let (false, Some(avx2)) = (PORTABLE_ONLY.load(Ordering::Relaxed), Avx2::detect()) {
        return avx2.enter(kernel);
    }
    #[cfg(target_arch = "aarch64")]
    if !PORTABLE_ONLY.load(Ordering::Relaxed) {
        return kernel.run(neon::Neon);
    }
    kernel.run(Portable)
}

#[cfg(test)]
mod tests;
