//! On a Gaussian prior every run is an affine map of its start and its noise. Its coefficients are read off the implementation, and
//! with them the mean and the covariance of what it draws are known exactly.

use std::sync::Arc;

use nalgebra::{DMatrix, DVector};
use ndarray::Array4;
use unnoise_core::{
    Batch, Denoiser, ExactPrior, Gaussian, Grid, Level, Noise, Oracle, Purpose, Sampler, Shape, Streams, start_noise,
};

use super::{D, Mode, SHAPE, modes, oracle, print_table, run, schedules, smooth_grid, vp};

/// A distribution's first two moments.
pub(super) struct Moments {
    pub(super) mean: DVector<f64>,
    pub(super) covariance: DMatrix<f64>,
}

impl Moments {
    /// Those of `alpha x0 + sigma eps`.
    pub(super) fn of_marginal(prior: &Gaussian, level: Level) -> Self {
        let (mean, covariance) = (prior.mean(), prior.covariance());
        let d = mean.len();
        let noise = DMatrix::identity(d, d) * level.sigma.powi(2);
        Self {
            mean: DVector::from_iterator(d, mean.iter().map(|m| level.alpha * m)),
            covariance: DMatrix::from_fn(d, d, |i, j| level.alpha.powi(2) * covariance[[i, j]]) + noise,
        }
    }

    /// The largest absolute difference of a mean or a covariance entry.
    fn distance(&self, other: &Self) -> f64 {
        (&self.mean - &other.mean).amax().max((&self.covariance - &other.covariance).amax())
    }
}

/// Feeds one unit vector at a time: row 0 is all zero, row `1 + k` starts at the unit vector `k`, and row `1 + d + (i p + j) d + k`
/// receives it as the noise of step `i` for the purpose `j` of the `p` that the sampler has.
struct Probe {
    d: usize,
    purposes: Vec<Purpose>,
}

impl Noise for Probe {
    fn normal(&mut self, step: usize, purpose: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        let first = match self.purposes.iter().position(|known| *known == purpose) {
            None => 1,
            Some(slot) => 1 + self.d * (1 + step * self.purposes.len() + slot),
        };
        Array4::from_shape_fn((n, c, h, w), |(row, _, _, k)| f64::from(row == first + k))
    }
}

/// Notes what noise is drawn for, and draws none.
#[derive(Default)]
struct Purposes(Vec<Purpose>);

impl Noise for Purposes {
    fn normal(&mut self, _: usize, purpose: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        if !self.0.contains(&purpose) {
            self.0.push(purpose);
        }
        Array4::zeros((n, c, h, w))
    }
}

/// The moments of a run's result, exactly, from those of its start.
pub(super) fn propagate(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, grid: &Grid, start: &Moments) -> Moments {
    let d = start.mean.len();
    let mut noted = Purposes::default();
    run(sampler, denoiser, grid, Array4::zeros((1, 1, 1, d)), &mut noted);
    let rows = 1 + d + grid.steps.len() * noted.0.len() * d;
    let mut probe = Probe { d, purposes: noted.0 };
    let x = probe.normal(0, Purpose::Start, rows, [1, 1, d]);
    let result = run(sampler, denoiser, grid, x, &mut probe);
    let response = |row: usize| DVector::from_fn(d, |k, _| result[[row, 0, 0, k]]);
    let constant = response(0);
    // Columns: the start's coefficients, then each draw's.
    let linear = DMatrix::from_columns(&(1..rows).map(|row| response(row) - &constant).collect::<Vec<_>>());
    let (of_start, of_noise) = (linear.columns(0, d), linear.columns(d, rows - 1 - d));
    Moments {
        mean: of_start * &start.mean + constant,
        covariance: of_start * &start.covariance * of_start.transpose() + of_noise * of_noise.transpose(),
    }
}

fn from_marginal(sampler: &mut dyn Sampler, grid: &Grid) -> Moments {
    let start = Moments::of_marginal(oracle(vp()).prior(), grid.steps[0].from);
    propagate(sampler, &oracle(vp()), grid, &start)
}

/// 40,000 samples of every mode agree with the exact moments of its 12 steps. With 9 moments in up to 60 modes, 4.3 standard errors
/// each hold all of them at 99 %.
#[test]
fn the_implementation_has_its_own_exact_moments() {
    let (n, limit) = (40_000, 4.3);
    let grid = Grid::karras(&*vp(), 12).unwrap();
    let start = Moments { mean: DVector::zeros(D), covariance: DMatrix::identity(D, D) * grid.start.powi(2) };
    let mut rows = Vec::new();
    for Mode { name, mut sampler, .. } in modes().into_iter().filter(|mode| mode.is_affine()) {
        let exact = propagate(sampler.as_mut(), &oracle(vp()), &grid, &start);
        let mut streams = Streams::new(2024, 0..n);
        let x = start_noise(&grid, &mut streams, n as usize, SHAPE);
        let drawn = run(sampler.as_mut(), &oracle(vp()), &grid, x, &mut streams);
        let count = f64::from(n);
        let value = |row: usize, k: usize| drawn[[row, 0, 0, k]] - exact.mean[k];
        let mut worst: f64 = 0.0;
        for i in 0..D {
            let mean: f64 = (0..n as usize).map(|row| value(row, i)).sum::<f64>() / count;
            let z = mean / (exact.covariance[(i, i)] / count).sqrt();
            worst = worst.max(z.abs());
            assert!(z.abs() < limit, "{name}: mean {i} is {z:.2} standard errors off");
            for j in 0..=i {
                let product: f64 = (0..n as usize).map(|row| value(row, i) * value(row, j)).sum::<f64>() / count;
                let c = &exact.covariance;
                let z = (product - c[(i, j)]) / ((c[(i, j)].powi(2) + c[(i, i)] * c[(j, j)]) / count).sqrt();
                worst = worst.max(z.abs());
                assert!(z.abs() < limit, "{name}: covariance {i},{j} is {z:.2} standard errors off");
            }
        }
        let bias = exact.distance(&Moments::of_marginal(oracle(vp()).prior(), Level::CLEAN));
        rows.push(vec![name.to_owned(), format!("{worst:.2}"), format!("{bias:.1e}")]);
    }
    print_table("Exact moments", &["sampler", "worst of 9 moments, in standard errors", "bias of 12 steps"], &rows);
}

