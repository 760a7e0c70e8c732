//! Conditioned denoisers: `mmps`, `pigdm`, `dps`.

use super::*;

#[test]
fn mmps_is_the_posterior_mean_of_a_gaussian() {
    let prior = gaussian();
    for (name, op) in operators() {
        for solver in [LinearSolver::Gmres, LinearSolver::Cg] {
            let measurement = measure(&prior, &op, SIGMA_Y, 3);
            let denoiser = Oracle::new(prior.clone(), schedule());
            let exact = Oracle::new(prior.posterior(&measurement).unwrap(), schedule());
            let guidance = Mmps { solver, ..exact_mmps() };
            let conditioned = Conditioned::new(&denoiser, &measurement, &guidance).unwrap();
            for t in [0.05, 0.4, 0.9] {
                let level = Level::at(denoiser.schedule(), t);
                let x = noise(3, SHAPE, 5);
                let error = conditioned.x0_hat(&x, level).unwrap() - exact.x0_hat(&x, level).unwrap();
                assert!(largest(&error) < 1e-7, "{name}, t = {t}: {error}");
                // So is its vector-Jacobian product.
                let w = noise(3, SHAPE, 6);
                let error = (conditioned.linearize(&x, level).unwrap().vjp)(&w).unwrap()
                    - (exact.linearize(&x, level).unwrap().vjp)(&w).unwrap();
                assert!(largest(&error) < 1e-7, "{name}, t = {t}: {error}");
            }
            let report = conditioned.report();
            assert!(report.not_converged == 0 && report.worst_residual < 1e-9 && report.worst_pair_asymmetry < 1e-9, "{report:?}");
        }
    }
}

#[test]
fn two_guidances_are_one_of_both_measurements() {
    let (prior, denoiser) = (gaussian(), Oracle::new(gaussian(), schedule()));
    let matrix = random_matrix(5, D, 8);
    let halves = [0..2, 2..5].map(|rows| Dense::new(matrix.slice(ndarray::s![rows, ..]).to_owned(), SHAPE).unwrap());
    let both = Dense::new(matrix, SHAPE).unwrap();
    let whole = measure(&prior, &both, SIGMA_Y, 9);
    let part = |i: usize, range: std::ops::Range<usize>| {
        Measurement::new(&halves[i], whole.y.slice(ndarray::s![.., .., .., range]).to_owned(), SIGMA_Y).unwrap()
    };
    let (first, second) = (part(0, 0..2), part(1, 2..5));
    let guidance = exact_mmps();
    let inner = Conditioned::new(&denoiser, &first, &guidance).unwrap();
    let outer = Conditioned::new(&inner, &second, &guidance).unwrap();
    let once = Conditioned::new(&denoiser, &whole, &guidance).unwrap();
    let level = Level::at(denoiser.schedule(), 0.3);
    let x = noise(4, SHAPE, 10);
    let error = outer.x0_hat(&x, level).unwrap() - once.x0_hat(&x, level).unwrap();
    assert!(largest(&error) < 1e-7, "{error}");
}

#[test]
fn pigdm_is_the_posterior_mean_of_a_white_gaussian_with_and_without_a_decomposition() {
    let variance = 0.6;
    let prior = Gaussian::new(&[0.1; D], &(ndarray::Array2::eye(D) * variance), SHAPE).unwrap();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let guidance = Pigdm { prior_variance: variance, tolerance: 1e-12, max_iterations: 100 };
    let check = |name: &str, op: &dyn Operator| {
        let measurement = measure(&prior, op, SIGMA_Y, 3);
        let exact = Oracle::new(prior.posterior(&measurement).unwrap(), schedule());
        let conditioned = Conditioned::new(&denoiser, &measurement, &guidance).unwrap();
        for t in [0.05, 0.4, 0.9] {
            let (x, level) = (noise(3, SHAPE, 5), Level::at(denoiser.schedule(), t));
            let error = conditioned.x0_hat(&x, level).unwrap() - exact.x0_hat(&x, level).unwrap();
            assert!(largest(&error) < 1e-9, "{name}, t = {t}: {error}");
        }
    };
    for (name, op) in operators() {
        check(name, &op);
        check(name, &OnlyAdjoint(op));
    }
}

