use super::*;
use crate::check::{Close, normal};

/// All that a convolution computes: y, dx, dw, db.
const NAMES: [&str; 4] = ["y", "dx", "dw", "db"];

struct Arrays {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
}

impl Arrays {
    fn random(conv: Conv2d, seed: u64) -> Self {
        let size = conv.c_in * conv.kernel * conv.kernel;
        let pixels = conv.output_sides().unwrap().iter().product::<usize>();
        Self {
            x: normal(conv.n * conv.c_in * conv.h * conv.w, seed, 1.0),
            weight: normal(conv.c_out * size, seed + 1, (size as f32).sqrt().recip()),
            bias: normal(conv.c_out, seed + 2, 1.0),
            dy: normal(conv.n * conv.c_out * pixels, seed + 3, 1.0),
        }
    }
}

/// The definition in plain loops over `f64`.
fn plain(conv: Conv2d, arrays: &Arrays) -> [Vec<f64>; 4] {
    let Conv2d { c_in, c_out, h, w, kernel, stride, padding, .. } = conv;
    let [rows, columns] = conv.output_sides().unwrap();
    let (mut y, mut dx) = (vec![0.0; arrays.dy.len()], vec![0.0; arrays.x.len()]);
    let (mut dw, mut db) = (vec![0.0; arrays.weight.len()], vec![0.0; c_out]);
    for (at, y) in y.iter_mut().enumerate() {
        let (image, o, i, j) = (at / (c_out * rows * columns), at / (rows * columns) % c_out, at / columns % rows, at % columns);
        let g = f64::from(arrays.dy[at]);
        *y += f64::from(arrays.bias[o]);
        db[o] += g;
        for c in 0..c_in {
            for a in 0..kernel {
                for b in 0..kernel {
                    let (row, column) = ((i * stride + a).wrapping_sub(padding[0].0), (j * stride + b).wrapping_sub(padding[1].0));
                    if row < h && column < w {
                        let (p, q) = (((image * c_in + c) * h + row) * w + column, ((o * c_in + c) * kernel + a) * kernel + b);
                        let (x, v) = (f64::from(arrays.x[p]), f64::from(arrays.weight[q]));
                        *y += v * x;
                        dx[p] += v * g;
                        dw[q] += g * x;
                    }
                }
            }
        }
    }
    [y, dx, dw, db]
}

fn run(conv: Conv2d, arrays: &Arrays) -> [Vec<f32>; 4] {
    let mut out = [&arrays.dy, &arrays.x, &arrays.weight, &arrays.bias].map(|like| vec![f32::NAN; like.len()]);
    let [y, dx, dw, db] = &mut out;
    conv.forward(&arrays.x, &arrays.weight, Some(&arrays.bias), y).unwrap();
    conv.backward_input(&arrays.weight, &arrays.dy, dx).unwrap();
    conv.backward_weight(&arrays.x, &arrays.dy, dw).unwrap();
    sum_by_channel(&arrays.dy, conv.n, conv.output_sides().unwrap().iter().product(), db).unwrap();
    out
}

/// `(n, c_in, c_out, h, w)`.
type Sizes = (usize, usize, usize, usize, usize);

fn conv((n, c_in, c_out, h, w): Sizes, kernel: usize, stride: usize, padding: [(usize, usize); 2]) -> Conv2d {
    Conv2d { n, c_in, c_out, h, w, kernel, stride, padding }
}

/// Every way through the code: both Winograd sizes, partial tiles, groups and blocks, and all other kernels.
fn cases() -> Vec<Conv2d> {
    let one = [(1, 1); 2];
    let three = [
        (17, 3, 5, 1, 1),
        (1, 16, 16, 8, 8),
        (3, 33, 20, 7, 5),
        (17, 8, 9, 4, 4),
        (1, 32, 64, 16, 16),
        (2, 1, 32, 32, 32),
        (2, 32, 1, 32, 32),
        (3, 17, 40, 9, 13),
        (17, 5, 3, 12, 10),
        (2, 9, 18, 3, 31),
        (0, 4, 4, 8, 8),
    ];
    let other = [(1, 7, 13, 9, 11), (17, 16, 6, 8, 8), (2, 3, 33, 17, 16), (3, 20, 1, 5, 1)];
    let mut cases: Vec<Conv2d> = three.into_iter().map(|sizes| conv(sizes, 3, 1, one)).collect();
    for sizes in other {
        cases.extend([conv(sizes, 1, 1, [(0, 0); 2]), conv(sizes, 3, 2, one), conv(sizes, 3, 2, [(0, 1), (2, 1)])]);
        cases.extend([conv(sizes, 3, 1, [(2, 0), (0, 3)]), conv(sizes, 1, 2, [(0, 0); 2]), conv(sizes, 5, 1, [(2, 2); 2])]);
    }
    cases.retain(|case| case.output_sides().is_ok());
    cases
}

