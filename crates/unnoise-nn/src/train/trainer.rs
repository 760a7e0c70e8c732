//! The training loop.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array4, Axis};
use unnoise_core::{Derivatives, Prediction, Scales, Schedule};

use super::batches::{Batches, TrainingBatch, TrainingImages};
use super::checkpoint::ImagesSummary;
use super::config::{FLOW_STEPS, TrainConfig};
use super::optimizer::{Slot, Update, clip_factor, ema_decay, global_norm};
use super::run_directory::RunDirectory;
use crate::bridge::in_pool;
use crate::denoiser::Clock;
use crate::{Error, Params, Result, Tracking, Unet};

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Which update it was, from 1.
    pub step: u64,
    /// The batch's loss before the update.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Wall-clock seconds of the update.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All its steps are done.
    Finished,
    /// The observer stopped it; it can be resumed.
    Stopped,
}

/// The part of a run that changes: four sets of tensors of the same names and shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState {
    /// Updates done.
    pub step: u64,
    /// The raw weights.
    pub weights: Params,
    /// Their moving average, the weights to sample with.
    pub ema: Params,
    /// Adam's first moment.
    pub first: Params,
    /// Adam's second moment.
    pub second: Params,
}

impl TrainingState {
    /// The state before the first update.
    pub fn new(weights: Params) -> Self {
        let zeros = Params::zeros(&weights.shapes());
        Self { step: 0, ema: weights.clone(), first: zeros.clone(), second: zeros, weights }
    }
}

/// A training run.
///
/// Its numbers are a function of the [`TrainConfig`], the initial weights and the images: noise, levels and order are drawn from
/// counter-based streams by seed and step, so that a resumed run continues as if it had never stopped.
pub struct Trainer {
    config: TrainConfig,
    process: Process,
    images: TrainingImages,
    summary: ImagesSummary,
    batches: Batches,
    state: TrainingState,
    device: Device,
}

impl Trainer {
    /// A run from weights drawn with the run's seed.
    ///
    /// # Errors
    /// Those of [`TrainConfig::check`]; [`Error::Argument`] for images that the network does not take.
    pub fn new(config: TrainConfig, images: TrainingImages, device: Device) -> Result<Self> {
        config.check()?;
        let weights = config.model.initial_params(config.seed)?;
        Self::with_weights(config, images, weights, device)
    }

    /// A run from given weights, to go on from another prior.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Parameters`] for weights of another architecture.
    pub fn with_weights(config: TrainConfig, images: TrainingImages, weights: Params, device: Device) -> Result<Self> {
        Self::with_state(config, images, TrainingState::new(weights), device)
    }

    /// A run that goes on from `state`.
    ///
    /// # Errors
    /// As [`with_weights`](Self::with_weights).
    pub fn with_state(config: TrainConfig, images: TrainingImages, state: TrainingState, device: Device) -> Result<Self> {
        config.check()?;
        check_images(&config, &images)?;
        Unet::new(&config.model, &state.weights, &device, Tracking::Frozen)?;
        let schedule = config.schedule.build()?;
        let batches = Batches::new(config.sampling(&*schedule));
        let process = Process::new(schedule, config.prediction, FLOW_STEPS);
        Ok(Self { config, process, summary: ImagesSummary::of(&images), images, batches, state, device })
    }

    /// The run's settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The images.
    pub fn images(&self) -> &TrainingImages {
        &self.images
    }

    /// Their summary.
    pub fn images_summary(&self) -> &ImagesSummary {
        &self.summary
    }

    /// Weights, average and moments as they are now.
    pub fn state(&self) -> &TrainingState {
        &self.state
    }

    /// The updates done.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// Draws the next batch and updates the weights with it.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the gradient is not finite; the state is then unchanged.
    pub fn step(&mut self) -> Result<StepReport> {
        let batch = self.batches.batch(&self.images, self.state.step);
        self.step_on(&batch)
    }

