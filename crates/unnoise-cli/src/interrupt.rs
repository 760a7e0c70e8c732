//! Ctrl-C: the first asks the running command to stop within a step and keep what is done, the second ends the program.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C from now on: what runs must ask [`requested`] once a step.
pub(crate) fn catch() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping; press Ctrl-C again to quit at once");
    })
    .context("Ctrl-C cannot be caught")
}

/// Whether Ctrl-C was pressed.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Breaks once Ctrl-C was pressed.
pub(crate) fn go_on() -> ControlFlow<()> {
    if requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The error of a run of which nothing was finished when it was stopped; any other error as it is.
pub(crate) fn stopped(error: unnoise::Error, consequence: &str) -> anyhow::Error {
    if error.is_stopped() { anyhow::anyhow!("{error}: {consequence}") } else { error.into() }
}
