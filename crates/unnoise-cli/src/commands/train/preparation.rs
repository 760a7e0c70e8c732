//! How a run's images are made of the stored ones.

use std::fmt;

use anyhow::{Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use unnoise::io::{Channels, DatasetConfig, Fit};
use unnoise::nn::{ImagesSummary, RunDirectory};

/// What is done to the stored images; a run remembers it.
#[derive(clap::Args, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preparation {
    /// Convert to gray.
    #[arg(long)]
    gray: bool,

    /// Crop the centre to a square and shrink it to this side.
    #[arg(long, value_name = "PIXELS", conflicts_with = "pad")]
    side: Option<usize>,

    /// Pad to a square of this side with black.
    #[arg(long, value_name = "PIXELS")]
    pad: Option<usize>,
}

impl Preparation {
    /// How the images are read.
    pub(super) fn dataset_config(self) -> DatasetConfig {
        let fit = match (self.side, self.pad) {
            (Some(side), _) => Fit::CropResize(side),
            (None, Some(side)) => Fit::Pad(side),
            (None, None) => Fit::Exact,
        };
        let channels = if self.gray { Channels::Gray } else { Channels::AsStored };
        DatasetConfig { fit, channels, ..DatasetConfig::default() }
    }

    /// That of the run in `run`, which options may say again and not contradict; a run that remembers none is taken at the options' word.
    pub(super) fn of_run(self, run: &RunDirectory) -> Result<Self> {
        let checkpoint = run.newest()?;
        let Some(stored) = ImagesSummary::read(&checkpoint)?.preparation else { return Ok(self) };
        let of_run: Self = serde_json::from_value(stored)
            .map_err(|e| anyhow!("{}: the images' preparation is none of this program's: {e}", checkpoint.display()))?;
        let same = |given: Option<usize>, of_run: Option<usize>| given.is_none() || given == of_run;
        ensure!(
            same(self.side, of_run.side) && same(self.pad, of_run.pad) && (!self.gray || of_run.gray),
            "{self} contradicts the run, which was begun with {of_run}; a resumed run keeps its settings"
        );
        Ok(of_run)
    }
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = |name: &str, side: Option<usize>| side.map(|side| format!("--{name} {side}"));
        let gray = self.gray.then(|| "--gray".to_owned());
        let options: Vec<String> = [option("side", self.side), option("pad", self.pad), gray].into_iter().flatten().collect();
        f.write_str(&if options.is_empty() { "the images as they are stored".into() } else { options.join(" ") })
    }
}
