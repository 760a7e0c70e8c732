use proptest::prelude::*;

use super::*;
use crate::check::{Close, normal};

/// All that a convolution computes: y, dx, dw, db.
const NAMES: [&str; 4] = ["y", "dx", "dw", "db"];

pub(super) struct Arrays {
    pub(super) x: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) dy: Vec<f32>,
}

impl Arrays {
    pub(super) fn random(conv: Conv2d, seed: u64) -> Self {
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
    conv.forward(&arrays.x, &arrays.weight, Some(arrays.bias.as_slice()), y).unwrap();
    conv.backward_input(&arrays.weight, &arrays.dy, dx).unwrap();
    conv.backward_weight(&arrays.x, &arrays.dy, dw).unwrap();
    sum_by_channel(&arrays.dy, conv.n, conv.output_sides().unwrap().iter().product(), db).unwrap();
    out
}

/// `(n, c_in, c_out, h, w)`.
pub(super) type Sizes = (usize, usize, usize, usize, usize);

pub(super) fn conv((n, c_in, c_out, h, w): Sizes, kernel: usize, stride: usize, padding: [(usize, usize); 2]) -> Conv2d {
    Conv2d { n, c_in, c_out, h, w, kernel, stride, padding, exact: false }
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
        // More than one block of images.
        (120, 5, 2, 24, 24),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Any shape at all: the definition, and what is not finite in it is not finite here and stays in its image.
    #[test]
    fn any_shape_computes_the_definition(
        (n, c_in, c_out, h, w) in (0..4usize, 1..37usize, 1..37usize, 1..20usize, 1..20usize),
        (kernel, stride) in prop_oneof![Just((3, 1)), Just((1, 1)), Just((3, 2)), (1..6usize, 1..4usize)],
        padding in prop_oneof![Just([(1, 1); 2]), [(0..3usize, 0..3usize), (0..3usize, 0..3usize)]],
        exact: bool,
        seed in 0..1000u64,
        (array, bad) in (0..3usize, prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)]),
    ) {
        let case = Conv2d { exact, ..conv((n, c_in, c_out, h, w), kernel, stride, padding) };
        prop_assume!(case.output_sides().is_ok());
        let mut arrays = Arrays::random(case, seed);
        let clean = run(case, &arrays);
        let seen = (arrays.dy.len() as f64 / c_out as f64).sqrt();
        let deviations = [1.0, (c_out as f64 / c_in as f64).sqrt() / stride as f64, seen, seen];
        for (((name, got), want), deviation) in NAMES.into_iter().zip(&clean).zip(plain(case, &arrays)).zip(deviations) {
            Close::new(format!("{name} of {case:?}"), TOLERANCE).of_at_least(deviation).check(got, want);
        }
        if n > 0 {
            let sizes = [c_in * h * w, c_out * case.output_sides().unwrap().iter().product::<usize>()];
            let at = |v: &[f32]| (seed as usize * 7919) % v.len();
            let bad_one = [&mut arrays.x, &mut arrays.dy, &mut arrays.weight].into_iter().nth(array).expect("three arrays");
            let place = at(bad_one);
            bad_one[place] = bad;
            let (got, want) = (run(case, &arrays), plain(case, &arrays));
            for ((name, got), want) in NAMES.into_iter().zip(&got).zip(&want) {
                let differs = |(got, want): (&f32, &f64)| got.is_finite() != want.is_finite() && (exact || got.is_finite());
                let lost = got.iter().zip(want).position(differs);
                prop_assert_eq!(lost, None, "{} of {:?}: not finite elsewhere than by the definition", name, case);
            }
            // What is in one image's part of `x` or `dy` is seen in its part of `y` or `dx` alone.
            if array < 2 {
                let length = sizes[1 - array];
                for other in (0..n).filter(|other| *other != place / sizes[array]) {
                    let range = other * length..(other + 1) * length;
                    prop_assert!(got[array][range.clone()] == clean[array][range], "{case:?}: another image changes");
                }
            }
        }
    }
}

