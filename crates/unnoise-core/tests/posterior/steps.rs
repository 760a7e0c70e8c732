//! Methods with a step rule of their own, and what the heuristics deviate by.

use super::*;

/// With the clean image known, what is left is noise: the measurement's and the fresh must make `sigma'^2` in every coordinate.
#[test]
fn ddnm_plus_accounts_for_all_noise() {
    let truth: Vec<f64> = (0..D).map(|i| 0.3 * (i as f64).cos()).collect();
    let point = Gaussian::new(&truth, &ndarray::Array2::zeros((D, D)), SHAPE).unwrap();
    let denoiser = Oracle::new(point, schedule());
    for (name, op) in operators() {
        let y = op.forward(&Batch::from_shape_vec((1, 1, 1, D), truth.clone()).unwrap());
        for t in [0.7, 0.4, 0.2, 0.1, 0.05] {
            let levels = [1.0, 0.85, t].map(|t| Level::at(denoiser.schedule(), t));
            let grid = Grid::through(&levels);
            let run = |y: Batch| {
                let measurement = Measurement::new(&op, y, SIGMA_Y).unwrap();
                let mut sampler = DdnmPlusSampler::new(&DdnmPlus { eta: 0.6 }, &measurement).unwrap();
                moments(&mut sampler, &denoiser, &grid, SHAPE, draws(&grid, true))
            };
            let base = run(y.clone());
            let mut covariance = base.covariance;
            for j in 0..op.measured() {
                let mut y = y.clone();
                y[[0, 0, 0, j]] += SIGMA_Y;
                let response = run(y).mean - &base.mean;
                for ((a, b), value) in covariance.indexed_iter_mut() {
                    *value += response[a] * response[b];
                }
            }
            let sigma = levels[2].sigma;
            for ((i, j), value) in covariance.indexed_iter() {
                let expected = if i == j { sigma * sigma } else { 0.0 };
                assert!((value - expected).abs() < 1e-10, "{name}, t = {t}, ({i}, {j}): {value}, not {expected}");
            }
        }
    }
}

/// Without noise, what claims to serve `sigma_y = 0` reproduces the measurement, redundant rows included.
#[test]
fn noiseless_measurements_are_reproduced() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let grid = Grid::log_snr(denoiser.schedule(), 20).unwrap();
    for (name, settings, bound) in [
        ("ddnm-plus", serde_json::json!({}), 1e-9),
        // Its covariance model is not the prior's, so only up to the last noise level squared.
        ("pigdm", serde_json::json!({}), 1e-3),
        ("mmps", serde_json::json!({ "tolerance": 1e-8 }), 1e-6),
        ("diffpir", serde_json::json!({}), 0.2),
    ] {
        let method = method_by_name(name, &settings).unwrap();
        for (case, matrix) in [("wide", random_matrix(3, D, 1)), ("tall", random_matrix(12, D, 2))] {
            let op = Dense::new(matrix, SHAPE).unwrap();
            let measurement = measure(&prior, &op, 0.0, 3);
            let misfit = largest(&(op.forward(&draw(&*method, &denoiser, &measurement, &grid, 5)) - &measurement.y));
            assert!(misfit < bound, "{name}, {case}: {misfit:e}");
        }
    }
}

/// One step against the formulas of the paper with the proximal point by dense normal equations.
#[test]
fn diffpir_is_its_box_in_the_paper() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let settings = DiffPir { lambda: 3.0, zeta: 0.4, ..DiffPir::default() };
    for (name, op) in operators() {
        let measurement = measure(&prior, &op, SIGMA_Y, 3);
        let [from, to] = [0.5, 0.45].map(|t| Level::at(denoiser.schedule(), t));
        let grid = Grid::through(&[from, to]);
        let (x, mut streams) = (noise(1, SHAPE, 2), Streams::new(7, 0..1));
        let mut sampler = DiffPirSampler::new(&settings, &measurement).unwrap();
        let stepped = sampler.step(&Step { grid: &grid, index: 0, denoiser: &denoiser }, &x, &mut streams).unwrap();

        let rho = settings.lambda * SIGMA_Y.powi(2) * from.alpha.powi(2) / from.sigma.powi(2);
        let x_hat = &stepped.x0_hat;
        let gradient = op.adjoint(&(op.forward(x_hat) - &measurement.y)) + (x_hat - &denoiser.x0_hat(&x, from).unwrap()) * rho;
        assert!(largest(&gradient) < 1e-10, "{name}: the proximal point is not stationary: {gradient}");
        let eps = (&x - &(x_hat * from.alpha)) / from.sigma;
        let z = streams.normal(0, Purpose::Step, 1, SHAPE);
        let expected = x_hat * to.alpha + (eps * 0.6f64.sqrt() + z * 0.4f64.sqrt()) * to.sigma;
        assert!(largest(&(expected - stepped.x)) < 1e-12, "{name}");
    }
}

/// The heuristics' deviation from the posterior, as documented: 100 steps, the circulant operator.
#[test]
fn heuristics_deviate_as_documented() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let operators = operators();
    let (_, op) = &operators[2];
    let measurement = measure(&prior, op, SIGMA_Y, 3);
    let exact = Moments::exact(&prior.posterior(&measurement).unwrap());
    let grid = Grid::log_snr(denoiser.schedule(), 100).unwrap();
    let affine = |sampler: &mut dyn Sampler, denoiser: &dyn Denoiser| {
        moments(sampler, denoiser, &grid, SHAPE, draws(&grid, true)).error(&exact)
    };
    let (pigdm, dps) = (Pigdm::default(), Guided { guidance: Dps { zeta: 0.03 }, run: Dps::default_run() });
    let conditioned = Conditioned::new(&denoiser, &measurement, &pigdm).unwrap();
    for (name, errors, expected, slack) in [
        ("pigdm", affine(&mut Ddim { eta: 1.0, clip: None }, &conditioned), [0.074, 0.111], 1.1),
        (
            "ddnm-plus",
            affine(&mut DdnmPlusSampler::new(&DdnmPlus::default(), &measurement).unwrap(), &denoiser),
            [0.644, 0.760],
            1.1,
        ),
        ("diffpir", affine(&mut DiffPirSampler::new(&DiffPir::default(), &measurement).unwrap(), &denoiser), [0.108, 0.152], 1.1),
        ("dps", Moments::estimated(&draw(&dps, &denoiser, &measurement, &grid, 1000)).error(&exact), [0.244, 0.498], 1.4),
    ] {
        println!("{name}: {errors:?}");
        for (error, expected) in [errors.mean, errors.covariance].into_iter().zip(expected) {
            assert!((expected / slack..expected * slack).contains(&error), "{name}: {errors:?}, documented {expected:?}");
        }
    }
}
