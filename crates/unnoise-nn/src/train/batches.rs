//! Training batches as a pure function of seed and step: a resumed run needs no generator's state.

use ndarray::{Array3, Array4, ArrayView3, ArrayViewMut3, Axis};
use serde_json::Value;
use sha2::{Digest, Sha256};
use unnoise_core::{Purpose, Streams, normal_quantile};

use super::config::{FLOW_STEPS, Times};
use crate::{Error, Result};

/// The stream that shuffles epochs; a batch has fewer images than this.
const ORDER_STREAM: u32 = u32::MAX - 1;

/// The images that a prior is trained on, in memory, in their own number format.
///
/// # Units
/// `range` is the pair of values that the network sees as -1 and 1: `[0, 255]` for 8 bits, usually `[0, 1]` for floats.
#[derive(Clone, Debug)]
pub struct TrainingImages {
    pixels: Pixels,
    range: [f64; 2],
    labels: Option<Vec<usize>>,
    preparation: Option<Value>,
}

#[derive(Clone, Debug)]
enum Pixels {
    U8(Array4<u8>),
    F32(Array4<f32>),
}

impl TrainingImages {
    /// 8-bit images, `[n, c, h, w]`, 0 to 255.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no image.
    pub fn from_u8(images: Array4<u8>) -> Result<Self> {
        Self { pixels: Pixels::U8(images), range: [0.0, 255.0], labels: None, preparation: None }.checked()
    }

    /// Images of floats, `[n, c, h, w]`, with the values that mean black and white.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no image, if the range is empty, or for a pixel that is not finite or lies outside the range
    /// by more than a thousandth of it (a range of 0 to 1 declared for pixels of 0 to 255 is the likely mistake).
    pub fn from_f32(images: Array4<f32>, range: [f64; 2]) -> Result<Self> {
        let [low, high] = range;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(argument("the value range", "two finite numbers, low < high", format!("{range:?}")));
        }
        let slack = 1e-3 * (high - low);
        let inside = |v: &f32| (low - slack..=high + slack).contains(&f64::from(*v));
        if let Some(v) = images.iter().find(|v| !inside(v)) {
            return Err(argument("every pixel", &format!("within the declared range {low} to {high}"), v.to_string()));
        }
        Self { pixels: Pixels::F32(images), range, labels: None, preparation: None }.checked()
    }

    /// The same images with a class for each.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are not as many labels as images.
    pub fn with_labels(self, labels: Vec<usize>) -> Result<Self> {
        if labels.len() != self.len() {
            return Err(argument("the labels", &format!("{} of them", self.len()), labels.len().to_string()));
        }
        Ok(Self { labels: Some(labels), ..self })
    }

    /// The same images with a note on how they were made of what is stored, in the terms of whoever made them: a run remembers it, so that
    /// it can be done again.
    pub fn with_preparation(self, preparation: Value) -> Self {
        Self { preparation: Some(preparation), ..self }
    }

    fn checked(self) -> Result<Self> {
        if self.is_empty() || self.shape().contains(&0) {
            return Err(argument("the training images", "at least one, none of them empty", format!("{:?}", self.dim())));
        }
        Ok(self)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.dim()[0]
    }

    /// Whether there is none; never true of a value that was constructed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of one image, `[c, h, w]`.
    pub fn shape(&self) -> [usize; 3] {
        let [_, c, h, w] = self.dim();
        [c, h, w]
    }

    /// The values that the network sees as -1 and 1.
    pub fn range(&self) -> [f64; 2] {
        self.range
    }

    /// The classes, if there are any.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// How the images were made of what is stored, if that was noted.
    pub fn preparation(&self) -> Option<&Value> {
        self.preparation.as_ref()
    }

    fn dim(&self) -> [usize; 4] {
        match &self.pixels {
            Pixels::U8(a) => a.dim().into(),
            Pixels::F32(a) => a.dim().into(),
        }
    }

    /// SHA-256 of shape, range, pixels and labels: a resumed run must see the same images.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?} {:?}", self.dim(), self.range, self.labels));
        match &self.pixels {
            Pixels::U8(a) => a.iter().for_each(|v| hash.update([*v])),
            Pixels::F32(a) => a.iter().for_each(|v| hash.update(v.to_le_bytes())),
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Image `index` in `[-1, 1]`.
    pub fn image(&self, index: usize) -> Array3<f32> {
        let [low, high] = self.range;
        let (scale, offset) = (2.0 / (high - low), (low + high) / (high - low));
        let map = |v: f64| (v * scale - offset) as f32;
        match &self.pixels {
            Pixels::U8(a) => a.index_axis(Axis(0), index).mapv(|v| map(f64::from(v))),
            Pixels::F32(a) => a.index_axis(Axis(0), index).mapv(|v| map(f64::from(v))),
        }
    }
}

/// What one training step sees.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingBatch {
    /// Clean images in `[-1, 1]`, `[n, c, h, w]`.
    pub x0: Array4<f32>,
    /// Unit normal noise, `[n, c, h, w]`.
    pub eps: Array4<f32>,
    /// The network's timestep at each image's noise level: a training step, `0..T`, or `1000 t` of a flow.
    pub levels: Vec<f64>,
    /// The class of each image, for a class-conditional network.
    pub labels: Option<Vec<usize>>,
}

