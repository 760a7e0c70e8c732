//! Every run ends at the data: on every grid of every schedule, the distribution that it draws against the prior's.
//!
//! The prior is a Gaussian of one pixel, variance `l`, and everything is in `u = x / alpha`, `s = sigma / alpha`: `x0 - mu = l / (l + s^2) (u - mu)`.
//! The samplers of order 1 then have their variance in closed form on any grid, from `l + s^2` at its start:
//!
//! ```text
//! ddim, eta 0:  V' = ((l + s s') / (l + s^2))^2 V
//! ddim, eta 1:  V' = (r^2 + (1 - r^2) l / (l + s^2))^2 V + s'^2 (1 - r^2)        r = s' / s
//! ```
//!
//! Both lose variance in every step and gain none (the first by Cauchy and Schwarz: `(l + s s')^2 <= (l + s^2)(l + s'^2)`; the second lacks the variance of
//! `x0` given `x`), so that their errors add up and no grid hides them. They are the yardstick: a sampler of higher order has to be nearer to the prior.

use std::sync::Arc;

use ndarray::array;
use unnoise_core::{Gaussian, Grid, GridKind, Interval, Level, Oracle, Schedule};

use super::moments::{Moments, propagate};
use super::{modes, schedules};

const MEAN: f64 = 0.4;
const VARIANCE: f64 = 0.5;
const STEPS: usize = 80;
/// The longest step in `log s` over which a higher order is an advantage (the ratio is 3.5),
const LONG: f64 = 1.25;
/// and that of what extrapolates `x0` through the noise of the steps before (the ratio is 1.8).
const LONG_WITH_NOISE: f64 = 0.6;

/// The variance that `ddim` ends with, and `ddim` with eta 1.
fn yardsticks(grid: &Grid) -> [f64; 2] {
    let first = grid.steps[0].from;
    let start = if first.alpha > 0.0 { VARIANCE + first.sigma_edm().powi(2) } else { 1.0 };
    grid.steps.iter().fold([start; 2], |[ode, sde], step| {
        let Interval { from, to } = *step;
        let (s, next, r) = (from.sigma_edm(), to.sigma_edm(), step.ratio());
        if from.alpha == 0.0 {
            return [next * next * ode, next * next * sde];
        }
        let x0 = VARIANCE / (VARIANCE + s * s);
        let of_ode = (VARIANCE + s * next) / (VARIANCE + s * s);
        let of_sde = r * r + (1.0 - r * r) * x0;
        [of_ode * of_ode * ode, of_sde * of_sde * sde + next * next * (1.0 - r * r)]
    })
}

/// The grids of every kind; the lists are even in `log s`.
fn fine(schedule: &dyn Schedule) -> Vec<(GridKind, Grid)> {
    let [top, bottom] = [0.95, 0.001].map(|t| Level::at(schedule, t).sigma_edm().ln());
    let sigmas: Vec<f64> = (0..STEPS).map(|i| (top + (bottom - top) * i as f64 / STEPS as f64).exp()).collect();
    let times = sigmas.iter().map(|&s| schedule.t_from_sigma_edm(s)).collect();
    let kinds = GridKind::ALL.into_iter().chain([GridKind::Times(times), GridKind::Sigmas(sigmas)]);
    kinds.filter_map(|kind| Some((kind.clone(), kind.grid(schedule, STEPS).ok()?))).collect()
}

/// The length in `log s` of the longest step between two finite ones.
fn longest(grid: &Grid) -> f64 {
    grid.steps.iter().map(|step| -step.ratio().ln()).filter(|h| h.is_finite()).fold(0.0, f64::max)
}

/// A stochastic multistep sampler.
fn extrapolates(name: &str) -> bool {
    ["dpmpp-2m-sde", "dpmpp-3m-sde", "sa-solver"].iter().any(|family| name.starts_with(family))
}

#[test]
fn runs_end_at_the_data() {
    let prior = Gaussian::new(&[MEAN], &array![[VARIANCE]], [1, 1, 1]).unwrap();
    let (mut failures, mut compared) = (Vec::new(), 0);
    for (schedule_name, schedule) in schedules() {
        let denoiser = Oracle::new(prior.clone(), Arc::clone(&schedule));
        for (kind, grid) in fine(&*schedule) {
            let start = Moments::of_marginal(&prior, grid.steps[0].from);
            let lost = yardsticks(&grid).map(|variance| VARIANCE - variance);
            // A run that returned the mean, or nothing, would lose all.
            assert!(lost.iter().all(|lost| (0.0..0.65 * VARIANCE).contains(lost)), "{kind} on {schedule_name}: {lost:?}");
            let longest = longest(&grid);
            for mut mode in modes().into_iter().filter(|mode| mode.is_affine() && mode.sampler.check(&grid).is_ok()) {
                let limit = match mode.name {
                    "ddim, eta 0" | "euler" | "dpm-solver-1" => lost[0],
                    "ddim, eta 1" | "ddpm, fixed small" | "euler-a" | "seeds-1" => lost[1],
                    // Of order 1 with another constant.
                    "ddim, eta 0.5" => 1.2 * lost[0].max(lost[1]),
                    "ddpm, fixed large" => 1.5 * lost[1],
                    name if longest > if extrapolates(name) { LONG_WITH_NOISE } else { LONG } => continue,
                    // Euler's method in t, where the noise of some schedules falls exponentially.
                    "flow-euler" | "euler-maruyama" => (10.0 * lost[1]).min(0.5 * VARIANCE),
                    // The last step starts at 1 + 20 / 80 times the noise, and loses in proportion to its square.
                    "edm, churn 20" => 1.25f64.powi(2) * lost[1],
                    _ if mode.is_deterministic() => lost[0],
                    _ => lost[1],
                };
                let end = propagate(mode.sampler.as_mut(), &denoiser, &grid, &start);
                let error = (end.covariance[(0, 0)] - VARIANCE).abs().max((end.mean[0] - MEAN).abs());
                compared += 1;
                if error.is_nan() || error > limit + 1e-9 {
                    failures.push(format!(
                        "{}, {} on {schedule_name}: {error:.1e}, limit {limit:.1e}, longest step {longest:.2}",
                        mode.name,
                        kind.name()
                    ));
                }
            }
        }
    }
    assert!(compared >= 7000 && failures.is_empty(), "{compared} compared, {} failures:\n{}", failures.len(), failures.join("\n"));
}
