//! Training with its records: losses as CSV and TensorBoard events, and sheets of samples.

use std::ops::ControlFlow;
use std::path::Path;

use unnoise_io::{CsvLog, EventLog, Images, Overwrite, Picture, Pixels, Range, SheetConfig, sheet};
use unnoise_nn::{Device, Outcome, RunDirectory, StepReport, Trainer, TrainingImages};

use crate::{Prior, Result, SampleConfig, SampleGrid, draw};

/// What is written beside a run's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingRecords {
    /// Updates between sheets of samples, drawn with the newest checkpoint's average weights; 0 for none.
    pub sheet_every: u64,
    /// Samples on a sheet.
    pub sheet_images: usize,
    /// Steps of `ddim` for each.
    pub sheet_steps: usize,
}

impl Default for TrainingRecords {
    fn default() -> Self {
        Self { sheet_every: 1000, sheet_images: 16, sheet_steps: 25 }
    }
}

/// Images as the trainer takes them.
///
/// # Errors
/// [`Error::Network`](crate::Error::Network) for an empty set.
pub fn training_images(images: Images) -> Result<TrainingImages> {
    let Images { pixels, labels } = images;
    let training = match pixels {
        Pixels::U8(pixels) => TrainingImages::from_u8(pixels)?,
        Pixels::F32(pixels) => TrainingImages::from_f32(pixels, [0.0, 1.0])?,
    };
    Ok(match labels {
        Some(labels) => training.with_labels(labels)?,
        None => training,
    })
}

/// Runs `trainer` to its end, with `losses.csv`, TensorBoard events in `events/` and `samples-STEP.png` beside its checkpoints.
///
/// # Errors
/// Those of the training and of the files.
pub fn train(
    trainer: &mut Trainer,
    directory: &RunDirectory,
    records: TrainingRecords,
    device: &Device,
    observer: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
) -> Result<Outcome> {
    const COLUMNS: [&str; 4] = ["loss", "lr", "grad_norm", "seconds"];
    let root = directory.root();
    let done = trainer.steps_done();
    let mut events = EventLog::create(&root.join("events"), (done > 0).then_some(done))?;
    let mut csv = CsvLog::resume(&root.join("losses.csv"), &COLUMNS, done)?;
    let mut failed = None;
    let outcome = trainer.run(directory, &mut |_, report| {
        let recorded = record(report, &mut csv, &mut events).and_then(|()| {
            let due = records.sheet_every > 0 && report.step.is_multiple_of(records.sheet_every);
            if due { draw_sheet(directory, records, device, report.step, &mut events) } else { Ok(()) }
        });
        if let Err(error) = recorded {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        observer(report)
    })?;
    failed.map_or(Ok(outcome), Err)
}

fn record(report: &StepReport, csv: &mut CsvLog, events: &mut EventLog) -> Result<()> {
    let StepReport { step, loss, lr, grad_norm, seconds } = *report;
    csv.row(step, &[loss, lr, grad_norm, seconds])?;
    Ok(events.scalars(step, &[("loss", loss), ("lr", lr), ("grad_norm", grad_norm)])?)
}

/// A sheet of the newest checkpoint's samples; none before the first.
fn draw_sheet(directory: &RunDirectory, records: TrainingRecords, device: &Device, step: u64, events: &mut EventLog) -> Result<()> {
    if directory.checkpoints()?.is_empty() {
        return Ok(());
    }
    let picture = sample_sheet(&directory.newest()?, records, device)?;
    picture.write(&directory.root().join(format!("samples-{step:06}.png")), Overwrite::Force)?;
    Ok(events.picture(step, "samples", &picture)?)
}

fn sample_sheet(model: &Path, records: TrainingRecords, device: &Device) -> Result<Picture> {
    let prior = Prior::load(model, device)?;
    let config = SampleConfig {
        sampler: "ddim".into(),
        grid: SampleGrid::default(),
        steps: records.sheet_steps,
        eta: None,
        options: Vec::new(),
        clip: true,
        n: records.sheet_images,
        seed: 0,
        batch: records.sheet_images,
        guidance: None,
        threshold: None,
    };
    let drawing = draw(&prior, &config, None, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(sheet(&drawing.x0, Range::Symmetric, SheetConfig::default()))
}