/// On a Gaussian everything is affine, so the moments are exact and show the discretisation alone: order 1 for DDIM's drift and for
/// its noise, order 2 for Heun and DPM-Solver++(2M).
#[test]
fn mmps_approaches_the_posterior_with_the_samplers_order() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let guidance = exact_mmps();
    for (name, op) in operators() {
        let measurement = measure(&prior, &op, SIGMA_Y, 3);
        let exact = Moments::exact(&prior.posterior(&measurement).unwrap());
        let conditioned = Conditioned::new(&denoiser, &measurement, &guidance).unwrap();
        for (sampler, eta, order, bound) in
            [("ddim", 0.0, 1.0, 0.05), ("ddim", 1.0, 1.0, 0.09), ("heun", 0.0, 2.0, 0.002), ("dpmpp-2m", 0.0, 2.0, 0.002)]
        {
            let errors: Vec<Errors> = [40, 80, 160]
                .into_iter()
                .map(|steps| {
                    let grid = Grid::log_snr(denoiser.schedule(), steps).unwrap();
                    let mut sampler =
                        sampler_by_name(sampler, &SamplerOptions { eta: Some(eta), ..SamplerOptions::default() }).unwrap();
                    moments(&mut *sampler, &conditioned, &grid, SHAPE, draws(&grid, eta > 0.0)).error(&exact)
                })
                .collect();
            let slope = (errors[0].covariance / errors[1].covariance).log2();
            println!("{name} {sampler} {eta} slope {slope} {errors:?}");
            // The start's neglected signal leaves a mean error of 2e-4.
            assert!(errors[2].mean < 1e-3 && errors[2].covariance < bound, "{name} {sampler} {eta}: {errors:?}");
            assert!(slope > order - 0.3, "{name} {sampler} {eta}: slope {slope}, {errors:?}");
        }
    }
}

/// Whatever the schedule: one that starts without signal, ones that do not preserve the variance, one that ends in noise.
#[test]
fn mmps_serves_every_schedule() {
    let prior = gaussian();
    let op = Dense::new(circulant(), SHAPE).unwrap();
    let measurement = measure(&prior, &op, SIGMA_Y, 3);
    let exact = Moments::exact(&prior.posterior(&measurement).unwrap());
    let schedules: [std::sync::Arc<dyn Schedule>; 4] = [
        std::sync::Arc::new(RectifiedFlowSchedule),
        std::sync::Arc::new(CosineSchedule),
        std::sync::Arc::new(VeSchedule::new(0.002, 500.0).unwrap()),
        std::sync::Arc::new(DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap()),
    ];
    for schedule in schedules {
        let grid = match Level::at(&*schedule, 1.0).alpha < 1e-6 {
            true => Grid::uniform(&*schedule, 200).unwrap(),
            false => Grid::log_snr(&*schedule, 200).unwrap(),
        };
        let denoiser = Oracle::new(prior.clone(), schedule.clone());
        let guidance = exact_mmps();
        let conditioned = Conditioned::new(&denoiser, &measurement, &guidance).unwrap();
        let errors = moments(&mut Ddim { eta: 0.0, clip: None }, &conditioned, &grid, SHAPE, 1).error(&exact);
        let name = format!("{schedule:?}").chars().take(30).collect::<String>();
        println!("{name}: {errors:?}");
        assert!(errors.mean < 0.02 && errors.covariance < 0.06, "{name}: {errors:?}");
    }
}

/// At any level, the wrapper's displacement of a DDPM step is the paper's `-zeta grad |r|`, `1000 / T` of them, up to O(1 / T).
#[test]
fn dps_is_the_papers_update_in_a_ddpm_step() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = Dense::new(random_matrix(3, D, 1), SHAPE).unwrap();
    let measurement = measure(&prior, &op, SIGMA_Y, 3);
    let guidance = Dps { zeta: 0.3 };
    let conditioned = Conditioned::new(&denoiser, &measurement, &guidance).unwrap();
    let x = noise(5, SHAPE, 4);
    let worst = |steps: usize| {
        let grid = Grid::uniform(denoiser.schedule(), steps).unwrap();
        let mut worst: f64 = 0.0;
        for index in (0..steps - steps / 10).step_by(steps / 25) {
            let step = |denoiser: &dyn Denoiser| {
                let step = Step { grid: &grid, index, denoiser };
                Ddpm::default().step(&step, &x, &mut Streams::new(1, 0..5)).unwrap().x
            };
            let displacement = step(&conditioned) - step(&denoiser);
            // The paper's: grad |r| = -J^T A^T r / |r|, of each sample for itself.
            let Linearized { x0_hat, mut vjp } = denoiser.linearize(&x, grid.steps[index].from).unwrap();
            let mut unit = op.forward(&x0_hat) - &measurement.y;
            let norms: Vec<f64> = norm_sq(&unit).into_iter().map(|square| 1.0 / square.sqrt()).collect();
            scale_samples(&mut unit, &norms);
            let paper = vjp(&op.adjoint(&unit)).unwrap() * (-0.3 * 1000.0 / steps as f64);
            for (error, size) in norm_sq(&(&displacement - &paper)).into_iter().zip(norm_sq(&paper)) {
                worst = worst.max((error / size).sqrt());
            }
        }
        worst
    };
    let errors = [250, 500, 1000, 2000].map(worst);
    println!("dps against the paper's update: {errors:?}");
    assert!(errors[2] < 0.02, "{errors:?}");
    for pair in errors.windows(2) {
        assert!((1.8..2.2).contains(&(pair[0] / pair[1])), "{errors:?}");
    }
}
