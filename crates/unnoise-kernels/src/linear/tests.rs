use proptest::prelude::*;

use super::*;
use crate::check::{Close, NOT_FINITE, check_lost, fastest, normal};

/// What goes in: `[x, weight, bias, dy]`.
type Arrays = [Vec<f32>; 4];

/// The names of what comes out.
const NAMES: [&str; 5] = ["y", "dx", "dw", "db", "y without bias"];

fn arrays(Linear { rows, c_in, c_out }: Linear) -> Arrays {
    [normal(rows * c_in, 1, 1.0), normal(c_out * c_in, 2, 1.0), normal(c_out, 3, 1.0), normal(rows * c_out, 4, 1.0)]
}

/// The formulas, in plain loops over `f64`.
fn plain(Linear { rows, c_in, c_out }: Linear, [x, weight, bias, dy]: &Arrays) -> [Vec<f64>; 5] {
    let [mut y, mut dx, mut dw, mut db] = [rows * c_out, rows * c_in, c_out * c_in, c_out].map(|len| vec![0.0; len]);
    for r in 0..rows {
        for o in 0..c_out {
            let slope = f64::from(dy[r * c_out + o]);
            db[o] += slope;
            for i in 0..c_in {
                let (x, weight) = (f64::from(x[r * c_in + i]), f64::from(weight[o * c_in + i]));
                y[r * c_out + o] += weight * x;
                dx[r * c_in + i] += weight * slope;
                dw[o * c_in + i] += slope * x;
            }
        }
    }
    let with_bias = y.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % c_out])).collect();
    [with_bias, dx, dw, db, y]
}

fn run(case: Linear, [x, weight, bias, dy]: &Arrays) -> [Vec<f32>; 5] {
    let mut out = [dy, x, weight, bias, dy].map(|like| vec![f32::NAN; like.len()]);
    let [y, dx, dw, db, without] = &mut out;
    case.forward(x, weight, Some(bias), y).unwrap();
    case.backward_input(weight, dy, dx).unwrap();
    case.backward_weight(x, dy, dw).unwrap();
    case.backward_bias(dy, db).unwrap();
    case.forward(x, weight, None, without).unwrap();
    out
}

fn cases() -> Vec<Linear> {
    let shapes =
        [(1, 512, 256), (16, 64, 256), (17, 100, 33), (2, 1, 1), (3, 7, 5), (64, 23, 70), (5, 3, 64), (0, 6, 4), (1, 1000, 3)];
    shapes.map(|(rows, c_in, c_out)| Linear { rows, c_in, c_out }).to_vec()
}

#[test]
fn value_and_gradients_are_those_of_the_definition() {
    for case in cases() {
        let arrays = arrays(case);
        for ((name, got), want) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)) {
            // Sums of N < 1000 terms err by less than sqrt(N) 6e-8 = 2e-6 of their deviation; the worst of so many at five times that.
            Close::new(format!("{name} of {case:?}"), 1e-5).check(&got, want);
        }
    }
}

proptest! {
    #[test]
    fn any_shape_computes_the_definition((rows, c_in, c_out) in (0..40usize, 1..80usize, 1..80usize)) {
        let case = Linear { rows, c_in, c_out };
        let arrays = arrays(case);
        let deviations = [c_in, c_out, rows, rows, c_in].map(|terms| (terms as f64).sqrt());
        for (((name, got), want), deviation) in NAMES.into_iter().zip(run(case, &arrays)).zip(plain(case, &arrays)).zip(deviations) {
            Close::new(format!("{name} of {case:?}"), 1e-5).of_at_least(deviation).check(&got, want);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
    for case in cases().into_iter().filter(|case| case.rows > 0) {
        let arrays = arrays(case);
        let all = run(case, &arrays);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(all == pool.install(|| run(case, &arrays)), "{threads} threads change {case:?}");
        }
        for r in [0, case.rows - 1] {
            let row = |v: &[f32]| v[r * v.len() / case.rows..(r + 1) * v.len() / case.rows].to_vec();
            let [x, weight, bias, dy] = &arrays;
            let alone = run(Linear { rows: 1, ..case }, &[row(x), weight.clone(), bias.clone(), row(dy)]);
            assert!(alone[0] == row(&all[0]) && alone[1] == row(&all[1]), "row {r} depends on the others of {case:?}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_and_in_its_row() {
    let case = Linear { rows: 5, c_in: 37, c_out: 19 };
    let clean = arrays(case);
    let all = run(case, &clean);
    for (array, bad) in (0..4).flat_map(|array| NOT_FINITE.map(|bad| (array, bad))) {
        let mut arrays = clean.clone();
        let place = arrays[array].len() / 2;
        arrays[array][place] = bad;
        let got = run(case, &arrays);
        for ((name, got), want) in NAMES.into_iter().zip(&got).zip(plain(case, &arrays)) {
            check_lost(&format!("{name}, {bad} in array {array}"), got, &want);
        }
        // Row 2 of `x` or `dy`, in the middle.
        for k in [0, 1].into_iter().filter(|_| [0, 3].contains(&array)) {
            let row = all[k].len() / case.rows;
            let others = |v: &[f32]| [&v[..2 * row], &v[3 * row..]].concat();
            assert!(others(&got[k]) == others(&all[k]), "{bad} in array {array} spreads to other rows of {}", NAMES[k]);
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = Linear { rows: 2, c_in: 3, c_out: 4 };
    let error = case.forward(&[0.0; 6], &[0.0; 12], Some(&[0.0; 3]), &mut [0.0; 8]).unwrap_err();
    assert_eq!(error.to_string(), "Linear::forward: bias must hold 4 numbers, got 3");
    let error = case.backward_input(&[0.0; 12], &[0.0; 8], &mut [0.0; 8]).unwrap_err();
    assert_eq!(error.to_string(), "Linear::backward_input: dx must hold 6 numbers, got 8");
    let error = case.backward_weight(&[0.0; 6], &[0.0; 6], &mut [0.0; 12]).unwrap_err();
    assert_eq!(error.to_string(), "Linear::backward_weight: dy must hold 8 numbers, got 6");
    let error = Linear { c_in: 0, ..case }.backward_bias(&[0.0; 8], &mut [0.0; 4]).unwrap_err();
    assert_eq!(error.to_string(), "Linear::backward_bias: c_in must be 1 to 268435456, got 0");
    let absurd = Linear { rows: 1 << 62, c_in: 4, c_out: 4 };
    assert!(absurd.forward(&[], &[0.0; 16], None, &mut []).is_err());
}

/// Prints times and GFLOP/s: `cargo test --release -p unnoise-kernels linear::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for (rows, c_in, c_out) in [(16, 512, 256), (1, 512, 256), (64, 128, 64), (1, 1024, 1024), (64, 1024, 1024)] {
        let case = Linear { rows, c_in, c_out };
        let [x, weight, bias, dy] = &arrays(case);
        let [mut y, mut dx, mut dw] = [dy, x, weight].map(|like| vec![0.0; like.len()]);
        let time = |name: &str, f: &mut dyn FnMut()| {
            let seconds = fastest(f);
            print!("  {name} {:.1} us {:.0} GFLOP/s", seconds * 1e6, 2.0 * (rows * weight.len()) as f64 / seconds / 1e9);
        };
        print!("{case:?}:");
        time("y", &mut || case.forward(x, weight, Some(bias), &mut y).unwrap());
        time("dx", &mut || case.backward_input(weight, dy, &mut dx).unwrap());
        time("dw", &mut || case.backward_weight(x, dy, &mut dw).unwrap());
        println!();
    }
}
