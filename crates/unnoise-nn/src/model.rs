//! A trained prior as a directory that diffusers reads too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Value, json};
use unnoise_core::{Prediction, Schedule, SchedulerConfig};

use crate::files::{read_limited, write_atomically};
use crate::{Error, Params, Precision, Result, Tracking, Unet, UnetConfig, UnetDenoiser};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const CONFIG: &str = "config.json";
const SCHEDULER: &str = "scheduler_config.json";
const ABOUT: &str = "unnoise.json";
const JSON_BYTES_LIMIT: u64 = 16 << 20;
const STEPS_LIMIT: u64 = 1 << 20;

/// A network, its parameters, and the process that it was trained for.
///
/// | file | in the root or in | holds |
/// |---|---|---|
/// | `config.json` | `unet/` | the architecture |
/// | `diffusion_pytorch_model.safetensors` | `unet/` | the parameters |
/// | `scheduler_config.json` | `scheduler/` | the schedule and the prediction type; may be absent |
/// | `unnoise.json` | | what else this project knows of the model; may be absent |
#[derive(Clone, Debug, PartialEq)]
pub struct DiffusionModel {
    /// The architecture.
    pub config: UnetConfig,
    /// The parameters; they fit the architecture.
    pub params: Params,
    /// The process, if the directory says.
    pub scheduler: Option<SchedulerConfig>,
    /// The object of `unnoise.json`, if there is one.
    pub about: Option<Value>,
}

impl DiffusionModel {
    /// A model from its parts.
    ///
    /// # Errors
    /// As [`UnetConfig::validate`] and [`Params::check`].
    pub fn new(config: UnetConfig, params: Params, scheduler: Option<SchedulerConfig>) -> Result<Self> {
        params.check(&config.parameter_shapes()?)?;
        Ok(Self { config, params, scheduler, about: None })
    }

    /// Reads a directory, as diffusers or [`write`](Self::write) saved it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`], [`Error::Limit`] with the path; [`Error::Parameters`] for tensors that do not fit;
    /// [`Error::NotSupportedYet`] for blocks that are not served and for a pickled `.bin`, with the step that converts it.
    pub fn read(directory: &Path) -> Result<Self> {
        let nested = directory.join("unet");
        let network = if nested.join(CONFIG).is_file() { nested } else { directory.to_path_buf() };
        let config_path = network.join(CONFIG);
        if !config_path.is_file() {
            fs::read_dir(directory).map_err(Error::io(directory))?;
            let expected = format!("a model's, with {CONFIG} in it or in its unet/");
            return Err(Error::file(directory, "the directory", expected, "one without"));
        }
        let config = UnetConfig::from_json(parse(&read_json(&config_path)?, &config_path)?, &config_path)?;
        let weights = network.join(WEIGHTS);
        refuse_other_formats(&network, &weights)?;
        let params = Params::read(&weights)?;
        params.check(&config.parameter_shapes()?).map_err(|e| e.in_file(&weights))?;
        let scheduler = match first_file([directory.join("scheduler").join(SCHEDULER), directory.join(SCHEDULER)]) {
            Some(path) => Some(scheduler_from_json(&read_json(&path)?).map_err(|e| e.in_file(&path))?),
            None => None,
        };
        let about = match first_file([directory.join(ABOUT)]) {
            Some(path) => Some(parse(&read_json(&path)?, &path)?),
            None => None,
        };
        Ok(Self { config, params, scheduler, about })
    }