/// How batches are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampling {
    /// The run's seed.
    pub seed: u64,
    /// Images in a batch.
    pub batch: usize,
    /// The noise levels.
    pub levels: Levels,
    /// Whether half of the images are mirrored left to right.
    pub flips: bool,
    /// The class that stands for none, and the share of images that get it.
    pub dropout: Option<(usize, f64)>,
}

/// How noise levels are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Levels {
    /// One of the steps `0..T`, all alike.
    Steps(usize),
    /// A time of a flow.
    Times(Times),
}

impl Levels {
    /// The network's timestep, from a number uniform in (0, 1).
    fn timestep(self, uniform: f64) -> f64 {
        match self {
            Self::Steps(count) => below(uniform, count) as f64,
            Self::Times(times) => times.time(uniform) * FLOW_STEPS as f64,
        }
    }
}

/// Draws batches: epochs of all images in a random order, levels as the run draws them.
///
/// Every number is a function of seed, step and place in the batch. Image `i` of step `k` is entry `k batch + i` of the endless
/// sequence of shuffled epochs, so that a batch may straddle two epochs and every epoch shows every image once.
#[derive(Clone, Debug)]
pub(super) struct Batches {
    sampling: Sampling,
    /// The epoch whose order is held, and the order.
    order: Option<(u64, Vec<u32>)>,
}

impl Batches {
    /// Batches as `sampling` says.
    pub(super) fn new(sampling: Sampling) -> Self {
        Self { sampling, order: None }
    }

    /// The batch of training step `step`, from 0.
    pub(super) fn batch(&mut self, images: &TrainingImages, step: u64) -> TrainingBatch {
        let Sampling { seed, batch, levels: of, flips, dropout } = self.sampling;
        let [c, h, w] = images.shape();
        let d = c * h * w;
        // One stream for each image: d uniforms that become its noise, one for its level, one for its flip, one for its class.
        let draws = Streams::new(seed, 0..batch as u32).uniform(step as usize, Purpose::Training, d + 3);
        let mut x0 = Array4::zeros((batch, c, h, w));
        let mut eps = Array4::zeros((batch, c, h, w));
        let mut levels = Vec::with_capacity(batch);
        let mut labels = images.labels().map(|_| Vec::with_capacity(batch));
        for (i, draw) in draws.iter().enumerate() {
            let index = self.index(images.len(), step * batch as u64 + i as u64);
            let image = images.image(index);
            place(image.view(), flips && draw[d + 1] < 0.5, x0.index_axis_mut(Axis(0), i));
            eps.index_axis_mut(Axis(0), i).iter_mut().zip(draw).for_each(|(e, u)| *e = normal_quantile(*u) as f32);
            levels.push(of.timestep(draw[d]));
            if let (Some(labels), Some(all)) = (&mut labels, images.labels()) {
                let dropped = dropout.filter(|(_, share)| draw[d + 2] < *share);
                labels.push(dropped.map_or(all[index], |(null, _)| null));
            }
        }
        TrainingBatch { x0, eps, levels, labels }
    }

    /// The image at `position` in the endless sequence of epochs.
    fn index(&mut self, n: usize, position: u64) -> usize {
        let (epoch, within) = (position / n as u64, (position % n as u64) as usize);
        if self.order.as_ref().is_none_or(|(held, order)| *held != epoch || order.len() != n) {
            self.order = Some((epoch, shuffled(self.sampling.seed, epoch, n)));
        }
        self.order.as_ref().map_or(0, |(_, order)| order[within] as usize)
    }
}

fn place(image: ArrayView3<'_, f32>, mirrored: bool, mut target: ArrayViewMut3<'_, f32>) {
    let mut image = image;
    if mirrored {
        image.invert_axis(Axis(2));
    }
    target.assign(&image);
}

/// Fisher-Yates.
fn shuffled(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let draws = Streams::new(seed, ORDER_STREAM..ORDER_STREAM + 1).uniform(epoch as usize, Purpose::Training, n);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, below(draws[0][i], i + 1));
    }
    order
}

/// A whole number uniform below `n`, from `u` uniform in (0, 1).
fn below(u: f64, n: usize) -> usize {
    ((u * n as f64) as usize).min(n - 1)
}

