//! Stochastic Adams methods.

use super::multistep::History;
use super::sde::{Exact, path_noise};
use super::{Sampler, SamplerInfo, Step, Stepped, combine};
use crate::{Batch, Interval, Noise, Purpose, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "sa-solver",
    order: "2",
    stochastic: true,
    evaluations: "1",
    grids: "any",
    options: &["eta", "order", "lower_order_final"],
    source: include_str!("sa_solver.rs"),
    make: |options| {
        let order = options.order.unwrap_or(2);
        let tau = options.eta.map_or(Tau::Middle, Tau::Constant);
        Box::new(SaSolver::new(order, order, tau).with(options.lower_order_final.unwrap_or(true)))
    },
};

/// SA-Solver: a stochastic Adams method, which predicts with the last clean images and corrects with the prediction's own.
///
/// The SDE's linear part and its noise are exact over a step; the clean image is interpolated in `lambda = log(alpha / sigma)`.
///
/// ```text
/// h = lambda' - lambda,   a = 1 + tau^2
/// I_k = a integral from 0 to h of e^(-a (h - v)) v^k dv:     I_0 = 1 - e^-ah,   I_k = h^k - (k / a) I_{k-1}
/// x'  = (sigma' / sigma) e^(-tau^2 h) x + alpha' sum_j w_j x0_j + sigma' sqrt(1 - e^(-2 tau^2 h)) z
/// sum_j w_j (lambda_j - lambda)^k = I_k  for k below the order;      order 2 takes I_1 = a h^2 / 2
///
/// predictor:  j over the last evaluations
/// corrector:  the same with that at the prediction too, and the same z; it replaces the prediction when the next step has evaluated it
/// ```
///
/// The orders rise from 1 and 2 at a run's start and fall to them at its end; the last prediction is not corrected. A step to `sigma' = 0`, and one
/// from a level without signal, is of order 1.
///
/// # Reference
/// Xue et al. 2023, arXiv 2309.05019, algorithm 1, in its data-prediction form; order 2's `I_1`, the orders' rise and fall, and the default `tau`
/// are diffusers' `SASolverScheduler`. `z` is the Brownian path's increment.
#[derive(Clone, Debug)]
pub struct SaSolver {
    predictor: usize,
    corrector: usize,
    tau: Tau,
    lower_order_final: bool,
    history: History,
    last: Option<Predicted>,
}

/// The share of noise, `tau`: 0 is the ODE, 1 the SDE that reverses the forward process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Tau {
    /// 1 between the timesteps 200 and 800 of 1000, 0 elsewhere: diffusers' default.
    #[default]
    Middle,
    /// The same everywhere.
    Constant(f64),
}

impl Tau {
    fn at(self, t: f64) -> f64 {
        match self {
            // Timestep k is t = (k + 1) / 1000; half a timestep of room for rounding.
            Self::Middle if (0.2005..=0.8015).contains(&t) => 1.0,
            Self::Middle => 0.0,
            Self::Constant(tau) => tau,
        }
    }
}

/// What the corrector needs of a prediction.
#[derive(Clone, Debug)]
struct Predicted {
    interval: Interval,
    x: Batch,
    z: Option<Batch>,
    tau: f64,
    /// The corrector's order.
    order: usize,
}

impl SaSolver {
    /// The solver with these orders, from 1 to 4; a corrector of order 0 does not correct.
    pub fn new(predictor: usize, corrector: usize, tau: Tau) -> Self {
        let (predictor, corrector) = (predictor.clamp(1, 4), corrector.min(4));
        Self { predictor, corrector, tau, lower_order_final: true, history: History::default(), last: None }
    }

    /// The same, with or without lower orders at a run's end.
    pub fn with(self, lower_order_final: bool) -> Self {
        Self { lower_order_final, ..self }
    }

    /// A step from `x` through the last `order` evaluations, of which `x0` is the newest.
    fn advance(&self, Predicted { interval, x, z, tau, .. }: &Predicted, x0: &Batch, order: usize) -> Batch {
        let exact = Exact::new(*interval, tau * tau);
        let mut next = match order {
            ..=1 => combine(exact.keep, x, exact.clean, x0),
            _ => combine(exact.keep, x, interval.to.alpha, &self.history.combine(&self.weights(*interval, *tau, order))),
        };
        if let Some(z) = z {
            next.scaled_add(exact.noise, z);
        }
        next
    }

    /// `w_j`, newest first.
    fn weights(&self, interval: Interval, tau: f64, order: usize) -> Vec<f64> {
        let (a, h) = (1.0 + tau * tau, -interval.ratio().ln());
        let mut integrals = vec![-(-a * h).exp_m1()];
        for k in 1..order {
            integrals.push(h.powi(k as i32) - k as f64 / a * integrals[k - 1]);
        }
        if order == 2 {
            integrals[1] = 0.5 * a * h * h;
        }
        let start = -interval.from.sigma_edm().ln();
        let nodes: Vec<f64> = (0..order).map(|j| self.history.lambda(j) - start).collect();
        let weight = |j| lagrange(&nodes, j).iter().zip(&integrals).map(|(c, integral)| c * integral).sum();
        (0..order).map(weight).collect()
    }
}

/// The coefficients, constant first, of the polynomial that is 1 at node `j` and 0 at the others.
fn lagrange(nodes: &[f64], j: usize) -> Vec<f64> {
    let mut coefficients = vec![1.0];
    for (_, node) in nodes.iter().enumerate().filter(|(other, _)| *other != j) {
        let mut times = vec![0.0; coefficients.len() + 1];
        for (k, c) in coefficients.iter().enumerate() {
            times[k] -= node * c / (nodes[j] - node);
            times[k + 1] += c / (nodes[j] - node);
        }
        coefficients = times;
    }
    coefficients
}

impl Sampler for SaSolver {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        self.history.push(step, self.predictor.max(self.corrector), from, &x0);
        let last = self.last.take().filter(|last| step.index > 0 && last.order > 0 && last.interval.to == from);
        let x = last.map_or_else(|| x.clone(), |last| self.advance(&last, &x0, last.order.min(self.history.len())));

        let left = if self.lower_order_final { step.grid.steps.len() - step.index } else { usize::MAX - 1 };
        let no_lambda = interval.ratio() == 0.0;
        let order = if no_lambda { 1 } else { self.predictor.min(left).min(step.index + 1).min(self.history.len()) };
        let corrector = if no_lambda { 0 } else { self.corrector.min(left + 1).min(step.index + 2) };

        let tau = self.tau.at(from.t);
        let z = (Exact::new(interval, tau * tau).noise > 0.0).then(|| path_noise(noise, step, Purpose::Step, interval, &x));
        let predicted = Predicted { interval, x, z, tau, order: corrector };
        let next = self.advance(&predicted, &x0, order);
        self.last = (to.sigma > 0.0).then_some(predicted);
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
