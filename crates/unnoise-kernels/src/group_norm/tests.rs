use proptest::prelude::*;

use super::*;
use crate::check::{Close, NOT_FINITE, check_lost, normal};

/// The formulas, in plain loops over `f64`: (y, dx, dgamma, dbeta).
fn plain(norm: GroupNorm, x: &[f32], gamma: &[f32], beta: &[f32], dy: &[f32]) -> [Vec<f64>; 4] {
    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let (mut dgamma, mut dbeta) = (vec![0.0; norm.channels], vec![0.0; norm.channels]);
    let size = norm.group_size();
    for start in (0..x.len()).step_by(size.max(1)) {
        let channel = |i: usize| (start + i) / norm.pixels % norm.channels;
        let group = (0..size).map(|i| f64::from(x[start + i]));
        let mean = group.clone().sum::<f64>() / size as f64;
        let scale = (group.clone().map(|v| (v - mean).powi(2)).sum::<f64>() / size as f64 + f64::from(norm.eps)).sqrt().recip();
        let x_hat: Vec<f64> = group.map(|v| (v - mean) * scale).collect();
        let mut g = vec![0.0; size];
        for i in 0..size {
            let c = channel(i);
            let v = f64::from(gamma[c]) * x_hat[i] + f64::from(beta[c]);
            let sigmoid = 1.0 / (1.0 + (-v).exp());
            let (value, slope) = if norm.silu { (v * sigmoid, sigmoid * (1.0 + v * (1.0 - sigmoid))) } else { (v, 1.0) };
            y[start + i] = value;
            g[i] = f64::from(dy[start + i]) * slope;
            dgamma[c] += g[i] * x_hat[i];
            dbeta[c] += g[i];
            g[i] *= f64::from(gamma[c]);
        }
        let mean_g = g.iter().sum::<f64>() / size as f64;
        let mean_gx = g.iter().zip(&x_hat).map(|(g, x)| g * x).sum::<f64>() / size as f64;
        for i in 0..size {
            dx[start + i] = scale * (g[i] - mean_g - x_hat[i] * mean_gx);
        }
    }
    [y, dx, dgamma, dbeta]
}

fn run(norm: GroupNorm, x: &[f32], gamma: &[f32], beta: &[f32], dy: &[f32]) -> [Vec<f32>; 4] {
    let [mut y, mut dx] = [(); 2].map(|()| vec![f32::NAN; x.len()]);
    let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![f32::NAN; gamma.len()]);
    norm.forward(x, gamma, beta, &mut y).unwrap();
    norm.backward(x, gamma, beta, dy, &mut dx, &mut dgamma, &mut dbeta).unwrap();
    [y, dx, dgamma, dbeta]
}

#[test]
fn value_and_gradients_are_those_of_the_formula() {
    let cases = [
        (1, 32, 64, 32),
        (17, 6, 49, 3),
        (2, 12, 1, 2),
        (3, 10, 5, 5),
        (1, 1, 1024, 1),
        (4, 64, 256, 8),
        (0, 8, 9, 2),
        (2, 8, 0, 2),
    ];
    for (n, channels, pixels, groups) in cases {
        for silu in [false, true] {
            check(GroupNorm { n, channels, pixels, groups, eps: 1e-5, silu });
        }
    }
}

fn check(norm: GroupNorm) {
    let total = norm.n * norm.channels * norm.pixels;
    let (mut x, dy) = (normal(total, 1, 1.3), normal(total, 2, 1.0));
    x.iter_mut().for_each(|v| *v += 0.7);
    let (gamma, beta) = (normal(norm.channels, 3, 1.0), normal(norm.channels, 4, 0.5));
    let want = plain(norm, &x, &gamma, &beta, &dy);
    // Half of the deviation of sums over images and pixels, whose terms SiLU's slope makes smaller.
    let sums = 0.5 * ((norm.n * norm.pixels) as f64).sqrt();
    let names = [("y", 0.0), ("dx", 0.0), ("dgamma", sums), ("dbeta", sums)];
    for (((name, least), got), want) in names.into_iter().zip(run(norm, &x, &gamma, &beta, &dy)).zip(want) {
        // Sums of up to 1024 pixels and 17 images in chains of at most 128: 128 roundings of 6e-8 at worst.
        Close::new(format!("{name} of {norm:?}"), 1e-5).of_at_least(least).check(&got, want);
    }
}

proptest! {
    #[test]
    fn any_shape_computes_the_formula(
        (n, width, groups, pixels) in (0..5usize, 1..20usize, 1..6usize, 1..80usize),
        silu: bool,
    ) {
        // Of a few numbers little but rounding is left where their mean and slope are taken away.
        prop_assume!(width * pixels >= 16);
        check(GroupNorm { n, channels: groups * width, pixels, groups, eps: 1e-5, silu });
    }
}

