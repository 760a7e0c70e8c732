//! Samples of a prior alone.

use std::ops::ControlFlow;

use ndarray::{Axis, Slice, concatenate};
use unnoise_core::{
    Batch, Counted, DdimInverse, Denoiser, Evaluations, Extrapolated, Grid, Noise, Prediction, Progress, Purpose, Sampler, Shape,
    Spacing, Streams, Thresholded, check_shape, sample, sampler_by_name, sampler_info,
};
use unnoise_nn::UnetDenoiser;

use crate::{Error, GridKind, Prior, Result};

/// How samples of a prior are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleConfig {
    /// The sampler's name.
    pub sampler: String,
    /// Where the steps are placed.
    pub grid: SampleGrid,
    /// The number of steps.
    pub steps: usize,
    /// The share of ancestral noise of samplers that have one; the sampler's own default if none is given.
    pub eta: Option<f64>,
    /// Further options of the sampler: names of [`SamplerInfo::options`](unnoise_core::SamplerInfo::options) and their values as text.
    pub options: Vec<(String, String)>,
    /// Whether the clean image's estimate is clipped where the model's configuration says so.
    pub clip: bool,
    /// The number of samples.
    pub n: usize,
    /// The seed; sample `i` depends on it and on `i` alone.
    pub seed: u64,
    /// The number of samples that are drawn at a time.
    pub batch: usize,
    /// Guidance: classifier-free of a prior that is conditioned on a class and has one for none, autoguidance of one
    /// [with a guide](Prior::with_guide).
    pub guidance: Option<GuidanceConfig>,
    /// The quantile of [`Thresholded`], without a largest threshold, behind the guidance; none for no dynamic thresholding beyond the
    /// configuration's own.
    pub threshold: Option<f64>,
}

/// Where the steps of a run are placed.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleGrid {
    /// As diffusers' scheduler class of the sampler places them, with this spacing, or the one that the model's configuration says.
    Scheduler(Option<Spacing>),
    /// On the model's schedule, by a grid of our own.
    Kind(GridKind),
}

impl Default for SampleGrid {
    /// The model's own.
    fn default() -> Self {
        Self::Scheduler(None)
    }
}

impl SampleGrid {
    /// The grid of this name: diffusers' where it has one of the name, ours otherwise and with parameters (`karras:rho=5`).
    ///
    /// # Errors
    /// Those of [`GridKind::by_name`].
    pub fn by_name(name: &str) -> Result<Self> {
        Ok(match Spacing::by_name(name) {
            Ok(spacing) => Self::Scheduler(Some(spacing)),
            Err(_) => Self::Kind(GridKind::by_name(name)?),
        })
    }

    /// The grid of `steps` steps of a sampler.
    ///
    /// # Errors
    /// Those of [`SchedulerConfig::grid`](unnoise_core::SchedulerConfig::grid) and [`GridKind::grid`].
    pub fn grid(&self, prior: &Prior, sampler: &str, steps: usize) -> Result<Grid> {
        Ok(match self {
            Self::Scheduler(spacing) => prior.scheduler().grid(sampler, *spacing, steps)?,
            Self::Kind(kind) => kind.grid(prior.schedule(), steps)?,
        })
    }

    /// Its name, that of the model's own included.
    ///
    /// # Errors
    /// [`Error::Core`] for a sampler or a configuration that does not exist.
    pub fn name(&self, prior: &Prior, sampler: &str) -> Result<String> {
        Ok(match self {
            Self::Scheduler(spacing) => prior.scheduler().spacing(sampler, *spacing)?.name().into(),
            Self::Kind(kind) => kind.to_string(),
        })
    }
}

/// Guidance away from [`Prior::guide`].
#[derive(Clone, Debug, PartialEq)]
pub struct GuidanceConfig {
    /// The scale: 1 is none.
    pub scale: f64,
    /// The noise levels `sigma / alpha` at which it acts; all if none are given.
    pub interval: Option<[f64; 2]>,
    /// The share of the prediction's spread that is restored, 0 to 1.
    pub rescale: f64,
}

impl GuidanceConfig {
    fn guide<'a>(
        &self,
        prior: &'a Counted<&'a Prior>,
        guide: &'a Counted<UnetDenoiser>,
        of: Prediction,
    ) -> Result<impl Denoiser + 'a> {
        let guided = Extrapolated::new(prior, guide, self.scale)?.rescaled(self.rescale, of)?;
        Ok(match self.interval {
            Some([low, high]) => guided.within(low..=high)?,
            None => guided,
        })
    }
}

/// Samples of a prior.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// The samples, `[n, c, h, w]`, in `[-1, 1]`, not clipped.
    pub x0: Batch,
    /// The network evaluations of all samples.
    pub evaluations: Evaluations,
}

