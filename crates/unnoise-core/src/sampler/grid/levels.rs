//! The levels of each kind of grid.

use super::quantile::beta_quantile;
use super::{Grid, GridKind};
use crate::{CleanEnd, Error, Level, Result, Schedule, schedule::lowest_time};

/// The grid of a kind that suits the schedule.
pub(super) fn grid(kind: &GridKind, schedule: &dyn Schedule, n: usize) -> Result<Grid> {
    check_steps(kind, schedule, n)?;
    let at = |t: f64| Level::at(schedule, t);
    let times = |map: &dyn Fn(f64) -> f64| uniform(schedule, n).into_iter().map(|t| at(map(t))).collect();
    let steps = |step: &dyn Fn(f64, f64) -> f64| training(schedule, n, step).into_iter().map(at).collect();
    let sigmas = |map: &dyn Fn(Ends, f64) -> f64| between_ends(schedule, n, map);
    let levels: Vec<Level> = match *kind {
        GridKind::Uniform => times(&|t| t),
        GridKind::Shifted(shift) => times(&|t| shift.apply(t)),
        GridKind::Beta { alpha, beta } => times(&|t| beta_quantile(alpha, beta, t)),
        GridKind::Leading => steps(&|count, i| (n as f64 - 1.0 - i) * (count / n as f64).floor()),
        GridKind::Linspace => steps(&|count, i| (count - 1.0) * (1.0 - i / (n.max(2) - 1) as f64)),
        GridKind::Trailing => steps(&|count, i| (count - i * count / n as f64).round_ties_even() - 1.0),
        GridKind::Karras { rho } => sigmas(&|ends, u| ends.between(u, |s| s.powf(1.0 / rho)).powf(rho)),
        GridKind::Exponential | GridKind::LogSnr => sigmas(&|ends, u| ends.between(u, f64::ln).exp()),
        GridKind::PolyExponential { rho } => sigmas(&|ends, u| ends.between(1.0 - (1.0 - u).powf(rho), f64::ln).exp()),
        GridKind::Lu { rho } => {
            sigmas(&|ends, u| (-signed_power(ends.between(u, |s| signed_power(-s.ln(), 1.0 / rho)), rho)).exp())
        }
        GridKind::Times(ref times) => times.iter().map(|&t| at(t)).collect(),
        GridKind::Sigmas(ref sigmas) => sigmas.iter().map(|&sigma| at(schedule.t_from_sigma_edm(sigma))).collect(),
    };
    check_levels(&levels)?;
    Ok(Grid::through(&[&levels[..], &[Level::CLEAN]].concat()))
}

/// `n` equal steps down from `t = 1`: to 0 where the clean image is there, else to the step before.
fn uniform(schedule: &dyn Schedule, n: usize) -> Vec<f64> {
    let last = if schedule.clean_end() == CleanEnd::Clean { n } else { (n - 1).max(1) };
    (0..n).map(|i| 1.0 - i as f64 / last as f64).collect()
}

/// The times of the training steps `step(T, i)`, rounded to the nearest.
fn training(schedule: &dyn Schedule, n: usize, step: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let count = schedule.steps().unwrap_or(n) as f64;
    (0..n).map(|i| (step(count, i as f64).round_ties_even() + 1.0) / count).collect()
}

/// The largest and the smallest `sigma / alpha`.
#[derive(Clone, Copy)]
struct Ends {
    max: f64,
    min: f64,
}

impl Ends {
    /// The coordinate at the share `u` of the way down.
    fn between(self, u: f64, coordinate: impl Fn(f64) -> f64) -> f64 {
        let (from, to) = (coordinate(self.max), coordinate(self.min));
        from + (to - from) * u
    }
}

/// `n` levels between the ends of the schedule, both included exactly, with `sigma / alpha` at the share `u` of the way.
fn between_ends(schedule: &dyn Schedule, n: usize, sigma_edm: impl Fn(Ends, f64) -> f64) -> Vec<Level> {
    let first = Level::at(schedule, 1.0);
    let last = Level::at(schedule, lowest_time(schedule));
    let ends = Ends { max: first.sigma_edm(), min: last.sigma_edm() };
    let level = |i: usize| match i {
        0 => first,
        i if i + 1 == n => last,
        i => Level::at(schedule, schedule.t_from_sigma_edm(sigma_edm(ends, i as f64 / (n - 1) as f64))),
    };
    (0..n).map(level).collect()
}

/// `x` to a power, with its sign.
fn signed_power(x: f64, power: f64) -> f64 {
    x.abs().powf(power).copysign(x)
}

fn check_steps(kind: &GridKind, schedule: &dyn Schedule, n: usize) -> Result<()> {
    let most = schedule.steps().unwrap_or(usize::MAX);
    let expected = match kind {
        GridKind::Times(list) | GridKind::Sigmas(list) if list.len() == n => return check_list(kind, schedule),
        GridKind::Times(list) | GridKind::Sigmas(list) => format!("{}, as many as the grid {kind} has levels", list.len()),
        _ if (1..=most).contains(&n) => return Ok(()),
        _ if most == usize::MAX => "at least 1".into(),
        _ => format!("from 1 to the {most} steps of the schedule"),
    };
    Err(Error::Argument { what: "steps", expected, got: n.to_string(), at: "Grid" })
}

/// Refuses listed levels that the schedule does not have.
fn check_list(kind: &GridKind, schedule: &dyn Schedule) -> Result<()> {
    let [least, most] = [0.0, 1.0].map(|t| Level::at(schedule, t).sigma_edm());
    let ends_clean = schedule.clean_end() == CleanEnd::Clean;
    let (what, list, least, most) = match kind {
        GridKind::Times(list) => ("times", list, 0.0, 1.0),
        GridKind::Sigmas(list) => ("sigmas", list, least, most),
        _ => return Ok(()),
    };
    // A hair of room, for a sigma that was printed.
    let valid = |&v: &f64| (v > least || (v >= least * (1.0 - 1e-12) && !ends_clean)) && v <= most * (1.0 + 1e-12);
    match list.iter().find(|v| !valid(v)) {
        None => Ok(()),
        Some(bad) => {
            let expected = format!("{}{least}, {most}] on this schedule", if ends_clean { "in (" } else { "in [" });
            Err(Error::Argument { what, expected, got: bad.to_string(), at: "Grid" })
        }
    }
}

/// Refuses levels that rounding has made equal.
fn check_levels(levels: &[Level]) -> Result<()> {
    let noise = |level: &Level| level.sigma / level.alpha;
    match levels.windows(2).position(|pair| noise(&pair[1]) >= noise(&pair[0])) {
        None => Ok(()),
        Some(index) => Err(Error::Argument {
            what: "steps",
            expected: "few enough that no two levels are equal".into(),
            got: format!("{}, of which {index} starts at {:?} and ends at {:?}", levels.len(), levels[index], levels[index + 1]),
            at: "Grid",
        }),
    }
}