#[test]
fn every_image_may_have_its_own_affine_map() {
    let norm = GroupNorm { n: 4, channels: 10, pixels: 21, groups: 5, eps: 1e-5, silu: true };
    let image = norm.channels * norm.pixels;
    let (x, dy) = (normal(4 * image, 1, 1.0), normal(4 * image, 2, 1.0));
    let (gamma, beta) = (normal(40, 3, 1.0), normal(40, 4, 1.0));
    let all = run(norm, &x, &gamma, &beta, &dy);
    for i in 0..4 {
        let part = |v: &[f32]| v[i * v.len() / 4..(i + 1) * v.len() / 4].to_vec();
        let one = run(GroupNorm { n: 1, ..norm }, &part(&x), &part(&gamma), &part(&beta), &part(&dy));
        assert!(one == all.each_ref().map(|v| part(v)), "image {i}");
    }
}

#[test]
fn an_image_has_the_same_bits_alone_and_in_a_batch_on_any_number_of_threads() {
    let norm = GroupNorm { n: 5, channels: 12, pixels: 35, groups: 4, eps: 1e-6, silu: true };
    let image = norm.channels * norm.pixels;
    let (x, dy) = (normal(5 * image, 1, 1.0), normal(5 * image, 2, 1.0));
    let (gamma, beta) = (normal(12, 3, 1.0), normal(12, 4, 1.0));
    let all = run(norm, &x, &gamma, &beta, &dy);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(all, pool.install(|| run(norm, &x, &gamma, &beta, &dy)));
    }
    for (i, (x, dy)) in x.chunks(image).zip(dy.chunks(image)).enumerate() {
        let alone = run(GroupNorm { n: 1, ..norm }, x, &gamma, &beta, dy);
        for k in 0..2 {
            assert_eq!(alone[k], all[k][i * image..(i + 1) * image]);
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_and_in_its_image() {
    for silu in [false, true] {
        let norm = GroupNorm { n: 3, channels: 6, pixels: 11, groups: 2, eps: 1e-5, silu };
        let image = norm.channels * norm.pixels;
        let clean = [normal(3 * image, 1, 1.0), normal(6, 2, 1.0), normal(6, 3, 1.0), normal(3 * image, 4, 1.0)];
        let [y, dx, ..] = run(norm, &clean[0], &clean[1], &clean[2], &clean[3]);
        for (array, bad) in (0..4).flat_map(|array| NOT_FINITE.map(|bad| (array, bad))) {
            let mut arrays = clean.clone();
            let place = if arrays[array].len() > image { image + 7 } else { 2 };
            arrays[array][place] = bad;
            let [x, gamma, beta, dy] = &arrays;
            let got = run(norm, x, gamma, beta, dy);
            for ((name, got), want) in ["y", "dx", "dgamma", "dbeta"].into_iter().zip(&got).zip(plain(norm, x, gamma, beta, dy)) {
                check_lost(&format!("{name} of {norm:?}, {bad} in array {array}"), got, &want);
            }
            if [0, 3].contains(&array) {
                for (got, clean) in [(&got[0], &y), (&got[1], &dx)] {
                    assert!(got[..image] == clean[..image] && got[2 * image..] == clean[2 * image..], "{bad} spreads in {norm:?}");
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let norm = GroupNorm { n: 1, channels: 6, pixels: 2, groups: 4, eps: 1e-5, silu: false };
    let error = norm.forward(&[0.0; 12], &[1.0; 6], &[0.0; 6], &mut [0.0; 12]).unwrap_err();
    assert_eq!(error.to_string(), "GroupNorm::forward: groups must be a divisor of the 6 channels, got 4");
    let norm = GroupNorm { groups: 3, ..norm };
    let error = norm.forward(&[0.0; 12], &[1.0; 5], &[0.0; 6], &mut [0.0; 12]).unwrap_err();
    assert_eq!(error.to_string(), "GroupNorm::forward: gamma must hold 6 numbers, got 5");
    let absurd = GroupNorm { n: 1 << 62, channels: 4, groups: 2, ..norm };
    assert!(absurd.forward(&[], &[1.0; 4], &[0.0; 4], &mut []).is_err());
    for none in [GroupNorm { n: 0, pixels: 1 << 62, ..norm }, GroupNorm { pixels: 0, ..norm }] {
        let gains = [6, none.n * none.channels];
        for length in gains {
            let (gamma, mut dgamma, mut dbeta) = (vec![1.0; length], vec![f32::NAN; length], vec![f32::NAN; length]);
            none.forward(&[], &gamma, &gamma, &mut []).unwrap();
            none.backward(&[], &gamma, &gamma, &[], &mut [], &mut dgamma, &mut dbeta).unwrap();
            assert!(dgamma.iter().chain(&dbeta).all(|v| *v == 0.0));
        }
    }
}
