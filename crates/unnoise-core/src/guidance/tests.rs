//! Guidance against closed forms and finite differences.

use std::sync::Arc;

use ndarray::{Array2, array};

use super::*;
use crate::{
    Batch, Clamped, Counted, Denoiser, Evaluations, ExactPrior, Gaussian, GaussianMixture, Level, Noise, Oracle, Prediction,
    Purpose, RectifiedFlowSchedule, Schedule, Shape, Streams, VeSchedule, VpSchedule, dot, samples,
};

const SHAPE: Shape = [1, 2, 3];

fn draw(step: usize, n: u32) -> Batch {
    Streams::new(4, 0..n).normal(step, Purpose::Auxiliary, n as usize, SHAPE)
}

fn gaussian(mean: f64, factor: f64) -> Gaussian {
    let d = SHAPE.iter().product();
    let covariance = Array2::from_shape_fn((d, d), |(i, j)| factor * if i == j { 1.0 } else { 0.3 / (1 + i.abs_diff(j)) as f64 });
    let mean: Vec<f64> = (0..d).map(|i| mean + 0.2 * i as f64).collect();
    Gaussian::new(&mean, &covariance, SHAPE).unwrap()
}

fn mixture() -> GaussianMixture {
    GaussianMixture::new(&[1.0, 2.0], vec![gaussian(1.0, 0.4), gaussian(-1.2, 0.8)]).unwrap()
}

fn vp() -> Arc<dyn Schedule> {
    Arc::new(VpSchedule::default())
}

fn oracle<P: ExactPrior>(prior: P) -> Oracle<P> {
    Oracle::new(prior, vp())
}

fn largest_difference(a: &Batch, b: &Batch) -> f64 {
    (a - b).iter().fold(0.0, |worst, d| worst.max(d.abs()))
}

/// Every guidance, on a conditional Gaussian and an unconditional mixture.
fn guidances(schedule: &Arc<dyn Schedule>) -> Vec<(&'static str, Box<dyn Denoiser>)> {
    let main = || Oracle::new(gaussian(1.0, 0.4), Arc::clone(schedule));
    let guide = || Oracle::new(mixture(), Arc::clone(schedule));
    let guided = || Extrapolated::new(main(), guide(), 3.5).unwrap();
    let rescaled = |of| guided().rescaled(0.7, of).unwrap();
    vec![
        ("guided", Box::new(guided())),
        ("rescaled x0", Box::new(rescaled(Prediction::X0))),
        ("rescaled eps", Box::new(rescaled(Prediction::Eps))),
        ("rescaled v", Box::new(rescaled(Prediction::V))),
        ("rescaled velocity", Box::new(rescaled(Prediction::Velocity))),
        ("thresholded", Box::new(Thresholded::new(main(), 0.75, f64::INFINITY).unwrap())),
        ("thresholded at a value", Box::new(Thresholded::new(main(), 0.8, f64::INFINITY).unwrap())),
        ("thresholded at the largest", Box::new(Thresholded::new(main(), 0.9, 1.1).unwrap())),
        ("thresholded guidance", Box::new(Thresholded::new(rescaled(Prediction::V), 0.9, 4.0).unwrap())),
        ("guided thresholds", {
            let [main, guide] =
                [Oracle::new(gaussian(1.0, 0.4), Arc::clone(schedule)), Oracle::new(gaussian(-1.0, 2.0), Arc::clone(schedule))];
            let thresholded = |oracle| Thresholded::new(oracle, 0.6, 2.0).unwrap();
            Box::new(Extrapolated::new(thresholded(main), thresholded(guide), 2.0).unwrap())
        }),
    ]
}

