//! A small convolutional classifier, to judge digits by.

use burn::tensor::activation::{log_softmax, relu, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, Array4, Axis, s};
use unnoise_core::{Batch, Purpose, Streams};
use unnoise_nn::{AdamW, LearningRate, Params, Result, Shapes, Slot, TrainingImages, Update, ops};

/// Width of the layer before the last: the features of the Frechet distance.
pub(crate) const FEATURES: usize = 64;
const CLASSES: usize = 10;
const WIDTHS: [usize; 4] = [1, 16, 32, 64];
/// Pixels that are left of 32x32 after three strides of 2.
const PIXELS: usize = 16;
const BATCH: usize = 64;
/// Shifts of the training digits, up to this many pixels each way.
const SHIFT: isize = 2;

/// Three convolutions of stride 2, a linear layer (the features), each with ReLU, and a linear layer.
pub(crate) struct Classifier {
    params: Params,
}

/// What the classifier makes of each image.
pub(crate) struct Judgement {
    /// `[n, FEATURES]`.
    pub(crate) features: Array2<f64>,
    /// `[n, CLASSES]`.
    pub(crate) probabilities: Array2<f64>,
}

impl Judgement {
    /// The share of images whose most probable class has more than this probability.
    pub(crate) fn share_above(&self, confidence: f64) -> f64 {
        let sure = self.probabilities.axis_iter(Axis(0)).filter(|row| row.iter().any(|p| *p > confidence)).count();
        sure as f64 / self.probabilities.nrows() as f64
    }

    /// The most probable class of each image.
    pub(crate) fn classes(&self) -> Vec<usize> {
        let best = |row: ndarray::ArrayView1<'_, f64>| (0..CLASSES).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        self.probabilities.axis_iter(Axis(0)).map(best).collect()
    }
}

impl Classifier {
    /// Trains for some epochs on digits shifted at random.
    pub(crate) fn train(images: &TrainingImages, labels: &[usize], epochs: u64, seed: u64) -> Result<Self> {
        let device = Device::flex().autodiff();
        let mut params = Params::initialise(&shapes(), seed)?;
        let zeros = Params::zeros(&shapes());
        let (mut ema, mut first, mut second) = (params.clone(), zeros.clone(), zeros);
        let n = images.len();
        let steps = epochs * (n / BATCH) as u64;
        let rate = LearningRate { peak: 2e-3, warmup: 50, cosine_decay: true };
        for step in 1..=steps {
            let draws = Streams::new(seed, 0..BATCH as u32).uniform(step as usize, Purpose::Auxiliary, 3);
            let shift = |u: f64| (u * (2 * SHIFT + 1) as f64) as isize - SHIFT;
            let chosen: Vec<usize> = draws.iter().map(|d| (d[0] * n as f64) as usize).collect();
            let x = Array4::from_shape_fn((BATCH, 1, 32, 32), |_| -1.0f32);
            let x = draws.iter().zip(&chosen).enumerate().fold(x, |mut x, (i, (d, &index))| {
                shifted(&images.image(index).index_axis(Axis(0), 0), [shift(d[1]), shift(d[2])], x.slice_mut(s![i, 0, .., ..]));
                x
            });
            let leaves = Leaves::new(&params, &device, true);
            let (_, logits) = leaves.forward(tensor(x, &device));
            let mut wanted = vec![0.0f32; BATCH * CLASSES];
            chosen.iter().enumerate().for_each(|(i, &index)| wanted[i * CLASSES + labels[index]] = -1.0 / BATCH as f32);
            let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [BATCH, CLASSES]), &device);
            let gradients = (log_softmax(logits, 1) * wanted).sum().backward();
            let update = Update { step, lr: rate.at(step, steps), gradient_scale: 1.0, ema_decay: 0.0 };
            let gradients = leaves.gradients(&gradients);
            let state = params.iter_mut().zip(ema.iter_mut()).zip(first.iter_mut().zip(second.iter_mut()));
            for ((((name, w), (_, ema)), ((_, m), (_, v))), (other, gradient)) in state.zip(&gradients) {
                assert_eq!(name, other);
                let (weights, ema) = (&mut w.values[..], &mut ema.values[..]);
                AdamW::default().update(&update, Slot { weights, ema, first: &mut m.values, second: &mut v.values, gradient });
            }
        }
        Ok(Self { params })
    }

    /// Features and probabilities of images in `[-1, 1]`.
    pub(crate) fn judge(&self, images: &Batch) -> Judgement {
        let leaves = Leaves::new(&self.params, &Device::flex(), false);
        let n = images.dim().0;
        let (mut features, mut probabilities) = (Array2::zeros((n, FEATURES)), Array2::zeros((n, CLASSES)));
        for from in (0..n).step_by(BATCH) {
            let rows = from..n.min(from + BATCH);
            let x = images.slice(s![rows.clone(), .., .., ..]).mapv(|v| v as f32);
            let (f, logits) = leaves.forward(tensor(x, &Device::flex()));
            let read = |t: Tensor<2>| t.into_data().try_to_vec::<f32>().expect("the classifier computes in f32");
            let fill = |mut target: ndarray::ArrayViewMut2<'_, f64>, values: Vec<f32>| {
                target.iter_mut().zip(values).for_each(|(t, v)| *t = f64::from(v));
            };
            fill(features.slice_mut(s![rows.clone(), ..]), read(f));
            fill(probabilities.slice_mut(s![rows, ..]), read(softmax(logits, 1)));
        }
        Judgement { features, probabilities }
    }
}

fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    for (i, pair) in WIDTHS.windows(2).enumerate() {
        shapes.insert(format!("conv{i}.weight"), vec![pair[1], pair[0], 3, 3]);
        shapes.insert(format!("conv{i}.bias"), vec![pair[1]]);
    }
    shapes.insert("hidden.weight".into(), vec![FEATURES, WIDTHS[3] * PIXELS]);
    shapes.insert("hidden.bias".into(), vec![FEATURES]);
    shapes.insert("linear.weight".into(), vec![CLASSES, FEATURES]);
    shapes.insert("linear.bias".into(), vec![CLASSES]);
    shapes
}

struct Leaves {
    convolutions: Vec<(Tensor<4>, Tensor<1>)>,
    hidden: (Tensor<2>, Tensor<1>),
    linear: (Tensor<2>, Tensor<1>),
}

impl Leaves {
    fn new(params: &Params, device: &Device, trained: bool) -> Self {
        fn load<const D: usize>(params: &Params, name: &str, device: &Device, trained: bool) -> Tensor<D> {
            let parameter = params.get(name).expect("the classifier's own names");
            let tensor = Tensor::from_data(TensorData::new(parameter.values.clone(), parameter.shape.clone()), device);
            if trained { tensor.require_grad() } else { tensor }
        }
        let convolution = |i| {
            let (weight, bias) = (format!("conv{i}.weight"), format!("conv{i}.bias"));
            (load(params, &weight, device, trained), load(params, &bias, device, trained))
        };
        let hidden = (load(params, "hidden.weight", device, trained), load(params, "hidden.bias", device, trained));
        let linear = (load(params, "linear.weight", device, trained), load(params, "linear.bias", device, trained));
        Self { convolutions: (0..WIDTHS.len() - 1).map(convolution).collect(), hidden, linear }
    }

    /// Features and logits.
    fn forward(&self, x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let convolve = |x, (w, b): &(Tensor<4>, Tensor<1>)| relu(ops::conv2d(x, w.clone(), b.clone(), 2, [(1, 1); 2]));
        let x = self.convolutions.iter().fold(x, convolve);
        let [n, c, h, w] = x.dims();
        let features = relu(ops::linear(x.reshape([n, c * h * w]), self.hidden.0.clone(), self.hidden.1.clone()));
        let logits = ops::linear(features.clone(), self.linear.0.clone(), self.linear.1.clone());
        (features, logits)
    }

    /// In the order of names.
    fn gradients(&self, gradients: &burn::tensor::Gradients) -> Vec<(String, Vec<f32>)> {
        fn read<const D: usize>(t: &Tensor<D>, gradients: &burn::tensor::Gradients) -> Vec<f32> {
            let gradient = t.grad(gradients).expect("every tensor takes part");
            gradient.into_data().try_to_vec().expect("the classifier computes in f32")
        }
        let mut all = Vec::new();
        for (i, (weight, bias)) in self.convolutions.iter().enumerate() {
            all.push((format!("conv{i}.bias"), read(bias, gradients)));
            all.push((format!("conv{i}.weight"), read(weight, gradients)));
        }
        all.push(("hidden.bias".into(), read(&self.hidden.1, gradients)));
        all.push(("hidden.weight".into(), read(&self.hidden.0, gradients)));
        all.push(("linear.bias".into(), read(&self.linear.1, gradients)));
        all.push(("linear.weight".into(), read(&self.linear.0, gradients)));
        all
    }
}

fn shifted(image: &ndarray::ArrayView2<'_, f32>, [dy, dx]: [isize; 2], mut target: ndarray::ArrayViewMut2<'_, f32>) {
    for ((i, j), value) in target.indexed_iter_mut() {
        let from = [i.checked_add_signed(-dy), j.checked_add_signed(-dx)];
        if let [Some(i), Some(j)] = from
            && let Some(v) = image.get((i, j))
        {
            *value = *v;
        }
    }
}

fn tensor(x: Array4<f32>, device: &Device) -> Tensor<4> {
    let (n, c, h, w) = x.dim();
    Tensor::from_data(TensorData::new(x.iter().copied().collect::<Vec<_>>(), [n, c, h, w]), device)
}
