use ndarray::{Array4, array};

use super::*;
use crate::{Batch, Dense, ExactPrior, Gaussian, Measurement, Noise, Operator, Purpose, Streams};

fn batch(n: usize, d: usize, values: &[f64]) -> Batch {
    Array4::from_shape_vec((n, 1, 1, d), values.to_vec()).unwrap()
}

/// Two smooth pictures, from a formula that the fixture's script shares.
fn pictures(c: usize, h: usize, w: usize) -> (Batch, Batch) {
    let x = Array4::from_shape_fn((1, c, h, w), |(_, k, i, j)| 0.5 + 0.4 * (0.7 * i as f64 + 0.3 * j as f64 + k as f64).sin());
    let ripple = Array4::from_shape_fn((1, c, h, w), |(_, k, i, j)| 0.1 * (1.3 * (i * j) as f64 + 2.0 * k as f64).cos());
    let y = &x + &ripple;
    (x, y)
}

/// scikit-image 0.26.0: `structural_similarity(x, y, data_range=r, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
/// channel_axis=0)` and `peak_signal_noise_ratio(x, y, data_range=r)` of the float64 [`pictures`].
#[test]
fn ssim_and_psnr_are_those_of_scikit_image() {
    for ((c, h, w), range, want_ssim, want_psnr) in [
        ((1, 11, 11), 1.0, 0.9543961997952076, 22.52593213629879),
        ((1, 16, 23), 1.0, 0.9581369430930169, 22.716237455593248),
        ((3, 32, 20), 1.0, 0.9584120778913204, 22.98635167331069),
        ((1, 16, 23), 2.0, 0.9591337701995898, 28.736837368872873),
    ] {
        let (x, y) = pictures(c, h, w);
        let (got_ssim, got_psnr) = (ssim(&x, &y, range).unwrap()[0], psnr(&x, &y, range).unwrap()[0]);
        assert!((got_ssim - want_ssim).abs() < 1e-12, "SSIM {c} {h} {w}: {got_ssim} instead of {want_ssim}");
        assert!((got_psnr - want_psnr).abs() < 1e-10, "PSNR {c} {h} {w}: {got_psnr} instead of {want_psnr}");
        assert!((ssim(&x, &x, range).unwrap()[0] - 1.0).abs() < 1e-15);
        assert_eq!(psnr(&x, &x, range).unwrap(), [f64::INFINITY]);
    }
}

#[test]
fn each_image_has_its_own_number() {
    let truth = Batch::zeros((2, 1, 2, 2));
    let mut x = Batch::from_elem((2, 1, 2, 2), 0.1);
    x.index_axis_mut(ndarray::Axis(0), 1).fill(0.01);
    let got = psnr(&x, &truth, 1.0).unwrap();
    assert!((got[0] - 20.0).abs() < 1e-12 && (got[1] - 40.0).abs() < 1e-12, "{got:?}");
    assert!(ssim(&x, &truth, 1.0).is_err(), "2 x 2 has no room for the window");
    assert!(psnr(&x, &Batch::zeros((1, 1, 2, 2)), 1.0).is_err());
    assert!(psnr(&x, &truth, 0.0).is_err());
}

#[test]
fn wasserstein_in_one_dimension_is_exact() {
    let directions = Streams::new(1, 0..3);
    for (a, b, p, want) in [
        // A shift, whatever the order of the samples.
        (vec![3.0, 1.0, 2.0], vec![1.5, 3.5, 2.5], 1, 0.5),
        (vec![3.0, 1.0, 2.0], vec![1.5, 3.5, 2.5], 2, 0.5),
        // Steps of thirds against halves: 0 | 3 | 6 against 1 | 5: (1 + 1/2 * 2 + 1/2 * 2 + 1) / 3.
        (vec![0.0, 3.0, 6.0], vec![1.0, 5.0], 1, 4.0 / 3.0),
        (vec![0.0, 3.0, 6.0], vec![1.0, 5.0], 2, (1.0f64 + 2.0 + 2.0 + 1.0).sqrt() / 3f64.sqrt()),
        // A point against two.
        (vec![0.0], vec![-1.0, 2.0], 1, 1.5),
        (vec![0.0], vec![-1.0, 2.0], 2, 2.5f64.sqrt()),
    ] {
        let (a, b) = (batch(a.len(), 1, &a), batch(b.len(), 1, &b));
        for (a, b) in [(&a, &b), (&b, &a)] {
            let got = sliced_wasserstein(a, b, p, &directions).unwrap();
            assert!((got - want).abs() < 1e-12, "p = {p}: {got} instead of {want}");
        }
    }
}