fn argument(what: &'static str, expected: &str, got: String) -> Error {
    Error::Argument { what, expected: expected.into(), got, at: "TrainingImages" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` images of 2x3, each filled with its own index.
    fn numbered(n: usize) -> TrainingImages {
        TrainingImages::from_u8(Array4::from_shape_fn((n, 1, 2, 3), |(i, ..)| i as u8)).unwrap()
    }

    fn indices(batch: &TrainingBatch) -> Vec<u8> {
        batch.x0.axis_iter(Axis(0)).map(|image| ((image[[0, 0, 0]] + 1.0) * 127.5).round() as u8).collect()
    }

    #[test]
    fn every_epoch_shows_every_image_once_in_another_order() {
        let (images, mut batches) =
            (numbered(10), Batches::new(Sampling { seed: 5, batch: 4, levels: Levels::Steps(1000), flips: false, dropout: None }));
        let seen: Vec<u8> = (0..10).flat_map(|step| indices(&batches.batch(&images, step))).collect();
        let epochs: Vec<&[u8]> = seen.chunks(10).collect();
        for epoch in &epochs {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<u8>>());
        }
        assert!(epochs.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_batch_depends_on_seed_and_step_alone() {
        let (images, sampling) =
            (numbered(7), Sampling { seed: 5, batch: 4, levels: Levels::Steps(1000), flips: true, dropout: None });
        let mut walked = Batches::new(sampling);
        let all: Vec<TrainingBatch> = (0..6).map(|step| walked.batch(&images, step)).collect();
        assert_eq!(all[5], Batches::new(sampling).batch(&images, 5));
        assert_ne!(all[5].eps, all[4].eps);
        assert_ne!(all[5], Batches::new(Sampling { seed: 6, ..sampling }).batch(&images, 5));
    }

    /// Levels uniform: chi-square over ten bins of 20,000 draws, below its 99.9 % quantile (27.88 for 9 degrees of freedom); half
    /// of the images mirrored, within 3.29 standard deviations.
    #[test]
    fn levels_are_uniform_and_half_are_mirrored() {
        let images = TrainingImages::from_f32(Array4::from_shape_fn((3, 1, 1, 2), |(.., j)| j as f32), [0.0, 1.0]).unwrap();
        let mut batches = Batches::new(Sampling { seed: 1, batch: 200, levels: Levels::Steps(50), flips: true, dropout: None });
        let (mut bins, mut mirrored, n) = ([0.0f64; 10], 0.0, 20_000.0);
        for step in 0..100 {
            let batch = batches.batch(&images, step);
            batch.levels.iter().for_each(|level| bins[*level as usize / 5] += 1.0);
            mirrored += batch.x0.axis_iter(Axis(0)).filter(|image| image[[0, 0, 0]] > 0.0).count() as f64;
        }
        let chi_square: f64 = bins.iter().map(|count| (count - n / 10.0).powi(2) / (n / 10.0)).sum();
        assert!(chi_square < 27.88, "{chi_square}");
        assert!((mirrored - n / 2.0).abs() < 3.29 * (n / 4.0f64).sqrt(), "{mirrored}");
    }

    /// Times of a flow: chi-square over ten bins of their distribution function, below its 99.9 % quantile; half of the logits of a logit-normal
    /// lie below its mean. And a quarter of the classes are left out, within 3.29 standard deviations.
    #[test]
    fn flows_times_and_dropped_classes_have_their_shares() {
        let images = numbered(10).with_labels((0..10).map(|i| i % 3).collect()).unwrap();
        let logit_normal = Times::LogitNormal { mean: 0.5, deviation: 2.0 };
        for times in [Times::Uniform, logit_normal] {
            let sampling = Sampling { seed: 2, batch: 100, levels: Levels::Times(times), flips: false, dropout: Some((3, 0.25)) };
            let mut batches = Batches::new(sampling);
            let (mut bins, mut dropped, n) = ([0.0f64; 10], 0.0, 10_000.0);
            let quantiles: Vec<f64> = (1..10).map(|k| 1000.0 * times.time(f64::from(k) / 10.0)).collect();
            for step in 0..100 {
                let batch = batches.batch(&images, step);
                batch.levels.iter().for_each(|level| bins[quantiles.partition_point(|q| q < level)] += 1.0);
                dropped += batch.labels.unwrap().iter().filter(|label| **label == 3).count() as f64;
            }
            let chi_square: f64 = bins.iter().map(|count| (count - n / 10.0).powi(2) / (n / 10.0)).sum();
            assert!(chi_square < 27.88, "{times:?}: {chi_square}");
            assert!((dropped - 0.25 * n).abs() < 3.29 * (n * 0.1875).sqrt(), "{dropped}");
        }
        assert!((logit_normal.time(0.5) - 1.0 / (1.0 + (-0.5f64).exp())).abs() < 1e-15);
    }

    #[test]
    fn the_range_maps_to_minus_one_and_one() {
        let image = TrainingImages::from_u8(Array4::from_shape_vec((1, 1, 1, 3), vec![0, 51, 255]).unwrap()).unwrap().image(0);
        assert_eq!(image.iter().copied().collect::<Vec<_>>(), [-1.0, -0.6, 1.0]);
        let hounsfield = Array4::from_shape_vec((1, 1, 1, 2), vec![-1000.0, 250.0]).unwrap();
        let image = TrainingImages::from_f32(hounsfield.clone(), [-1000.0, 1000.0]).unwrap().image(0);
        assert_eq!(image.iter().copied().collect::<Vec<_>>(), [-1.0, 0.25]);
        assert!(TrainingImages::from_f32(hounsfield, [0.0, 1.0]).unwrap_err().to_string().contains("-1000"));
    }
}
