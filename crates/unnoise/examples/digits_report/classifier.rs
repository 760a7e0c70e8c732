//! A small classifier of digits: the eye that judges samples.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use ndarray::{Array2, Axis, Slice, s};
use unnoise_core::{Batch, Purpose, Streams};
use unnoise_nn::{AdamW, LearningRate, Params, Shapes, Slot, Update, ema_decay, ops};

use crate::Result;

/// The width of the layer in whose outputs sets of images are compared.
pub(crate) const FEATURES: usize = 64;
const CLASSES: usize = 10;
const BATCH: usize = 64;
/// Each digit is shown shifted by up to so many pixels each way.
const SHIFT: usize = 2;
/// Images that are classified at once.
const CHUNK: usize = 250;

/// A convolution or a linear map.
struct Layer<const D: usize> {
    name: &'static str,
    weight: Tensor<D>,
    bias: Tensor<1>,
}

impl<const D: usize> Layer<D> {
    fn new(name: &'static str, params: &Params, device: &Device, trained: bool) -> Self {
        let data = |part: &str| {
            let parameter = params.get(&format!("{name}.{part}")).expect("the names are those of `shapes`");
            TensorData::new(parameter.values.clone(), parameter.shape.clone())
        };
        let (weight, bias) = (Tensor::from_data(data("weight"), device), Tensor::from_data(data("bias"), device));
        if trained { Self { name, weight: weight.require_grad(), bias: bias.require_grad() } } else { Self { name, weight, bias } }
    }

    fn gradients(&self, gradients: &Gradients, into: &mut Params) -> Result<()> {
        let weight = self.weight.grad(gradients).ok_or("every weight takes part")?.into_data();
        let bias = self.bias.grad(gradients).ok_or("every bias takes part")?.into_data();
        into.insert(format!("{}.weight", self.name), self.weight.dims().to_vec(), weight.try_to_vec()?)?;
        into.insert(format!("{}.bias", self.name), self.bias.dims().to_vec(), bias.try_to_vec()?)?;
        Ok(())
    }
}

/// `[n, 1, 32, 32]` in [-1, 1] to [`FEATURES`] features, and from them to the logarithms of odds of the ten classes.
///
/// ```text
/// conv 5x5, 1 -> 16, stride 2, SiLU    conv 3x3, 16 -> 32, stride 2, SiLU    linear 2048 -> 64, SiLU = features    linear 64 -> 10
/// ```
struct Network {
    first: Layer<4>,
    second: Layer<4>,
    features: Layer<2>,
    classes: Layer<2>,
}

impl Network {
    fn shapes() -> Shapes {
        let layers = [
            ("first", vec![16, 1, 5, 5]),
            ("second", vec![32, 16, 3, 3]),
            ("features", vec![FEATURES, 32 * 8 * 8]),
            ("classes", vec![CLASSES, FEATURES]),
        ];
        let both = |(name, shape): (&str, Vec<usize>)| {
            let outputs = shape[0];
            [(format!("{name}.weight"), shape), (format!("{name}.bias"), vec![outputs])]
        };
        layers.into_iter().flat_map(both).collect()
    }

    fn new(params: &Params, device: &Device, trained: bool) -> Self {
        Self {
            first: Layer::new("first", params, device, trained),
            second: Layer::new("second", params, device, trained),
            features: Layer::new("features", params, device, trained),
            classes: Layer::new("classes", params, device, trained),
        }
    }

    /// Features and log-odds.
    fn forward(&self, x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let conv = |x, layer: &Layer<4>, pad| {
            ops::silu(ops::conv2d(x, layer.weight.clone(), layer.bias.clone(), 2, [(pad, pad), (pad, pad)]))
        };
        let linear = |x, layer: &Layer<2>| ops::linear(x, layer.weight.clone(), layer.bias.clone());
        let x: Tensor<2> = conv(conv(x, &self.first, 2), &self.second, 1).flatten(1, 3);
        let features = ops::silu(linear(x, &self.features));
        let odds = linear(features.clone(), &self.classes);
        (features, odds)
    }

    fn gradients(&self, gradients: &Gradients) -> Result<Params> {
        let mut params = Params::new();
        self.first.gradients(gradients, &mut params)?;
        self.second.gradients(gradients, &mut params)?;
        self.features.gradients(gradients, &mut params)?;
        self.classes.gradients(gradients, &mut params)?;
        Ok(params)
    }
}

/// A trained classifier.
pub(crate) struct Classifier {
    network: Network,
    device: Device,
}

/// What a classifier sees in a set of images.
pub(crate) struct Verdicts {
    /// `[n, FEATURES]`.
    pub(crate) features: Array2<f64>,
    /// The likeliest class of each image.
    pub(crate) classes: Vec<usize>,
    /// Its probability.
    pub(crate) certainty: Vec<f64>,
}

impl Verdicts {
    /// The share of images with this class.
    pub(crate) fn accuracy(&self, labels: &[usize]) -> f64 {
        let right = self.classes.iter().zip(labels).filter(|(found, label)| found == label).count();
        right as f64 / labels.len() as f64
    }

    /// The share of images whose class is more probable than `p`.
    pub(crate) fn surer_than(&self, p: f64) -> f64 {
        self.certainty.iter().filter(|certainty| **certainty > p).count() as f64 / self.certainty.len() as f64
    }