/// Two points at a distance `r`: `SW_2^2 = r^2 E[u_1^2] = r^2 / d`, `SW_1 = r E|u_1| = 2 r / pi` in the plane. Four standard errors.
#[test]
fn slices_average_over_the_sphere() {
    let directions = Streams::new(2, 0..20_000);
    let a = batch(1, 2, &[0.0, 0.0]);
    let b = batch(1, 2, &[3.0, 4.0]);
    let n = 20_000f64;
    let (first, second) =
        (sliced_wasserstein(&a, &b, 1, &directions).unwrap(), sliced_wasserstein(&a, &b, 2, &directions).unwrap());
    let pi = std::f64::consts::PI;
    assert!((first - 10.0 / pi).abs() < 4.0 * 5.0 * ((0.5 - 4.0 / (pi * pi)) / n).sqrt(), "{first}");
    assert!((second * second - 12.5).abs() < 4.0 * 25.0 * (0.125 / n).sqrt(), "{second}");
    let (a, b) = (batch(1, 5, &[0.0; 5]), batch(1, 5, &[2.0, 0.0, 0.0, 0.0, 0.0]));
    let got = sliced_wasserstein(&a, &b, 2, &directions).unwrap();
    // Var[u_1^2] = 3 / (d (d + 2)) - 1 / d^2.
    assert!((got * got - 0.8).abs() < 4.0 * 4.0 * ((3.0 / 35.0 - 0.04) / n).sqrt(), "{got}");
}

#[test]
fn sliced_wasserstein_refuses_nothing_to_compare() {
    let (a, none, directions) = (batch(1, 2, &[0.0, 0.0]), Batch::zeros((0, 1, 1, 2)), Streams::new(0, 0..1));
    assert!(sliced_wasserstein(&a, &none, 2, &directions).is_err());
    assert!(sliced_wasserstein(&a, &a, 0, &directions).is_err());
    assert!(sliced_wasserstein(&a, &a, 2, &Streams::new(0, 0..0)).is_err());
    assert!(sliced_wasserstein(&a, &batch(2, 1, &[0.0, 0.0]), 2, &directions).is_err());
}

#[test]
fn chi_square_is_the_residual_in_units_of_noise() {
    let op = Dense::new(array![[1.0, 0.0], [0.0, 2.0]], [1, 1, 2]).unwrap();
    let measurement = Measurement::new(&op, array![[[[1.0, 1.0]]]], 0.5).unwrap();
    // Residuals (1, 1) and (0, -3).
    let got = chi_square(&measurement, &batch(2, 2, &[0.0, 0.0, 1.0, 2.0])).unwrap();
    assert_eq!(got, [2.0 / 0.5, 9.0 / 0.5]);
    assert!(chi_square(&Measurement { sigma_y: 0.0, ..measurement }, &batch(1, 2, &[0.0, 0.0])).is_err());
}

#[test]
fn ties_are_broken_evenly() {
    // All four ranks are possible, for the truth equals every sample (which two others spread).
    let d = 40_000;
    let images = batch(5, d, &[vec![0.0; d], vec![1.0; d], vec![1.0; d], vec![1.0; d], vec![2.0; d]].concat());
    let mut ranks = Ranks::new(5);
    ranks.add(&images, &batch(1, d, &vec![1.0; d]), 0.02, &Streams::new(3, 0..1)).unwrap();
    assert_eq!((ranks.counts()[0], ranks.counts()[5], ranks.pixels()), (0, 0, d as u64));
    // 4 standard errors of a binomial count.
    for count in &ranks.counts()[1..5] {
        let error = (*count as f64 - 0.25 * d as f64).abs();
        assert!(error < 4.0 * (d as f64 * 0.25 * 0.75).sqrt(), "{:?}", ranks.counts());
    }
}

