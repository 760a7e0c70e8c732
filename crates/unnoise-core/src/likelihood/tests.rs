//! Densities against closed forms.

use std::sync::Arc;

use ndarray::array;

use super::*;
use crate::{DiscreteSchedule, element_shape};
use crate::{
    EdmSchedule, Error, ExactPrior, Gaussian, GaussianMixture, Oracle, RectifiedFlowSchedule, Scales, VeSchedule, VpSchedule,
};

const D: usize = 3;

fn gaussian(mean: [f64; D], off: f64) -> Gaussian {
    let covariance = array![[0.3, off, 0.1], [off, 0.6, -0.1], [0.1, -0.1, 0.1]];
    Gaussian::new(&mean, &covariance, [1, 1, D]).unwrap()
}

fn mixture() -> GaussianMixture {
    GaussianMixture::new(&[1.0, 3.0], vec![gaussian([1.0, -0.5, 0.5], 0.1), gaussian([-0.8, 0.2, 0.0], -0.2)]).unwrap()
}

fn schedules() -> [Arc<dyn Schedule>; 5] {
    [
        Arc::new(VpSchedule::default()),
        Arc::new(VeSchedule::default()),
        Arc::new(EdmSchedule::default()),
        Arc::new(RectifiedFlowSchedule),
        Arc::new(DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap()),
    ]
}

fn exact() -> LikelihoodConfig {
    LikelihoodConfig { divergence: Divergence::Exact, tolerance: 1e-6, ..LikelihoodConfig::default() }
}

fn unobserved(_: usize, _: f64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn run<P: ExactPrior>(prior: &Oracle<P>, x: &Batch, config: &LikelihoodConfig) -> Result<Vec<LogDensity>> {
    log_density(prior, x, config, &Streams::new(7, 0..x.dim().0 as u32), &mut unobserved)
}

/// Images of the prior with noise of the lowest level, and their density.
fn images<P: ExactPrior>(prior: &Oracle<P>, n: u32) -> (Batch, Vec<f64>) {
    let schedule = prior.schedule();
    let sigma = Level::at(schedule, lowest_time(schedule)).sigma_edm();
    let x0 = prior.prior().sample(&Streams::new(3, 0..n));
    let noise = crate::Noise::normal(&mut Streams::new(5, 0..n), 0, Purpose::Start, n as usize, element_shape(&x0));
    let x = x0 + sigma * noise;
    let log_density = prior.prior().log_density(&x, Scales { alpha: 1.0, sigma }).unwrap();
    (x, log_density)
}

/// With an exact divergence, to 1e-4 nats a dimension: the prior's own end on every schedule, and the noise's where it is high enough.
#[test]
fn exact_divergence_gives_the_density() {
    fn check<P: ExactPrior>(name: &str, prior: P) {
        for schedule in schedules() {
            let oracle = Oracle::new(prior.clone(), schedule);
            let (x, want) = images(&oracle, 6);
            for (got, want) in run(&oracle, &x, &exact()).unwrap().iter().zip(want) {
                let error = (got.corrected() - want) / D as f64;
                assert!(error.abs() < 1e-4, "{name} on {:?}: {error:.1e} nats a dimension, {got:?}", oracle.schedule());
                assert_eq!((got.standard_error, got.d), (0.0, D));
            }
        }
        let high: [Arc<dyn Schedule>; 2] =
            [Arc::new(VeSchedule::new(0.01, 5e4).unwrap()), Arc::new(EdmSchedule::new(0.002, 5e4, 7.0).unwrap())];
        for schedule in high {
            let oracle = Oracle::new(prior.clone(), schedule);
            let (x, want) = images(&oracle, 6);
            let config = LikelihoodConfig { sigma_max: Some(5e4), ..exact() };
            for (got, want) in run(&oracle, &x, &config).unwrap().iter().zip(want) {
                assert!((got.nats - want).abs() < 1e-4 * D as f64, "{name}: {} {want}", got.nats);
            }
        }
    }
    check("gaussian", gaussian([0.5, -0.2, 0.1], 0.1));
    check("mixture", mixture());
}

/// The stated error of the end falls as `sigma_max^-3`, and is itself of order `1 / sigma_max`.
#[test]
fn the_ends_error_is_known_to_second_order() {
    let errors = [8.0, 32.0].map(|sigma_max| {
        let oracle = Oracle::new(mixture(), Arc::new(VeSchedule::new(0.01, sigma_max).unwrap()));
        let (x, want) = images(&oracle, 200);
        let config = LikelihoodConfig { tolerance: 1e-7, ..exact() };
        let got = run(&oracle, &x, &config).unwrap();
        let rms = |error: &dyn Fn(&LogDensity) -> f64| {
            let squares = got.iter().zip(&want).map(|(got, want)| (error(got) - want).powi(2));
            (squares.sum::<f64>() / want.len() as f64).sqrt()
        };
        [rms(&|got| got.nats), rms(&|got| got.corrected())]
    });
    let order = |k: usize| (errors[0][k] / errors[1][k]).log(4.0);
    assert!((0.8..1.4).contains(&order(0)) && (2.7..3.6).contains(&order(1)), "{errors:?}: {} {}", order(0), order(1));
}

/// The exact density lies within 2.576 standard errors of Hutchinson's estimate in 99 % of cases: at least 193 of 200, the 1 % quantile of
/// their binomial distribution less one for a spread that is estimated from 64 probes.
#[test]
fn hutchinsons_interval_holds_the_density() {
    let n = 200;
    for divergence in [Divergence::Rademacher(64), Divergence::Gaussian(64)] {
        let oracle = Oracle::new(mixture(), Arc::new(VpSchedule::default()));
        let (x, _) = images(&oracle, n);
        let config = LikelihoodConfig { divergence, tolerance: 1e-5, ..exact() };
        let (estimates, exact) = (run(&oracle, &x, &config).unwrap(), run(&oracle, &x, &exact()).unwrap());
        let inside = |(got, want): &(&LogDensity, &LogDensity)| (got.nats - want.nats).abs() < 2.576 * got.standard_error;
        let inside = estimates.iter().zip(&exact).filter(inside).count();
        assert!(inside >= 193, "{divergence:?}: {inside} of {n}");
        assert!(estimates.iter().all(|got| got.standard_error < 2.0));
    }
}

/// On a diagonal Gaussian a probe of signs is exact: `v^T J v` is the trace.
#[test]
fn signs_are_exact_for_a_diagonal_covariance() {
    let prior = Gaussian::new(&[0.1, 0.2, 0.3], &array![[0.5, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 2.0]], [1, 1, D]).unwrap();
    let oracle = Oracle::new(prior, Arc::new(VpSchedule::default()));
    let (x, want) = images(&oracle, 3);
    let config = LikelihoodConfig { divergence: Divergence::Rademacher(2), ..exact() };
    for (got, want) in run(&oracle, &x, &config).unwrap().iter().zip(want) {
        assert!((got.corrected() - want).abs() < 3e-4 && got.standard_error < 1e-9, "{got:?} {want}");
    }
}

/// Sample 2 of 3 is sample 2 alone, whatever enters the denoiser at once.
#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let oracle = Oracle::new(mixture(), Arc::new(VpSchedule::default()));
    let (x, _) = images(&oracle, 3);
    let config = LikelihoodConfig { divergence: Divergence::Gaussian(5), tolerance: 1e-4, ..exact() };
    let all = run(&oracle, &x, &config).unwrap();
    let last = x.slice_axis(Axis(0), Slice::from(2..3)).to_owned();
    let streams = Streams::new(7, 2..3);
    for chunk in [1, 2, 64] {
        let alone = log_density(&oracle, &last, &LikelihoodConfig { chunk, ..config }, &streams, &mut unobserved).unwrap();
        assert!((alone[0].nats - all[2].nats).abs() < 1e-12, "{chunk}: {alone:?} {:?}", all[2]);
    }
}

