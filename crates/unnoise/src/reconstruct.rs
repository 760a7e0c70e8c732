//! Posterior samples of a measured image.

use std::time::Instant;

use ndarray::{Axis, concatenate};
use serde_json::Value;
use unnoise_core::{
    Batch, Clamped, Counted, CountedOperator, Denoiser, Diagnostics, Drawn, Evaluations, Interruptible, Measurement, OperatorCalls,
    Streams, chi_square, default_settings, method_by_name, norm_sq, psnr, ssim,
};
use unnoise_io::{Picture, Range, ReconstructionView};

use crate::watch::Watch;
use crate::{Error, GridKind, MeasuredImage, Pair, Prior, ReconstructObserver, Report, Result};

/// How a reconstruction is made.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconstructConfig {
    /// The posterior method's name.
    pub method: String,
    /// Its settings as a JSON object: missing keys take their defaults, `null` takes all of them.
    pub settings: Value,
    /// The number of posterior samples.
    pub samples: usize,
    /// The steps of each.
    pub steps: usize,
    /// Where the steps are placed.
    pub grid: GridKind,
    /// The seed; sample `i` depends on it and on `i` alone.
    pub seed: u64,
    /// The number of samples that are drawn at a time; it changes memory, speed and how many a stopped run keeps, not the samples.
    pub batch: usize,
}

impl Default for ReconstructConfig {
    /// The demonstration's: 19 samples, whose range is a 90 % interval. Fewer at a time are slower, more are lost when a run is stopped.
    fn default() -> Self {
        Self {
            method: "ddnm-plus".into(),
            settings: Value::Null,
            samples: 19,
            steps: 50,
            grid: GridKind::Uniform,
            seed: 0,
            batch: 5,
        }
    }
}

/// Posterior samples and what they say. All arrays are in `[0, 1]` pixels, not clipped.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// The samples, `[n, c, h, w]`.
    pub samples: Batch,
    /// Their mean, `[1, c, h, w]`.
    pub mean: Batch,
    /// Their standard deviation (divisor `n - 1`; 0 for one sample), `[1, c, h, w]`.
    pub deviation: Batch,
    /// The report.
    pub report: Report,
}