    /// How many images of each class.
    pub(crate) fn histogram(&self) -> [usize; CLASSES] {
        let mut counts = [0; CLASSES];
        self.classes.iter().for_each(|class| counts[*class] += 1);
        counts
    }
}

impl Classifier {
    /// Trains with AdamW and a cosine-shaped learning rate for `epochs`; the weights that are kept are their moving average.
    pub(crate) fn train(images: &Batch, labels: &[usize], epochs: usize, seed: u64, device: &Device) -> Result<Self> {
        let shapes = Network::shapes();
        let mut weights = Params::initialise(&shapes, seed)?;
        let (mut ema, mut first, mut second) = (weights.clone(), Params::zeros(&shapes), Params::zeros(&shapes));
        let tracking = device.clone().autodiff();
        let (adam, rate) = (AdamW::default(), LearningRate { peak: 3e-3, warmup: 50, cosine_decay: true });
        let updates = (epochs * (labels.len() / BATCH)) as u64;
        let (shifts, mut step) = (Streams::new(seed, 1..1 + BATCH as u32), 0);
        for epoch in 0..epochs {
            for rows in permutation(labels.len(), seed, epoch).chunks_exact(BATCH) {
                let network = Network::new(&weights, &tracking, true);
                let (_, odds) = network.forward(tensor(&shifted(&images.select(Axis(0), rows), &shifts, step), &tracking));
                let loss = cross_entropy(odds, rows.iter().map(|row| labels[*row]), &tracking);
                let gradients = network.gradients(&loss.backward())?;
                step += 1;
                let update = Update { step, lr: rate.at(step, updates), gradient_scale: 1.0, ema_decay: ema_decay(0.99, step) };
                let averaged = weights.iter_mut().zip(ema.iter_mut());
                let moments = first.iter_mut().zip(second.iter_mut());
                for ((((_, w), (_, ema)), ((_, m), (_, v))), (_, g)) in averaged.zip(moments).zip(gradients.iter()) {
                    let (weights, ema, gradient) = (&mut w.values[..], &mut ema.values[..], &g.values[..]);
                    adam.update(&update, Slot { weights, ema, first: &mut m.values, second: &mut v.values, gradient });
                }
            }
        }
        Ok(Self { network: Network::new(&ema, device, false), device: device.clone() })
    }

    /// Classifies images, `[n, 1, 32, 32]` in [-1, 1].
    pub(crate) fn classify(&self, images: &Batch) -> Result<Verdicts> {
        let n = images.dim().0;
        let mut features = Vec::with_capacity(n * FEATURES);
        let (mut classes, mut certainty) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for from in (0..n).step_by(CHUNK) {
            let chunk = images.slice_axis(Axis(0), Slice::from(from..n.min(from + CHUNK)));
            let (found, odds) = self.network.forward(tensor(&chunk.to_owned(), &self.device));
            features.extend(found.into_data().try_to_vec::<f32>()?.into_iter().map(f64::from));
            for probabilities in softmax(odds, 1).into_data().try_to_vec::<f32>()?.chunks_exact(CLASSES) {
                let (class, most) = (0..).zip(probabilities).max_by(|a, b| a.1.total_cmp(b.1)).ok_or("there are ten classes")?;
                classes.push(class);
                certainty.push(f64::from(*most));
            }
        }
        Ok(Verdicts { features: Array2::from_shape_vec((n, FEATURES), features)?, classes, certainty })
    }
}

/// `0..n` in a random order.
pub(crate) fn permutation(n: usize, seed: u64, step: usize) -> Vec<usize> {
    let keys = Streams::new(seed, 0..1).uniform(step, Purpose::Training, n).swap_remove(0);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
    order
}

/// Each image moved by whole pixels, over black; a stream of `shifts` for each.
fn shifted(images: &Batch, shifts: &Streams, step: u64) -> Batch {
    let (n, _, h, w) = images.dim();
    let mut padded = Batch::from_elem((n, 1, h + 2 * SHIFT, w + 2 * SHIFT), -1.0);
    padded.slice_mut(s![.., .., SHIFT..SHIFT + h, SHIFT..SHIFT + w]).assign(images);
    let mut moved = Batch::zeros(images.dim());
    for (i, u) in shifts.uniform(step as usize, Purpose::Training, 2).iter().enumerate() {
        let [y, x] = [u[0], u[1]].map(|u| ((u * (2 * SHIFT + 1) as f64) as usize).min(2 * SHIFT));
        moved.slice_mut(s![i, .., .., ..]).assign(&padded.slice(s![i, .., y..y + h, x..x + w]));
    }
    moved
}

/// The mean of `-ln p(label)`.
fn cross_entropy(odds: Tensor<2>, labels: impl Iterator<Item = usize>, device: &Device) -> Tensor<1> {
    let [n, classes] = odds.dims();
    let mut hot = vec![0.0f32; n * classes];
    labels.enumerate().for_each(|(row, label)| hot[row * classes + label] = -1.0 / n as f32);
    (log_softmax(odds, 1) * Tensor::from_data(TensorData::new(hot, [n, classes]), device)).sum()
}

fn tensor(images: &Batch, device: &Device) -> Tensor<4> {
    let (n, c, h, w) = images.dim();
    Tensor::from_data(TensorData::new(images.iter().map(|v| *v as f32).collect::<Vec<f32>>(), [n, c, h, w]), device)
}
