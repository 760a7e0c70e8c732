//! Adams-Bashforth methods for the probability-flow ODE: LMS and DEIS.

use super::multistep::{History, LowerOrder};
use super::{Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Noise, Result, Schedule};

/// LMS: polynomial in `sigma / alpha`.
pub(super) const LMS: SamplerInfo = SamplerInfo {
    name: "lms",
    order: "2 (4 after its start-up)",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &["order"],
    source: include_str!("adams.rs"),
    make: |options| Box::new(Adams::new(Coordinate::SigmaEdm, options.order.unwrap_or(4))),
};

/// DEIS: polynomial in `log(sigma / alpha)`.
pub(super) const DEIS: SamplerInfo = SamplerInfo {
    name: "deis",
    order: "2 (its own after the start-up)",
    options: &["order", "lower_order_final"],
    make: |options| Box::new(Adams::new(Coordinate::LogSigmaEdm, options.order.unwrap_or(2)).with(options.lower_order(true))),
    ..LMS
};

/// tAB-DEIS: polynomial in the schedule's time.
pub(super) const DEIS_T: SamplerInfo = SamplerInfo {
    name: "deis-t",
    options: &["order"],
    make: |options| Box::new(Adams::new(Coordinate::Time, options.order.unwrap_or(2))),
    ..DEIS
};

/// LMS and DEIS: the noise is extrapolated by the polynomial through its last evaluations, which is then integrated exactly.
///
/// ```text
/// u = x / alpha,  s = sigma / alpha:     du / ds = eps
/// u' = u + sum_j w_j eps_j               w_j = integral from s to s' of L_j(c(r)) dr
/// ```
///
/// `L_j` are Lagrange's polynomials through the last levels in a coordinate `c`: `s` itself (`lms`, which is rhoAB-DEIS), `log s` (`deis`, as
/// diffusers has it) or the schedule's time (`deis-t`, which is tAB-DEIS). The run starts with order 1 and rises by one a step. A step from
/// a level without signal, and for `log s` one to `sigma' = 0`, is of order 1.
///
/// # Reference
/// Adams-Bashforth with steps of any length, e.g. Hairer, Norsett, Wanner 1993, "Solving ordinary differential equations I", sec. III.5; as
/// `LMS` in k-diffusion. Zhang, Chen 2023, arXiv 2204.13902, eq. 14 and 15 (DEIS), in `log s` as in its code. Where the integrals have no
/// closed form we use Gauss and Legendre's 16 points.
#[derive(Clone, Debug)]
pub struct Adams {
    coordinate: Coordinate,
    order: usize,
    lower: LowerOrder,
    history: History,
}

/// In which coordinate [`Adams`] extrapolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinate {
    /// `sigma / alpha`.
    SigmaEdm,
    /// `log(sigma / alpha)`.
    LogSigmaEdm,
    /// The time of the denoiser's schedule.
    Time,
}

impl Adams {
    /// The method of this order, at least 1, through the last `order` evaluations.
    pub fn new(coordinate: Coordinate, order: usize) -> Self {
        Self { coordinate, order: order.max(1), lower: LowerOrder::default(), history: History::default() }
    }

    /// The same, with lower orders at a run's end.
    pub fn with(self, lower: LowerOrder) -> Self {
        Self { lower, ..self }
    }

    /// The integrals of the polynomials of the first `order` levels of the history, or of fewer where the coordinate does not tell them apart.
    fn weights(&self, order: usize, Interval { from, to }: Interval, schedule: &dyn Schedule) -> Vec<f64> {
        let c = |s: f64| match self.coordinate {
            Coordinate::SigmaEdm => s,
            Coordinate::LogSigmaEdm => s.ln(),
            Coordinate::Time => schedule.t_from_sigma_edm(s),
        };
        let mut nodes: Vec<f64> = (0..order).map(|j| c(self.history.level(j).sigma_edm())).collect();
        // Levels beyond the schedule's ends are all at its ends' times.
        let distinct = (1..order).find(|&j| nodes[j] == nodes[j - 1]).unwrap_or(order);
        nodes.truncate(distinct);
        let lagrange = |j: usize, at: f64| {
            let others = nodes.iter().enumerate().filter(|(k, _)| *k != j);
            others.map(|(_, node)| (at - node) / (nodes[j] - node)).product::<f64>()
        };
        let (s, s_to) = (from.sigma_edm(), to.sigma_edm());
        let weight = |j: usize| match s_to > 0.0 && self.coordinate != Coordinate::SigmaEdm {
            // r = e^l: the integrand is smooth in l over any ratio of levels.
            true => integral(s.ln(), s_to.ln(), |l| lagrange(j, c(l.exp())) * l.exp()),
            false => integral(s, s_to, |r| lagrange(j, c(r))),
        };
        (0..distinct).map(weight).collect()
    }
}