/// So many tiles that the gradient by the weight is summed in parts and in steps.
#[test]
fn weight_gradients_of_many_pixels_are_those_of_the_definition_on_any_number_of_threads() {
    let one = [(1, 1); 2];
    let mut cases: Vec<Conv2d> =
        [(32, 8, 8, 32, 32), (64, 16, 8, 8, 8), (5, 8, 24, 50, 64), (1, 8, 8, 130, 200), (1, 8, 8, 3, 2000)]
            .into_iter()
            .map(|sizes| conv(sizes, 3, 1, one))
            .collect();
    cases.extend([
        conv((19, 5, 7, 24, 24), 1, 1, [(0, 0); 2]),
        conv((9, 3, 12, 40, 40), 3, 2, one),
        conv((9, 12, 3, 40, 40), 3, 1, one),
    ]);
    for case in cases {
        let arrays = Arrays::random(case, 7);
        let [_, _, want, _] = plain(case, &arrays);
        let mut first = None;
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dw = vec![f32::NAN; want.len()];
            pool.install(|| case.backward_weight(&arrays.x, &arrays.dy, &mut dw)).unwrap();
            Close::new(format!("dw of {case:?}"), TOLERANCE).check(&dw, want.iter().copied());
            assert!(*first.get_or_insert_with(|| dw.clone()) == dw, "{threads} threads change {case:?}");
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
fn what_is_added_is_added() {
    for (seed, case) in cases().into_iter().enumerate() {
        let arrays = Arrays::random(case, 20 * seed as u64 + 1);
        let (offset, residual) = (normal(case.n * case.c_out, 7, 1.0), normal(arrays.dy.len(), 8, 1.0));
        let epilogue = Epilogue { bias: Some(&arrays.bias), offset: Some(&offset), residual: Some(&residual) };
        let mut y = vec![f32::NAN; arrays.dy.len()];
        case.forward(&arrays.x, &arrays.weight, epilogue, &mut y).unwrap();
        let [mut want, ..] = plain(case, &arrays);
        let pixels = (want.len() / offset.len().max(1)).max(1);
        for (i, want) in want.iter_mut().enumerate() {
            *want += f64::from(offset[i / pixels]) + f64::from(residual[i]);
        }
        Close::new(format!("{case:?}"), TOLERANCE).check(&y, want);
    }
}

#[test]
fn a_prepared_weight_gives_the_bits_of_the_raw_one() {
    for case in cases().into_iter().flat_map(|case| [case, Conv2d { exact: true, ..case }]) {
        let arrays = Arrays::random(case, 3);
        let prepared = PreparedWeight::new(&case, arrays.weight.clone()).unwrap();
        let [want_y, want_dx, ..] = run(case, &arrays);
        // The second time from what the first has kept.
        for _ in 0..2 {
            let (mut y, mut dx) = (vec![f32::NAN; arrays.dy.len()], vec![f32::NAN; arrays.x.len()]);
            case.forward(&arrays.x, &prepared, Some(arrays.bias.as_slice()), &mut y).unwrap();
            case.backward_input(&prepared, &arrays.dy, &mut dx).unwrap();
            assert!(y == want_y && dx == want_dx, "{case:?}");
        }
    }
}

#[test]
fn the_exact_way_rounds_as_the_direct_sum() {
    for case in [conv((2, 40, 20, 9, 13), 3, 1, [(1, 1); 2]), conv((1, 16, 3, 4, 4), 3, 1, [(1, 1); 2])] {
        let case = Conv2d { exact: true, ..case };
        let arrays = Arrays::random(case, 9);
        for ((name, got), want) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)) {
            // Sums of up to 360 terms: sqrt(360) 6e-8, times five for the worst of some thousand.
            Close::new(format!("{name} of {case:?}"), 6e-6).check(&got, want);
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = conv((1, 2, 3, 4, 4), 3, 1, [(0, 0); 2]);
    let error = case.forward(&[0.0; 32], [0.0; 54].as_slice(), None, &mut [0.0; 48]).unwrap_err();
    assert_eq!(error.to_string(), "Conv2d::forward: y must hold 12 numbers, got 48");
    let prepared = PreparedWeight::new(&case, vec![0.0; 54]).unwrap();
    let error = Conv2d { c_in: 3, c_out: 2, ..case }.forward(&[0.0; 48], &prepared, None, &mut [0.0; 8]).unwrap_err();
    assert_eq!(error.to_string(), "Conv2d::forward: outputs of the prepared weight must be 2, got 3");
    let error = case
        .forward(&[0.0; 32], &prepared, Epilogue { offset: Some(&[0.0; 2]), ..Default::default() }, &mut [0.0; 12])
        .unwrap_err();
    assert_eq!(error.to_string(), "Conv2d::forward: offset must hold 3 numbers, got 2");
    let error = PreparedWeight::new(&case, vec![0.0; 53]).unwrap_err();
    assert_eq!(error.to_string(), "PreparedWeight::new: weight must hold 54 numbers, got 53");
    let few = conv((1, 8, 4, 6, 6), 3, 1, [(1, 1); 2]);
    let prepared = PreparedWeight::new(&few, vec![0.0; 288]).unwrap();
    for (padding, side) in
        [([(0, 1), (1, 1)], "upper"), ([(1, 0), (1, 1)], "lower"), ([(1, 1), (0, 1)], "left"), ([(1, 1), (1, 0)], "right")]
    {
        let error = Conv2d { padding, ..few }.forward(&[0.0; 288], &prepared, None, &mut [0.0; 120]).unwrap_err();
        assert_eq!(error.to_string(), format!("Conv2d::forward: {side} padding of the prepared weight must be 0, got 1"));
    }
    let error = Conv2d { kernel: 5, ..case }.output_sides().unwrap_err();
    assert_eq!(error.to_string(), "Conv2d: kernel must be at most the padded side 4, got 5");
    let error = Conv2d { stride: 0, ..case }.output_sides().unwrap_err();
    assert_eq!(error.to_string(), "Conv2d: stride must be 1 to 256, got 0");
}

#[test]
fn absurd_shapes_are_errors() {
    let base = conv((1, 2, 3, 4, 4), 3, 1, [(1, 1); 2]);
    let large = 1 << 62;
    for (case, expected) in [
        (Conv2d { h: usize::MAX, ..base }, "h must be 0 to 268435456, got 18446744073709551615"),
        (Conv2d { w: MAX_SIDE + 1, ..base }, "w must be 0 to 268435456, got 268435457"),
        (Conv2d { stride: MAX_STRIDE + 1, ..base }, "stride must be 1 to 256, got 257"),
        (Conv2d { kernel: large, ..base }, "kernel must be 1 to 268435456, got 4611686018427387904"),
        (Conv2d { padding: [(1, 1), (1, usize::MAX)], ..base }, "padding must be 0 to 268435456, got 18446744073709551615"),
    ] {
        assert_eq!(case.output_sides().unwrap_err().to_string(), format!("Conv2d: {expected}"));
    }
    assert_eq!(Conv2d { stride: MAX_STRIDE, h: MAX_SIDE, ..base }.output_sides().unwrap(), [1 << 20, 1]);
    // Sizes whose products are those of the slices, modulo 2^64.
    for (case, weight) in [(Conv2d { n: large, c_in: 4, c_out: 4, ..base }, 144), (Conv2d { c_in: large, c_out: large, ..base }, 0)]
    {
        let mut weight = vec![0.0; weight];
        assert!(case.forward(&[], &weight, None, &mut []).is_err(), "{case:?}");
        assert!(case.backward_input(&weight, &[], &mut []).is_err(), "{case:?}");
        assert!(case.backward_weight(&[], &[], &mut weight).is_err(), "{case:?}");
    }
    assert!(PreparedWeight::new(&Conv2d { c_in: large, c_out: large, ..base }, Vec::new()).is_err());
    // No image is a batch, of any size.
    let none = Conv2d { n: 0, c_in: 8, c_out: 8, h: MAX_SIDE, w: MAX_SIDE, ..base };
    let mut dw = vec![f32::NAN; 8 * 8 * 9];
    none.forward(&[], &vec![0.0; dw.len()], None, &mut []).unwrap();
    none.backward_input(&vec![0.0; dw.len()], &[], &mut []).unwrap();
    none.backward_weight(&[], &[], &mut dw).unwrap();
    assert!(dw.iter().all(|v| *v == 0.0));
}
