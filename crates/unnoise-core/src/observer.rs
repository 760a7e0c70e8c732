//! Watching a run, and stopping it.

use std::ops::ControlFlow;

use crate::{Batch, Level};

/// The state after one step of a sampler or posterior method.
pub struct Progress<'a> {
    /// The step that was done, from 0.
    pub step: usize,
    /// The number of steps of the run.
    pub steps: usize,
    /// Where the step came from.
    pub from: Level,
    /// Where it went.
    pub to: Level,
    /// The state at `to`.
    pub x: &'a Batch,
    /// The estimate of the clean image that the step used (at `from`).
    pub x0_hat: &'a Batch,
}

/// Is told of every step; `ControlFlow::Break` ends the run with [`Error::Stopped`](crate::Error::Stopped).
pub type Observer<'a> = dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a;

/// An observer that only lets the run go on.
pub fn unobserved(_: &Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
