//! How fast the CPU multiplies and adds, to hold the kernels against.

use std::hint::black_box;
use std::time::Instant;

use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// Independent sums: enough to hide the latency of an addition, few enough to stay in registers.
const CHAINS: usize = 12;
const ROUNDS: usize = 1 << 20;

/// `2 CHAINS LANES ROUNDS` floating-point operations that touch no memory.
struct Chains;

impl Kernel for Chains {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (factor, term) = (s.splat(black_box(0.999)), s.splat(black_box(0.5)));
        let mut sums = lanes!(s, i in CHAINS => s.splat(i as f32));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, factor, term);
            }
        }
        let mut total = s.zero();
        for sum in sums {
            total = s.add(total, sum);
        }
        s.sum(total)
    }
}

/// The floating-point operations that all threads of rayon's current pool do in a second, in 1e9: multiply-adds in registers, the
/// best of seven trials of some milliseconds. No kernel can be faster on these threads and this instruction set.
pub fn measured_peak_gflops() -> f64 {
    let flops = (2 * CHAINS * LANES * ROUNDS * rayon::current_num_threads()) as f64;
    let trial = || {
        let start = Instant::now();
        black_box(rayon::broadcast(|_| dispatch(Chains)));
        flops / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..7).map(|_| trial()).fold(0.0, f64::max)
}
