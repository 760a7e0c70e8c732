//! Posterior methods against exact posteriors.

mod posterior_problems;

use posterior_problems::*;
use unnoise_core::*;

/// Tight enough for the solve not to matter.
fn exact_mmps() -> Mmps {
    Mmps { tolerance: 1e-10, max_iterations: 40, solver: LinearSolver::Gmres }
}

fn largest(a: &Batch) -> f64 {
    a.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()))
}

fn noise(n: u32, shape: Shape, seed: u64) -> Batch {
    Streams::new(seed, 0..n).normal(0, Purpose::Auxiliary, n as usize, shape)
}

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
            assert!(report.not_converged == 0 && report.worst_residual < 1e-9 && report.worst_asymmetry < 1e-9, "{report:?}");
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
                    let mut sampler = sampler_by_name(sampler, &SamplerOptions { eta, ..SamplerOptions::default() }).unwrap();
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

/// With few steps the chain's own prior is far from the true one, but known: a Gaussian. As particles grow `tds` samples its posterior,
/// which it would not with a wrong treatment of the last, noise-free step.
#[test]
fn tds_is_exact_for_the_chains_prior() {
    let shape = [1, 1, 2];
    let prior = Gaussian::new(&[0.3, -0.2], &ndarray::array![[0.8, 0.3], [0.3, 0.4]], shape).unwrap();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = Dense::new(ndarray::array![[1.0, -0.7]], shape).unwrap();
    let measurement = measure(&prior, &op, SIGMA_Y, 3);
    let grid = Grid::through(&[1.0, 0.7, 0.45, 0.3, 0.15, 0.0].map(|t| Level::at(denoiser.schedule(), t)));
    let chain = moments(&mut Ddim { eta: 1.0, clip: None }, &denoiser, &grid, shape, draws(&grid, true));
    let chain = Gaussian::new(&chain.mean.to_vec(), &chain.covariance, shape).unwrap();
    let exact = Moments::exact(&chain.posterior(&measurement).unwrap());
    let far = Moments::exact(&prior.posterior(&measurement).unwrap()).error(&exact);
    let tds = Tds { particles: 256, ..Tds::default() };
    let n = 4000;
    let estimated = Moments::estimated(&draw(&tds, &denoiser, &measurement, &grid, n));
    let deviation = exact.largest_deviation(&estimated, n as usize);
    println!("tds on the chain's prior: {deviation} standard errors; the true prior's posterior is off by {far:?}");
    // 2 means and 3 covariances at 99 % together.
    assert!(deviation < 3.1, "{deviation}");
    assert!(far.covariance > 0.2, "the test would not tell: {far:?}");
}

#[test]
fn tds_approaches_a_multimodal_posterior_with_particles() {
    let prior = mixture();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = mixture_operator();
    let measurement = measure(&prior, &op, 0.2, 5);
    let posterior = prior.posterior(&measurement).unwrap();
    assert!(posterior.weights().iter().filter(|weight| **weight > 0.05).count() >= 2, "{:?}", posterior.weights());
    let n = 1000;
    let exact = posterior.sample(&Streams::new(1, 0..n));
    let floor = distance(&exact, &posterior.sample(&Streams::new(2, 0..n)));
    let grid = Grid::log_snr(denoiser.schedule(), 50).unwrap();
    let distances = [1, 4, 32]
        .map(|particles| distance(&exact, &draw(&Tds { particles, ..Tds::default() }, &denoiser, &measurement, &grid, n)));
    println!("tds on a mixture, posterior weights {:?}: {distances:?}, floor {floor}", posterior.weights());
    assert!(distances[0] > 1.5 * distances[1] && distances[1] > 1.5 * distances[2], "{distances:?}");
    assert!(distances[2] < 2.0 * floor, "{distances:?}, floor {floor}");
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

/// Sample 2 of 4 is sample 2 alone, for every method; and the same run gives the same bits.
#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let prior = mixture();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = mixture_operator();
    let measurement = measure(&prior, &op, 0.2, 4);
    let grid = Grid::log_snr(denoiser.schedule(), 8).unwrap();
    for name in METHODS {
        let method = method_by_name(name, &serde_json::Value::Null).unwrap();
        let run = |samples| {
            let streams = Streams::new(3, samples);
            method.sample(&denoiser, &measurement, &grid, &streams, &mut unobserved).unwrap().x0
        };
        let (all, alone) = (run(0..4), run(2..3));
        let difference = largest(&(all.select(ndarray::Axis(0), &[2]) - alone));
        assert!(difference < 1e-12, "{name}: {difference:e}");
    }
}

