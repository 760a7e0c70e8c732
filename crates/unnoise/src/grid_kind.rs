//! Grids by name.

use unnoise_core::{Denoiser, Grid};

use crate::Result;

/// Where the steps of a run are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridKind {
    /// Equal steps of the schedule's time.
    #[default]
    Uniform,
    /// Equal steps of `(sigma / alpha)^(1/7)`.
    Karras,
    /// Equal steps of the logarithm of the signal-to-noise ratio.
    LogSnr,
}

impl GridKind {
    /// Every grid.
    pub const ALL: [Self; 3] = [Self::Uniform, Self::Karras, Self::LogSnr];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Karras => "karras",
            Self::LogSnr => "log-snr",
        }
    }

    /// The grid of this name.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) with the names that exist.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(|kind| kind.name().into()).to_vec();
            unnoise_core::Error::Unknown { kind: "grid", name: name.into(), known }.into()
        })
    }

    /// The grid of `steps` steps on the prior's schedule.
    ///
    /// # Errors
    /// Those of [`Grid`].
    pub fn grid(self, prior: &dyn Denoiser, steps: usize) -> Result<Grid> {
        let schedule = prior.schedule();
        Ok(match self {
            Self::Uniform => Grid::uniform(schedule, steps)?,
            Self::Karras => Grid::karras(schedule, steps)?,
            Self::LogSnr => Grid::log_snr(schedule, steps)?,
        })
    }
}
