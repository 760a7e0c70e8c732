//! The portable path computes what the CPU's own instructions compute, up to rounding. One test, because the switch is for the process.

use unnoise_kernels::{Attention, Conv2d, GroupNorm, Linear, Resample2, force_portable, silu, silu_backward, sum_by_channel};

/// Numbers in [-1, 1) without a pattern.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Everything that a convolution and the layers behind it compute.
fn everything(conv: Conv2d) -> Vec<(&'static str, Vec<f32>)> {
    let pixels = conv.output_sides().unwrap().iter().product::<usize>();
    let (c, size) = (conv.c_out, conv.c_in * conv.kernel * conv.kernel);
    let (x, weight, bias) = (noise(conv.n * conv.c_in * conv.h * conv.w, 1), noise(c * size, 2), noise(c, 3));
    let dy = noise(conv.n * c * pixels, 4);
    let like = |v: &[f32]| vec![f32::NAN; v.len()];
    let (mut y, mut dx, mut dw, mut db) = (like(&dy), like(&x), like(&weight), like(&bias));
    conv.forward(&x, &weight, Some(bias.as_slice()), &mut y).unwrap();
    conv.backward_input(&weight, &dy, &mut dx).unwrap();
    conv.backward_weight(&x, &dy, &mut dw).unwrap();
    sum_by_channel(&dy, conv.n, pixels, &mut db).unwrap();
    let norm = GroupNorm { n: conv.n, channels: c, pixels, groups: 2, eps: 1e-5, silu: true };
    let (gamma, beta) = (noise(c, 5), noise(c, 6));
    let (mut z, mut dz, mut dgamma, mut dbeta) = (like(&dy), like(&dy), like(&bias), like(&bias));
    // Not `y`, which differs by rounding already.
    norm.forward(&dy, &gamma, &beta, &mut z).unwrap();
    norm.backward(&dy, &gamma, &beta, &dy, &mut dz, &mut dgamma, &mut dbeta).unwrap();
    let (mut s, mut ds) = (like(&dy), like(&dy));
    silu(&dy, &mut s).unwrap();
    silu_backward(&dy, &dy, &mut ds).unwrap();
    let conv = [("y", y), ("dx", dx), ("dw", dw), ("db", db)];
    conv.into_iter().chain([("z", z), ("dz", dz), ("dgamma", dgamma), ("dbeta", dbeta), ("silu", s), ("dsilu", ds)]).collect()
}

/// Everything that an attention computes.
fn attention(shape: Attention) -> Vec<(&'static str, Vec<f32>)> {
    let total = shape.n * shape.heads * shape.width * shape.pixels;
    let [q, k, v, dout] = [1, 2, 3, 4].map(|seed| noise(total, seed));
    let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![f32::NAN; total]);
    let mut stats = vec![f32::NAN; total / shape.width];
    shape.forward(&q, &k, &v, &mut out, Some(&mut stats)).unwrap();
    shape.backward(&q, &k, &v, &out, &stats, &dout, &mut dq, &mut dk, &mut dv).unwrap();
    vec![("out", out), ("stats", stats), ("dq", dq), ("dk", dk), ("dv", dv)]
}

/// Everything that a linear layer computes with code of its own.
fn linear(layer: Linear) -> Vec<(&'static str, Vec<f32>)> {
    let (x, weight) = (noise(layer.rows * layer.c_in, 1), noise(layer.c_out * layer.c_in, 2));
    let mut y = vec![f32::NAN; layer.rows * layer.c_out];
    layer.forward(&x, &weight, None, &mut y).unwrap();
    vec![("y", y)]
}

/// Both ways between two resolutions.
fn resampling(shape: Resample2) -> Vec<(&'static str, Vec<f32>)> {
    let (x, y) = (noise(shape.planes * shape.h * shape.w, 1), noise(shape.planes * shape.h * shape.w * 4, 2));
    vec![("fine", shape.spread(&x, 0.7).unwrap()), ("coarse", shape.gather(&y, 0.7).unwrap())]
}

/// Compares what `everything` gives on both paths.
fn compare<T: Copy + std::fmt::Debug>(everything: impl Fn(T) -> Vec<(&'static str, Vec<f32>)>, case: T) {
    let fast = everything(case);
    force_portable(true);
    let portable = everything(case);
    force_portable(false);
    for ((name, fast), (_, portable)) in fast.iter().zip(&portable) {
        let rms = (fast.iter().map(|v| v * v).sum::<f32>() / fast.len() as f32).sqrt();
        let worst = fast.iter().zip(portable).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Twice the tolerance of each against f64.
        assert!(worst <= 6e-5 * rms, "{name} of {case:?} off by {:.1e} of its rms", worst / rms);
    }
}

#[test]
fn the_portable_path_agrees_with_the_dispatched_one() {
    // Miri, which follows every load and store, gets what just leaves remainders everywhere.
    let (n, c_in, c_out, h, w) = if cfg!(miri) { (1, 5, 18, 9, 5) } else { (2, 10, 18, 11, 13) };
    let base = Conv2d { n, c_in, c_out, h, w, kernel: 3, stride: 1, padding: [(1, 1); 2], exact: false };
    let cases = [
        base,
        Conv2d { h: 5, w: 3, ..base },
        Conv2d { stride: 2, ..base },
        Conv2d { kernel: 1, padding: [(0, 0); 2], ..base },
        Conv2d { c_in: 2, ..base },
        Conv2d { c_out: 2, ..base },
    ];
    for case in cases {
        compare(everything, case);
    }
    let widths = if cfg!(miri) { [(3, 17), (8, 2), (9, 1)] } else { [(8, 100), (33, 17), (64, 1)] };
    for (width, pixels) in widths {
        compare(attention, Attention { n: 2, heads: 2, width, pixels, scale: 0.5 });
    }
    compare(linear, Linear { rows: 5, c_in: 37, c_out: 9 });
    compare(resampling, Resample2 { planes: 3, h: 4, w: 11 });
}
