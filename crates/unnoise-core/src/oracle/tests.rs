use ndarray::{Array, Array4, Axis, array};

use super::*;
use crate::{CosineSchedule, Dense, RectifiedFlowSchedule, VeSchedule, VpSchedule, dot, forward_noise, samples};

fn gaussian(mean: [f64; 3], off: f64, shape: Shape) -> Gaussian {
    let covariance = array![[1.0, off, 0.1], [off, 0.6, -0.2], [0.1, -0.2, 0.3]];
    Gaussian::new(&mean, &covariance, shape).unwrap()
}

fn mixture(shape: Shape) -> GaussianMixture {
    let components = vec![gaussian([1.0, -1.0, 0.5], 0.4, shape), gaussian([-1.5, 0.2, 0.0], -0.3, shape)];
    GaussianMixture::new(&[1.0, 3.0], components).unwrap()
}

fn points(shape: Shape) -> Batch {
    let [c, h, w] = shape;
    Array::linspace(-1.7, 1.9, 4 * c * h * w).mapv(|v: f64| v + 0.3 * (9.0 * v).sin()).into_shape_with_order((4, c, h, w)).unwrap()
}

const LEVELS: [Scales; 5] = [
    Scales { alpha: 1.0, sigma: 0.7 },
    Scales { alpha: 0.6, sigma: 0.8 },
    Scales { alpha: 0.999, sigma: 0.05 },
    Scales { alpha: 0.0, sigma: 1.0 },
    Scales { alpha: 1.0, sigma: 30.0 },
];

fn assert_close(got: &Batch, want: &Batch, tolerance: f64, what: std::fmt::Arguments<'_>) {
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}: {got} instead of {want}");
    }
}

/// Runs a generic check on both kinds of prior, as vectors and as images.
macro_rules! for_each_prior {
    ($check:ident) => {
        for shape in [[1, 1, 3], [3, 1, 1]] {
            $check("gaussian", &gaussian([0.5, -0.2, 0.1], 0.4, shape));
            $check("mixture", &mixture(shape));
        }
    };
}

#[test]
fn vjp_is_the_derivative() {
    fn check<P: ExactPrior>(name: &str, prior: &P) {
        let (x, h) = (points(prior.shape()), 1e-5);
        let v = x.mapv(|v| (3.0 * v).cos());
        for scales in LEVELS {
            let product = (prior.linearize(&x, scales).unwrap().vjp)(&v).unwrap();
            // (J^T v)_j = v . d x0_hat / d x_j, for all samples at once.
            for j in 0..3 {
                let shifted = |h: f64| {
                    let mut x = x.clone();
                    x.axis_iter_mut(Axis(0)).for_each(|mut sample| *sample.iter_mut().nth(j).unwrap() += h);
                    prior.linearize(&x, scales).unwrap().x0_hat
                };
                let want = dot(&v, &(shifted(h) - shifted(-h))).into_iter().map(|d| d / (2.0 * h));
                for (sample, want) in samples(&product).zip(want) {
                    assert!((sample[j] - want).abs() < 1e-7, "{name} at {scales:?}: {} instead of {want}", sample[j]);
                }
            }
        }
    }
    for_each_prior!(check);
}

