//! The grids of diffusers' schedulers.

use super::scheduler_class::{Class, Walk};
use super::scheduler_config::{SchedulerConfig, alpha_bars, unsupported};
use super::{Grid, Interval};
use crate::{Error, Level, Result};

/// A grid of diffusers, by the name that it has on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Multiples of `T / n`, rounded down, from 0.
    Leading,
    /// From 0 to `T - 1`, both included.
    Linspace,
    /// Multiples of `T / n`, downwards from `T`.
    Trailing,
    /// Equal steps in `(sigma / alpha)^(1/7)`.
    Karras,
    /// Equal steps in `log(sigma / alpha)`.
    Exponential,
    /// The same between the table's ends, at whole timesteps, as DPM-Solver's `use_lu_lambdas` has it.
    Lu,
}

impl Spacing {
    /// Every grid.
    pub const ALL: [Self; 6] = [Self::Leading, Self::Linspace, Self::Trailing, Self::Karras, Self::Exponential, Self::Lu];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Lu => "lu",
        }
    }

    /// The grid of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the names that exist.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|spacing| spacing.name() == name).ok_or_else(|| Error::Unknown {
            kind: "grid",
            name: name.into(),
            known: Self::ALL.map(|spacing| spacing.name().into()).to_vec(),
        })
    }

    /// Whether it places timesteps, and not noise levels.
    fn is_of_timesteps(self) -> bool {
        matches!(self, Self::Leading | Self::Linspace | Self::Trailing)
    }

    /// `count` noise levels from the largest to the smallest, for a spacing that places them.
    fn sigmas(self, largest: f64, smallest: f64, count: usize) -> Vec<f64> {
        let at = |i: usize| i as f64 / (count.max(2) - 1) as f64;
        let (power, root) = (|v: f64| v.powi(7), |v: f64| v.powf(1.0 / 7.0));
        let between = |from: f64, to: f64, i: usize| from + (to - from) * at(i);
        let level = |i: usize| match self {
            // Karras et al. 2022, arXiv 2206.00364, eq. 5 with rho = 7.
            Self::Karras => power(between(root(largest), root(smallest), i)),
            _ => between(largest.ln(), smallest.ln(), i).exp(),
        };
        (0..count).map(level).collect()
    }
}

impl SchedulerConfig {
    /// The grid of `steps` steps on which diffusers' class of that name walks: its timesteps and their rounding, its interpolated
    /// sigmas and its final level. `spacing` overrides the configuration's `timestep_spacing` and `use_karras_sigmas`; for Karras
    /// sigmas the configuration's `timestep_spacing` still sets the ends (`euler`, `heun`), as it does in diffusers. That of `ddim-inverse` is
    /// `ddim`'s, reversed.
    ///
    /// A level's `t` is `(timestep + 1) / T`, a fraction where diffusers asks the network at a fractional timestep.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that does not exist; [`Error::Argument`] for no step, or more than there are timesteps;
    /// [`Error::Unsupported`] as listed above.
    pub fn grid(&self, sampler: &str, spacing: Option<Spacing>, steps: usize) -> Result<Grid> {
        if sampler == "ddim-inverse" {
            return Ok(self.grid("ddim", spacing, steps)?.reversed());
        }
        let class = Class::by_sampler(sampler)?;
        if self.is_flow() {
            return self.flow_grid(spacing, steps);
        }
        let table = Table::new(self, class)?;
        if spacing.is_none() {
            self.refuse_other_sigmas(class)?;
        }
        let chosen = self.spacing(sampler, spacing)?;
        let linear = match spacing {
            Some(spacing) if spacing.is_of_timesteps() => spacing,
            _ => self.timestep_spacing(class)?,
        };
        let plan = Plan { config: self, class, table, linear, chosen, steps };
        match class.walk() {
            Walk::Timesteps if chosen.is_of_timesteps() => plan.ancestral(),
            Walk::Timesteps => plan.ancestral_sigmas(),
            Walk::Sigmas | Walk::Lambdas => plan.sigmas(),
        }
    }

    /// The name of the grid that [`grid`](Self::grid) makes: `spacing`, or else what the configuration or the class says.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that does not exist.
    pub fn spacing(&self, sampler: &str, spacing: Option<Spacing>) -> Result<Spacing> {
        let class = Class::by_sampler(sampler)?;
        if self.is_flow() {
            return self.flow_spacing(spacing);
        }
        let on = |key: Option<bool>, known: bool| known && key == Some(true);
        // A class that does not know a key ignores it: a configuration that was saved for Euler keeps its grid there.
        Ok(match spacing {
            Some(spacing) => spacing,
            None if on(self.use_karras_sigmas, class.knows_sigmas()) => Spacing::Karras,
            None if on(self.use_lu_lambdas, class == Class::DpmMultistep) => Spacing::Lu,
            None if on(self.use_exponential_sigmas, class.knows_sigmas()) => Spacing::Exponential,
            None => self.timestep_spacing(class)?,
        })
    }

