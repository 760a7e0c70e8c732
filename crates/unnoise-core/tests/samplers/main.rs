//! The samplers' proofs: exact moments, order of convergence, equivalences, and diffusers' own results.
//!
//! Under `--nocapture` they print the tables of `docs/samplers.md`.

mod adaptive;
mod diffusers;
mod ends;
mod grids;
mod inverse;
mod langevin;
mod moments;
mod one_step;
mod order;
mod strong;
mod table;
mod twins;

use std::sync::Arc;

use ndarray::{Array4, array};
use unnoise_core::{
    Adams, Batch, Bh, Churn, Coordinate, CosineSchedule, Ddim, Ddpm, Denoiser, DiscreteSchedule, DpmAdaptive, DpmMultistep,
    DpmMultistepSde, DpmPp2sA, DpmPpSde, DpmSinglestep, DpmSolver, Edm, EdmSchedule, Euler, EulerA, EulerMaruyama, Expansion,
    FlowEuler, FlowHeun, Form, Gaussian, GaussianMixture, Grid, Heun, Ipndm, Kdpm2, Kdpm2A, Langevin, LaplaceSchedule, Level,
    LowerOrder, Midpoint, Noise, Oracle, Pc, Pndm, PolynomialSchedule, Purpose, RectifiedFlowSchedule, Rk4, Rk45, SaSolver,
    Sampler, Schedule, SecondOrder, Seeds, Shape, Shift, ShiftedSchedule, SigmoidSchedule, StartUp, Streams, SubVpSchedule, Tau,
    TrigonometricSchedule, UniPc, Variance, VeSchedule, VpSchedule, sample, sampler_info, unobserved,
};

const D: usize = 3;
const SHAPE: Shape = [1, 1, D];

/// A correlated Gaussian.
fn gaussian() -> Gaussian {
    let covariance = array![[0.5, 0.2, -0.1], [0.2, 0.3, 0.05], [-0.1, 0.05, 0.2]];
    Gaussian::new(&[0.4, -0.2, 0.1], &covariance, SHAPE).unwrap()
}

/// Two correlated Gaussians that overlap.
fn mixture() -> GaussianMixture {
    let other = array![[0.1, -0.04, 0.0], [-0.04, 0.2, 0.03], [0.0, 0.03, 0.15]];
    let components = vec![gaussian(), Gaussian::new(&[-0.7, 0.5, -0.3], &other, SHAPE).unwrap()];
    GaussianMixture::new(&[0.6, 0.4], components).unwrap()
}

fn vp() -> Arc<dyn Schedule> {
    Arc::new(VpSchedule::new(0.1, 20.0).unwrap())
}

/// Every kind of schedule.
fn schedules() -> Vec<(&'static str, Arc<dyn Schedule>)> {
    let linear = DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap();
    let zero_snr = linear.with_zero_terminal_snr().unwrap();
    vec![
        ("ddpm linear", Arc::new(linear)),
        ("ddpm linear, zero SNR", Arc::new(zero_snr)),
        ("ddpm scaled linear", Arc::new(DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012).unwrap())),
        ("ddpm cosine", Arc::new(DiscreteSchedule::squaredcos_cap_v2(1000).unwrap())),
        ("ddpm sigmoid", Arc::new(DiscreteSchedule::sigmoid(1000, 1e-4, 0.02).unwrap())),
        ("ddpm exp", Arc::new(DiscreteSchedule::exponential(1000).unwrap())),
        ("ddpm laplace", Arc::new(DiscreteSchedule::laplace(1000).unwrap())),
        ("cosine", Arc::new(CosineSchedule)),
        ("sigmoid", Arc::new(SigmoidSchedule::default())),
        ("laplace", Arc::new(LaplaceSchedule::default())),
        ("vp", vp()),
        ("sub-vp", Arc::new(SubVpSchedule::default())),
        ("ve", Arc::new(VeSchedule::new(0.01, 50.0).unwrap())),
        ("edm", Arc::new(EdmSchedule::new(0.002, 80.0, 7.0).unwrap())),
        ("rectified flow", Arc::new(RectifiedFlowSchedule)),
        ("polynomial", Arc::new(PolynomialSchedule::new(2.0).unwrap())),
        ("trigonometric", Arc::new(TrigonometricSchedule)),
        ("shifted flow", Arc::new(ShiftedSchedule::new(Arc::new(RectifiedFlowSchedule), Shift::SD3))),
    ]
}

/// `n` steps of equal length in `log(sigma / alpha)` from 2 down to 0.05, variance-preserving, without a step to zero.
fn smooth_grid(n: usize) -> Grid {
    let (top, bottom) = (2f64.ln(), 0.05f64.ln());
    let level = |i: usize| {
        let sigma_edm = (top + (bottom - top) * i as f64 / n as f64).exp();
        let alpha = 1.0 / 1f64.hypot(sigma_edm);
        Level { t: vp().t_from_sigma_edm(sigma_edm), alpha, sigma: alpha * sigma_edm }
    };
    Grid::through(&(0..=n).map(level).collect::<Vec<_>>())
}

