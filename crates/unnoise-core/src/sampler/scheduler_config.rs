//! diffusers' `scheduler_config.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounded::Bounded;
use super::scheduler_class::{Class, Walk};
use super::{Form, Sampler, SamplerOptions, SecondOrder, Variance, sampler_by_name};
use crate::{DiscreteSchedule, Error, RectifiedFlowSchedule, Result, Schedule};

/// A `scheduler_config.json`, as diffusers writes it.
///
/// A key that the file lacks is `None` and takes the default of the scheduler class that reads it: [`grid`](Self::grid) and
/// [`sampler`](Self::sampler) do what `CLASS.from_config(config)` does in diffusers, where CLASS belongs to the sampler's name.
///
/// | name | class |
/// |---|---|
/// | `ddpm` | `DDPMScheduler` |
/// | `ddim` | `DDIMScheduler` |
/// | `pndm`, `plms` | `PNDMScheduler`, without and with `skip_prk_steps` |
/// | `euler`, `euler-a` | `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler` |
/// | `heun` | `HeunDiscreteScheduler` |
/// | `lms` | `LMSDiscreteScheduler` |
/// | `kdpm2`, `kdpm2-a` | `KDPM2DiscreteScheduler`, `KDPM2AncestralDiscreteScheduler` |
/// | `dpm-solver-2m`, `-3m`, `dpmpp-2m`, `-3m`, `-2m-sde`, `-3m-sde` | `DPMSolverMultistepScheduler` with this `algorithm_type` and order |
/// | `dpmpp-2s`, `-3s` | `DPMSolverSinglestepScheduler` |
/// | `deis` | `DEISMultistepScheduler` |
/// | `unipc`, `unipc-bh1` | `UniPCMultistepScheduler` |
/// | `sa-solver` | `SASolverScheduler` |
/// | all others | none: an extension, on `euler`'s grids |
/// | every name, of a flow | the grid of `FlowMatchEulerDiscreteScheduler`, without clipping |
///
/// Grids beyond a class's own are extensions: Karras, exponential and Lu sigmas of `ddpm`, `ddim` and `pndm`, between the table's ends, and of
/// `euler-a`; Lu lambdas of all but `DPMSolverMultistepScheduler`; spacings other than linspace of `DPMSolverSinglestepScheduler`.
///
/// Refused with [`Error::Unsupported`]: those sigmas for `ddpm`, `ddim` and `pndm` on a zero-SNR table; `variance_type: learned`; dynamic
/// thresholding of `ddim`; beta and flow sigmas; continuous timesteps; `interpolation_type: log_linear`; and beta schedules other than those of
/// [`BETA_SCHEDULES`].
///
/// # Reference
/// diffusers 0.42.1. Where its result is an accident, it is reproduced: DDIM's last step leaves the noise of timestep 0 if
/// `set_alpha_to_one` is false, or on a trailing grid whose number of steps does not divide T; DEIS and SA-Solver end with that noise, and
/// with that of the last of their Karras or exponential sigmas; several classes ignore `rescale_betas_zero_snr`.
/// Not reproduced: the timestep -1 that rounding appends to some trailing grids (61 steps of 1000); the noise that DDPM with
/// `fixed_large` or `learned_range` adds in a last step from a timestep above 0; PNDM's steps by the whole part of `T / n` on linspace and trailing grids,
/// which miss the next timestep, and its combination of the `v` of a network that predicts them, instead of their noises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are diffusers' keys and documented there")]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample_range: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholding: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_offset: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_alpha_to_one: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_betas_zero_snr: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_thresholding_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_max_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_order: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predictor_order: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrector_order: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_order_final: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euler_at_final: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_prk_steps: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_lu_lambdas: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda_min_clipped: Option<f64>,
    /// Every other key, kept as it was.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The values of `beta_schedule` that are read.
pub const BETA_SCHEDULES: [&str; 6] = ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"];