    fn timestep_spacing(&self, class: Class) -> Result<Spacing> {
        let name = match self.timestep_spacing.as_deref() {
            Some(name) if class != Class::DpmSinglestep => name,
            _ => class.spacing(),
        };
        let spacing = Spacing::by_name(name)?;
        if !spacing.is_of_timesteps() {
            return Err(Error::Unknown {
                kind: "timestep_spacing",
                name: name.into(),
                known: ["leading", "linspace", "trailing"].map(String::from).to_vec(),
            });
        }
        Ok(spacing)
    }

    fn refuse_other_sigmas(&self, class: Class) -> Result<()> {
        let on = |key: &str| self.other.get(key).is_some_and(|value| value == true);
        let is = |key: &str, text: &str| self.other.get(key).is_some_and(|value| value == text);
        let flags: &[&str] = match class.walk() {
            Walk::Sigmas if class.knows_sigmas() => &["use_beta_sigmas"],
            Walk::Lambdas => &["use_beta_sigmas", "use_flow_sigmas"],
            _ => &[],
        };
        let flag = flags.iter().find(|flag| on(flag)).copied();
        let option = match class {
            Class::Euler if is("interpolation_type", "log_linear") => Some("interpolation_type log_linear"),
            Class::Euler if is("timestep_type", "continuous") => Some("timestep_type continuous"),
            _ => None,
        };
        match flag.or(option) {
            Some(what) => Err(unsupported(what.into(), "it is not served", &Spacing::ALL.map(Spacing::name))),
            None => Ok(()),
        }
    }
}

/// The noise levels at the training steps, in single precision as diffusers holds them.
struct Table {
    alpha_bar: Vec<f32>,
    sigma_edm: Vec<f32>,
}

impl Table {
    fn new(config: &SchedulerConfig, class: Class) -> Result<Self> {
        let betas = config.betas(class)?;
        let valid = |beta: &f32| (0.0..=1.0).contains(beta);
        if betas.len() < 2 || !betas.iter().all(valid) {
            let got = format!("{} of them, the worst {:?}", betas.len(), betas.iter().find(|beta| !valid(beta)));
            return Err(Error::Argument {
                what: "betas",
                expected: "at least 2, in [0, 1]".into(),
                got,
                at: "SchedulerConfig::grid",
            });
        }
        let mut alpha_bar = alpha_bars(&betas);
        let cuts = class.walk() != Walk::Timesteps && class.knows_zero_snr();
        if let Some(last) = alpha_bar.last_mut().filter(|_| cuts && config.rescale_betas_zero_snr == Some(true)) {
            // diffusers': close to no signal, so that the first sigma / alpha, 4096, is finite.
            *last = 2f32.powi(-24);
        }
        let sigma_edm = alpha_bar.iter().map(|bar| ((1.0 - bar) / bar).sqrt()).collect();
        Ok(Self { alpha_bar, sigma_edm })
    }

    fn len(&self) -> usize {
        self.alpha_bar.len()
    }

    fn time(&self, timestep: f64) -> f64 {
        (timestep + 1.0) / self.len() as f64
    }

    /// The level of a training step.
    fn level(&self, timestep: usize) -> Level {
        let bar = f64::from(self.alpha_bar[timestep]);
        Level { t: self.time(timestep as f64), alpha: bar.sqrt(), sigma: (1.0 - bar).sqrt() }
    }

    /// The variance-preserving level with this `sigma / alpha`, at which the network is asked at `timestep`.
    fn level_of_sigma(&self, timestep: f64, sigma_edm: f64) -> Level {
        let alpha = 1.0 / 1f64.hypot(sigma_edm);
        Level { t: self.time(timestep), alpha, sigma: sigma_edm * alpha }
    }

    /// `sigma / alpha` at a fractional timestep, linear between the steps.
    fn sigma_at(&self, timestep: f64) -> f64 {
        let below = (timestep.floor() as usize).min(self.len() - 1);
        let (low, high) = (f64::from(self.sigma_edm[below]), f64::from(self.sigma_edm[(below + 1).min(self.len() - 1)]));
        low + (high - low) * (timestep - below as f64)
    }

