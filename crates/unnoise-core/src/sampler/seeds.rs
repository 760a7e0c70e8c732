//! Stochastic exponential solvers with evaluations within a step.

use super::sde::{Exact, path_noise};
use super::{Grid, Sampler, SamplerInfo, Step, Stepped, combine, heun::is_corrected};
use crate::{Batch, Interval, Level, Noise, Purpose, Result};

/// SEEDS-1.
pub(super) const SEEDS_1: SamplerInfo = SamplerInfo {
    name: "seeds-1",
    order: "1",
    stochastic: true,
    evaluations: "1",
    grids: "any",
    options: &[],
    source: include_str!("seeds.rs"),
    make: |_| Box::new(Seeds { stages: 1 }),
};

/// SEEDS-2.
pub(super) const SEEDS_2: SamplerInfo =
    SamplerInfo { name: "seeds-2", order: "2", evaluations: "2, the last 1", make: |_| Box::new(Seeds { stages: 2 }), ..SEEDS_1 };

/// SEEDS-3.
pub(super) const SEEDS_3: SamplerInfo =
    SamplerInfo { name: "seeds-3", order: "2", evaluations: "3, the last 1", make: |_| Box::new(Seeds { stages: 3 }), ..SEEDS_1 };

/// SEEDS: exponential Runge-Kutta steps of the reverse SDE, whose linear part and noise are exact at every stage.
///
/// ```text
/// h = lambda' - lambda,   lambda = log(alpha / sigma)         E(c) = the step to lambda + c h with a constant x0:
/// E(c) = (sigma_c / sigma) e^-ch x + alpha_c (1 - e^-2ch) x0 + sigma_c N_c
/// N_c' = e^-(c' - c)h N_c + sqrt(1 - e^-2(c' - c)h) z         one z for each stage, the Brownian path's pieces
///
/// seeds-1:  x' = E(1)
/// seeds-2:  x_1 = E(1/2)        x' = E(1) + alpha' (1 - e^-2h) (x0_1 - x0)
/// seeds-3:  x_1 = E(1/3)        x_2 = E(2/3) + 2 alpha_2 phi(4h/3) (x0_1 - x0)
///           x'  = E(1) + (3/2) alpha' phi(2h) (x0_2 - x0)             phi(H) = 1 - (1 - e^-H) / H
/// ```
///
/// A step to `sigma' = 0`, and one from a level without signal, is that of `seeds-1`.
///
/// # Reference
/// Gonzalez et al. 2023, arXiv 2305.14267, SEEDS-1, -2 and -3 in their data-prediction form. Of its published code we keep the noise, which is
/// the exact one in thirds, but not the weight of `x_2`: there it is `1 - (1 - e^-2h/3) / (h/3)`, which is not small for small `h`; ours is
/// Hochbruck and Ostermann's third-order exponential Runge-Kutta method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// Evaluations a step, from 1 to 3.
    pub stages: usize,
}

const PURPOSES: [Purpose; 3] = [Purpose::Step, Purpose::SecondHalf, Purpose::ThirdPart];

impl Sampler for Seeds {
    fn name(&self) -> &'static str {
        [SEEDS_1, SEEDS_2, SEEDS_3][self.stages.clamp(1, 3) - 1].name
    }

    fn evaluations(&self, grid: &Grid) -> Option<usize> {
        Some(grid.steps.iter().map(|step| self.stages_of(*step)).sum())
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, noise: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let stages = self.stages_of(interval);
        let x0 = step.denoiser.x0_hat(x, from)?;
        let (mut next, mut at, mut carried, mut change) = (x.clone(), from, Batch::zeros(x.dim()), Batch::zeros(x.dim()));
        for stage in 1..=stages {
            let c = stage as f64 / stages as f64;
            let end = match stage == stages {
                true => to,
                false => Level::at_sigma_edm(step.denoiser.schedule(), from.sigma_edm() * interval.ratio().powf(c)),
            };
            carried = self.noise_at(step, Interval { from: at, to: end }, stage, &carried, noise);
            let whole = Interval { from, to: end };
            let exact = Exact::new(whole, 1.0);
            next = combine(exact.keep, x, exact.clean, &x0);
            next.scaled_add(end.sigma, &carried);
            if stage > 1 {
                next.scaled_add(end.alpha * weight(stages, stage, -2.0 * whole.ratio().ln()), &change);
            }
            if stage < stages {
                change = step.denoiser.x0_hat(&next, end)? - &x0;
            }
            at = end;
        }
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}

impl Seeds {
    fn stages_of(self, interval: Interval) -> usize {
        if is_corrected(interval) { self.stages.clamp(1, 3) } else { 1 }
    }

    /// `N` at the end of a piece of the step, from that at its start.
    fn noise_at(self, step: &Step<'_>, piece: Interval, stage: usize, carried: &Batch, noise: &mut dyn Noise) -> Batch {
        let z = path_noise(noise, step, PURPOSES[stage - 1], piece, carried);
        let ratio = piece.ratio();
        combine(ratio, carried, (1.0 - ratio * ratio).max(0.0).sqrt(), &z)
    }
}

/// The weight of the last stage's `x0` less the start's, at the end of this stage.
fn weight(stages: usize, stage: usize, twice_h: f64) -> f64 {
    let phi = 1.0 + (-twice_h).exp_m1() / twice_h;
    match (stages, stage) {
        _ if twice_h == 0.0 => 0.0,
        (2, _) => -(-twice_h).exp_m1(),
        (_, 2) => 2.0 * phi,
        _ => 1.5 * phi,
    }
}