/// Draws posterior samples for `measurement` (in the model's units, as a file's or
/// [`Measurement::from_unit_range`] gives them).
///
/// Where the prior's configuration clips its estimates of the clean image (`clip_sample`), they are clipped here too, and methods that can clamp
/// do so unless their settings say otherwise. Samples are drawn `config.batch` at a time.
///
/// `observer` is asked after every step, and before every evaluation of the network and every vector-Jacobian product within one. When it
/// breaks, the run ends there, and what is finished is returned, if it is at least one batch.
///
/// # Errors
/// [`Error::Argument`] for an operator on images of another shape than the prior's, or no samples; those of the method and the
/// network; [`Error::Core`] with `Stopped` if nothing was finished.
pub fn reconstruct(
    prior: &Prior,
    measurement: &Measurement<'_>,
    truth: Option<&Batch>,
    config: &ReconstructConfig,
    observer: &mut ReconstructObserver<'_>,
) -> Result<Reconstruction> {
    check(prior, measurement, config)?;
    let started = Instant::now();
    let settings = settings_for(prior, config)?;
    let method = method_by_name(&config.method, &settings)?;
    let grid = config.grid.grid(prior.schedule(), config.steps)?;
    let watch = Watch::new(config, observer);
    let counted_prior = Counted::new(prior);
    let clamped = Clamped::new(&counted_prior, prior.clip_limit().unwrap_or(f64::INFINITY));
    let denoiser = Interruptible::new(clamped, || watch.go_on());
    let op = CountedOperator::new(measurement.op);
    let counted = Measurement::new(&op, measurement.y.clone(), measurement.sigma_y)?;
    let mut parts: Vec<Batch> = Vec::new();
    let mut diagnostics = Diagnostics::default();
    let (mut evaluations, mut operator_calls) = (Evaluations::default(), OperatorCalls::default());
    let mut done = 0;
    while done < config.samples {
        let active = config.batch.min(config.samples - done);
        let streams = Streams::new(config.seed, done as u32..(done + active) as u32);
        watch.start(done, active);
        match method.sample(&denoiser, &counted, &grid, &streams, &mut |p| watch.step(p.step + 1)) {
            Ok(Drawn { x0, diagnostics: of_part }) => {
                parts.push(x0);
                diagnostics.add(of_part);
                // Those of a batch that is stopped belong to no sample.
                (evaluations, operator_calls) = (counted_prior.evaluations(), op.calls());
            }
            Err(unnoise_core::Error::Stopped { .. }) if !parts.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
        done += active;
    }
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let samples = concatenate(Axis(0), &views).unwrap_or_default();
    let residual_rms = residual_rms(measurement, &samples);
    let chi_square = (measurement.sigma_y > 0.0).then(|| chi_square(measurement, &samples)).transpose()?;
    let samples = to_unit(&samples);
    let (mean, deviation) = moments(&samples);
    let clipped = mean.mapv(|v| v.clamp(0.0, 1.0));
    let report = Report {
        unnoise: env!("CARGO_PKG_VERSION"),
        method: method.name().into(),
        target: method.target().to_string(),
        settings,
        prior: prior.name().into(),
        weights_sha256: prior.weights_sha256().into(),
        operator: measurement.op.spec(),
        sigma_y: measurement.sigma_y / 2.0,
        range: "[0,1]",
        seed: config.seed,
        samples_requested: config.samples,
        samples: samples.dim().0,
        steps: config.steps,
        grid: config.grid.to_string(),
        batch: config.batch,
        evaluations: Pair { forward: evaluations.forward, adjoint: evaluations.vjp },
        operator_calls,
        seconds: started.elapsed().as_secs_f64(),
        chi_square,
        residual_rms,
        chi_square_deviation: (2.0 / measurement.op.measured() as f64).sqrt(),
        measured: measurement.op.measured(),
        mean_deviation: deviation.mean().unwrap_or(0.0),
        psnr: truth.map(|truth| psnr(&clipped, truth, 1.0)).transpose()?.map(|v| v[0]),
        ssim: truth.map(|truth| ssim(&clipped, truth, 1.0)).transpose()?.map(|v| v[0]),
        diagnostics,
    };
    Ok(Reconstruction { samples, mean, deviation, report })
}

impl Reconstruction {
    /// The picture: truth, measurement, mean, standard deviation and the first samples.
    pub fn panel(&self, measured: &MeasuredImage) -> Picture {
        let first = |batch: &Batch| batch.index_axis(Axis(0), 0).to_owned();
        let (truth, mean, deviation) = (measured.truth().map(first), first(&self.mean), first(&self.deviation));
        let measurement = first(&measured.picture());
        let note = self.report.psnr.map_or(String::new(), |psnr| format!("{psnr:.1} dB"));
        let view = ReconstructionView {
            truth: truth.as_ref().map(|truth| truth.view()),
            measurement: measurement.view(),
            mean: mean.view(),
            deviation: deviation.view(),
            samples: self.samples.view(),
            mean_note: &note,
        };
        view.panel(Range::Unit)
    }
}

/// Images from the model's range to `[0, 1]`.
pub fn to_unit(images: &Batch) -> Batch {
    images.mapv(|v| 0.5 * (v + 1.0))
}

fn check(prior: &Prior, measurement: &Measurement<'_>, config: &ReconstructConfig) -> Result<()> {
    let argument = |what, expected: String, got: String| Error::Argument { what, expected, got, at: "reconstruct" };
    let (shape, wanted) = (measurement.op.input_shape(), prior.shape());
    if shape != wanted {
        let expected = format!("of shape {wanted:?} [c, h, w], as the prior's images");
        return Err(argument("the measured image", expected, format!("{shape:?}")));
    }
    if config.samples == 0 || config.samples > 1 << 20 {
        return Err(argument("the number of samples", "1 to 1048576".into(), config.samples.to_string()));
    }
    if config.batch == 0 {
        return Err(argument("the batch", "at least 1".into(), "0".into()));
    }
    Ok(())
}

/// The root mean square of `y - A x` for each sample, in the units of images in `[0, 1]`; for samples in the model's.
fn residual_rms(measurement: &Measurement<'_>, samples: &Batch) -> Vec<f64> {
    let residuals = measurement.op.forward(samples) - &measurement.y;
    let m = measurement.op.measured() as f64;
    norm_sq(&residuals).into_iter().map(|sum| 0.5 * (sum / m).sqrt()).collect()
}

fn moments(samples: &Batch) -> (Batch, Batch) {
    let mean = samples.mean_axis(Axis(0)).unwrap_or_default().insert_axis(Axis(0));
    let divisor = (samples.dim().0.max(2) - 1) as f64;
    let squares = (samples - &mean).mapv_into(|v| v * v).sum_axis(Axis(0)).insert_axis(Axis(0));
    (mean, squares.mapv_into(|v| (v / divisor).sqrt()))
}

/// The method's settings: the defaults, with the prior's own limit where the method can clamp, and then the caller's.
fn settings_for(prior: &Prior, config: &ReconstructConfig) -> Result<Value> {
    let mut settings = default_settings(&config.method)?;
    if let Some(clamp) = settings.get_mut("clamp") {
        *clamp = prior.clip_limit().into();
    }
    match (settings.as_object_mut(), config.settings.as_object()) {
        (Some(settings), Some(given)) => settings.extend(given.clone()),
        (_, None) if !config.settings.is_null() => return Ok(config.settings.clone()),
        _ => {}
    }
    Ok(settings)
}