/// Churn at every level, with noise of the announced size.
const CHURN: Churn = Churn { amount: 20.0, sigma_min: 0.0, sigma_max: f64::INFINITY, inflation: 1.0 };
/// No churn.
const CALM: Churn = Churn { amount: 0.0, ..CHURN };

/// A sampler with options that change its mathematics, and what is known of it.
struct Mode {
    name: &'static str,
    sampler: Box<dyn Sampler>,
    /// The order of the global error of a deterministic one in the length of the steps of `smooth_grid`.
    order: Option<f64>,
    /// The order of the error of the moments on a Gaussian prior, and of a deterministic one's global error there.
    weak_order: Option<f64>,
}

impl Mode {
    fn deterministic(name: &'static str, order: f64, sampler: impl Sampler + 'static) -> Self {
        Self { name, sampler: Box::new(sampler), order: Some(order), weak_order: Some(order) }
    }

    fn stochastic(name: &'static str, weak_order: f64, sampler: impl Sampler + 'static) -> Self {
        Self { name, sampler: Box::new(sampler), order: None, weak_order: Some(weak_order) }
    }

    /// Deterministic, with steps whose number follows from a tolerance.
    fn adaptive(name: &'static str, sampler: impl Sampler + 'static) -> Self {
        Self { name, sampler: Box::new(sampler), order: None, weak_order: None }
    }

    /// Whether it draws no noise but the start.
    fn is_deterministic(&self) -> bool {
        self.order.is_some() || (self.weak_order.is_none() && !sampler_info(self.sampler.name()).unwrap().stochastic)
    }

    /// Stochastic, with an error that does not fall with the steps, or with steps that depend on the state.
    fn state_dependent(name: &'static str, sampler: impl Sampler + 'static) -> Self {
        Self { name, sampler: Box::new(sampler), order: None, weak_order: None }
    }

    /// Whether it is an affine map of start and noise on a Gaussian prior: not where the step's size depends on the state.
    fn is_affine(&self) -> bool {
        self.weak_order.is_some()
    }
}

