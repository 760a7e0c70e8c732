//! Langevin steps have a bias that no number of steps removes: it is derived here, and met.

use std::sync::Arc;

use unnoise_core::{Gaussian, Grid, Langevin, Level, Noise, Oracle, Pc, Purpose, Sampler, Streams, Variance, VeSchedule};

use super::run;

/// The states of `n` samples of `d` pixels with unit variance, after one step from noise of variance 1 to just below it, on images of variance 1:
/// the marginal's variance is 2.
fn after(sampler: &mut dyn Sampler, n: u32, d: usize) -> Vec<Vec<f64>> {
    let denoiser = Oracle::new(Gaussian::standard([1, 1, d]), Arc::new(VeSchedule::new(0.01, 50.0).unwrap()));
    let level = |sigma: f64| Level::at_sigma_edm(&VeSchedule::new(0.01, 50.0).unwrap(), sigma);
    let grid = Grid::through(&[level(1.0), level(1.0 - 1e-12)]);
    let mut streams = Streams::new(31, 0..n);
    let x = streams.normal(0, Purpose::Start, n as usize, [1, 1, d]);
    run(sampler, &denoiser, &grid, x, &mut streams).rows().into_iter().map(|row| row.to_vec()).collect()
}

/// Mean and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n / n).sqrt())
}

/// With a fixed step `delta` a Gaussian of variance `v` is an autoregression: `V <- (1 - delta / v)^2 V + 2 delta`. From `V = 1`, after 10
/// and 60 steps, by then at `v / (1 - delta / (2 v))`, within 2.81 standard errors: both at 99 %.
#[test]
fn annealed_langevin_has_the_variance_of_its_recursion() {
    let snr: f64 = 0.4;
    let (v, delta) = (2.0, 2.0 * snr * snr);
    for corrections in [10, 60] {
        let exact = (0..corrections).fold(1.0, |variance, _| (1.0 - delta / v) * (1.0 - delta / v) * variance + 2.0 * delta);
        let squares: Vec<f64> =
            after(&mut Langevin { snr, corrections }, 4000, 10).into_iter().flatten().map(|x: f64| x * x).collect();
        let (got, error) = mean(&squares);
        assert!((got - exact).abs() < 2.81 * error, "{corrections} steps: {got} instead of {exact}, standard error {error}");
        if corrections == 60 {
            assert!((exact - v / (1.0 - delta / (2.0 * v))).abs() < 1e-6);
            assert!((exact - v).abs() > 10.0 * error, "the bias is not seen");
        }
    }
}

/// With `delta = 2 (snr |z| / |score|)^2` and `score = -x / v`, write `y = x / sqrt(v)`: a step changes `|y|^2` by
///
/// ```text
/// -4 snr^2 |z|^2 + 4 snr^2 (1 + snr^2) |z|^4 / |y|^2 + (odd in z)
/// ```
///
/// `z` is independent of `y`, `E|z|^2 = d` and `E|z|^4 = d (d + 2)`; where the distribution has become stationary, the mean is 0:
/// `E[1 / |y|^2] = 1 / ((1 + snr^2) (d + 2))`. For the normal itself it is `1 / (d - 2)`.
#[test]
fn the_corrector_has_its_stationary_property() {
    let (snr, d) = (0.4f64, 16);
    let states = after(&mut Pc::new(Variance::FixedLarge, snr, 120), 8000, d);
    let inverse: Vec<f64> = states.iter().map(|x| 2.0 / x.iter().map(|x| x * x).sum::<f64>()).collect();
    let (got, error) = mean(&inverse);
    let (stationary, normal) = (1.0 / ((1.0 + snr * snr) * (d as f64 + 2.0)), 1.0 / (d as f64 - 2.0));
    assert!((got - stationary).abs() < 2.58 * error, "{got} instead of {stationary}, standard error {error}");
    assert!((normal - stationary).abs() > 10.0 * error, "the bias is not seen");
}
