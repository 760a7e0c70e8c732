//! How fast the kernels are that memory sets the pace of: `cargo test --release -p unnoise-kernels memory_speed -- --ignored --nocapture`.

use rayon::prelude::*;

use crate::check::{fastest, normal};
use crate::{GroupNorm, Resample2, concat_channels, silu, silu_backward, split_channels};

/// Bytes of what a kernel reads and writes, once each, by its time; a copy of the same arrays by all threads stands first.
#[test]
#[ignore = "a measurement"]
fn memory_speed() {
    rayon::scope(|_| [(16, 128, 32), (16, 256, 16), (64, 32, 32), (64, 64, 16), (1, 128, 32)].into_iter().for_each(table));
}

fn table((n, channels, side): (usize, usize, usize)) {
    let (pixels, size) = (side * side, n * channels * side * side);
    let (x, dy) = (normal(size, 1, 1.0), normal(size, 2, 1.0));
    let (gamma, beta) = (normal(channels, 3, 1.0), normal(channels, 4, 1.0));
    let (mut y, mut dgamma, mut dbeta) = (vec![0.0; size], gamma.clone(), beta.clone());
    println!("\n[{n}, {channels}, {side}, {side}], {} threads", rayon::current_num_threads());
    let print = |name: &str, arrays: f64, f: &mut dyn FnMut()| {
        let seconds = fastest(f);
        println!("{name:32}{:8.3} ms {:6.1} GB/s", seconds * 1e3, 4.0 * arrays * size as f64 / seconds / 1e9);
    };
    print("copy", 2.0, &mut || y.par_chunks_mut(1 << 14).zip(x.par_chunks(1 << 14)).for_each(|(y, x)| y.copy_from_slice(x)));
    print("silu", 2.0, &mut || silu(&x, &mut y).unwrap());
    print("silu gradient", 3.0, &mut || silu_backward(&x, &dy, &mut y).unwrap());
    let norm = GroupNorm { n, channels, pixels, groups: 32, eps: 1e-5, silu: true };
    print("group norm and silu", 2.0, &mut || norm.forward(&x, &gamma, &beta, &mut y).unwrap());
    print("their gradient", 3.0, &mut || norm.backward(&x, &gamma, &beta, &dy, &mut y, &mut dgamma, &mut dbeta).unwrap());
    let coarse = Resample2 { planes: n * channels, h: side / 2, w: side / 2 };
    print("up-sampling by two", 1.25, &mut || drop(coarse.spread(&x[..size / 4], 1.0).unwrap()));
    print("means of 2x2", 1.25, &mut || drop(coarse.gather(&x, 0.25).unwrap()));
    print("joining channels", 2.0, &mut || drop(concat_channels(&x[..size / 2], &dy[..size / 2], n).unwrap()));
    print("parting channels", 2.0, &mut || drop(split_channels(&x, n, channels, channels / 2).unwrap()));
}