/// The samplers in every mode that differs in its mathematics.
fn modes() -> Vec<Mode> {
    vec![
        Mode::stochastic("ddpm, fixed small", 1.0, Ddpm { variance: Variance::FixedSmall, clip: None }),
        Mode::stochastic("ddpm, fixed large", 1.0, Ddpm { variance: Variance::FixedLarge, clip: None }),
        Mode::deterministic("ddim, eta 0", 1.0, Ddim { eta: 0.0, clip: None }),
        Mode::stochastic("ddim, eta 0.5", 1.0, Ddim { eta: 0.5, clip: None }),
        Mode::stochastic("ddim, eta 1", 1.0, Ddim { eta: 1.0, clip: None }),
        Mode::deterministic("euler", 1.0, Euler),
        Mode::deterministic("heun", 2.0, Heun::default()),
        Mode::deterministic("edm, no churn", 2.0, Edm { churn: CALM }),
        Mode::stochastic("edm, churn 20", 2.0, Edm { churn: CHURN }),
        Mode::deterministic("lms", 2.0, Adams::new(Coordinate::SigmaEdm, 4)),
        Mode::deterministic("deis", 2.0, Adams::new(Coordinate::LogSigmaEdm, 3)),
        Mode::deterministic("deis-t", 2.0, Adams::new(Coordinate::Time, 3)),
        Mode::deterministic("pndm", 2.0, Pndm::new(StartUp::RungeKutta)),
        Mode::deterministic("plms", 2.0, Pndm::new(StartUp::Trapezium)),
        Mode::deterministic("ipndm", 2.0, Ipndm::default()),
        Mode::deterministic("dpm-solver-2m", 2.0, DpmMultistep::new(Expansion::Eps, 2)),
        Mode::deterministic("dpm-solver-3m", 2.0, DpmMultistep::new(Expansion::Eps, 3)),
        Mode::deterministic("dpmpp-2m", 2.0, DpmMultistep::new(Expansion::X0, 2)),
        Mode::deterministic(
            "dpmpp-2m, heun",
            2.0,
            DpmMultistep::new(Expansion::X0, 2).with(Form { second: SecondOrder::Heun, ..Form::default() }, LowerOrder::default()),
        ),
        Mode::deterministic("dpmpp-3m", 2.0, DpmMultistep::new(Expansion::X0, 3)),
        Mode::deterministic("unipc, order 1", 2.0, UniPc::new(Bh::ExpM1, 1)),
        Mode::deterministic("unipc, order 2", 3.0, UniPc::new(Bh::ExpM1, 2)),
        Mode::deterministic("unipc, order 3", 3.0, UniPc::new(Bh::ExpM1, 3)),
        Mode::deterministic("unipc-bh1, order 2", 3.0, UniPc::new(Bh::Linear, 2)),
        Mode::deterministic("unipc-bh1, order 3", 3.0, UniPc::new(Bh::Linear, 3)),
        Mode { weak_order: Some(3.0), ..Mode::deterministic("midpoint", 2.0, Midpoint) },
        Mode::deterministic("rk4", 4.0, Rk4),
        Mode::deterministic("kdpm2", 2.0, Kdpm2),
        Mode::deterministic("dpm-solver-1", 1.0, DpmSolver::First),
        Mode::deterministic("dpm-solver-2", 2.0, DpmSolver::Second),
        Mode::deterministic("dpm-solver-3", 3.0, DpmSolver::Third),
        Mode::deterministic("dpmpp-2s", 2.0, DpmSinglestep::new(2, false)),
        Mode::deterministic("dpmpp-2s, last of order 1", 2.0, DpmSinglestep::new(2, true)),
        Mode::deterministic("dpmpp-3s", 3.0, DpmSinglestep::new(3, false)),
        Mode::deterministic("flow-euler", 1.0, FlowEuler),
        Mode::deterministic("flow-heun", 2.0, FlowHeun),
        Mode::adaptive("rk45", Rk45::new(1e-4)),
        Mode::adaptive("dpm-adaptive, order 2", DpmAdaptive::new(2, 1e-2)),
        Mode::adaptive("dpm-adaptive, order 3", DpmAdaptive::new(3, 1e-3)),
        Mode::stochastic("euler-a", 1.0, EulerA { eta: 1.0 }),
        Mode::stochastic("kdpm2-a", 2.0, Kdpm2A { eta: 1.0 }),
        Mode::stochastic("kdpm2-a, eta 0.5", 2.0, Kdpm2A { eta: 0.5 }),
        Mode::stochastic("dpmpp-2s-a", 2.0, DpmPp2sA { eta: 1.0 }),
        Mode::stochastic("dpmpp-2s-a, eta 0.5", 2.0, DpmPp2sA { eta: 0.5 }),
        Mode::stochastic("dpmpp-sde", 2.0, DpmPpSde { eta: 1.0 }),
        Mode::stochastic("dpmpp-sde, eta 0.5", 2.0, DpmPpSde { eta: 0.5 }),
        Mode::stochastic("dpmpp-2m-sde", 2.0, DpmMultistepSde::new(2, 1.0)),
        Mode::stochastic("dpmpp-2m-sde, eta 0.5", 2.0, DpmMultistepSde::new(2, 0.5)),
        Mode::stochastic(
            "dpmpp-2m-sde, heun",
            2.0,
            DpmMultistepSde::new(2, 1.0).with(Form { second: SecondOrder::Heun, ..Form::default() }, LowerOrder::default()),
        ),
        Mode::stochastic("dpmpp-3m-sde", 2.0, DpmMultistepSde::new(3, 1.0)),
        Mode::deterministic("sa-solver, tau 0", 2.0, SaSolver::new(2, 2, Tau::Constant(0.0))),
        Mode::deterministic("sa-solver, tau 0, order 3", 3.0, SaSolver::new(3, 3, Tau::Constant(0.0)).with(false)),
        Mode::stochastic("sa-solver", 2.0, SaSolver::new(2, 2, Tau::Middle)),
        Mode::stochastic("sa-solver, tau 1", 2.0, SaSolver::new(2, 2, Tau::Constant(1.0))),
        Mode::stochastic("sa-solver, tau 1, order 3", 2.0, SaSolver::new(3, 3, Tau::Constant(1.0))),
        Mode::stochastic("seeds-1", 1.0, Seeds { stages: 1 }),
        Mode::stochastic("seeds-2", 2.0, Seeds { stages: 2 }),
        Mode::stochastic("seeds-3", 2.0, Seeds { stages: 3 }),
        Mode::stochastic("euler-maruyama", 1.0, EulerMaruyama),
        Mode::state_dependent("pc", Pc::new(Variance::FixedLarge, 0.16, 1)),
        Mode::state_dependent("pc-ancestral", Pc::new(Variance::FixedSmall, 0.16, 2)),
        Mode::state_dependent("langevin", Langevin { snr: 0.22, corrections: 20 }),
    ]
}

fn oracle(schedule: Arc<dyn Schedule>) -> Oracle<Gaussian> {
    Oracle::new(gaussian(), schedule)
}

fn run(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, grid: &Grid, x: Batch, noise: &mut dyn Noise) -> Batch {
    let name = sampler.name();
    sample(sampler, denoiser, grid, x, noise, &mut unobserved).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Streams whose Brownian increments are the normals of their steps: the noise of samplers without a path.
struct Pathless(Streams);

impl Noise for Pathless {
    fn normal(&mut self, step: usize, purpose: Purpose, n: usize, shape: Shape) -> Batch {
        self.0.normal(step, purpose, n, shape)
    }
}

/// No noise anywhere.
struct Silence;

impl Noise for Silence {
    fn normal(&mut self, _: usize, _: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        Array4::zeros((n, c, h, w))
    }
}

/// Prints a table in Markdown, in one piece, since the tests run side by side.
fn print_table(title: &str, columns: &[&str], rows: &[Vec<String>]) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header = line(&columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>());
    let body: String = rows.iter().map(|row| line(row)).collect();
    println!("\n### {title}\n\n{header}{}\n{body}", "|---".repeat(columns.len()) + "|");
}