/// Tweedie: the gradient of `log p_t` is `(alpha x0_hat - x) / sigma^2`.
#[test]
fn score_is_the_gradient_of_the_log_density() {
    fn check<P: ExactPrior>(name: &str, prior: &P) {
        let (x, h) = (points(prior.shape()), 1e-4);
        for scales in LEVELS.into_iter().chain([Scales { alpha: 1.0, sigma: 0.0 }]) {
            let score = prior.score(&x, scales).unwrap();
            if scales.sigma > 0.0 {
                let x0_hat = prior.linearize(&x, scales).unwrap().x0_hat;
                let tweedie = (scales.alpha * &x0_hat - &x) / (scales.sigma * scales.sigma);
                assert_close(&score, &tweedie, 1e-11, format_args!("{name} at {scales:?}"));
            }
            for j in 0..3 {
                let log_density = |h: f64| {
                    let mut x = x.clone();
                    x.axis_iter_mut(Axis(0)).for_each(|mut sample| *sample.iter_mut().nth(j).unwrap() += h);
                    prior.log_density(&x, scales).unwrap()
                };
                let (after, before) = (log_density(h), log_density(-h));
                for (i, score) in samples(&score).enumerate() {
                    let want = (after[i] - before[i]) / (2.0 * h);
                    assert!((score[j] - want).abs() < 1e-5 * want.abs().max(1.0), "{name} at {scales:?}: {} for {want}", score[j]);
                }
            }
        }
    }
    for_each_prior!(check);
}

/// Midpoint rule over `[-30, 30]`: spectrally accurate for smooth densities that vanish at the ends.
fn integrate(mut f: impl FnMut(f64) -> f64) -> f64 {
    let h = 60.0 / 60_000.0;
    (0..60_000).map(|i| f(-30.0 + (f64::from(i) + 0.5) * h) * h).sum()
}

fn mixture_1d() -> GaussianMixture {
    let component = |mean: f64, variance: f64| Gaussian::new(&[mean], &array![[variance]], [1, 1, 1]).unwrap();
    GaussianMixture::new(&[0.5, 0.3, 0.2], vec![component(-2.0, 0.1), component(0.3, 0.5), component(2.5, 0.04)]).unwrap()
}

fn one(x: f64) -> Batch {
    Array4::from_elem((1, 1, 1, 1), x)
}

/// By integration, from nothing but the definitions of the mixture and of the noise.
#[test]
fn posterior_mean_by_integration() {
    let density = |x: f64| -> f64 {
        let normal = |mean: f64, variance: f64| (-(x - mean).powi(2) / (2.0 * variance)).exp() / variance.sqrt();
        0.5 * normal(-2.0, 0.1) + 0.3 * normal(0.3, 0.5) + 0.2 * normal(2.5, 0.04)
    };
    let prior = mixture_1d();
    for scales in [Scales { alpha: 1.0, sigma: 0.7 }, Scales { alpha: 0.8, sigma: 0.6 }, Scales { alpha: 0.2, sigma: 1.5 }] {
        for x in [-3.0, -0.7, 0.0, 1.3, 2.6] {
            let weight = |x0: f64| density(x0) * (-(x - scales.alpha * x0).powi(2) / (2.0 * scales.sigma * scales.sigma)).exp();
            let want = integrate(|x0| x0 * weight(x0)) / integrate(weight);
            let got = prior.linearize(&one(x), scales).unwrap().x0_hat[[0, 0, 0, 0]];
            assert!((got - want).abs() < 1e-10, "{scales:?}, {x}: {got} instead of {want}");
        }
    }
}

#[test]
fn densities_integrate_to_one() {
    let prior = mixture_1d();
    for scales in [Scales { alpha: 1.0, sigma: 0.0 }, Scales { alpha: 0.4, sigma: 0.9 }] {
        let mass = integrate(|x| prior.log_density(&one(x), scales).unwrap()[0].exp());
        assert!((mass - 1.0).abs() < 1e-10, "{mass}");
    }
}

/// A mixture of equal components, and one whose other component is far away, are their Gaussian.
#[test]
fn a_mixture_of_one_is_a_gaussian() {
    let shape = [1, 1, 3];
    let one = gaussian([0.5, -0.2, 0.1], 0.4, shape);
    let far = gaussian([1e6, 1e6, 1e6], 0.4, shape);
    for mixture in [
        GaussianMixture::new(&[2.0, 1.0], vec![one.clone(), one.clone()]).unwrap(),
        GaussianMixture::new(&[1.0, 1.0], vec![one.clone(), far]).unwrap(),
    ] {
        for scales in LEVELS.into_iter().filter(|s| s.alpha > 0.0) {
            let x = points(shape);
            let (mut got, mut want) = (mixture.linearize(&x, scales).unwrap(), one.linearize(&x, scales).unwrap());
            assert_close(&got.x0_hat, &want.x0_hat, 1e-12, format_args!("x0_hat"));
            assert_close(&(got.vjp)(&x).unwrap(), &(want.vjp)(&x).unwrap(), 1e-12, format_args!("vjp"));
        }
    }
}

