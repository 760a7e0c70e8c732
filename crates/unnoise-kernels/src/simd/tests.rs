use super::*;

/// Every operation on the same lanes, flattened.
struct Everything([f32; 8], [f32; 8]);

impl Kernel for Everything {
    type Output = Vec<[f32; 8]>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let (a, b) = (s.load(&self.0), s.load(&self.1));
        let rows: [S::V; 8] = std::array::from_fn(|i| s.add(a, s.splat(10.0 * i as f32)));
        let mut out =
            vec![s.add(a, b), s.sub(a, b), s.mul(a, b), s.div(a, b), s.clamp(a, -1.0, 2.0), s.round(a), s.pow2(s.round(a))];
        out.extend([s.max(a, b), s.exp2(a)]);
        out.extend([s.sigmoid(a), s.splat(s.sum(a)), s.load_part(&self.0[..3])]);
        out.extend(s.transpose(rows));
        let [first, second, third, fourth] = s.sums([rows[0], b, rows[3], rows[7]]);
        out.extend([s.splat(first), s.splat(second), s.splat(third), s.splat(fourth)]);
        let lanes = |v| {
            let mut y = [0.0; 8];
            s.store(v, &mut y);
            y
        };
        out.into_iter().map(lanes).collect()
    }
}

fn expected(a: [f32; 8], b: [f32; 8]) -> Vec<[f32; 8]> {
    use std::array::from_fn;
    let mut out: Vec<[f32; 8]> =
        vec![from_fn(|i| a[i] + b[i]), from_fn(|i| a[i] - b[i]), from_fn(|i| a[i] * b[i]), from_fn(|i| a[i] / b[i])];
    out.extend([a.map(|x| x.clamp(-1.0, 2.0)), a.map(f32::round_ties_even), a.map(|x| x.round_ties_even().exp2())]);
    out.extend([from_fn(|i| a[i].max(b[i])), a.map(|x| f64::from(x).exp2() as f32)]);
    out.push(a.map(|x| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32));
    out.extend([[a.iter().sum(); 8], from_fn(|i| if i < 3 { a[i] } else { 0.0 })]);
    out.extend((0..8).map(|j| from_fn(|i| a[j] + 10.0 * i as f32)));
    let total = |v: [f32; 8], more: f32| v.iter().map(|v| f64::from(v + more)).sum::<f64>() as f32;
    out.extend([total(a, 0.0), total(b, 0.0), total(a, 30.0), total(a, 70.0)].map(|v| [v; 8]));
    out
}

#[test]
fn both_instruction_sets_do_what_the_names_say() {
    let cases = [[0.0, 1.0, -1.0, 2.5, -3.7, 20.0, -20.0, 0.3], [86.0, -86.0, 0.5, -0.5, 1e-6, -1e-6, 44.4, 7.0]];
    for a in cases {
        let b = [1.5, -2.0, 3.0, 0.25, 7.0, -0.1, 11.0, 2.0];
        for (name, got) in [("dispatched", dispatch(Everything(a, b))), ("portable", Everything(a, b).run(Portable))] {
            for (row, (got, want)) in got.iter().zip(expected(a, b)).enumerate() {
                // A sum cancels: its scale is that of the terms.
                let scale = if row == 10 || row >= 20 { a.iter().map(|x| x.abs()).sum() } else { 0.0 };
                for (lane, (&g, w)) in got.iter().zip(want).enumerate() {
                    // A sigmoid's exponent is rounded, by 1e-7 of its argument with the constant's own error.
                    let exponent = if row == 9 { 1e-7 * a[lane].abs() * w } else { 0.0 };
                    assert!(
                        (g - w).abs() <= 3e-7 * w.abs().max(scale) + exponent,
                        "{name}, row {row}, lane {lane}: {g} instead of {w}"
                    );
                }
            }
        }
    }
}

/// `sigmoid(NaN)`, `exp2(NaN)`, `clamp(NaN)` and `max` with infinity.
struct NotFinite;

impl Kernel for NotFinite {
    type Output = [f32; 4];
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let nan = s.splat(f32::NAN);
        let lanes = [s.sigmoid(nan), s.exp2(nan), s.clamp(nan, -1.0, 1.0), s.max(s.splat(f32::NEG_INFINITY), s.splat(3.0))];
        lanes.map(|v| s.sum(v))
    }
}

#[test]
fn nan_stays_nan() {
    for [sigmoid, exp2, clamp, max] in [dispatch(NotFinite), NotFinite.run(Portable)] {
        assert!(sigmoid.is_nan() && exp2.is_nan() && clamp.is_nan() && max == 24.0);
    }
}
