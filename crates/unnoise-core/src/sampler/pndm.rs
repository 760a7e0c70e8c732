//! Pseudo numerical methods for diffusion models.

use super::ipndm::{adams_bashforth, transfer_along};
use super::multistep::History;
use super::{Grid, Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Level, Noise, Result, Schedule};

pub(super) const PNDM: SamplerInfo = SamplerInfo {
    name: "pndm",
    order: "2",
    stochastic: false,
    evaluations: "1, the first three 4",
    grids: "any",
    options: &[],
    source: include_str!("pndm.rs"),
    make: |_| Box::new(Pndm::default()),
};

pub(super) const PLMS: SamplerInfo =
    SamplerInfo { name: "plms", evaluations: "1, the first 2", make: |_| Box::new(Pndm::new(StartUp::Trapezium)), ..PNDM };

/// PNDM: DDIM's step along a combination of noises, as Runge and Kutta's or Adams and Bashforth's methods combine slopes.
///
/// ```text
/// step(x, e; from, to) = (alpha' / alpha) (x - sigma e) + sigma' e         DDIM's, of any noise e
///
/// pndm, the first three steps (pseudo Runge-Kutta; m lies midway in time):
///   e1 = eps(x, t)                          e2 = eps(step(x, e1; t, m), m)
///   e3 = eps(step(x, e2; t, m), m)          e4 = eps(step(x, e3; t, t'), t')
///   x' = step(x, (e1 + 2 e2 + 2 e3 + e4) / 6; t, t')
/// plms, the first step (the trapezium):
///   x' = step(x, (e1 + eps(step(x, e1; t, t'), t')) / 2; t, t')
/// every other step:
///   x' = step(x, (55 e1 - 59 e_1 + 37 e_2 - 9 e_3) / 24; t, t')            e_j of j steps ago; (3, -1) / 2, (23, -16, 5) / 12 before
/// ```
///
/// The weights are those of equal steps, while what is integrated is `eps` over `sigma / alpha`: second order at most on any grid but one
/// even in `sigma / alpha`. A step from a level without signal is DDIM's; a Runge-Kutta step to `sigma' = 0`, which only a run of three
/// steps has, goes without `e4`.
///
/// # Reference
/// Liu et al. 2022, arXiv 2202.09778, algorithm 2, eq. 11 to 13; `plms` as in latent diffusion's code (Rombach et al. 2022, arXiv
/// 2112.10752). Every evaluation's noise is that at its own level: diffusers, of a network that predicts `v`, combines the `v`.
#[derive(Clone, Debug, Default)]
pub struct Pndm {
    start_up: StartUp,
    history: History,
}

/// How a [`Pndm`] run starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartUp {
    /// Three pseudo Runge-Kutta steps.
    #[default]
    RungeKutta,
    /// One step of the trapezium, then rising orders.
    Trapezium,
}

impl Pndm {
    /// With this start-up.
    pub fn new(start_up: StartUp) -> Self {
        Self { start_up, history: History::default() }
    }

    /// Evaluations within a step, beside that at its start.
    fn within(&self, index: usize, Interval { from, to }: Interval) -> usize {
        match self.start_up {
            _ if from.alpha <= 0.0 => 0,
            StartUp::RungeKutta if index < 3 => 2 + usize::from(to.sigma > 0.0),
            StartUp::Trapezium if index == 0 => usize::from(to.sigma > 0.0),
            _ => 0,
        }
    }
}

impl Sampler for Pndm {
    fn name(&self) -> &'static str {
        if self.start_up == StartUp::RungeKutta { PNDM.name } else { PLMS.name }
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.iter().enumerate().map(|(index, step)| 1 + self.within(index, *step)).sum())
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let e1 = eps_from_x0(x, &x0, from);
        let eps = |x: &Batch, level: Level| Ok(eps_from_x0(x, &step.denoiser.x0_hat(x, level)?, level));
        self.history.push(step, 4, from, &e1);
        if from.alpha <= 0.0 {
            return Ok(Stepped { x: combine(to.alpha, &x0, to.sigma, &e1), x0_hat: x0 });
        }
        let within = self.within(step.index, interval);
        let e = if within >= 2 {
            let [first, second] = midway(interval, step.denoiser.schedule());
            let e2 = eps(&transfer_along(Interval { from, to: first }, x, &e1), first)?;
            let e3 = eps(&transfer_along(Interval { from, to: second }, x, &e2), second)?;
            match within == 3 {
                true => (e1 + 2.0 * (e2 + &e3) + eps(&transfer_along(interval, x, &e3), to)?) / 6.0,
                false => (e1 + 2.0 * (e2 + e3)) / 5.0,
            }
        } else if within == 1 {
            (eps(&transfer_along(interval, x, &e1), to)? + e1) / 2.0
        } else {
            self.history.combine(adams_bashforth(self.history.len()))
        };
        Ok(Stepped { x: transfer_along(interval, x, &e), x0_hat: x0 })
    }
}

/// The level midway in time, for both evaluations there. On a discrete schedule it is a training step, as diffusers places it: where two are
/// nearest, the first evaluation has the scales of the upper and the time of the lower, the second is at the lower. On a schedule that has
/// no noise there, `from`.
fn midway(Interval { from, to }: Interval, schedule: &dyn Schedule) -> [Level; 2] {
    let half = match schedule.steps().map(|count| count as f64) {
        Some(count) => (0.5 * (from.t - to.t) * count + 1e-6).floor() / count,
        None => 0.5 * (from.t - to.t),
    };
    let [upper, lower] = [from.t - half, to.t + half].map(|t| Level::at(schedule, t));
    if [upper, lower].iter().any(|level| level.sigma <= 0.0 || level.alpha <= 0.0) {
        return [from; 2];
    }
    [Level { t: lower.t, ..upper }, lower]
}
