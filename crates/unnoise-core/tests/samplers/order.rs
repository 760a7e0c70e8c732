//! The order of convergence of the deterministic samplers in double precision; `docs/samplers.md` has the table.
//!
//! The coordinate of the grid is `log(sigma / alpha)`, from 2 to 0.05 in N equal steps (`smooth_grid`), and there is no step to zero.
//! Global error is `C N^-p` with
//! - `p = 1` for DDIM with eta 0 and Euler: Euler's method for `d(x / alpha) / d(sigma / alpha) = eps`;
//! - `p = 2` for Heun and EDM without churn: the trapezium of the same;
//! - `p = 2` for DPM-Solver++(2M): its local error is the third order term of the linear extrapolation of x0 in lambda, and its first
//!   step, of first order, has a local error of second order that occurs once.

use ndarray::Zip;
use unnoise_core::{
    Adams, Batch, Bh, Coordinate, Denoiser, DpmMultistep, DpmSinglestep, ExactPrior, Expansion, Form, Interval, Ipndm, Level,
    LowerOrder, Noise, Oracle, Purpose, SaSolver, Sampler, Scales, Step, Streams, Tau, ThirdOrder, UniPc,
};

use super::{Mode, SHAPE, Silence, gaussian, mixture, modes, print_table, run, smooth_grid, vp};

pub(super) const SAMPLES: usize = 16;
/// Multiples of 6, so that blocks of two and of three steps come out even.
const STEPS: [usize; 4] = [120, 240, 480, 960];

/// The flow's end from `x` at the top of `smooth_grid`, by 8000 classical Runge-Kutta steps in `log(sigma / alpha)`.
pub(super) fn reference<P: ExactPrior>(prior: &P, x: &Batch) -> Batch {
    flow(prior, x, smooth_grid(1).steps[0], 8000)
}

/// The flow over an interval.
fn flow<P: ExactPrior>(prior: &P, x: &Batch, Interval { from, to }: Interval, steps: u32) -> Batch {
    let h = (to.sigma_edm() / from.sigma_edm()).ln() / f64::from(steps);
    // u = x / alpha solves du / dlog s = u - E[x0 | u].
    let slope = |u: &Batch, log: f64| u - &prior.linearize(u, Scales { alpha: 1.0, sigma: log.exp() }).unwrap().x0_hat;
    let mut u = x / from.alpha;
    for i in 0..steps {
        let log = from.sigma_edm().ln() + h * f64::from(i);
        let k1 = slope(&u, log);
        let k2 = slope(&(&u + &(&k1 * (0.5 * h))), log + 0.5 * h);
        let k3 = slope(&(&u + &(&k2 * (0.5 * h))), log + 0.5 * h);
        let k4 = slope(&(&u + &(&k3 * h)), log + h);
        u = u + (k1 + (k2 + k3) * 2.0 + k4) * (h / 6.0);
    }
    u * to.alpha
}

pub(super) fn start(level: Level) -> Batch {
    Streams::new(5, 0..SAMPLES as u32).normal(0, Purpose::Start, SAMPLES, SHAPE) * level.sigma
}

pub(super) fn rms(a: &Batch, b: &Batch) -> f64 {
    (Zip::from(a).and(b).fold(0.0, |sum, a, b| sum + (a - b).powi(2)) / a.len() as f64).sqrt()
}

/// The slopes of log error between successive N.
fn slopes(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, end: &Batch) -> (Vec<f64>, f64) {
    let errors: Vec<f64> = STEPS
        .into_iter()
        .map(|n| {
            let grid = smooth_grid(n);
            rms(&run(sampler, denoiser, &grid, start(grid.steps[0].from), &mut Silence), end)
        })
        .collect();
    (errors.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect(), errors[3])
}

