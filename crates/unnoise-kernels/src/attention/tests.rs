use proptest::prelude::*;

use super::*;
use crate::check::{Close, NOT_FINITE, check_lost, fastest, normal};

/// What goes in, `[q, k, v, dout]`.
type Arrays = [Vec<f32>; 4];

/// The names of what comes out.
const NAMES: [&str; 5] = ["out", "stats", "dq", "dk", "dv"];

fn shape(n: usize, heads: usize, width: usize, pixels: usize) -> Attention {
    Attention { n, heads, width, pixels, scale: 1.0 / (width as f32).sqrt() }
}

fn arrays(shape: Attention, seed: u64, scale: f32) -> Arrays {
    let total = shape.n * shape.heads * shape.width * shape.pixels;
    [scale, scale, 1.0, 1.0].map({
        let mut seed = 4 * seed;
        move |scale| {
            seed += 1;
            normal(total, seed, scale)
        }
    })
}

/// The formulas, in plain loops over `f64`.
fn plain(shape: Attention, arrays: &Arrays) -> [Vec<f64>; 5] {
    let Attention { n, heads, width, pixels, scale } = shape;
    let total = arrays[0].len();
    let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![0.0; total]);
    let mut stats = vec![0.0; n * heads * pixels];
    for head in 0..n * heads {
        let start = head * width * pixels;
        let at = |array: usize, d: usize, i: usize| f64::from(arrays[array][start + d * pixels + i]);
        let dot = |a: usize, i: usize, b: usize, j: usize| (0..width).map(|d| at(a, d, i) * at(b, d, j)).sum::<f64>();
        for i in 0..pixels {
            let s: Vec<f64> = (0..pixels).map(|j| f64::from(scale) * dot(0, i, 1, j)).collect();
            let top = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = s.iter().map(|s| (s - top).exp()).sum();
            let p: Vec<f64> = s.iter().map(|s| (s - top).exp() / sum).collect();
            stats[head * pixels + i] = top + sum.ln();
            let dp: Vec<f64> = (0..pixels).map(|j| dot(3, i, 2, j)).collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..pixels {
                let ds = p[j] * (dp[j] - mean) * f64::from(scale);
                for d in 0..width {
                    let place = |i: usize| start + d * pixels + i;
                    out[place(i)] += p[j] * at(2, d, j);
                    dq[place(i)] += ds * at(1, d, j);
                    dk[place(j)] += ds * at(0, d, i);
                    dv[place(j)] += p[j] * at(3, d, i);
                }
            }
        }
    }
    [out, stats, dq, dk, dv]
}

fn run(shape: Attention, [q, k, v, dout]: &Arrays) -> [Vec<f32>; 5] {
    let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![f32::NAN; q.len()]);
    let mut stats = vec![f32::NAN; shape.n * shape.heads * shape.pixels];
    shape.forward(q, k, v, &mut out, Some(&mut stats)).unwrap();
    shape.backward(q, k, v, &out, &stats, dout, &mut dq, &mut dk, &mut dv).unwrap();
    let mut again = vec![f32::NAN; q.len()];
    shape.forward(q, k, v, &mut again, None).unwrap();
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&out) == bits(&again), "the statistics change the output of {shape:?}");
    [out, stats, dq, dk, dv]
}

/// One pixel, fewer than a panel, parts of panels, groups and blocks, more than a task; widths on both sides of six.
fn cases() -> Vec<Attention> {
    let mut cases =
        vec![shape(0, 2, 8, 16), shape(17, 2, 32, 64), shape(1, 1, 256, 256), shape(1, 4, 64, 197), shape(1, 1, 16, 1024)];
    for pixels in [1, 5, 17, 96, 100] {
        cases.extend([1, 3, 8, 64].map(|width| shape(2, 3, width, pixels)));
        cases.extend([7, 23, 256].map(|width| shape(1, 1, width, pixels)));
    }
    cases
}

/// The largest error as a multiple of the output's rms. A score's `width` products of size one add up to `sqrt(width)` before the scale
/// takes that to one: they leave `sqrt(width) / 2` roundings of 3e-8, 2.5e-7 for 256, and a weight errs by as much, relatively. The largest
/// outputs are ten times the rms, and the worst of so many errors is at five deviations.
const TOLERANCE: f64 = 3e-5;

#[test]
fn value_and_gradients_are_those_of_the_definition() {
    for (seed, case) in cases().into_iter().enumerate() {
        let arrays = arrays(case, seed as u64, 1.0);
        for ((name, got), want) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)) {
            Close::new(format!("{name} of {case:?}"), TOLERANCE).check(&got, want);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_shape_computes_the_definition((n, heads, width, pixels) in (0..4usize, 1..4usize, 1..40usize, 1..140usize), seed in 0..1000u64) {
        let case = shape(n, heads, width, pixels);
        let arrays = arrays(case, seed, 1.0);
        for ((name, got), want) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)) {
            // `dq` and `dk` sum `scale (dout v - dout out)` times a weight and a number of size one. The difference is of size one too, and what errs
            // in `out` errs in it. Where one weight is nearly one the differences cancel, their errors do not.
            let least = if ["dq", "dk"].contains(&name) { 1.0 } else { 0.1 };
            Close::new(format!("{name} of {case:?}"), TOLERANCE).of_at_least(least).check(&got, want);
        }
    }
}