/// The moments' error at the end of `smooth_grid`, from the exact marginal at its start to the exact one at its end, falls with the
/// weak order. EDM's noise is added exactly, so that it keeps Heun's order with churn.
#[test]
fn bias_falls_with_the_weak_order() {
    let mut rows = Vec::new();
    for Mode { name, mut sampler, weak_order, .. } in modes() {
        let Some(order) = weak_order else { continue };
        let mut error = |n: usize| {
            let grid = smooth_grid(n);
            let end = Moments::of_marginal(oracle(vp()).prior(), grid.steps[n - 1].to);
            from_marginal(sampler.as_mut(), &grid).distance(&end)
        };
        let (coarse, fine) = (error(240), error(480));
        let slope = (coarse / fine).log2();
        rows.push(vec![name.to_owned(), order.to_string(), format!("{slope:.3}"), format!("{fine:.1e}")]);
        assert!((slope - order).abs() < 0.1, "{name}: slope {slope:.3} instead of {order}");
    }
    print_table("Weak order", &["sampler", "weak order", "slope, N = 240 to 480", "largest error of a moment at 480"], &rows);
}

/// For `N(0, 1)` the variance tends to 1 on every schedule, for every sampler and eta, from the marginal of the start.
#[test]
fn unit_variance_is_kept_on_every_schedule() {
    let (prior, schedules) = (Gaussian::standard([1, 1, 1]), schedules());
    let (mut failures, mut rows) = (Vec::new(), Vec::new());
    for Mode { name, mut sampler, .. } in modes().into_iter().filter(|mode| mode.is_affine()) {
        let mut worst = ([0.0; 3], "");
        for (schedule_name, schedule) in &schedules {
            let denoiser = Oracle::new(prior.clone(), Arc::clone(schedule));
            let grids = [10, 100, 1000].map(|n| Grid::uniform(&**schedule, n).unwrap());
            if sampler.check(&grids[0]).is_err() {
                continue;
            }
            let errors = grids.each_ref().map(|grid| {
                let start = Moments::of_marginal(&prior, grid.steps[0].from);
                (propagate(sampler.as_mut(), &denoiser, grid, &start).covariance[(0, 0)] - 1.0).abs()
            });
            // What is left when all else is exact: the last step returns x0, whose variance is 1 / (1 + s^2). Where s^2 leaves 0 like the root
            // of t (laplace), no number of equal steps of t is large: s^2 falls like n^-1/2 and the last steps divide it by the same
            // factors for any n, each with an error of its size.
            let last = grids.each_ref().map(|grid| grid.steps.last().unwrap().from.sigma_edm().powi(2));
            let fall = |k: usize| f64::max(0.5, 1.9 * last[k] / last[k - 1]);
            // Ten steps may lie at a zero of the error: then it has to fall with the second order from a hundred on.
            let second = errors[1] < 0.05 && errors[2] < 0.05 * errors[1];
            let falls = (1..3).all(|k| errors[k] < fall(k) * errors[k - 1] || errors[k] < 1.1 * last[k] + 1e-9 || second);
            // Euler in t multiplies VE's noise by 1 - L / N instead of e^(-L / N) a step, L = 8.5, in the 46 % of them that lie above the
            // prior's deviation: the variance is off by 0.46 L^2 / N.
            // Euler-Maruyama is explicit in t too, and on laplace, whose s^2 leaves 0 like the root of t, g^2 dt / sigma^2 is 1/2 and more in the
            // last steps for any n.
            let limit = match name {
                "flow-euler" => 0.05,
                "euler-maruyama" if *schedule_name == "ddpm laplace" => 0.2,
                _ => 0.02,
            };
            if !falls || errors[2] > f64::max(limit, 6.0 * last[2]) {
                failures.push(format!("{name} on {schedule_name}: {errors:?}"));
            }
            if errors[2] >= worst.0[2] && last[2] < 0.02 {
                worst = (errors, *schedule_name);
            }
        }
        let mut row = vec![name.to_owned(), worst.1.to_owned()];
        row.extend(worst.0.iter().map(|error| format!("{error:.1e}")));
        rows.push(row);
    }
    print_table("Unit variance", &["sampler", "schedule where it is worst", "N = 10", "100", "1000"], &rows);
    assert!(failures.is_empty(), "|variance - 1| in 10, 100, 1000 steps:\n{}", failures.join("\n"));
}
