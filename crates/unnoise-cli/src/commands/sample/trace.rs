//! The folder of a trace: the state and the clean image's estimate after every step.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use unnoise::core::{Batch, Grid, Level, Progress};
use unnoise::io::{Array, OutDir, Overwrite, ResultKind, write_atomic, write_npy};

use crate::output::in_place;

/// How an earlier trace is known.
const TRACE: ResultKind = ResultKind { marker: "grid.json", keys: &["start", "steps"], owns };

/// A trace that appears as a whole when it is finished, and not at all if it is dropped before.
pub(super) struct Trace {
    out: OutDir,
    grid: Grid,
    steps: usize,
}

impl Trace {
    pub(super) fn create(directory: &Path, grid: &Grid, overwrite: Overwrite) -> Result<Self> {
        Ok(Self { out: OutDir::create(directory, TRACE, overwrite)?, grid: grid.clone(), steps: 0 })
    }

    /// How many steps it holds.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn step(&mut self, p: &Progress<'_>) -> Result<()> {
        let write = |name: &str, batch: &Batch| {
            let path = self.out.file(format!("{name}-{:04}.npy", p.step));
            write_npy(&path, &Array::from(batch.view().into_dyn()), Overwrite::Never)
        };
        write("x", p.x).and_then(|()| write("x0_hat", p.x0_hat)).map_err(|error| in_place(&self.out, error.into()))?;
        self.steps = p.step + 1;
        Ok(())
    }

    /// Puts the trace in its place, with the levels of the steps that it holds, and returns where it is.
    pub(super) fn finish(self) -> Result<PathBuf> {
        let level = |level: Level| json!({ "t": level.t, "alpha": level.alpha, "sigma": level.sigma });
        let held = self.grid.steps.iter().take(self.steps);
        let steps: Vec<_> = held.map(|step| json!({ "from": level(step.from), "to": level(step.to) })).collect();
        let grid = json!({ "start": self.grid.start, "steps": steps, "steps_requested": self.grid.steps.len() });
        let text = serde_json::to_string_pretty(&grid)? + "\n";
        let written = write_atomic(&self.out.file("grid.json"), Overwrite::Never, |file| file.write_all(text.as_bytes()));
        written.map_err(|error| in_place(&self.out, error.into()))?;
        Ok(self.out.finish()?)
    }
}

/// `grid.json`, `x-0000.npy`, `x0_hat-0000.npy`, ...
fn owns(name: &str) -> bool {
    let state = || name.strip_prefix("x-").or(name.strip_prefix("x0_hat-"))?.strip_suffix(".npy");
    name == "grid.json" || state().is_some_and(|step| step.len() >= 4 && step.bytes().all(|digit| digit.is_ascii_digit()))
}