impl SchedulerConfig {
    /// Reads the file's content. Python's `Infinity` and `NaN`, which diffusers writes, are read as `null`.
    ///
    /// # Errors
    /// [`Error::Argument`] with what the JSON reader found.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(&without_python_floats(json)).map_err(|error| Error::Argument {
            what: "scheduler_config.json",
            expected: "a configuration of a diffusers scheduler".into(),
            got: error.to_string(),
            at: "SchedulerConfig::from_json",
        })
    }

    /// The schedule that the model was trained on, with the defaults of `DDPMScheduler`; a flow's is the rectified flow.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another `beta_schedule`; those of [`DiscreteSchedule::from_betas`].
    pub fn schedule(&self) -> Result<Arc<dyn Schedule>> {
        Ok(if self.is_flow() { Arc::new(RectifiedFlowSchedule) } else { Arc::new(self.discrete_schedule()?) })
    }

    /// The table of a model that is no flow.
    ///
    /// # Errors
    /// As [`schedule`](Self::schedule).
    pub fn discrete_schedule(&self) -> Result<DiscreteSchedule> {
        DiscreteSchedule::from_betas(self.betas(Class::Ddpm)?.into_iter().map(f64::from).collect())
    }

    /// The number of training steps.
    pub fn train_steps(&self) -> usize {
        self.trained_betas.as_ref().map_or(self.num_train_timesteps.unwrap_or(1000), Vec::len)
    }

    /// The sampler `name` with the options that diffusers' class takes from this configuration. `eta` is the sampler's own default if
    /// none is given; `clip` false turns clipping off.
    ///
    /// # Errors
    /// As [`sampler_options`](Self::sampler_options), [`bounded`](Self::bounded) and [`sampler_by_name`].
    pub fn sampler(&self, name: &str, eta: Option<f64>, clip: bool) -> Result<Box<dyn Sampler>> {
        let (name, options) = self.sampler_options(name, clip)?;
        self.bounded(sampler_by_name(name, &SamplerOptions { eta, ..options })?, clip)
    }

    /// `sampler`, with dynamic thresholding if this configuration asks for it and diffusers' class of the sampler reads that; `clip` false
    /// turns it off.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for `ddim`, whose class bounds the clean image but not the noise that goes with it; [`Error::Unknown`].
    pub fn bounded(&self, sampler: Box<dyn Sampler>, clip: bool) -> Result<Box<dyn Sampler>> {
        let class = Class::by_sampler(sampler.name())?;
        if !(clip && self.thresholding == Some(true) && class.knows_thresholding()) {
            return Ok(sampler);
        }
        if class == Class::Ddim {
            let why = "its class bounds the clean image alone";
            return Err(unsupported("ddim with dynamic thresholding".into(), why, &["ddpm", "dpmpp-2m", "unipc", "no clipping"]));
        }
        let (quantile, largest) = (self.dynamic_thresholding_ratio.unwrap_or(0.995), self.sample_max_value.unwrap_or(1.0));
        Ok(Box::new(Bounded { sampler, quantile, largest }))
    }

    /// The options that diffusers' class takes from this configuration, and the name of the sampler that they make of `name`: `pndm` with
    /// `skip_prk_steps` is `plms`, and `unipc` of the `solver_type` bh1 is `unipc-bh1`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that does not exist; [`Error::Unsupported`] for `variance_type: learned` of `ddpm`.
    pub fn sampler_options<'a>(&self, name: &'a str, clip: bool) -> Result<(&'a str, SamplerOptions)> {
        let class = Class::by_sampler(name)?;
        // A threshold takes the clip's place.
        let clip = clip && !(self.thresholding == Some(true) && class.knows_thresholding());
        let clips = class.clips().is_some_and(|by_default| self.clip_sample.unwrap_or(by_default && !self.is_flow()));
        let solver_type = self.solver_type.as_deref();
        let second = if solver_type == Some("heun") { SecondOrder::Heun } else { SecondOrder::Midpoint };
        let options = SamplerOptions {
            clip: (clip && clips).then(|| self.clip_sample_range.unwrap_or(1.0)),
            variance: if class == Class::Ddpm { self.variance()? } else { Variance::FixedSmall },
            order: self.order(class)?,
            lower_order_final: self.lower_order_final.filter(|_| class.walk() == Walk::Lambdas),
            euler_at_final: class == Class::DpmMultistep && self.euler_at_final == Some(true),
            dpm_form: Form { second, ..Form::default() },
            ..SamplerOptions::default()
        };
        let name = match name {
            "pndm" if self.skip_prk_steps == Some(true) => "plms",
            "unipc" if solver_type == Some("bh1") => "unipc-bh1",
            name => name,
        };
        Ok((name, options))
    }

    /// The order of the classes whose name does not fix it.
    fn order(&self, class: Class) -> Result<Option<usize>> {
        match class {
            Class::Deis | Class::UniPc => Ok(self.solver_order),
            Class::SaSolver => match [self.predictor_order, self.corrector_order].map(|order| order.unwrap_or(2)) {
                [predictor, corrector] if predictor == corrector => Ok(Some(predictor)),
                [predictor, corrector] => Err(unsupported(
                    format!("sa-solver with predictor_order {predictor} and corrector_order {corrector}"),
                    "the two have one order here",
                    &["equal orders"],
                )),
            },
            _ => Ok(None),
        }
    }

    fn variance(&self) -> Result<Variance> {
        match self.variance_type.as_deref() {
            // A logarithm is only taken to be undone; diffusers forgets to undo the large one's.
            None | Some("fixed_small" | "fixed_small_log") => Ok(Variance::FixedSmall),
            Some("fixed_large" | "fixed_large_log") => Ok(Variance::FixedLarge),
            Some("learned_range") => Ok(Variance::LearnedRange),
            Some(other) => Err(unsupported(
                format!("ddpm with variance_type {other}"),
                "a variance is fixed, or learned within a range",
                &["fixed_small", "fixed_large", "learned_range", "another sampler"],
            )),
        }
    }

    /// The betas in single precision, as the class computes them: they are what the model was trained on.
    pub(super) fn betas(&self, class: Class) -> Result<Vec<f32>> {
        let (start, end) = class.betas();
        let (start, end) = (self.beta_start.unwrap_or(start), self.beta_end.unwrap_or(end));
        let steps = self.train_steps();
        let betas: Vec<f32> = match (&self.trained_betas, self.beta_schedule.as_deref().unwrap_or("linear")) {
            (Some(betas), _) => betas.iter().map(|&beta| beta as f32).collect(),
            (None, "linear") => linspace(start, end, steps),
            (None, "scaled_linear") => linspace(start.sqrt(), end.sqrt(), steps).into_iter().map(|root| root * root).collect(),
            (None, "squaredcos_cap_v2") => single(&DiscreteSchedule::squaredcos_cap_v2(steps)?),
            // diffusers' DDPM alone knows sigmoid and laplace, its Heun alone exp; here every sampler does.
            (None, "sigmoid") => single(&DiscreteSchedule::sigmoid(steps, start, end)?),
            (None, "laplace") => single(&DiscreteSchedule::laplace(steps)?),
            (None, "exp") => single(&DiscreteSchedule::exponential(steps)?),
            (None, other) => {
                return Err(unsupported(format!("beta_schedule {other}"), "no class of diffusers reads it", &BETA_SCHEDULES));
            }
        };
        if self.rescale_betas_zero_snr == Some(true) && class.knows_zero_snr() { Ok(zero_snr(&betas)) } else { Ok(betas) }
    }
}