impl Sampler for Adams {
    fn name(&self) -> &'static str {
        match self.coordinate {
            Coordinate::SigmaEdm => LMS.name,
            Coordinate::LogSigmaEdm => DEIS.name,
            Coordinate::Time => DEIS_T.name,
        }
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let eps = eps_from_x0(x, &x0, from);
        self.history.push(step, self.order, from, &eps);
        let limit = match self.coordinate {
            Coordinate::LogSigmaEdm => self.lower.limit_in_lambda(step, self.order),
            _ => self.lower.limit(step, self.order),
        };
        let next = match limit.min(self.history.len()) {
            0 | 1 => combine(to.alpha, &x0, to.sigma, &eps),
            order => {
                let weights = self.weights(order, interval, step.denoiser.schedule());
                combine(to.alpha / from.alpha, x, to.alpha, &self.history.combine(&weights))
            }
        };
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

/// The integral of a smooth function by Gauss and Legendre's 16 points.
fn integral(a: f64, b: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (middle, half) = (0.5 * (a + b), 0.5 * (b - a));
    gauss_legendre::<8>().iter().map(|(node, weight)| weight * (f(middle - half * node) + f(middle + half * node))).sum::<f64>()
        * half
}

/// The positive nodes of the rule of `2 N` points, with their weights: the roots of Legendre's polynomial by Newton's method.
fn gauss_legendre<const N: usize>() -> [(f64, f64); N] {
    let degree = 2 * N;
    std::array::from_fn(|k| {
        let mut node = (std::f64::consts::PI * (k as f64 + 0.75) / (degree as f64 + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..6 {
            let (mut before, mut value) = (1.0, node);
            for n in 2..=degree {
                let n = n as f64;
                (before, value) = (value, ((2.0 * n - 1.0) * node * value - (n - 1.0) * before) / n);
            }
            slope = degree as f64 * (node * value - before) / (node * node - 1.0);
            node -= value / slope;
        }
        (node, 2.0 / ((1.0 - node * node) * slope * slope))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadrature_is_exact_for_polynomials() {
        let got = integral(-1.5, 2.0, |x| x.powi(31) + 1.0);
        assert!((got / (((2f64).powi(32) - (1.5f64).powi(32)) / 32.0 + 3.5) - 1.0).abs() < 1e-13, "{got}");
    }

    #[test]
    fn equal_steps_have_the_textbook_weights() {
        let mut adams = Adams::new(Coordinate::SigmaEdm, 4);
        let level = |s: f64| crate::Level { t: 0.0, alpha: 1.0, sigma: s };
        adams.history = History::default();
        let grid = super::super::Grid::through(&[level(5.0), level(4.0)]);
        let denoiser = crate::Oracle::new(crate::Gaussian::standard([1, 1, 1]), std::sync::Arc::new(crate::VeSchedule::default()));
        for (index, s) in [8.0, 7.0, 6.0, 5.0].into_iter().enumerate() {
            adams.history.push(&Step { grid: &grid, index, denoiser: &denoiser }, 4, level(s), &Batch::zeros((1, 1, 1, 1)));
        }
        let weights = adams.weights(4, Interval { from: level(5.0), to: level(4.0) }, &crate::VeSchedule::default());
        for (got, want) in weights.iter().zip([55.0, -59.0, 37.0, -9.0]) {
            assert!((got + want / 24.0).abs() < 1e-13, "{weights:?}");
        }
    }
}
