//! Grids: the noise levels that a run visits.

use crate::{Batch, CleanEnd, Error, Level, Noise, Purpose, Result, Schedule, Shape, schedule::lowest_time};

/// One step of a grid: from a noisier level to a cleaner one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The level at which the step starts.
    pub from: Level,
    /// The level at which it ends.
    pub to: Level,
}

impl Interval {
    /// `r = (sigma' / alpha') / (sigma / alpha)`, the factor by which the noise of `x / alpha` falls: 0 from a level without signal
    /// and to a level without noise.
    pub fn ratio(self) -> f64 {
        self.to.sigma * self.from.alpha / (self.to.alpha * self.from.sigma)
    }
}

/// The steps of a run, noisiest first. Usually each starts where the last one ended; diffusers' DDIM on a `linspace` or
/// `trailing` grid does not, and is reproduced as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The steps.
    pub steps: Vec<Interval>,
    /// The standard deviation of the state that a run starts from (its signal is negligible).
    pub start: f64,
}

impl Grid {
    /// The grid through `levels`, noisiest first, which starts at the first level's `sigma`.
    pub fn through(levels: &[Level]) -> Self {
        let steps = levels.windows(2).map(|pair| Interval { from: pair[0], to: pair[1] }).collect();
        Self { steps, start: levels.first().map_or(0.0, |level| level.sigma) }
    }

    /// `n` steps of equal length in `t`.
    ///
    /// ```text
    /// t_i = 1 - i / n
    /// ```
    ///
    /// A schedule that ends in noise takes `n - 1` equal steps to its `t = 0` and one from there to the clean image.
    ///
    /// # Errors
    /// [`Error::Argument`] for no step, or more than a discrete schedule has.
    pub fn uniform(schedule: &dyn Schedule, n: usize) -> Result<Self> {
        check_steps(schedule, n)?;
        let last = if schedule.clean_end() == CleanEnd::Clean { n } else { (n - 1).max(1) };
        Ok(to_clean((0..n).map(|i| Level::at(schedule, 1.0 - i as f64 / last as f64)).collect()))
    }

    /// `n` steps, equal in `(sigma / alpha)^(1 / 7)` between the ends of the schedule, the last of them to the clean image.
    ///
    /// ```text
    /// sigma_i = (sigma_max^(1/7) + i / (n - 1) (sigma_min^(1/7) - sigma_max^(1/7)))^7
    /// ```
    ///
    /// `sigma_max` is the level at `t = 1`; `sigma_min` is where the schedule ends in noise, the first step of a discrete one, and
    /// `t = 0.001` of a continuous one that ends clean.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform); [`Error::Unsupported`] for a schedule that starts without signal.
    ///
    /// # Reference
    /// Karras et al. 2022, arXiv 2206.00364, eq. 5 with rho = 7.
    pub fn karras(schedule: &dyn Schedule, n: usize) -> Result<Self> {
        Self::between_ends(schedule, n, "a Karras grid", |sigma| sigma.powf(1.0 / 7.0), |root| root.powi(7))
    }

    /// `n` steps, equal in the logarithm of the signal-to-noise ratio between the ends of the schedule (those of
    /// [`karras`](Self::karras)), the last of them to the clean image.
    ///
    /// # Errors
    /// As [`karras`](Self::karras).
    ///
    /// # Reference
    /// Lu et al. 2022, arXiv 2206.00927: its uniform steps in `lambda = log(alpha / sigma)`.
    pub fn log_snr(schedule: &dyn Schedule, n: usize) -> Result<Self> {
        Self::between_ends(schedule, n, "a log-SNR grid", f64::ln, f64::exp)
    }

    fn between_ends(
        schedule: &dyn Schedule,
        n: usize,
        what: &str,
        coordinate: impl Fn(f64) -> f64,
        inverse: impl Fn(f64) -> f64,
    ) -> Result<Self> {
        check_steps(schedule, n)?;
        let first = Level::at(schedule, 1.0);
        if first.alpha <= 0.0 {
            return Err(Error::Unsupported {
                what: what.into(),
                why: "the schedule starts without signal, where sigma / alpha is infinite".into(),
                possible: vec!["uniform".into()],
            });
        }
        let last = lowest_time(schedule);
        let (from, to) = (coordinate(first.sigma_edm()), coordinate(Level::at(schedule, last).sigma_edm()));
        let level = |i: usize| match i {
            0 => first,
            i if i + 1 == n => Level::at(schedule, last),
            i => {
                let sigma_edm = inverse(from + (to - from) * i as f64 / (n - 1) as f64);
                Level::at(schedule, schedule.t_from_sigma_edm(sigma_edm))
            }
        };
        Ok(to_clean((0..n).map(level).collect()))
    }

    /// Whether the last step leaves no noise.
    pub fn ends_clean(&self) -> bool {
        self.steps.last().is_some_and(|step| step.to.sigma == 0.0)
    }

    /// Refuses a grid that no sampler could walk.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no step, or one that starts without noise or ends without signal.
    pub fn check(&self) -> Result<()> {
        let bad =
            |expected: &str, got: String| Err(Error::Argument { what: "grid", expected: expected.into(), got, at: "Grid::check" });
        if self.steps.is_empty() {
            return bad("at least one step", "none".into());
        }
        for (index, step) in self.steps.iter().enumerate() {
            let Interval { from, to } = *step;
            let starts_in_noise = from.sigma > 0.0 && from.sigma.is_finite() && from.alpha >= 0.0;
            // Noise may rise in a step: diffusers' zero-SNR tables do at their end.
            if !(starts_in_noise && to.alpha > 0.0 && to.sigma >= 0.0 && step.ratio().is_finite()) {
                return bad("steps from a positive sigma to a positive alpha", format!("step {index} from {from:?} to {to:?}"));
            }
        }
        Ok(())
    }
}

/// The state that a run over `grid` starts from: unit normals, scaled by [`Grid::start`].
pub fn start_noise(grid: &Grid, noise: &mut dyn Noise, n: usize, shape: Shape) -> Batch {
    noise.normal(0, Purpose::Start, n, shape) * grid.start
}

fn to_clean(mut levels: Vec<Level>) -> Grid {
    levels.push(Level::CLEAN);
    Grid::through(&levels)
}

fn check_steps(schedule: &dyn Schedule, n: usize) -> Result<()> {
    let most = schedule.steps().unwrap_or(usize::MAX);
    if (1..=most).contains(&n) {
        return Ok(());
    }
    let expected = if most == usize::MAX { "at least 1".into() } else { format!("from 1 to the {most} steps of the schedule") };
    Err(Error::Argument { what: "steps", expected, got: n.to_string(), at: "Grid" })
}