/// The products of every guidance against central differences, sample by sample.
#[test]
fn products_are_the_derivatives() {
    let schedules: [Arc<dyn Schedule>; 3] = [vp(), Arc::new(VeSchedule::new(0.01, 20.0).unwrap()), Arc::new(RectifiedFlowSchedule)];
    let (n, h) = (5, 1e-6);
    let (v, direction) = (draw(1, n), draw(2, n));
    let mut failures = Vec::new();
    for schedule in &schedules {
        for (name, denoiser) in guidances(schedule) {
            for t in [0.2, 0.5] {
                let level = Level::at(&**schedule, t);
                let x = 2.0 * draw(0, n);
                let mut at = denoiser.linearize(&x, level).unwrap();
                assert_eq!(at.x0_hat, denoiser.x0_hat(&x, level).unwrap(), "{name}");
                let moved = |h: f64| denoiser.x0_hat(&(&x + h * &direction), level).unwrap();
                let numerical = dot(&v, &((moved(h) - moved(-h)) / (2.0 * h)));
                let exact = dot(&(at.vjp)(&v).unwrap(), &direction);
                for (numerical, exact) in numerical.iter().zip(exact) {
                    if (numerical - exact).abs() > 1e-7 * exact.abs().max(1.0) {
                        failures.push(format!("{name} at {t} of {schedule:?}: {numerical} {exact}"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Guidance of two Gaussians of one covariance is the denoiser of the Gaussian whose mean is extrapolated; of two isotropic ones whose
/// covariances differ, every value's gain and offset are extrapolated.
#[test]
fn guidance_of_gaussians_is_known() {
    let (x, level) = (draw(0, 3), Level::at(&VpSchedule::default(), 0.4));
    let guided = Extrapolated::new(oracle(gaussian(1.0, 0.4)), oracle(gaussian(-0.5, 0.4)), 2.5).unwrap();
    let want = oracle(gaussian(2.5 * 1.0 - 1.5 * -0.5, 0.4)).x0_hat(&x, level).unwrap();
    assert!(largest_difference(&guided.x0_hat(&x, level).unwrap(), &want) < 1e-13);

    let isotropic = |mean: f64, variance: f64| Gaussian::new(&[mean], &array![[variance]], [1, 1, 1]).unwrap();
    let guided = Extrapolated::new(oracle(isotropic(1.0, 0.3)), oracle(isotropic(0.2, 2.0)), 2.5).unwrap();
    let Level { alpha, sigma, .. } = level;
    let mean = |m: f64, variance: f64, x: f64| m + alpha * variance / (alpha * alpha * variance + sigma * sigma) * (x - alpha * m);
    let want = 2.5 * mean(1.0, 0.3, 0.7) - 1.5 * mean(0.2, 2.0, 0.7);
    let got = guided.x0_hat(&Batch::from_elem((1, 1, 1, 1), 0.7), level).unwrap()[[0, 0, 0, 0]];
    assert!((got - want).abs() < 1e-14, "{got} {want}");
}

/// Scale 1, and any scale outside the interval, is the conditional prior, and costs what it costs; scale 0 is the guide.
#[test]
fn without_guidance_the_guide_is_not_asked() {
    let (x, level) = (draw(0, 2), Level::at(&VpSchedule::default(), 0.4));
    let s = level.sigma_edm();
    let (main, guide) = (oracle(gaussian(1.0, 0.4)), Counted::new(oracle(mixture())));
    let at = |scale, interval: Option<[f64; 2]>| {
        let guided = Extrapolated::new(&main, &guide, scale).unwrap();
        let guided = match interval {
            Some([low, high]) => guided.within(low..=high).unwrap(),
            None => guided,
        };
        let (mean, linearized) = (guided.x0_hat(&x, level).unwrap(), guided.linearize(&x, level).unwrap().x0_hat);
        assert_eq!(mean, linearized);
        mean
    };
    let unguided = main.x0_hat(&x, level).unwrap();
    for (scale, interval) in [(1.0, None), (3.0, Some([0.0, 0.9 * s])), (3.0, Some([1.1 * s, 1e9])), (1.0, Some([0.0, 1e9]))] {
        assert_eq!(at(scale, interval), unguided);
    }
    assert_eq!(guide.evaluations(), Evaluations::default());
    assert_eq!(at(0.0, None), oracle(mixture()).x0_hat(&x, level).unwrap());
    assert_eq!(at(3.0, None), at(3.0, Some([s, s])));
    assert!(largest_difference(&at(3.0, None), &unguided) > 0.1);
}

/// A full rescaling gives every sample the spread of its own conditional prediction, and a sample is rescaled as it is alone.
#[test]
fn rescaling_restores_each_samples_spread() {
    let level = Level::at(&VpSchedule::default(), 0.4);
    let (main, guide) = (oracle(gaussian(1.0, 0.4)), oracle(mixture()));
    let x = 3.0 * draw(0, 4);
    let spread = |batch: &Batch| samples(batch).map(|sample| sample.std(1.0)).collect::<Vec<_>>();
    for of in [Prediction::X0, Prediction::Eps, Prediction::V] {
        let rescaled = Extrapolated::new(&main, &guide, 4.0).unwrap().rescaled(1.0, of).unwrap();
        let schedule = VpSchedule::default();
        let predicted = |x0: Batch| crate::convert(&x0, Prediction::X0, of, &x, level, &schedule).unwrap();
        let all = rescaled.x0_hat(&x, level).unwrap();
        let got = spread(&predicted(all.clone()));
        let want = spread(&predicted(main.x0_hat(&x, level).unwrap()));
        assert!(got.iter().zip(&want).all(|(got, want)| (got / want - 1.0).abs() < 1e-10), "{of:?} {got:?} {want:?}");
        for i in 0..4 {
            let row = ndarray::Slice::from(i..i + 1);
            let alone = rescaled.x0_hat(&x.slice_axis(ndarray::Axis(0), row).to_owned(), level).unwrap();
            assert!(largest_difference(&alone, &all.slice_axis(ndarray::Axis(0), row).to_owned()) < 1e-14);
        }
    }
    // No signal: eps does not determine x0, v does.
    let start = Level { t: 1.0, alpha: 0.0, sigma: 1.0 };
    let rescaled = |of| Extrapolated::new(&main, &guide, 4.0).unwrap().rescaled(0.5, of).unwrap().x0_hat(&x, start);
    assert!(rescaled(Prediction::Eps).unwrap_err().to_string().contains("alpha = 0"));
    assert!(rescaled(Prediction::V).unwrap().iter().all(|v| v.is_finite()));
}

/// diffusers 0.42.1, `DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=...)._threshold_sample`.
#[test]
fn thresholds_are_those_of_diffusers() {
    struct Fixed(Batch);
    impl Denoiser for Fixed {
        fn schedule(&self) -> &dyn Schedule {
            &RectifiedFlowSchedule
        }
        fn x0_hat(&self, _: &Batch, _: Level) -> crate::Result<Batch> {
            Ok(self.0.clone())
        }
        fn linearize<'a>(&'a self, _: &Batch, _: Level) -> crate::Result<crate::Linearized<'a>> {
            Ok(crate::Linearized { x0_hat: self.0.clone(), vjp: Box::new(|v| Ok(v.clone())) })
        }
    }
    let values = vec![0.5, -2.0, 1.5, 3.0, -0.25, 0.1, 0.2, -0.4, 0.8, 0.3, 5.0, 9.0];
    let x0 = Fixed(Batch::from_shape_vec((3, 1, 2, 2), values).unwrap());
    let cases: [(f64, [f64; 12]); 2] = [
        (2.0, [0.25, -1.0, 0.75, 1.0, -0.25, 0.1, 0.2, -0.4, 0.4, 0.15, 1.0, 1.0]),
        (100.0, [0.208333333, -0.833333333, 0.625, 1.0, -0.25, 0.1, 0.2, -0.4, 0.121212121, 0.045454545, 0.757575758, 1.0]),
    ];
    for (largest, want) in cases {
        let got = Thresholded::new(&x0, 0.8, largest).unwrap().x0_hat(&x0.0, Level::CLEAN).unwrap();
        let worst = got.iter().zip(want).fold(0.0_f64, |worst, (got, want)| worst.max((got - want).abs()));
        assert!(worst < 1e-6, "{largest}: {got}");
    }
}

/// A threshold around guidance bounds it; guidance around thresholds leaves their range.
#[test]
fn the_order_of_wrapping_is_the_order_of_operations() {
    let level = Level::at(&VpSchedule::default(), 0.4);
    let (main, guide) = (oracle(gaussian(1.0, 0.4)), oracle(gaussian(-1.0, 0.4)));
    let x = draw(0, 4);
    let largest = |batch: &Batch| batch.iter().fold(0.0_f64, |largest, v| largest.max(v.abs()));
    let guided = Extrapolated::new(&main, &guide, 5.0).unwrap();
    let [inner_main, inner_guide] = [&main, &guide].map(|oracle| Clamped::new(oracle, 1.0));
    let clamped_first = Extrapolated::new(&inner_main, &inner_guide, 5.0).unwrap().x0_hat(&x, level).unwrap();
    let clamped_last = Clamped::new(&guided, 1.0).x0_hat(&x, level).unwrap();
    let thresholded_last = Thresholded::new(&guided, 0.9, f64::INFINITY).unwrap().x0_hat(&x, level).unwrap();
    assert_eq!(largest(&clamped_last), 1.0);
    assert_eq!(largest(&thresholded_last), 1.0);
    assert!(largest(&clamped_first) > 3.0);
    let by_hand = 5.0 * inner_main.x0_hat(&x, level).unwrap() - 4.0 * inner_guide.x0_hat(&x, level).unwrap();
    assert!(largest_difference(&clamped_first, &by_hand) < 1e-14);
    // Two guidances: away from the guide, then away from a third.
    let third = oracle(mixture());
    let twice = Extrapolated::new(&guided, &third, 2.0).unwrap().x0_hat(&x, level).unwrap();
    let by_hand = 2.0 * guided.x0_hat(&x, level).unwrap() - third.x0_hat(&x, level).unwrap();
    assert!(largest_difference(&twice, &by_hand) < 1e-14);
}

#[test]
fn settings_outside_their_domain_are_refused() {
    let (main, guide) = (oracle(gaussian(1.0, 0.4)), oracle(mixture()));
    let guided = || Extrapolated::new(&main, &guide, 2.0).unwrap();
    let messages = [
        Extrapolated::new(&main, &guide, f64::NAN).err(),
        guided().within(2.0..=1.0).err(),
        guided().within(-1.0..=1.0).err(),
        guided().rescaled(1.5, Prediction::X0).err(),
        Thresholded::new(&main, 1.5, 2.0).err(),
        Thresholded::new(&main, 0.5, 0.5).err(),
    ];
    let messages = messages.map(|error| error.unwrap().to_string());
    assert!(messages.iter().all(|message| message.contains("must be") && message.contains("got")), "{messages:?}");
}