/// What a method says it costs is what it takes.
#[test]
fn evaluations_are_as_announced() {
    let prior = gaussian();
    let op = Dense::new(random_matrix(3, D, 1), SHAPE).unwrap();
    let measurement = measure(&prior, &op, SIGMA_Y, 3);
    for name in METHODS {
        let denoiser = Counted::new(Oracle::new(prior.clone(), schedule()));
        let grid = Grid::log_snr(denoiser.schedule(), 7).unwrap();
        let method = method_by_name(name, &serde_json::Value::Null).unwrap();
        let drawn = method.sample(&denoiser, &measurement, &grid, &Streams::new(3, 0..3), &mut unobserved).unwrap();
        let (announced, taken) = (method.evaluations(&grid), denoiser.evaluations());
        assert_eq!(3 * announced.forward, taken.forward, "{name}");
        if name == "mmps" {
            let solver = drawn.diagnostics.solver.expect("mmps solves");
            assert!(taken.vjp <= 3 * announced.vjp && taken.vjp == solver.products + solver.solves, "{taken:?} {solver:?}");
            assert_eq!((solver.solves, solver.not_converged), (3 * 7, 0));
        } else {
            assert_eq!(3 * announced.vjp, taken.vjp, "{name}");
        }
    }
}

/// An oracle whose Jacobian is made asymmetric, as a network's is.
struct Skewed(Oracle<Gaussian>);

impl Denoiser for Skewed {
    fn schedule(&self) -> &dyn Schedule {
        self.0.schedule()
    }
    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        self.0.x0_hat(x, level)
    }
    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        let Linearized { x0_hat, mut vjp } = self.0.linearize(x, level)?;
        let skewed = move |v: &Batch| {
            let mut product = vjp(v)?;
            for (mut to, from) in product.outer_iter_mut().zip(v.outer_iter()) {
                to[[0, 0, 0]] += 0.2 * from[[0, 0, 1]];
            }
            Ok(product)
        };
        Ok(Linearized { x0_hat, vjp: Box::new(skewed) })
    }
}

#[test]
fn what_went_wrong_in_the_solves_is_reported() {
    let prior = gaussian();
    let op = Dense::new(circulant(), SHAPE).unwrap();
    let measurement = measure(&prior, &op, SIGMA_Y, 3);
    let (symmetric, skewed) = (Oracle::new(prior.clone(), schedule()), Skewed(Oracle::new(prior.clone(), schedule())));
    let report = |denoiser: &dyn Denoiser, max_iterations: usize| {
        let guidance = Mmps { max_iterations, ..exact_mmps() };
        let conditioned = Conditioned::new(denoiser, &measurement, &guidance).unwrap();
        conditioned.x0_hat(&noise(3, SHAPE, 1), Level::at(denoiser.schedule(), 0.3)).unwrap();
        conditioned.report()
    };
    let (good, short, asymmetric) = (report(&symmetric, 20), report(&symmetric, 2), report(&skewed, 20));
    assert!(good.not_converged == 0 && good.worst_asymmetry < 1e-12, "{good:?}");
    assert!((short.solves, short.products, short.not_converged) == (3, 9, 3) && short.worst_residual > 1e-3, "{short:?}");
    assert!(asymmetric.not_converged == 0 && asymmetric.worst_asymmetry > 1e-3, "{asymmetric:?}");
}

#[test]
fn impossible_pairs_list_the_possible() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = OnlyAdjoint(Dense::new(random_matrix(3, D, 1), SHAPE).unwrap());
    assert_eq!(possible_methods(&op), ["dps", "pigdm", "mmps", "tds"]);
    let exact = measure(&prior, &op, 0.0, 3);
    let noisy = Measurement::new(&op, exact.y.clone(), SIGMA_Y).unwrap();
    let (clean, open) = (
        Grid::log_snr(denoiser.schedule(), 5).unwrap(),
        Grid::through(&[1.0, 0.5, 0.1].map(|t| Level::at(denoiser.schedule(), t))),
    );
    for (name, measurement, grid, expected) in [
        (
            "ddnm-plus",
            &noisy,
            &clean,
            "ddnm-plus with the operator only-adjoint is not possible: it needs the singular value decomposition, which this operator \
             does not offer; possible: dps, pigdm, mmps, tds",
        ),
        (
            "diffpir",
            &noisy,
            &clean,
            "diffpir with the operator only-adjoint is not possible: it needs the proximal map, which this operator does not offer; \
             possible: dps, pigdm, mmps, tds",
        ),
        (
            "tds",
            &exact,
            &clean,
            "tds with sigma_y = 0 is not possible: no particle has a positive likelihood; possible: sigma_y > 0",
        ),
        (
            "tds",
            &noisy,
            &open,
            "tds with this grid is not possible: its chain does not end, or end only, without noise; possible: a grid to the clean image",
        ),
    ] {
        let method = method_by_name(name, &serde_json::Value::Null).unwrap();
        let error = method.sample(&denoiser, measurement, grid, &Streams::new(0, 0..1), &mut unobserved).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