    /// Updates the weights with a given batch.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_on(&mut self, batch: &TrainingBatch) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.state.step + 1;
        let (loss, gradient) = self.loss_and_gradient(batch)?;
        let grad_norm = global_norm(values(&gradient));
        if !(loss.is_finite() && grad_norm.is_finite()) {
            return Err(Error::Diverged { step, loss, grad_norm });
        }
        let lr = self.config.learning_rate.at(step, self.config.steps);
        let gradient_scale = clip_factor(grad_norm, self.config.clip_norm);
        let update = Update { step, lr, gradient_scale, ema_decay: ema_decay(self.config.ema_decay, step) };
        let TrainingState { weights, ema, first, second, .. } = &mut self.state;
        let averaged = values_mut(weights).zip(values_mut(ema));
        let moments = values_mut(first).zip(values_mut(second));
        for (((weights, ema), (first, second)), gradient) in averaged.zip(moments).zip(values(&gradient)) {
            self.config.optimizer.update(&update, Slot { weights, ema, first, second, gradient });
        }
        self.state.step = step;
        Ok(StepReport { step, loss, lr, grad_norm, seconds: start.elapsed().as_secs_f64() })
    }

    /// Trains to the end, or until `observer` breaks, and leaves a checkpoint in `directory` at either and at every interval.
    ///
    /// # Errors
    /// Those of [`step`](Self::step) and of [`save`](Self::save).
    pub fn run(
        &mut self,
        directory: &RunDirectory,
        observer: &mut dyn FnMut(&Self, &StepReport) -> ControlFlow<()>,
    ) -> Result<Outcome> {
        while self.state.step < self.config.steps {
            let report = self.step()?;
            let stop = observer(self, &report).is_break();
            let last = report.step == self.config.steps;
            if stop || last || report.step % self.config.checkpoint_every == 0 {
                self.save(directory)?;
            }
            if stop && !last {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// The mean loss of a batch and its gradient.
    fn loss_and_gradient(&mut self, batch: &TrainingBatch) -> Result<(f64, Params)> {
        let TrainConfig { model, .. } = &self.config;
        let (x_t, target) = self.process.noised(&batch.x0, &batch.eps, &batch.levels);
        let labels = batch.labels.as_deref().filter(|_| model.num_class_embeds.is_some());
        let unet = Unet::borrowing(model, &mut self.state.weights, &self.device)?;
        let result = in_pool(|| {
            let prediction = unet.forward(tensor(x_t, &self.device), &batch.levels, labels)?;
            let loss = (prediction - tensor(target, &self.device)).square().mean();
            let value = f64::from(loss.clone().into_scalar::<f32>());
            Ok((value, unet.gradients(&loss.backward())?))
        });
        unet.give_back(&mut self.state.weights);
        result
    }
}

/// The numbers of each tensor, in the order of names.
fn values(params: &Params) -> impl Iterator<Item = &[f32]> {
    params.iter().map(|(_, parameter)| parameter.values.as_slice())
}

fn values_mut(params: &mut Params) -> impl Iterator<Item = &mut [f32]> {
    params.iter_mut().map(|(_, parameter)| parameter.values.as_mut_slice())
}

/// What a network is shown and what it should predict.
pub(super) struct Process {
    schedule: Arc<dyn Schedule>,
    prediction: Prediction,
    clock: Clock,
}

impl Process {
    /// That of a schedule, which counts `steps` if it has none.
    pub(super) fn new(schedule: Arc<dyn Schedule>, prediction: Prediction, steps: usize) -> Self {
        let clock = Clock::new(&*schedule, steps);
        Self { schedule, prediction, clock }
    }

    /// The network's input `alpha x0 + sigma eps` and what it should predict there, at these timesteps.
    pub(super) fn noised(&self, x0: &Array4<f32>, eps: &Array4<f32>, timesteps: &[f64]) -> (Array4<f32>, Array4<f32>) {
        let (mut x_t, mut target) = (x0.clone(), x0.clone());
        for (i, &timestep) in timesteps.iter().enumerate() {
            let t = self.clock.time(timestep);
            let Scales { alpha, sigma } = self.schedule.scales(t);
            let (alpha, sigma) = (alpha as f32, sigma as f32);
            let (x0, eps) = (x0.index_axis(Axis(0), i), eps.index_axis(Axis(0), i));
            x_t.index_axis_mut(Axis(0), i).zip_mut_with(&eps, |x, e| *x = alpha * *x + sigma * e);
            let mut target = target.index_axis_mut(Axis(0), i);
            match self.prediction {
                Prediction::X0 => target.assign(&x0),
                Prediction::V => target.zip_mut_with(&eps, |x, e| *x = alpha * e - sigma * *x),
                Prediction::Velocity => {
                    let Derivatives { d_alpha, d_sigma } = self.schedule.derivatives(t);
                    target.zip_mut_with(&eps, |x, e| *x = d_alpha as f32 * *x + d_sigma as f32 * e);
                }
                _ => target.assign(&eps),
            }
        }
        (x_t, target)
    }
}

pub(super) fn tensor(array: Array4<f32>, device: &Device) -> Tensor<4> {
    let (n, c, h, w) = array.dim();
    Tensor::from_data(TensorData::new(array.into_raw_vec_and_offset().0, [n, c, h, w]), device)
}

fn check_images(config: &TrainConfig, images: &TrainingImages) -> Result<()> {
    // The last class may stand for none.
    let classes = config.null_class().or(config.model.num_class_embeds);
    let ([c, h, w], multiple) = (images.shape(), config.model.side_multiple());
    let argument = |what, expected: String, got: String| Err(Error::Argument { what, expected, got, at: "Trainer" });
    if c != config.model.in_channels {
        return argument("the images' channels", config.model.in_channels.to_string(), c.to_string());
    }
    if h % multiple != 0 || w % multiple != 0 {
        return argument("the images' sides", format!("multiples of {multiple}"), format!("{h} x {w}"));
    }
    match (classes, images.labels()) {
        (None, _) => Ok(()),
        (Some(_), None) => argument("the labels", "one for each image, for a class-conditional network".into(), "none".into()),
        (Some(count), Some(labels)) => match labels.iter().find(|label| **label >= count) {
            Some(label) => argument("every label", format!("below {count}"), label.to_string()),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use unnoise_core::{DiscreteSchedule, RectifiedFlowSchedule};

    use super::*;

    /// Each target together with the noisy image gives the clean one back.
    #[test]
    fn targets_determine_the_image() {
        let ddpm: Arc<dyn Schedule> = Arc::new(DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap());
        let flow: Arc<dyn Schedule> = Arc::new(RectifiedFlowSchedule);
        let x0 = Array4::from_shape_fn((3, 1, 2, 2), |(n, _, i, j)| 0.3 * n as f32 - 0.2 * i as f32 + 0.1 * j as f32);
        let eps = x0.mapv(|v| (40.0 * v).sin());
        let levels = [0.0, 300.0, 700.0];
        let on_ddpm = [Prediction::Eps, Prediction::X0, Prediction::V].map(|prediction| (prediction, &ddpm));
        for (prediction, schedule) in on_ddpm.into_iter().chain([(Prediction::Velocity, &flow)]) {
            let process = Process::new(Arc::clone(schedule), prediction, 1000);
            let (x_t, target) = process.noised(&x0, &eps, &levels);
            for (i, &level) in levels.iter().enumerate() {
                let t = if prediction == Prediction::Velocity { level / 1000.0 } else { (level + 1.0) / 1000.0 };
                let Scales { alpha, sigma } = schedule.scales(t);
                let row = |a: &Array4<f32>| a.index_axis(Axis(0), i).mapv(f64::from);
                let (x_t, target) = (row(&x_t), row(&target));
                let recovered = match prediction {
                    Prediction::X0 => target,
                    Prediction::V => x_t * alpha - target * sigma,
                    Prediction::Velocity => x_t - target * t,
                    _ => (x_t - target * sigma) / alpha,
                };
                let error = (recovered - row(&x0)).iter().fold(0.0f64, |worst, e| worst.max(e.abs()));
                assert!(error < 2e-6, "{prediction:?} at level {level}: {error}");
            }
        }
    }
}