/// 19 exact posterior samples of independent pixels: each rank is one of 20, equally likely. Coverage within 3.3 standard errors (99.9 %)
/// of the binomial, and samples of half or twice the deviation are found out.
#[test]
fn coverage_of_the_true_posterior() {
    let (d, n) = (20_000, 19);
    let mut noise = Streams::new(4, 0..n + 1);
    let draws = noise.normal(0, Purpose::Auxiliary, n as usize + 1, [1, 1, d]);
    let truth = draws.slice_axis(ndarray::Axis(0), (0..1).into()).to_owned();
    let exact = draws.slice_axis(ndarray::Axis(0), (1..).into()).to_owned();
    for (factor, is_right) in [(1.0, true), (0.5, false), (2.0, false)] {
        let mut ranks = Ranks::new(n as usize);
        ranks.add(&(&exact * factor), &truth, 0.02, &Streams::new(5, 0..1)).unwrap();
        for (lower, upper, want) in [(1, 19, 0.9), (5, 15, 0.5)] {
            let coverage = ranks.coverage(lower, upper).unwrap();
            assert_eq!(coverage.nominal, want);
            let close = (coverage.found - want).abs() < 3.3 * (want * (1.0 - want) / d as f64).sqrt();
            assert_eq!(close, is_right, "{factor}: {coverage:?}");
        }
    }
}

/// Samples and truth from one posterior, with a threshold that keeps a part of the pixels: every rank stays equally likely, at 99.9 %
/// (chi-square of the counts), and the share that is kept is neither all nor nothing. Selected by the samples' deviation alone, the
/// intervals of 90 % would cover 95 % and 94 %, with a chi-square of some 650 and 220.
#[test]
fn selected_pixels_keep_uniform_ranks() {
    let (d, n, threshold) = (40_000, 19, 0.5);
    let mut noise = Streams::new(10, 0..n + 1);
    let normals = noise.normal(0, Purpose::Auxiliary, n as usize + 1, [1, 1, d]);
    let mut spike = noise.normal(1, Purpose::Auxiliary, n as usize + 1, [1, 1, d]);
    spike.zip_mut_with(&normals, |value, z| *value = if *z > 1.6 { 2.0 * *value } else { 0.0 });
    for (name, draws) in [("at the threshold", &normals * threshold), ("with a spike", spike)] {
        let (truth, samples) = draws.view().split_at(ndarray::Axis(0), 1);
        let mut ranks = Ranks::new(n as usize);
        ranks.add(&samples.to_owned(), &truth.to_owned(), threshold, &Streams::new(11, 0..1)).unwrap();
        assert!((0.2..0.8).contains(&ranks.share()), "{name}: {}", ranks.share());
        let expected = ranks.pixels() as f64 / f64::from(n + 1);
        let chi_square: f64 = ranks.counts().iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        // The 99.9 % point of chi-square with 19 degrees of freedom.
        assert!(chi_square < 43.82, "{name}: {chi_square}, {:?}, {:?}", ranks.coverage(1, 19), ranks.counts());
    }
}

#[test]
fn ranks_refuse_other_shapes() {
    let (images, truth, one) = (batch(3, 2, &[0.0; 6]), batch(1, 2, &[0.0; 2]), Streams::new(0, 0..1));
    assert!(Ranks::new(4).add(&images, &truth, 0.0, &one).is_err());
    assert!(Ranks::new(3).add(&images, &images, 0.0, &one).is_err());
    assert!(Ranks::new(3).add(&images, &truth, 0.0, &Streams::new(0, 0..2)).is_err());
    for (lower, upper) in [(0, 2), (2, 2), (1, 4)] {
        assert!(Ranks::new(3).coverage(lower, upper).is_err(), "{lower}, {upper}");
    }
}

/// What `reconstruct` reports, on exact posterior samples: chi-square within 3.3 standard errors of 1 over many measurements.
#[test]
fn posterior_samples_explain_their_measurements() {
    let prior = Gaussian::new(&[0.5, -0.2], &array![[1.0, 0.6], [0.6, 0.5]], [1, 1, 2]).unwrap();
    let op = Dense::new(array![[1.0, 0.4], [0.2, -1.0], [0.5, 0.5]], [1, 1, 2]).unwrap();
    let (count, sigma_y) = (4000, 0.3);
    let truths = prior.sample(&Streams::new(6, 0..count));
    let y = op.forward(&truths) + Streams::new(7, 0..count).normal(0, Purpose::Measurement, count as usize, [1, 1, 3]) * sigma_y;
    let of_one = |i: u32| {
        let y = y.slice_axis(ndarray::Axis(0), (i as usize..i as usize + 1).into()).to_owned();
        let measurement = Measurement::new(&op, y, sigma_y).unwrap();
        let sample = prior.posterior(&measurement).unwrap().sample(&Streams::new(8, i..i + 1));
        chi_square(&measurement, &sample).unwrap()[0]
    };
    let mean = (0..count).map(of_one).sum::<f64>() / f64::from(count);
    assert!((mean - 1.0).abs() < 3.3 * (2.0 / 3.0 / f64::from(count)).sqrt(), "{mean}");
}