/// 8 bits: uniform images in `[-1 - w / 2, 1 + w / 2]` cost 8 bits a dimension.
#[test]
fn a_uniform_density_costs_its_bits() {
    let dequantisation = Dequantisation::EIGHT_BITS;
    let nats = -10.0 * (256.0 * dequantisation.width()).ln();
    assert!((dequantisation.bits_per_dim(nats, 10) - 8.0).abs() < 1e-13);
    assert!((dequantisation.bits_per_dim(0.0, 10) - 127.5f64.log2()).abs() < 1e-13);
    let images = Batch::from_elem((2, 1, 30, 30), -1.0);
    let moved = dequantisation.dequantise(&images, &Streams::new(1, 0..2));
    let shift = (&moved - &images) / dequantisation.width();
    let (mean, square) = (shift.mean().unwrap(), shift.mapv(|u| u * u).mean().unwrap());
    assert!(shift.iter().all(|u| u.abs() <= 0.5) && mean.abs() < 0.03 && (square - 1.0 / 12.0).abs() < 0.006, "{mean} {square}");
}

#[test]
fn what_cannot_be_integrated_is_refused() {
    let oracle = Oracle::new(mixture(), Arc::new(VeSchedule::default()));
    let (x, _) = images(&oracle, 2);
    let streams = Streams::new(7, 0..2);
    let refused = |config: LikelihoodConfig| run(&oracle, &x, &config).unwrap_err().to_string();
    assert!(refused(LikelihoodConfig { sigma_min: Some(0.001), ..exact() }).contains("0.01 <= sigma_min"));
    assert!(refused(LikelihoodConfig { sigma_max: Some(60.0), ..exact() }).contains("sigma_max"));
    assert!(refused(LikelihoodConfig { tolerance: 0.0, ..exact() }).contains("tolerance"));
    assert!(refused(LikelihoodConfig { divergence: Divergence::Gaussian(1), ..exact() }).contains("at least 2"));
    let streams_missing = log_density(&oracle, &x, &exact(), &Streams::new(7, 0..1), &mut unobserved);
    assert!(matches!(streams_missing, Err(Error::Shape { .. })));
    let bad = Batch::from_elem((1, 1, 1, D), f64::NAN);
    assert!(matches!(run(&oracle, &bad, &exact()), Err(Error::NotFinite { sample: 0, .. })));
    let mut stop_in_the_second = |image, _| if image == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let stopped = log_density(&oracle, &x, &exact(), &streams, &mut stop_in_the_second);
    assert!(matches!(stopped, Err(Error::Stopped { done: 1, steps: 2 })));
}
