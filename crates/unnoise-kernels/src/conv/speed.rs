//! How fast the convolutions are: `cargo test --release -p unnoise-kernels speed -- --ignored --nocapture`.

use super::tests::{Arrays, Sizes, conv};
use crate::check::fastest;
use crate::measured_peak_gflops;

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

#[test]
#[ignore = "a measurement"]
fn speed() {
    rayon::scope(|_| table());
}

fn table() {
    println!("GFLOP/s of the direct sum, and multiples of the {} threads' peak", rayon::current_num_threads());
    for (name, kernel, stride, sizes) in LAYERS {
        let peak = measured_peak_gflops();
        println!("\n{name} (peak {peak:.0})\n{:26}{:>20}{:>20}{:>20}", "n, c_in, c_out, h, w", "y", "dx", "dw");
        for &size in sizes {
            let case = conv(size, kernel, stride, [(kernel / 2, kernel / 2); 2]);
            let arrays = Arrays::random(case, 1);
            let [mut y, mut dx, mut dw] = [&arrays.dy, &arrays.x, &arrays.weight].map(|like| vec![0.0; like.len()]);
            let flops = 2.0 * (arrays.dy.len() * case.c_in * case.kernel * case.kernel) as f64;
            let seconds = [
                fastest(&mut || case.forward(&arrays.x, &arrays.weight, Some(arrays.bias.as_slice()), &mut y).unwrap()),
                fastest(&mut || case.backward_input(&arrays.weight, &arrays.dy, &mut dx).unwrap()),
                fastest(&mut || case.backward_weight(&arrays.x, &arrays.dy, &mut dw).unwrap()),
            ];
            let line = seconds.map(|t| format!("{:7.2} ms {:3.0} {:4.2}", t * 1e3, flops / t / 1e9, flops / t / 1e9 / peak));
            println!("{:26}  {}", format!("{size:?}"), line.join("  "));
        }
    }
}