#[test]
fn limits_of_no_noise_and_no_signal() {
    fn check<P: ExactPrior>(name: &str, prior: &P) {
        let x = points(prior.shape());
        let mut clean = prior.linearize(&x, Scales { alpha: 0.5, sigma: 0.0 }).unwrap();
        assert_close(&clean.x0_hat, &(&x / 0.5), 1e-11, format_args!("{name} without noise"));
        assert_close(&(clean.vjp)(&x).unwrap(), &(&x / 0.5), 1e-11, format_args!("{name}, J without noise"));
        let mut noise = prior.linearize(&x, Scales { alpha: 0.0, sigma: 1.0 }).unwrap();
        let mean = prior.mean().broadcast(x.dim()).unwrap().to_owned();
        assert_close(&noise.x0_hat, &mean, 1e-12, format_args!("{name} without signal"));
        assert_close(&(noise.vjp)(&x).unwrap(), &Batch::zeros(x.dim()), 1e-12, format_args!("{name}, J without signal"));
    }
    for_each_prior!(check);

    // Point masses have no density; without noise the nearest one is certain.
    let point = |x: f64| Gaussian::new(&[x, 0.0], &Array2::zeros((2, 2)), [1, 1, 2]).unwrap();
    let points = GaussianMixture::new(&[1.0, 1.0], vec![point(-1.0), point(2.0)]).unwrap();
    for sigma in [0.0, 1e-120, 1e-9, 0.01] {
        let mut at = points.linearize(&array![[[[1.9, 0.3]]]], Scales { alpha: 1.0, sigma }).unwrap();
        assert_eq!(at.x0_hat, array![[[[2.0, 0.0]]]], "sigma = {sigma}");
        assert_eq!((at.vjp)(&array![[[[1.0, 1.0]]]]).unwrap(), Batch::zeros((1, 1, 1, 2)), "sigma = {sigma}");
    }
}

/// The formula of the information form, through other arithmetic: `C' = (C^-1 + A^T A / sigma_y^2)^-1`.
#[test]
fn gaussian_posterior_is_the_information_form() {
    let shape = [1, 1, 3];
    let prior = gaussian([0.5, -0.2, 0.1], 0.4, shape);
    let c = DMatrix::from_fn(3, 3, |i, j| prior.covariance()[[i, j]]);
    let mean = DVector::from_vec(vec![0.5, -0.2, 0.1]);
    let wide = array![[1.0, 0.5, -0.2]];
    let tall = array![[1.0, 0.0, 0.0], [0.3, 1.0, 0.2], [0.0, -1.0, 0.5], [2.0, 0.1, 0.1]];
    for (matrix, y) in [(wide, vec![0.7]), (tall, vec![0.1, -0.4, 0.9, 0.3])] {
        for sigma_y in [0.05, 0.7] {
            let op = Dense::new(matrix.clone(), shape).unwrap();
            let batch = Array4::from_shape_vec((1, 1, 1, y.len()), y.clone()).unwrap();
            let posterior = prior.posterior(&Measurement::new(&op, batch, sigma_y).unwrap()).unwrap();
            let a = DMatrix::from_fn(matrix.nrows(), 3, |i, j| matrix[[i, j]]);
            let precision = c.clone().try_inverse().unwrap() + a.transpose() * &a / (sigma_y * sigma_y);
            let want = precision.try_inverse().unwrap();
            let want_mean = &mean + &want * a.transpose() * (DVector::from_vec(y.clone()) - &a * &mean) / (sigma_y * sigma_y);
            for i in 0..3 {
                assert!((posterior.mean()[[0, 0, 0, i]] - want_mean[i]).abs() < 1e-12, "mean");
                for j in 0..3 {
                    assert!((posterior.covariance()[[i, j]] - want[(i, j)]).abs() < 1e-12, "covariance");
                }
            }
        }
    }
}