    /// A model from the content of its files, for one that is embedded in a program; errors name `name`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_bytes(name: &str, config: &str, weights: &[u8], scheduler: Option<&str>, about: Option<&str>) -> Result<Self> {
        let path = Path::new(name);
        let config = UnetConfig::from_json(parse(config, path)?, path)?;
        let params = Params::from_safetensors(weights, path)?;
        params.check(&config.parameter_shapes()?).map_err(|e| e.in_file(path))?;
        let scheduler = scheduler.map(scheduler_from_json).transpose().map_err(|e| e.in_file(path))?;
        let about = about.map(|text| parse(text, path)).transpose()?;
        Ok(Self { config, params, scheduler, about })
    }

    /// Writes the files into `directory`, which is made if need be; each is replaced as a whole, the weights first.
    ///
    /// Where `about` tells of the weights, their hash (`weights.sha256`) becomes that of the numbers as they are stored.
    ///
    /// diffusers reads it with `DDPMPipeline.from_pretrained`, `UNet2DModel.from_pretrained` and
    /// `DDPMScheduler.from_pretrained`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, directory: &Path, precision: Precision) -> Result<()> {
        fs::create_dir_all(directory).map_err(Error::io(directory))?;
        self.params.write(&directory.join(WEIGHTS), precision)?;
        let mut files = vec![(CONFIG, self.config.to_json())];
        if let Some(scheduler) = &self.scheduler {
            let class = scheduler.class_name.as_deref().unwrap_or("DDPMScheduler");
            let mut scheduler = serde_json::to_value(scheduler).expect("numbers and strings always serialise");
            scheduler["_class_name"] = class.into();
            let index = json!({
                "_class_name": "DDPMPipeline",
                "_diffusers_version": "0.42.1",
                "scheduler": ["diffusers", class],
                "unet": ["diffusers", "UNet2DModel"],
            });
            files.extend([(SCHEDULER, scheduler), ("model_index.json", index)]);
        }
        if let Some(mut about) = self.about.clone() {
            if let Some(Value::Object(weights)) = about.get_mut("weights") {
                weights.insert("sha256".into(), self.params.sha256_stored(precision).into());
            }
            files.push((ABOUT, about));
        }
        for (name, json) in files {
            write_atomically(&directory.join(name), format!("{json:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// The network on a device.
    ///
    /// # Errors
    /// As [`Unet::new`].
    pub fn unet(&self, device: &Device, tracking: Tracking) -> Result<Unet> {
        Unet::new(&self.config, &self.params, device, tracking)
    }

    /// What the network predicts.
    ///
    /// # Errors
    /// [`Error::Argument`] without a scheduler configuration; [`Error::NotSupportedYet`] for another prediction type.
    pub fn prediction(&self) -> Result<Prediction> {
        let process = self.process()?;
        if process.is_flow() {
            return Ok(Prediction::Velocity);
        }
        match process.prediction_type.as_deref() {
            None | Some("epsilon") => Ok(Prediction::Eps),
            Some("sample") => Ok(Prediction::X0),
            Some("v_prediction") => Ok(Prediction::V),
            Some(other) => Err(Error::NotSupportedYet {
                what: format!("prediction_type '{other}'"),
                supported: "epsilon, sample, v_prediction".into(),
            }),
        }
    }

    /// The schedule that the network was trained on.
    ///
    /// # Errors
    /// [`Error::Argument`] without a scheduler configuration; [`Error::Core`] for one that has no schedule here.
    pub fn schedule(&self) -> Result<Arc<dyn Schedule>> {
        Ok(self.process()?.schedule()?)
    }

    /// The model as a prior on a device, unconditional where it has a class that stands for none.
    ///
    /// # Errors
    /// As [`unet`](Self::unet), [`schedule`](Self::schedule) and [`prediction`](Self::prediction).
    pub fn denoiser(&self, device: &Device) -> Result<UnetDenoiser> {
        self.denoiser_of(self.unet(device, Tracking::Frozen)?)
    }

    /// The same, with the numbers of this model themselves: its parameters are empty from then on.
    ///
    /// # Errors
    /// As `denoiser`; the parameters may be lost then.
    pub fn take_denoiser(&mut self, device: &Device) -> Result<UnetDenoiser> {
        let unet = Unet::frozen(&self.config, std::mem::take(&mut self.params), device)?;
        self.denoiser_of(unet)
    }

    fn denoiser_of(&self, unet: Unet) -> Result<UnetDenoiser> {
        let denoiser = UnetDenoiser::new(unet, self.schedule()?, self.prediction()?)?;
        Ok(denoiser.with_train_steps(self.process()?.train_steps()).with_label(self.null_class()))
    }

    /// The class that stands for none (`null_class` of `unnoise.json`), of a network that was trained with classes left out at random.
    pub fn null_class(&self) -> Option<usize> {
        self.about.as_ref()?.get("null_class")?.as_u64().map(|class| class as usize)
    }

    fn process(&self) -> Result<&SchedulerConfig> {
        let missing = || Error::argument("the model's scheduler_config.json", "present", "none", "DiffusionModel");
        self.scheduler.as_ref().ok_or_else(missing)
    }
}

fn first_file<const N: usize>(paths: [PathBuf; N]) -> Option<PathBuf> {
    paths.into_iter().find(|path| path.is_file())
}

fn read_json(path: &Path) -> Result<String> {
    String::from_utf8(read_limited(path, JSON_BYTES_LIMIT)?).map_err(|e| Error::file(path, "the content", "UTF-8", e))
}

fn parse(text: &str, path: &Path) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::file(path, "the content", "JSON", e))
}

fn scheduler_from_json(text: &str) -> Result<SchedulerConfig> {
    let config = SchedulerConfig::from_json(text)?;
    let got = config.train_steps() as u64;
    if got > STEPS_LIMIT {
        return Err(Error::Limit { what: "num_train_timesteps", limit: STEPS_LIMIT, got, at: SCHEDULER.into() });
    }
    Ok(config)
}

/// A clear word on the weights that diffusers may have saved in another form.
fn refuse_other_formats(network: &Path, weights: &Path) -> Result<()> {
    if weights.is_file() {
        return Ok(());
    }
    let pickle = weights.with_extension("bin");
    if pickle.is_file() {
        let d = network.display();
        return Err(Error::NotSupportedYet {
            what: format!("{} (a Python pickle)", pickle.display()),
            supported: format!(
                "{WEIGHTS}; convert once with: python -c \"from diffusers import UNet2DModel as U; U.from_pretrained('{d}').save_pretrained('{d}')\""
            ),
        });
    }
    let sharded = network.join(format!("{WEIGHTS}.index.json"));
    if sharded.is_file() {
        return Err(Error::NotSupportedYet { what: format!("{} (several files)", sharded.display()), supported: WEIGHTS.into() });
    }
    if !weights.exists() {
        return Err(Error::file(network, "the weights", format!("in {WEIGHTS}"), "no such file"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