fn measure<P: ExactPrior>(prior_name: &str, prior: P, rows: &mut Vec<Vec<String>>) -> Vec<String> {
    let end = reference(&prior, &start(smooth_grid(1).steps[0].from));
    let denoiser = Oracle::new(prior, vp());
    let mut failures = Vec::new();
    for Mode { name, mut sampler, order, weak_order } in modes() {
        let on_this_prior = if prior_name == "Gaussian" { order.and(weak_order) } else { order };
        let Some(order) = on_this_prior else { continue };
        let (slopes, error) = slopes(sampler.as_mut(), &denoiser, &end);
        let mut row = vec![name.to_owned(), prior_name.to_owned(), order.to_string()];
        row.extend(slopes.iter().map(|slope| format!("{slope:.3}")));
        row.push(format!("{error:.1e}"));
        rows.push(row);
        if (slopes[2] - order).abs() > 0.1 {
            failures.push(format!("{name} on the {prior_name}: slope {:.3} instead of {order}", slopes[2]));
        }
    }
    failures
}

#[test]
fn global_error_falls_with_the_derived_order() {
    let mut rows = Vec::new();
    let mut failures = measure("Gaussian", gaussian(), &mut rows);
    failures.extend(measure("mixture", mixture(), &mut rows));
    print_table(
        "Order of convergence",
        &["sampler", "prior", "order", "slope, N = 120 to 240", "240 to 480", "480 to 960", "RMS error at 960"],
        &rows,
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A last step of order 1 costs `O(h^2)`, once: the difference from the run without it, whose order is 3.
#[test]
fn a_last_step_of_order_1_costs_its_square() {
    let denoiser = Oracle::new(mixture(), vp());
    let pairs: [(&str, [Box<dyn Sampler>; 2]); 3] = [
        ("unipc", [false, true].map(|lower| Box::new(UniPc::new(Bh::ExpM1, 2).with(lower)) as _)),
        ("unipc-bh1", [false, true].map(|lower| Box::new(UniPc::new(Bh::Linear, 2).with(lower)) as _)),
        ("dpmpp-3s", [false, true].map(|lower| Box::new(DpmSinglestep::new(3, lower)) as _)),
    ];
    for (name, [mut without, mut with]) in pairs {
        let mut cost = |n: usize| {
            let grid = smooth_grid(n);
            let x = start(grid.steps[0].from);
            let [a, b] = [&mut without, &mut with].map(|sampler| run(sampler.as_mut(), &denoiser, &grid, x.clone(), &mut Silence));
            rms(&a, &b)
        };
        let (coarse, fine) = (cost(480), cost(960));
        let slope = (coarse / fine).log2();
        assert!((slope - 2.0).abs() < 0.1, "{name}: {slope:.3}, {fine:.1e}");
    }
}

/// Multistep samplers from an exact start: their first evaluations are made on the flow itself, as many as they remember, so that what is
/// left is their own order, without what a start-up of low order costs.
#[test]
fn multistep_samplers_have_their_own_order_from_an_exact_start() {
    let published = Form { third: ThirdOrder::Published, ..Form::default() };
    let unipc = |bh, order| Box::new(UniPc::new(bh, order));
    let sa_solver = |order| Box::new(SaSolver::new(order, order, Tau::Constant(0.0)).with(false));
    let cases: [(&str, f64, Box<dyn Sampler>); 19] = [
        ("lms", 4.0, Box::new(Adams::new(Coordinate::SigmaEdm, 4))),
        ("deis, order 3", 3.0, Box::new(Adams::new(Coordinate::LogSigmaEdm, 3))),
        ("deis, order 4", 4.0, Box::new(Adams::new(Coordinate::LogSigmaEdm, 4))),
        ("deis-t, order 3", 3.0, Box::new(Adams::new(Coordinate::Time, 3))),
        ("dpm-solver-3m", 3.0, Box::new(DpmMultistep::new(Expansion::Eps, 3))),
        ("dpmpp-3m", 3.0, Box::new(DpmMultistep::new(Expansion::X0, 3))),
        ("dpmpp-3m, published", 2.0, Box::new(DpmMultistep::new(Expansion::X0, 3).with(published, LowerOrder::default()))),
        ("ipndm", 2.0, Box::new(Ipndm::default())),
        ("unipc, order 1", 2.0, unipc(Bh::ExpM1, 1)),
        ("unipc, order 2", 3.0, unipc(Bh::ExpM1, 2)),
        ("unipc, order 3", 4.0, unipc(Bh::ExpM1, 3)),
        ("unipc, order 4", 5.0, unipc(Bh::ExpM1, 4)),
        ("unipc-bh1, order 1", 2.0, unipc(Bh::Linear, 1)),
        ("unipc-bh1, order 2", 3.0, unipc(Bh::Linear, 2)),
        ("unipc-bh1, order 3", 4.0, unipc(Bh::Linear, 3)),
        ("unipc-bh1, order 4", 5.0, unipc(Bh::Linear, 4)),
        ("sa-solver, tau 0, order 2", 2.0, sa_solver(2)),
        ("sa-solver, tau 0, order 3", 3.0, sa_solver(3)),
        ("sa-solver, tau 0, order 4", 4.0, sa_solver(4)),
    ];
    let prior = mixture();
    let (end, denoiser) = (reference(&prior, &start(smooth_grid(1).steps[0].from)), Oracle::new(prior.clone(), vp()));
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (name, order, mut sampler) in cases {
        let mut error = |n: usize| {
            let mut grid = smooth_grid(n);
            // A corrector would replace the flow's states by its own: it does not cross steps that do not meet, by a time that nothing reads.
            (0..3).for_each(|index| grid.steps[index].to.t += 1e-9);
            let mut x = start(grid.steps[0].from);
            for index in 0..n {
                let stepped = sampler.step(&Step { grid: &grid, index, denoiser: &denoiser }, &x, &mut Silence).unwrap();
                x = if index < 3 { flow(&prior, &x, grid.steps[index], 100) } else { stepped.x };
            }
            rms(&x, &end)
        };
        // A high order is soon at rounding, a lower one later at its slope.
        let n = if order < 4.0 { 512 } else { 128 };
        let errors = [n, 2 * n, 4 * n].map(&mut error);
        let slopes = [0, 1].map(|k| (errors[k] / errors[k + 1]).log2());
        let cells = [
            name.to_owned(),
            order.to_string(),
            n.to_string(),
            format!("{:.3}", slopes[0]),
            format!("{:.3}", slopes[1]),
            format!("{:.1e}", errors[2]),
        ];
        rows.push(cells.to_vec());
        if (slopes[1] - order).abs() > 0.1 {
            failures.push(format!("{name}: slope {:.3} instead of {order}", slopes[1]));
        }
    }
    print_table("From an exact start", &["sampler", "order", "N", "slope, N to 2 N", "2 N to 4 N", "RMS error at 4 N"], &rows);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The reference itself, against the Gaussian's closed-form flow: along an axis of variance `l`, `x / alpha - mu` is proportional
/// to `sqrt(l + s^2)`.
#[test]
fn the_reference_is_the_exact_flow() {
    let prior =
        unnoise_core::Gaussian::new(&[0.3; 3], &ndarray::Array2::from_diag(&ndarray::array![0.5, 0.02, 1.5]), SHAPE).unwrap();
    let grid = smooth_grid(1);
    let (top, bottom) = (grid.steps[0].from, grid.steps[0].to);
    let x = start(top);
    let end = reference(&prior, &x);
    for ((row, _, _, k), value) in end.indexed_iter() {
        let variance: f64 = [0.5, 0.02, 1.5][k];
        let grows = ((variance + bottom.sigma_edm().powi(2)) / (variance + top.sigma_edm().powi(2))).sqrt();
        let exact = bottom.alpha * (0.3 + grows * (x[[row, 0, 0, k]] / top.alpha - 0.3));
        assert!((value - exact).abs() < 1e-11, "{value} {exact}");
    }
}
