//! How fast the convolutions are: `cargo test --release -p unnoise-kernels speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::tests::{Arrays, Sizes, conv};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// The convolutions of two networks, by what they are: `(name, kernel, stride, [(n, c_in, c_out, h, w)])`.
const LAYERS: [(&str, usize, usize, &[Sizes]); 5] = [
    (
        "google/ddpm-cifar10-32, 3x3",
        3,
        1,
        &[
            (16, 128, 128, 32, 32),
            (16, 256, 128, 32, 32),
            (16, 256, 256, 16, 16),
            (16, 512, 256, 16, 16),
            (16, 256, 256, 8, 8),
            (16, 512, 256, 8, 8),
            (16, 256, 256, 4, 4),
            (16, 512, 256, 4, 4),
            (1, 128, 128, 32, 32),
            (1, 256, 128, 32, 32),
            (1, 256, 256, 16, 16),
            (1, 512, 256, 16, 16),
            (1, 256, 256, 8, 8),
            (1, 256, 256, 4, 4),
        ],
    ),
    (
        "digits, 3x3",
        3,
        1,
        &[
            (32, 32, 32, 32, 32),
            (32, 64, 64, 32, 32),
            (32, 96, 32, 32, 32),
            (32, 128, 64, 32, 32),
            (32, 64, 32, 32, 32),
            (32, 64, 64, 16, 16),
            (32, 128, 64, 16, 16),
            (32, 96, 64, 16, 16),
            (32, 64, 64, 8, 8),
            (32, 128, 64, 8, 8),
            (32, 96, 64, 8, 8),
            (1, 64, 64, 16, 16),
        ],
    ),
    (
        "1x1",
        1,
        1,
        &[
            (32, 96, 32, 32, 32),
            (32, 128, 64, 16, 16),
            (32, 128, 64, 8, 8),
            (16, 512, 256, 16, 16),
            (16, 384, 128, 32, 32),
            (1, 512, 256, 16, 16),
        ],
    ),
    ("3x3, stride 2", 3, 2, &[(16, 128, 128, 32, 32), (16, 256, 256, 16, 16), (32, 32, 32, 32, 32), (32, 64, 64, 16, 16)]),
    ("first and last", 3, 1, &[(32, 1, 32, 32, 32), (32, 32, 1, 32, 32), (16, 3, 128, 32, 32), (16, 128, 3, 32, 32)]),
];

/// The shortest of several runs, in seconds: whatever else the machine does only adds.
fn shortest(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    for run in 0..200 {
        let clock = Instant::now();
        f();
        best = best.min(clock.elapsed().as_secs_f64());
        if run > 10 && start.elapsed() > Duration::from_millis(250) {
            break;
        }
    }
    best
}

const ROUNDS: usize = 200_000;

/// Nothing but multiply-adds, in as many chains as the registers hold.
struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (a, b) = (s.splat(std::hint::black_box(0.999)), s.splat(std::hint::black_box(0.1)));
        let mut chains = [s.zero(); 12];
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = s.mul_add(*chain, a, b);
            }
        }
        chains.into_iter().fold(0.0, |sum, chain| sum + s.sum(chain))
    }
}

/// What all threads together can do, in operations a second.
fn peak() -> f64 {
    let work = || {
        rayon::broadcast(|_| std::hint::black_box(dispatch(MultiplyAdds)));
    };
    2.0 * (12 * LANES * ROUNDS * rayon::current_num_threads()) as f64 / shortest(work)
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    rayon::scope(|_| table());
}

fn table() {
    println!("GFLOP/s of the direct sum, and multiples of the {} threads' peak", rayon::current_num_threads());
    for (name, kernel, stride, sizes) in LAYERS {
        let peak = peak();
        println!("\n{name} (peak {:.0})\n{:26}{:>20}{:>20}{:>20}", peak / 1e9, "n, c_in, c_out, h, w", "y", "dx", "dw");
        for &size in sizes {
            let case = conv(size, kernel, stride, [(kernel / 2, kernel / 2); 2]);
            let arrays = Arrays::random(case, 1);
            let [mut y, mut dx, mut dw] = [&arrays.dy, &arrays.x, &arrays.weight].map(|like| vec![0.0; like.len()]);
            let flops = 2.0 * (arrays.dy.len() * case.c_in * case.kernel * case.kernel) as f64;
            let seconds = [
                shortest(|| case.forward(&arrays.x, &arrays.weight, Some(arrays.bias.as_slice()), &mut y).unwrap()),
                shortest(|| case.backward_input(&arrays.weight, &arrays.dy, &mut dx).unwrap()),
                shortest(|| case.backward_weight(&arrays.x, &arrays.dy, &mut dw).unwrap()),
            ];
            let line = seconds.map(|t| format!("{:7.2} ms {:3.0} {:4.2}", t * 1e3, flops / t / 1e9, flops / t / peak));
            println!("{:26}  {}", format!("{size:?}"), line.join("  "));
        }
    }
}
