//! The loss on images that were not trained on, level by level.

use burn::tensor::Device;
use ndarray::{Array4, Axis, stack};
use unnoise_core::{Noise, Purpose, Streams};

use super::batches::TrainingImages;
use super::config::FLOW_STEPS;
use super::trainer::{Process, tensor};
use crate::{DiffusionModel, Result, Tracking};

/// Images that are shown to the network at a time.
const BATCH: usize = 64;

/// The mean loss of a model over all `images` at each of `levels` (the network's timesteps).
///
/// Image `i` meets the same noise at a level whatever the model, so that two models are compared on the same numbers.
///
/// # Errors
/// Those of [`DiffusionModel::schedule`], [`DiffusionModel::prediction`] and the network.
pub fn held_out_losses(
    model: &DiffusionModel,
    images: &TrainingImages,
    levels: &[usize],
    seed: u64,
    device: &Device,
) -> Result<Vec<f64>> {
    let steps = model.scheduler.as_ref().map_or(FLOW_STEPS, |scheduler| scheduler.train_steps());
    let process = Process::new(model.schedule()?, model.prediction()?, steps);
    let unet = model.unet(device, Tracking::Frozen)?;
    let n = images.len();
    let labels = images.labels().filter(|_| model.config.num_class_embeds.is_some());
    let at_level = |&level: &usize| -> Result<f64> {
        let mut sum = 0.0;
        for from in (0..n).step_by(BATCH) {
            let rows = from..n.min(from + BATCH);
            let count = rows.len();
            let shown: Vec<_> = rows.clone().map(|i| images.image(i)).collect();
            let views: Vec<_> = shown.iter().map(|image| image.view()).collect();
            let x0: Array4<f32> = stack(Axis(0), &views).expect("the images have one shape");
            let mut streams = Streams::new(seed, from as u32..(from + count) as u32);
            let eps = streams.normal(level, Purpose::Auxiliary, count, images.shape()).mapv(|v| v as f32);
            let timesteps = vec![level as f64; count];
            let (x_t, target) = process.noised(&x0, &eps, &timesteps);
            let output = unet.forward(tensor(x_t, device), &timesteps, labels.map(|l| &l[rows]))?;
            let loss = (output - tensor(target, device)).square().mean();
            sum += count as f64 * f64::from(loss.into_scalar::<f32>());
        }
        Ok(sum / n as f64)
    };
    levels.iter().map(at_level).collect()
}