/// A schedule's betas in single precision.
fn single(schedule: &DiscreteSchedule) -> Vec<f32> {
    schedule.betas().iter().map(|&beta| beta as f32).collect()
}

/// An [`Error::Unsupported`].
pub(super) fn unsupported(what: String, why: &str, possible: &[&str]) -> Error {
    Error::Unsupported { what, why: why.into(), possible: possible.iter().map(|&name| name.into()).collect() }
}

/// The running product of `1 - beta`, rounded at each step from an exact accumulator, as PyTorch's `cumprod` is.
pub(super) fn alpha_bars(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0;
    let mut next = |beta: &f32| {
        product *= f64::from(1.0 - beta);
        product as f32
    };
    betas.iter().map(&mut next).collect()
}

/// Lin et al. 2024, arXiv 2305.08891, algorithm 1, in the order of operations that rounds as diffusers does.
fn zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = alpha_bars(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let scale = first / (first - last);
    let bars: Vec<f32> = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
    (0..bars.len()).map(|k| if k == 0 { 1.0 - bars[0] } else { 1.0 - bars[k] / bars[k - 1] }).collect()
}

/// `count` numbers from `start` to `end`, from both ends inwards, as PyTorch's `linspace`.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count.max(2) - 1) as f32;
    (0..count).map(|i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 }).collect()
}

/// `json` with Python's bare `NaN`, `Infinity` and `-Infinity` outside strings replaced by `null`.
fn without_python_floats(json: &str) -> String {
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, here) = rest.split_at(at);
        clean.push_str(before);
        let taken = if here.starts_with('"') {
            string_length(here)
        } else {
            ["-Infinity", "Infinity", "NaN"].iter().find(|word| here.starts_with(**word)).map_or(0, |word| word.len())
        };
        if taken == 0 {
            clean.push_str(&here[..1]);
            rest = &here[1..];
        } else {
            clean.push_str(if here.starts_with('"') { &here[..taken] } else { "null" });
            rest = &here[taken..];
        }
    }
    clean + rest
}

/// The length of the JSON string that `text` starts with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