    /// The fractional timestep of a `sigma / alpha`: its logarithm is linear between the steps. A zero-SNR table, cut to 4096 at its
    /// end, is not sorted: diffusers takes the last step that lies below.
    fn timestep_of(&self, sigma_edm: f64) -> f64 {
        let log = |k: usize| f64::from(f64::from(self.sigma_edm[k]).ln() as f32);
        let target = sigma_edm.max(1e-10).ln();
        let low = (0..self.len()).rfind(|&k| log(k) <= target).unwrap_or(0).min(self.len() - 2);
        let weight = ((target - log(low)) / (log(low + 1) - log(low))).clamp(0.0, 1.0);
        (1.0 - weight) * low as f64 + weight * (low + 1) as f64
    }
}

/// What a grid is made from.
struct Plan<'a> {
    config: &'a SchedulerConfig,
    class: Class,
    table: Table,
    /// The spacing of the timesteps: of chosen noise levels, that of their ends.
    linear: Spacing,
    chosen: Spacing,
    steps: usize,
}

impl Plan<'_> {
    /// The grid of DDPM and PNDM, which go from timestep to timestep, and of DDIM, which always goes down by the whole part of `T / n`.
    fn ancestral(&self) -> Result<Grid> {
        let timesteps: Vec<usize> = self.timesteps()?.into_iter().map(|timestep| timestep as usize).collect();
        let last = match (self.class, self.config.set_alpha_to_one) {
            (Class::Ddim, Some(false)) | (Class::Pndm, None | Some(false)) => self.table.level(0),
            _ => Level::CLEAN,
        };
        let stride = self.table.len() / self.steps;
        let to = |index: usize| match self.class {
            Class::Ddim => timesteps[index].checked_sub(stride),
            _ => timesteps.get(index + 1).copied(),
        };
        let step = |index: usize| Interval {
            from: self.table.level(timesteps[index]),
            to: to(index).map_or(last, |timestep| self.table.level(timestep)),
        };
        Ok(Grid { steps: (0..timesteps.len()).map(step).collect(), start: 1.0 })
    }

    /// The extension of DDPM, DDIM and PNDM to chosen noise levels: between the ends of the table, at the timesteps that they interpolate.
    fn ancestral_sigmas(&self) -> Result<Grid> {
        self.check_steps(self.table.len())?;
        let (smallest, largest) = self.ends();
        if !largest.is_finite() {
            let why = "the table ends without signal, where sigma / alpha is infinite";
            let what = format!("a grid of {} noise levels", self.chosen.name());
            return Err(unsupported(what, why, &["leading", "linspace", "trailing"]));
        }
        let sigmas = self.chosen.sigmas(largest, smallest, self.steps);
        let mut levels: Vec<Level> =
            sigmas.into_iter().map(|sigma| self.table.level_of_sigma(self.table.timestep_of(sigma), sigma)).collect();
        levels.push(Level::CLEAN);
        Ok(Grid { start: 1.0, ..Grid::through(&levels) })
    }

    /// The grid of the classes that walk in `sigma / alpha` or its logarithm.
    fn sigmas(&self) -> Result<Grid> {
        let mut timesteps = self.timesteps()?;
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&timestep| self.table.sigma_at(timestep)).collect();
        let is_chosen = !self.chosen.is_of_timesteps();
        if is_chosen {
            let (smallest, largest) = match self.class.walk() {
                Walk::Lambdas => self.ends(),
                _ => (sigmas[sigmas.len() - 1], sigmas[0]),
            };
            let given = |end: Option<f64>, other: f64| end.filter(|_| self.class.knows_ends()).unwrap_or(other);
            let (smallest, largest) = (given(self.config.sigma_min, smallest), given(self.config.sigma_max, largest));
            sigmas = self.chosen.sigmas(largest, smallest, self.steps);
            timesteps = sigmas.iter().map(|&sigma| self.whole(self.table.timestep_of(sigma))).collect();
        }
        let level = |(&timestep, &sigma): (&f64, &f64)| self.table.level_of_sigma(timestep, f64::from(sigma as f32));
        let mut levels: Vec<Level> = timesteps.iter().zip(&sigmas).map(level).collect();
        let cleanest = self.table.level_of_sigma(0.0, f64::from(self.table.sigma_edm[0]));
        levels.push(match (self.class, self.config.final_sigmas_type.as_deref()) {
            (Class::Deis | Class::SaSolver, _) | (Class::UniPc, Some("sigma_min")) if is_chosen => levels[levels.len() - 1],
            (Class::Deis | Class::SaSolver, _) => cleanest,
            (class, Some("sigma_min")) if class.knows_final_sigma() => cleanest,
            _ => Level::CLEAN,
        });
        // Where the state is x / alpha, the start is scaled by the largest sigma, and on a leading grid as if it held unit-variance images
        // too; DPM-Solver's and its relatives' is not scaled.
        let largest = levels.iter().fold(0.0, |most: f64, level| most.max(level.sigma_edm()));
        let start = match (self.class.walk(), self.linear) {
            (Walk::Lambdas, _) => 1.0,
            (_, Spacing::Leading) => levels[0].alpha * largest.hypot(1.0),
            _ => levels[0].alpha * largest,
        };
        Ok(Grid { start, ..Grid::through(&levels) })
    }

    /// The timestep of a chosen noise level as the class rounds it: to the nearest, down where it is only cast to an integer, or not.
    /// Whether the cast of the table's own end loses a timestep is a matter of the last bit of a logarithm in single precision: of exponential
    /// sigmas and Lu's lambdas ours never does.
    fn whole(&self, timestep: f64) -> f64 {
        let cosine = self.config.beta_schedule.as_deref() == Some("squaredcos_cap_v2");
        match (self.class, self.chosen) {
            (Class::Kdpm2, Spacing::Karras | Spacing::Lu) => timestep.round_ties_even(),
            (class, _) if class.walk() == Walk::Sigmas => timestep,
            (_, Spacing::Exponential) => (timestep + 1e-3).trunc(),
            (Class::DpmMultistep, Spacing::Lu) if cosine => (timestep + 1e-3).trunc(),
            (Class::DpmMultistep, _) if cosine => timestep.trunc(),
            _ => timestep.round_ties_even(),
        }
    }

    /// `sigma / alpha` at the ends of the table.
    fn ends(&self) -> (f64, f64) {
        (f64::from(self.table.sigma_edm[0]), f64::from(self.table.sigma_edm[self.table.len() - 1]))
    }

    /// The timesteps, noisiest first: fractional on `linspace` where a class walks in `sigma / alpha`, whole otherwise.
    fn timesteps(&self) -> Result<Vec<f64>> {
        let (count, steps) = (self.table.len(), self.steps);
        let offset = self.config.steps_offset.unwrap_or(0) as f64;
        // Those that walk in lambda plan one step more and leave out the cleanest.
        let is_dpm = self.class.walk() == Walk::Lambdas;
        let usable = if self.class.knows_lambda_min() { self.unclipped() } else { count };
        let planned = steps + usize::from(is_dpm);
        self.check_steps(if is_dpm && self.chosen.is_of_timesteps() && self.linear != Spacing::Trailing {
            usable.saturating_sub(1)
        } else {
            count
        })?;
        let is_whole = self.class.walk() != Walk::Sigmas;
        let timesteps: Vec<f64> = match self.linear {
            Spacing::Trailing => trailing(usable, count as f64 / steps as f64),
            Spacing::Leading => {
                let stride = usable / planned;
                (0..planned).rev().take(steps).map(|i| (i * stride) as f64 + offset).collect()
            }
            _ => {
                let stride = (usable - 1) as f64 / (planned.max(2) - 1) as f64;
                let at = |i: usize| if i > 0 && i + 1 == planned { (usable - 1) as f64 } else { i as f64 * stride };
                let round = |t: f64| if is_whole { t.round_ties_even() } else { f64::from(t as f32) };
                (0..planned).rev().take(steps).map(|i| round(at(i))).collect()
            }
        };
        match timesteps.first() {
            Some(&first) if first < count as f64 => Ok(timesteps),
            first => Err(Error::Argument {
                what: "steps_offset",
                expected: format!("such that timesteps stay below {count}"),
                got: format!("a first timestep of {first:?}"),
                at: "SchedulerConfig::grid",
            }),
        }
    }

    /// The training steps that `lambda_min_clipped` leaves.
    fn unclipped(&self) -> usize {
        let Some(lambda_min) = self.config.lambda_min_clipped else { return self.table.len() };
        self.table.sigma_edm.iter().filter(|&&sigma| -f64::from(sigma).ln() >= lambda_min).count()
    }

    fn check_steps(&self, most: usize) -> Result<()> {
        if (1..=most).contains(&self.steps) {
            return Ok(());
        }
        let expected = format!("from 1 to {most} on this grid of a model with {} training steps", self.table.len());
        Err(Error::Argument { what: "steps", expected, got: self.steps.to_string(), at: "SchedulerConfig::grid" })
    }
}

/// Downwards from `top` by `stride`, rounded, less 1, as long as that is a timestep. The stride is rounded as numpy's `arange`
/// does, because ties depend on it.
fn trailing(top: usize, stride: f64) -> Vec<f64> {
    let top = top as f64;
    let stride = (top - stride) - top;
    (0..).map(|i| (top + f64::from(i) * stride).round_ties_even() - 1.0).take_while(|&timestep| timestep >= 0.0).collect()
}
