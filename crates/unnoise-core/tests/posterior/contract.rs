//! What every method promises: costs, streams, reports and refusals.

use super::*;

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
        let (announced, taken) = (method.evaluations(&grid).unwrap(), denoiser.evaluations());
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
    assert!(good.not_converged == 0 && good.worst_pair_asymmetry < 1e-12, "{good:?}");
    assert!((short.solves, short.products, short.not_converged) == (3, 9, 3) && short.worst_residual > 1e-3, "{short:?}");
    assert!(asymmetric.not_converged == 0 && asymmetric.worst_pair_asymmetry > 1e-3, "{asymmetric:?}");
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
