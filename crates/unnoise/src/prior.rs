//! Trained priors.

use std::path::Path;

use serde_json::Value;
use unnoise_core::{Batch, Denoiser, Estimate, Level, Linearized, Schedule, SchedulerConfig, Shape};
use unnoise_nn::{Device, DiffusionModel, SampleSize, UnetDenoiser};

use crate::{Error, Result};

const DIGITS: &str = "built-in digits";

/// The model behind [`Prior::digits`].
///
/// # Errors
/// None in a binary that passed its tests.
pub fn digits_model() -> Result<DiffusionModel> {
    macro_rules! file {
        ($name:literal) => {
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/digits/", $name)
        };
    }
    Ok(DiffusionModel::from_bytes(
        DIGITS,
        include_str!(file!("config.json")),
        include_bytes!(file!("diffusion_pytorch_model.safetensors")),
        Some(include_str!(file!("scheduler_config.json"))),
        Some(include_str!(file!("unnoise.json"))),
    )?)
}

/// A trained prior on a device: a network, the process it was trained for, and what is known of it.
///
/// ```no_run
/// use unnoise::{Prior, nn::open_device};
/// let prior = Prior::load("my-model".as_ref(), &open_device("cpu")?)?;
/// println!("{} draws images of shape {:?}", prior.name(), prior.shape());
/// # Ok::<(), unnoise::Error>(())
/// ```
pub struct Prior {
    name: String,
    denoiser: UnetDenoiser,
    scheduler: SchedulerConfig,
    shape: Shape,
    weights_sha256: String,
    null_class: Option<usize>,
    guide: Option<UnetDenoiser>,
    about: Option<Value>,
}

impl Prior {
    /// The prior in a model directory, as `unnoise train` or diffusers wrote it.
    ///
    /// # Errors
    /// [`Error::Network`] for a directory that is none or is damaged; [`Error::ImageSize`] for a model that does not say how large its images
    /// are.
    pub fn load(directory: &Path, device: &Device) -> Result<Self> {
        Self::new(&directory.display().to_string(), DiffusionModel::read(directory)?, None, device)
    }

    /// The prior in a model directory; its images are of `sides`, `[h, w]`, where the model does not say.
    ///
    /// # Errors
    /// [`Error::Network`] for a directory that is none or is damaged.
    pub fn load_for(directory: &Path, sides: [usize; 2], device: &Device) -> Result<Self> {
        Self::new(&directory.display().to_string(), DiffusionModel::read(directory)?, Some(sides), device)
    }

    /// The built-in prior of handwritten digits, 32x32, trained on 9,000 digits of MNIST (`models/digits/`).
    ///
    /// # Errors
    /// None in a binary that passed its tests.
    pub fn digits(device: &Device) -> Result<Self> {
        Self::new(DIGITS, digits_model()?, None, device)
    }

    /// The prior of a model, on images of `sides`, `[h, w]`, where its configuration states none (`sample_size`).
    ///
    /// # Errors
    /// [`Error::Network`] for a model without a scheduler configuration; [`Error::ImageSize`] where neither states the sides.
    pub fn new(name: &str, mut model: DiffusionModel, sides: Option<[usize; 2]>, device: &Device) -> Result<Self> {
        let stated = model.config.sample_size.map(SampleSize::sides);
        let [h, w] = stated.or(sides).ok_or_else(|| Error::ImageSize { model: name.into() })?;
        Ok(Self {
            name: name.into(),
            shape: [model.config.in_channels, h, w],
            weights_sha256: model.params.sha256(),
            null_class: model.null_class(),
            guide: None,
            denoiser: model.take_denoiser(device)?,
            scheduler: model.scheduler.unwrap_or_default(),
            about: model.about,
        })
    }

    /// Conditions every evaluation on a class; none is the class that stands for none, where the network has one.
    #[must_use]
    pub fn with_label(self, label: Option<usize>) -> Self {
        let label = label.or(self.null_class);
        Self { denoiser: self.denoiser.with_label(label), ..self }
    }

    /// The class that stands for none, of a network that was trained with classes left out at random: the last, as its `unnoise.json` says
    /// (`null_class`).
    pub fn null_class(&self) -> Option<usize> {
        self.null_class
    }

    /// Guides by a worse version of it, smaller or less trained, under that one's own condition: autoguidance.
    ///
    /// # Errors
    /// [`Error::Core`] for a guide of images of another shape, or trained on other noise levels.
    pub fn with_guide(self, guide: &Self) -> Result<Self> {
        let levels = |prior: &Self| [0.0, 0.25, 0.5, 0.75, 1.0].map(|t| Level::at(prior.schedule(), t).sigma_edm() as f32);
        let refuse = |why: &str| unnoise_core::Error::Unsupported {
            what: format!("guidance of {} by {}", self.name, guide.name),
            why: why.into(),
            possible: vec!["a smaller or less trained network for the same images and noise levels".into()],
        };
        if self.shape != guide.shape {
            return Err(refuse(&format!("its images are {:?}, the guide's {:?}", self.shape, guide.shape)).into());
        }
        if levels(&self) != levels(guide) {
            return Err(refuse("they were trained on different noise levels").into());
        }
        Ok(Self { guide: Some(guide.denoiser.clone()), ..self })
    }

    /// What guidance leads away from: the worse version that was given, or the same network without a class.
    ///
    /// # Errors
    /// [`Error::Core`] for a network that has neither.
    pub fn guide(&self) -> Result<UnetDenoiser> {
        let none = || unnoise_core::Error::Unsupported {
            what: format!("guidance of {}", self.name),
            why: "it has no class that stands for none, and no guide was given".into(),
            possible: vec!["a model trained with --class-dropout".into(), "a worse model as its guide".into()],
        };
        match &self.guide {
            Some(guide) => Ok(guide.clone()),
            None => Ok(self.denoiser.clone().with_label(Some(self.null_class.ok_or_else(none)?))),
        }
    }

    /// Where it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape of its images, `[c, h, w]`.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The process that it was trained for.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The largest absolute value of its clean images, if its configuration says that estimates are clipped (`clip_sample`).
    pub fn clip_limit(&self) -> Option<f64> {
        let clips = self.scheduler.clip_sample.unwrap_or(true);
        clips.then(|| self.scheduler.clip_sample_range.unwrap_or(1.0))
    }

    /// The SHA-256 of its weights.
    pub fn weights_sha256(&self) -> &str {
        &self.weights_sha256
    }

    /// What its `unnoise.json` says, if it has one.
    pub fn about(&self) -> Option<&Value> {
        self.about.as_ref()
    }

    /// The network behind the seam.
    pub fn network(&self) -> &UnetDenoiser {
        &self.denoiser
    }
}

impl Denoiser for Prior {
    fn schedule(&self) -> &dyn Schedule {
        self.denoiser.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> unnoise_core::Result<Batch> {
        self.denoiser.x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> unnoise_core::Result<Estimate> {
        self.denoiser.estimate(x, level)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> unnoise_core::Result<Linearized<'a>> {
        self.denoiser.linearize(x, level)
    }
}
