use ndarray::{Array, Array4, array};

use super::*;
use crate::{ExactPrior, Gaussian, GaussianMixture, Noise, Purpose, Scales, Streams, score_from_x0};

/// A standard normal prior: the posterior mean is `x / (1 + sigma^2)`.
#[test]
fn standard_normal_prior() {
    let level = Level { t: 0.5, alpha: 1.0, sigma: 0.7 };
    let x = Array::linspace(-3.0, 3.0, 7).into_shape_with_order((7, 1, 1, 1)).unwrap();
    let prior = Gaussian::standard([1, 1, 1]);
    let exact = prior.linearize(&x, Scales { alpha: 1.0, sigma: 0.7 }).unwrap().x0_hat;
    let score = &x / -(1.0 + 0.49);
    for got in [exact, posterior_mean(&score, &x, level).unwrap()] {
        let error = (&got - &x / 1.49).iter().fold(0.0, |worst: f64, e| worst.max(e.abs()));
        assert!(error < 1e-15, "{error}");
        assert!((got[[6, 0, 0, 0]] - 2.0134).abs() < 5e-5);
    }
}

#[test]
fn score_and_mean_agree() {
    let prior = Gaussian::new(&[0.3, -1.0], &array![[1.0, 0.4], [0.4, 0.5]], [1, 1, 2]).unwrap();
    let level = Level { t: 0.5, alpha: 0.6, sigma: 0.8 };
    let x = array![[[[0.2, -0.7]]], [[[3.0, 1.0]]]];
    let x0_hat = prior.linearize(&x, Scales { alpha: 0.6, sigma: 0.8 }).unwrap().x0_hat;
    let back = posterior_mean(&score_from_x0(&x0_hat, &x, level).unwrap(), &x, level).unwrap();
    assert!((&back - &x0_hat).iter().all(|e| e.abs() < 1e-14));
}

/// `Cov[x0 | x_t]` of a mixture in one dimension is the variance of its posterior, which Bayes' rule gives by itself.
#[test]
fn covariance_is_the_posterior_variance() {
    let component = |mean: f64, variance: f64| Gaussian::new(&[mean], &array![[variance]], [1, 1, 1]).unwrap();
    let prior =
        GaussianMixture::new(&[0.5, 0.3, 0.2], vec![component(-2.0, 0.1), component(0.3, 0.5), component(2.5, 0.04)]).unwrap();
    for (alpha, sigma) in [(1.0, 0.7), (0.8, 0.6), (0.3, 1.0)] {
        for x in [-1.0, 0.4, 1.6] {
            let one = Array4::from_elem((1, 1, 1, 1), 1.0);
            let mut at = prior.linearize(&(&one * x), Scales { alpha, sigma }).unwrap();
            let got = posterior_covariance(&mut at, &one, Level { t: 0.5, alpha, sigma }).unwrap()[[0, 0, 0, 0]];
            // x_t = alpha x0 + sigma eps is itself a measurement: y = x_t, A = alpha, sigma_y = sigma.
            let op = crate::Dense::new(array![[alpha]], [1, 1, 1]).unwrap();
            let posterior = prior.posterior(&crate::Measurement::new(&op, &one * x, sigma).unwrap()).unwrap();
            assert!((got - posterior.covariance()[[0, 0]]).abs() < 1e-12, "{alpha}, {sigma}, {x}: {got}");
            assert!((at.x0_hat[[0, 0, 0, 0]] - posterior.mean()[[0, 0, 0, 0]]).abs() < 1e-12, "{alpha}, {sigma}, {x}");
        }
    }
}

#[test]
fn covariance_needs_signal() {
    let prior = Gaussian::standard([1, 1, 2]);
    let x = Batch::zeros((1, 1, 1, 2));
    let mut at = prior.linearize(&x, Scales { alpha: 0.0, sigma: 1.0 }).unwrap();
    let level = Level { t: 1.0, alpha: 0.0, sigma: 1.0 };
    assert!(matches!(posterior_covariance(&mut at, &x, level), Err(Error::Argument { what: "alpha", .. })));
}

/// Linear denoisers, whose asymmetry is that of their matrix.
#[test]
fn asymmetry_is_that_of_the_jacobian() {
    let n = 20_000;
    let mut streams = Streams::new(9, 0..n);
    let mut draw = |step| streams.normal(step, Purpose::Auxiliary, n as usize, [1, 1, 3]);
    let (u, v) = (draw(0), draw(1));
    for matrix in [
        array![[1.0, 0.3, 0.2], [0.3, 2.0, -0.5], [0.2, -0.5, 1.0]],
        array![[0.0, 1.0, -2.0], [-1.0, 0.0, 0.5], [2.0, -0.5, 0.0]],
        array![[1.0, 0.4, 0.0], [0.3, 2.0, -0.5], [0.2, -0.4, 1.0]],
    ] {
        let norm = |m: &ndarray::Array2<f64>| m.iter().map(|v| v * v).sum::<f64>().sqrt();
        let want = norm(&(&matrix - &matrix.t())) / norm(&matrix);
        let op = crate::Dense::new(matrix, [1, 1, 3]).unwrap();
        let vjp = Box::new(|v: &Batch| Ok(crate::Operator::adjoint(&op, v)));
        let got = asymmetry(&mut Linearized { x0_hat: Batch::zeros(u.dim()), vjp }, &u, &v).unwrap();
        // The relative error of either sum is at most sqrt(8 / n) in standard deviation (fourth moments of u^T M v); 4 of them.
        assert!((got - want).abs() <= 4.0 * (8.0 / f64::from(n)).sqrt() * want + 1e-12, "{got} instead of {want}");
    }
}

#[test]
fn exact_denoisers_are_symmetric() {
    let components = [0.5, -0.5].map(|mean| Gaussian::new(&[mean, 1.0], &array![[1.0, 0.4], [0.4, 0.5]], [1, 1, 2]).unwrap());
    let prior = GaussianMixture::new(&[0.3, 0.7], components.to_vec()).unwrap();
    let x = array![[[[0.1, -0.7]]], [[[-0.4, 1.0]]]];
    let mut at = prior.linearize(&x, Scales { alpha: 0.9, sigma: 0.5 }).unwrap();
    let (u, v) = (array![[[[1.0, 2.0]]], [[[0.3, -1.0]]]], array![[[[-1.0, 0.5]]], [[[0.7, 0.1]]]]);
    let got = asymmetry(&mut at, &u, &v).unwrap();
    assert!(got < 1e-14, "{got}");
}