#[test]
fn scores_of_two_hundred_do_not_overflow() {
    let case = shape(2, 2, 16, 130);
    // Scores of deviation 60, whose largest are beyond 200.
    let arrays = arrays(case, 3, 7.75);
    let want = plain(case, &arrays);
    let largest = want[1].iter().copied().fold(0.0, f64::max);
    assert!(largest > 200.0, "the largest score is {largest}");
    for ((name, got), want) in NAMES.into_iter().zip(run(case, &arrays)).zip(want) {
        // A score of 200 and a logarithm as large err by 2^-17 each, and a weight by as much, relatively. Where one weight is nearly one,
        // `ds` is the small difference of two numbers that err so, times keys of size eight: twenty times as much, and the worst of all.
        Close::new(name, 1e-3).check(&got, want);
    }
}

#[test]
fn an_image_has_the_same_bits_alone_and_in_a_batch_on_any_number_of_threads() {
    for case in [shape(17, 2, 24, 100), shape(3, 1, 64, 256), shape(5, 4, 3, 17)] {
        let arrays = arrays(case, 5, 1.0);
        let all = run(case, &arrays);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(all == pool.install(|| run(case, &arrays)), "{threads} threads change {case:?}");
        }
        for i in [0, case.n - 1] {
            let part = |v: &[f32]| v[i * v.len() / case.n..(i + 1) * v.len() / case.n].to_vec();
            let alone = run(Attention { n: 1, ..case }, &arrays.each_ref().map(|v| part(v)));
            assert!(alone == all.each_ref().map(|v| part(v)), "image {i} depends on the batch of {case:?}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_and_in_its_image() {
    let case = shape(3, 2, 5, 103);
    let clean = arrays(case, 6, 1.0);
    let all = run(case, &clean);
    for array in 0..4 {
        for bad in NOT_FINITE {
            let mut arrays = clean.clone();
            let image = arrays[array].len() / case.n;
            arrays[array][image + image / 3] = bad;
            for (((name, got), want), clean) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)).zip(&all) {
                let what = format!("{name} with {bad} in array {array}");
                check_lost(&what, &got, &want);
                let image = got.len() / case.n;
                assert!(got[..image] == clean[..image] && got[2 * image..] == clean[2 * image..], "{what}: another image changes");
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = shape(1, 2, 3, 4);
    let (mut out, x) = ([0.0; 24], [0.0; 24]);
    let error = case.forward(&x, &x[1..], &x, &mut out, None).unwrap_err();
    assert_eq!(error.to_string(), "Attention::forward: k must hold 24 numbers, got 23");
    let error = case.forward(&x, &x, &x, &mut out, Some(&mut [0.0; 7])).unwrap_err();
    assert_eq!(error.to_string(), "Attention::forward: stats must hold 8 numbers, got 7");
    let [mut dq, mut dk, mut dv] = [[0.0; 24]; 3];
    let error = case.backward(&x, &x, &x, &x, &x[..8], &x, &mut dq, &mut dk, &mut dv[..2]).unwrap_err();
    assert_eq!(error.to_string(), "Attention::backward: dv must hold 24 numbers, got 2");
    let error = Attention { width: 0, ..case }.forward(&[], &[], &[], &mut [], None).unwrap_err();
    assert_eq!(error.to_string(), "Attention::forward: width must be at least 1, got 0");
    // Modulo 2^64 these sizes are those of empty slices.
    let absurd = Attention { n: 1 << 62, heads: 4, ..case };
    assert!(absurd.forward(&[], &[], &[], &mut [], None).is_err());
    let none = Attention { n: 0, heads: 1 << 62, width: 1 << 62, pixels: 1 << 62, scale: 1.0 };
    none.forward(&[], &[], &[], &mut [], Some(&mut [])).unwrap();
    none.backward(&[], &[], &[], &[], &[], &[], &mut [], &mut [], &mut []).unwrap();
}

/// Prints GFLOP/s: `cargo test --release -p unnoise-kernels attention::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for case in [shape(16, 1, 256, 256), shape(64, 2, 32, 64), shape(1, 4, 64, 4096), shape(1, 1, 256, 256)] {
        let arrays = arrays(case, 1, 1.0);
        let [q, k, v, dout] = &arrays;
        let mut forward = [vec![0.0; q.len()], vec![0.0; q.len() / case.width]];
        let product = 2.0 * (q.len() * case.pixels) as f64;
        let [out, stats] = &mut forward;
        let seconds = fastest(&mut || case.forward(q, k, v, out, Some(stats)).unwrap());
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; q.len()]);
        let back = fastest(&mut || case.backward(q, k, v, out, stats, dout, &mut dq, &mut dk, &mut dv).unwrap());
        let rates = [2.0 * product / seconds / 1e9, 5.0 * product / back / 1e9];
        print!("{:?}: forward {:.2} ms {:.0} GFLOP/s", [case.n, case.heads, case.width, case.pixels], seconds * 1e3, rates[0]);
        println!("  backward {:.2} ms {:.0} GFLOP/s of five products", back * 1e3, rates[1]);
    }
}