#[test]
fn noiseless_measurements_are_met() {
    let shape = [1, 1, 3];
    let prior = gaussian([0.5, -0.2, 0.1], 0.4, shape);
    let op = Dense::new(array![[1.0, 0.5, -0.2]], shape).unwrap();
    let posterior = prior.posterior(&Measurement::new(&op, array![[[[0.7]]]], 0.0).unwrap()).unwrap();
    let samples = posterior.sample(&Streams::new(1, 0..50));
    for y in crate::Operator::forward(&op, &samples).iter() {
        assert!((y - 0.7).abs() < 1e-12, "{y}");
    }
    let spread = posterior.covariance();
    assert!(spread.diag().iter().all(|v| *v > 0.05), "the unmeasured directions keep their variance: {spread}");
}

/// Bayes' rule, point by point: `log p(x) + log p(y | x) - log p(x | y)` is the same constant everywhere.
#[test]
fn mixture_posterior_obeys_bayes() {
    let shape = [1, 1, 3];
    let prior = mixture(shape);
    let op = Dense::new(array![[1.0, 0.5, -0.2], [0.0, 1.0, 1.0]], shape).unwrap();
    let (y, sigma_y) = (array![[[[0.2, -0.3]]]], 0.4);
    let posterior = prior.posterior(&Measurement::new(&op, y.clone(), sigma_y).unwrap()).unwrap();
    let clean = Scales { alpha: 1.0, sigma: 0.0 };
    let x = points(shape);
    let (before, after) = (prior.log_density(&x, clean).unwrap(), posterior.log_density(&x, clean).unwrap());
    let residual = crate::Operator::forward(&op, &x) - &y;
    let constant: Vec<f64> = crate::norm_sq(&residual)
        .iter()
        .zip(before.iter().zip(&after))
        .map(|(r, (before, after))| before - r / (2.0 * sigma_y * sigma_y) - after)
        .collect();
    assert!(constant.iter().all(|c| (c - constant[0]).abs() < 1e-9), "{constant:?}");
    assert!((posterior.weights().iter().sum::<f64>() - 1.0).abs() < 1e-14);
}

#[test]
fn a_noiseless_mixture_posterior_needs_a_density() {
    let shape = [1, 1, 3];
    let op = Dense::new(array![[1.0, 0.5, -0.2], [2.0, 1.0, -0.4]], shape).unwrap();
    let measurement = Measurement::new(&op, array![[[[0.2, 0.4]]]], 0.0).unwrap();
    assert!(matches!(mixture(shape).posterior(&measurement), Err(Error::Unsupported { .. })));
}

/// Each mean and covariance within 4.5 standard errors: for the 2 x 12 numbers together above 99.9 %.
#[test]
fn samples_have_the_moments() {
    fn check<P: ExactPrior>(name: &str, prior: &P) {
        let n = 20_000;
        let x = prior.sample(&Streams::new(5, 0..n));
        let (mean, covariance) = (prior.mean(), prior.covariance());
        let rows: Vec<Vec<f64>> = samples(&x).map(|s| s.iter().zip(&mean).map(|(x, m)| x - m).collect()).collect();
        let average = |f: &dyn Fn(&[f64]) -> f64| {
            let values: Vec<f64> = rows.iter().map(|row| f(row)).collect();
            let mean = values.iter().sum::<f64>() / f64::from(n);
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
            (mean, (variance / f64::from(n)).sqrt())
        };
        for i in 0..3 {
            let (got, error) = average(&|row| row[i]);
            assert!(got.abs() < 4.5 * error, "{name}: mean {i} is off by {got} +- {error}");
            for j in 0..3 {
                let (got, error) = average(&|row| row[i] * row[j]);
                let want = covariance[[i, j]];
                assert!((got - want).abs() < 4.5 * error, "{name}: covariance {i} {j}: {got} +- {error} instead of {want}");
            }
        }
        let seventh = prior.sample(&Streams::new(5, 7..8));
        assert_eq!(seventh.index_axis(Axis(0), 0), x.index_axis(Axis(0), 7));
    }
    for_each_prior!(check);
}

