//! Watching a reconstruction, and stopping it.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::ReconstructConfig;

/// How far a reconstruction is.
#[derive(Clone, Copy, Debug)]
pub struct ReconstructProgress {
    /// Samples that are finished.
    pub samples_done: usize,
    /// Samples in work.
    pub samples_active: usize,
    /// All samples.
    pub samples: usize,
    /// Steps done on those in work.
    pub step: usize,
    /// Steps of each.
    pub steps: usize,
}

/// Is told how far a reconstruction is, and says whether it may go on.
pub type ReconstructObserver<'a> = dyn FnMut(&ReconstructProgress) -> ControlFlow<()> + Send + 'a;

/// The observer with what it is told. A denoiser is shared between threads, so the two are behind a lock.
pub(crate) struct Watch<'a>(Mutex<(ReconstructProgress, &'a mut ReconstructObserver<'a>)>);

impl<'a> Watch<'a> {
    pub(crate) fn new(config: &ReconstructConfig, observer: &'a mut ReconstructObserver<'a>) -> Self {
        let (samples, steps) = (config.samples, config.steps);
        let progress = ReconstructProgress { samples_done: 0, samples_active: 0, samples, step: 0, steps };
        Self(Mutex::new((progress, observer)))
    }

    fn ask(&self, change: impl FnOnce(&mut ReconstructProgress)) -> (ReconstructProgress, ControlFlow<()>) {
        let (progress, observer) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(progress);
        (*progress, observer(progress))
    }

    /// Another batch is in work.
    pub(crate) fn start(&self, samples_done: usize, samples_active: usize) {
        let progress = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0;
        *progress = ReconstructProgress { samples_done, samples_active, step: 0, ..*progress };
    }

    /// A step was done.
    pub(crate) fn step(&self, step: usize) -> ControlFlow<()> {
        self.ask(|progress| progress.step = step).1
    }

    /// Whether there may be another evaluation.
    pub(crate) fn go_on(&self) -> unnoise_core::Result<()> {
        match self.ask(|_| ()) {
            (_, ControlFlow::Continue(())) => Ok(()),
            (progress, ControlFlow::Break(())) => Err(unnoise_core::Error::Stopped { done: progress.step, steps: progress.steps }),
        }
    }
}