/// The largest error as a multiple of the output's rms. A direct sum of N terms of either sign errs by about sqrt(N) 6e-8; the transforms
/// of F(2x2) leave that as it is, and those of F(4x4) multiply it by up to 20 in the worst element (1e-5 to 2e-5 in both directions).
const TOLERANCE: f64 = 3e-5;

#[test]
fn value_and_gradients_are_those_of_the_definition() {
    for (seed, case) in cases().into_iter().enumerate() {
        let arrays = Arrays::random(case, 10 * seed as u64 + 1);
        for ((name, got), want) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)) {
            Close::new(format!("{name} of {case:?}"), TOLERANCE).check(&got, want);
        }
    }
}

#[test]
fn an_image_has_the_same_bits_alone_and_in_a_batch_on_any_number_of_threads() {
    for case in cases().into_iter().filter(|case| case.n > 1) {
        let arrays = Arrays::random(case, 5);
        let all = run(case, &arrays);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(all == pool.install(|| run(case, &arrays)), "{threads} threads change {case:?}");
        }
        let (x, y) = (arrays.x.len() / case.n, arrays.dy.len() / case.n);
        for i in [0, case.n - 1] {
            let part = |v: &[f32], len: usize| v[i * len..][..len].to_vec();
            let one =
                Arrays { x: part(&arrays.x, x), dy: part(&arrays.dy, y), weight: arrays.weight.clone(), bias: arrays.bias.clone() };
            let alone = run(Conv2d { n: 1, ..case }, &one);
            assert!(alone[0] == part(&all[0], y) && alone[1] == part(&all[1], x), "image {i} depends on the batch of {case:?}");
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = conv((1, 2, 3, 4, 4), 3, 1, [(0, 0); 2]);
    let error = case.forward(&[0.0; 32], &[0.0; 54], None, &mut [0.0; 48]).unwrap_err();
    assert_eq!(error.to_string(), "Conv2d::forward: y must hold 12 numbers, got 48");
    let error = Conv2d { kernel: 5, ..case }.output_sides().unwrap_err();
    assert_eq!(error.to_string(), "Conv2d: kernel must be at most the padded side 4, got 5");
    let error = Conv2d { stride: 0, ..case }.output_sides().unwrap_err();
    assert_eq!(error.to_string(), "Conv2d: stride must be at least 1, got 0");
}

/// Prints GFLOP/s: `cargo test --release -p unnoise-kernels speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let shapes = [
        (16, 64, 64, 8, 8),
        (8, 64, 64, 16, 16),
        (4, 64, 64, 32, 32),
        (4, 32, 32, 32, 32),
        (8, 128, 64, 16, 16),
        (4, 32, 1, 32, 32),
    ];
    let one = [(1, 1); 2];
    let mut cases: Vec<Conv2d> = shapes.into_iter().map(|sizes| conv(sizes, 3, 1, one)).collect();
    cases.extend([conv((4, 96, 64, 32, 32), 1, 1, [(0, 0); 2]), conv((4, 64, 64, 32, 32), 3, 2, one)]);
    for case in cases {
        let arrays = Arrays::random(case, 1);
        let mut out = [&arrays.dy, &arrays.x, &arrays.weight, &arrays.bias].map(|like| vec![0.0; like.len()]);
        let flops = 2.0 * (arrays.dy.len() * case.c_in * case.kernel * case.kernel) as f64;
        let [y, dx, dw, _] = &mut out;
        let mut line = format!("{:?} k{} s{}:", [case.n, case.c_in, case.c_out, case.h, case.w], case.kernel, case.stride);
        let mut time = |name: &str, f: &mut dyn FnMut()| {
            f();
            let clock = |_| {
                let start = std::time::Instant::now();
                f();
                start.elapsed().as_secs_f64()
            };
            // The best of many: whatever else runs on the machine only adds.
            let best = (0..40).map(clock).fold(f64::INFINITY, f64::min);
            line += &format!("  {name} {:.2} ms {:.0} GFLOP/s", best * 1e3, flops / best / 1e9);
        };
        time("y", &mut || case.forward(&arrays.x, &arrays.weight, Some(&arrays.bias), y).unwrap());
        time("dx", &mut || case.backward_input(&arrays.weight, &arrays.dy, dx).unwrap());
        time("dw", &mut || case.backward_weight(&arrays.x, &arrays.dy, dw).unwrap());
        println!("{line}");
    }
}