/// `p_t` is the law of what [`forward_noise`] makes: its moments are `alpha mu` and `alpha^2 C + sigma^2 I`, on every schedule.
#[test]
fn oracle_serves_every_schedule() {
    let schedules: [Arc<dyn Schedule>; 4] = [
        Arc::new(CosineSchedule),
        Arc::new(VpSchedule::default()),
        Arc::new(VeSchedule::default()),
        Arc::new(RectifiedFlowSchedule),
    ];
    let prior = gaussian([0.5, -0.2, 0.1], 0.4, [1, 1, 3]);
    for schedule in schedules {
        let oracle = Oracle::new(prior.clone(), schedule.clone());
        for t in [0.1, 0.5, 0.9] {
            let level = Level::at(oracle.schedule(), t);
            let x = forward_noise(&points([1, 1, 3]), &points([1, 1, 3]), &*schedule, t).unwrap();
            let got = oracle.x0_hat(&x, level).unwrap();
            // Wiener's filter: mu + alpha C (alpha^2 C + sigma^2 I)^-1 (x - alpha mu).
            let c = DMatrix::from_fn(3, 3, |i, j| prior.covariance()[[i, j]]);
            let noisy = level.alpha * level.alpha * &c + DMatrix::identity(3, 3) * (level.sigma * level.sigma);
            let mean = columns(&prior.mean());
            for (i, sample) in samples(&x).enumerate() {
                let x = DVector::from_iterator(3, sample.iter().copied());
                let want = &mean + level.alpha * &c * noisy.clone().lu().solve(&(x - level.alpha * &mean)).unwrap();
                for j in 0..3 {
                    assert!((got[[i, 0, 0, j]] - want[j]).abs() < 1e-10, "{schedule:?} at {t}");
                }
            }
        }
    }
}

#[test]
fn impossible_priors_are_refused() {
    let shape = [1, 1, 2];
    let good = Gaussian::standard(shape);
    for (name, refused) in [
        ("a mean of the wrong size", Gaussian::new(&[0.0], &Array2::eye(2), shape).is_err()),
        ("a covariance of the wrong size", Gaussian::new(&[0.0, 0.0], &Array2::eye(3), shape).is_err()),
        ("an asymmetric covariance", Gaussian::new(&[0.0, 0.0], &array![[1.0, 0.5], [0.0, 1.0]], shape).is_err()),
        ("an indefinite covariance", Gaussian::new(&[0.0, 0.0], &array![[1.0, 2.0], [2.0, 1.0]], shape).is_err()),
        ("NaN", Gaussian::new(&[0.0, f64::NAN], &Array2::eye(2), shape).is_err()),
        ("no component", GaussianMixture::new(&[], vec![]).is_err()),
        ("a negative weight", GaussianMixture::new(&[1.0, -0.5], vec![good.clone(), good.clone()]).is_err()),
        ("weights of zero", GaussianMixture::new(&[0.0], vec![good.clone()]).is_err()),
        ("two shapes", GaussianMixture::new(&[1.0, 1.0], vec![good.clone(), Gaussian::standard([2, 1, 1])]).is_err()),
        ("an input of the wrong shape", good.linearize(&Batch::zeros((1, 2, 1, 1)), LEVELS[0]).is_err()),
    ] {
        assert!(refused, "{name} was accepted");
    }
}