/// Draws samples of `prior`, with the samplers, grids and options of diffusers' schedulers.
///
/// `start` replaces the unit normals that the run starts from: they are scaled here to the grid's first level. `observer` is told the
/// first sample of the batch in work and its progress; when it breaks, the finished batches are returned.
///
/// # Errors
/// Those of the sampler's and the grid's configuration and of the network; `Stopped` if no batch was finished.
pub fn draw(
    prior: &Prior,
    config: &SampleConfig,
    start: Option<&Batch>,
    observer: &mut dyn FnMut(usize, &Progress<'_>) -> ControlFlow<()>,
) -> Result<Drawing> {
    let shape = prior.shape();
    let n = start.map_or(config.n, |start| start.dim().0);
    let argument = |what, expected: &str, got: usize| {
        Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at: "draw" })
    };
    if n == 0 || n > 1 << 20 {
        return argument("the number of images", "1 to 1048576", n);
    }
    if config.batch == 0 {
        return argument("the batch", "at least 1", 0);
    }
    if let Some(start) = start {
        check_shape(start, shape, "the starting noise", "draw")?;
    }
    if !sampler_info(&config.sampler)?.draws() {
        return Err(Error::Core(unnoise_core::Error::Unsupported {
            what: format!("drawing with {}", config.sampler),
            why: "it leads from an image to noise".into(),
            possible: vec!["invert".into(), "ddim".into()],
        }));
    }
    let grid = config.grid.grid(prior, &config.sampler, config.steps)?;
    let counted = Counted::new(prior);
    let guide = config.guidance.as_ref().map(|_| prior.guide()).transpose()?.map(Counted::new);
    let denoiser: Box<dyn Denoiser + '_> = match (&config.guidance, &guide) {
        (Some(guidance), Some(guide)) => Box::new(guidance.guide(&counted, guide, prior.network().prediction())?),
        _ => Box::new(&counted),
    };
    let denoiser: Box<dyn Denoiser + '_> = match config.threshold {
        Some(quantile) => Box::new(Thresholded::new(denoiser, quantile, f64::INFINITY)?),
        None => denoiser,
    };
    let mut parts: Vec<Batch> = Vec::new();
    let mut evaluations = Evaluations::default();
    for first in (0..n).step_by(config.batch) {
        let end = n.min(first + config.batch);
        let mut streams = Streams::new(config.seed, first as u32..end as u32);
        let unit = match start {
            Some(start) => start.slice_axis(Axis(0), Slice::from(first..end)).to_owned(),
            None => unit_normals(&mut streams, end - first, shape),
        };
        let mut sampler = sampler(prior, config)?;
        let mut watch = |progress: &Progress<'_>| observer(first, progress);
        match sample(&mut *sampler, &*denoiser, &grid, unit * grid.start, &mut streams, &mut watch) {
            Ok(x0) => {
                parts.push(x0);
                // Those of a batch that is stopped belong to no sample.
                evaluations = counted.evaluations();
                evaluations.forward += guide.as_ref().map_or(0, |guide| guide.evaluations().forward);
            }
            Err(unnoise_core::Error::Stopped { .. }) if !parts.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Drawing { x0: joined(&parts), evaluations })
}

/// The noise that `ddim` without clipping and with `eta = 0` makes `images` of: DDIM inversion, on a grid of `steps` steps, reversed. The same
/// steps of `ddim` from it return the images with an error in proportion to a step's length.
///
/// `images` are `[n, c, h, w]`, in `[-1, 1]`, of which `batch` are inverted at a time; the noise is of that shape and, for images that the
/// prior could have drawn, of unit variance in the limit of many steps. `observer` is told the first image of the batch in work and its
/// progress; when it breaks, the noise of the finished batches is returned.
///
/// # Errors
/// Those of the grid and the network; `Stopped` if no batch was finished.
///
/// # Reference
/// [`DdimInverse`].
pub fn invert(
    prior: &Prior,
    images: &Batch,
    grid: &SampleGrid,
    steps: usize,
    batch: usize,
    observer: &mut dyn FnMut(usize, &Progress<'_>) -> ControlFlow<()>,
) -> Result<Batch> {
    check_shape(images, prior.shape(), "the images", "invert")?;
    if batch == 0 {
        return Err(Error::Argument { what: "the batch", expected: "at least 1".into(), got: "0".into(), at: "invert" });
    }
    let mut sampler = DdimInverse::default();
    let down = grid.grid(prior, "ddim", steps)?;
    let (up, scale) = (down.reversed(), down.start);
    let mut parts: Vec<Batch> = Vec::new();
    for (k, part) in images.axis_chunks_iter(Axis(0), batch).enumerate() {
        let mut watch = |progress: &Progress<'_>| observer(k * batch, progress);
        let mut unused = Streams::new(0, 0..part.dim().0 as u32);
        match sample(&mut sampler, prior, &up, part.to_owned(), &mut unused, &mut watch) {
            Ok(x) => parts.push(x / scale),
            Err(unnoise_core::Error::Stopped { .. }) if !parts.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(joined(&parts))
}

fn joined(parts: &[Batch]) -> Batch {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(0), &views).unwrap_or_default()
}

/// The sampler as diffusers' class takes it from the model's configuration, with the options that are given.
fn sampler(prior: &Prior, config: &SampleConfig) -> Result<Box<dyn Sampler>> {
    let (name, mut options) = prior.scheduler().sampler_options(&config.sampler, config.clip)?;
    options.eta = config.eta;
    for (option, value) in &config.options {
        sampler_info(name)?.check_option(option)?;
        options.set(option, value)?;
    }
    Ok(prior.scheduler().bounded(sampler_by_name(name, &options)?, config.clip)?)
}

fn unit_normals(streams: &mut Streams, n: usize, shape: Shape) -> Batch {
    streams.normal(0, Purpose::Start, n, shape)
}
