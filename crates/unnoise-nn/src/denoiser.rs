//! The U-Net behind the seam.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Axis, Slice};
use unnoise_core::{
    Batch, Conversion, Denoiser, Estimate, Level, Linearized, Prediction, Schedule, Shape, check_shape, element_shape,
};

use crate::bridge::in_pool;
use crate::{Error, Result, Unet};

/// How many images enter the network at once unless said otherwise.
pub const DEFAULT_CHUNK: usize = 64;

/// A U-Net as a prior: its prediction becomes the posterior mean.
///
/// ```text
/// timestep = t T - 1        so that step k of T, t = (k + 1) / T, is the network's timestep k; t T of a schedule without steps
/// x0_hat   = a x_t + b f(x_t, timestep)        J^T v = a v + b (df/dx_t)^T v        a, b of Conversion
/// ```
///
/// The network computes in f32 and the rest in f64. Of a network that learns its variance (2 C channels out) the first C are the prediction,
/// and the others `2 v - 1`, with `v` the [`variance_share`](Estimate::variance_share), as in guided-diffusion and diffusers' `learned_range`.
#[derive(Clone)]
pub struct UnetDenoiser {
    unet: Arc<Unet>,
    schedule: Arc<dyn Schedule>,
    prediction: Prediction,
    clock: Clock,
    label: Option<usize>,
    chunk: usize,
}

/// The network's timestep at a time, `t T - offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Clock {
    steps: f64,
    offset: f64,
}

impl Clock {
    /// That of a schedule; one without steps counts `steps`.
    pub(crate) fn new(schedule: &dyn Schedule, steps: usize) -> Self {
        match schedule.steps() {
            Some(steps) => Self { steps: steps as f64, offset: 1.0 },
            None => Self { steps: steps as f64, offset: 0.0 },
        }
    }

    pub(crate) fn timestep(self, t: f64) -> f64 {
        t * self.steps - self.offset
    }

    pub(crate) fn time(self, timestep: f64) -> f64 {
        (timestep + self.offset) / self.steps
    }
}

/// A forward pass that can still be differentiated, once.
struct Graph {
    input: Tensor<4>,
    output: Tensor<4>,
}

impl UnetDenoiser {
    /// The prior of a network that was trained to give `prediction` on `schedule`; a schedule without steps counts as 1000.
    ///
    /// # Errors
    /// [`Error::Argument`] for a network whose output has neither as many channels as its input nor twice as many.
    pub fn new(unet: Unet, schedule: Arc<dyn Schedule>, prediction: Prediction) -> Result<Self> {
        let (c_in, c_out) = (unet.config().in_channels, unet.config().out_channels);
        if c_out != c_in && c_out != 2 * c_in {
            return Err(Error::argument("out_channels", format!("{c_in} or {}", 2 * c_in), c_out, "UnetDenoiser::new"));
        }
        let clock = Clock::new(&*schedule, 1000);
        Ok(Self { unet: Arc::new(unet), schedule, prediction, clock, label: None, chunk: DEFAULT_CHUNK })
    }

    /// The same prior, whose network's timesteps run to `steps` on a schedule without steps of its own.
    pub fn with_train_steps(self, steps: usize) -> Self {
        Self { clock: Clock::new(&*self.schedule, steps), ..self }
    }

    /// The same prior, conditioned on a class.
    pub fn with_label(self, label: Option<usize>) -> Self {
        Self { label, ..self }
    }

    /// The same prior, with at most `chunk` images (at least one) in the network at once.
    pub fn with_chunk(self, chunk: usize) -> Self {
        Self { chunk: chunk.max(1), ..self }
    }

    /// The network.
    pub fn unet(&self) -> &Unet {
        &self.unet
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The network's timestep at time `t`; fractional between the training grid's.
    pub fn timestep(&self, t: f64) -> f64 {
        self.clock.timestep(t)
    }

    fn run(&self, x: Tensor<4>, timestep: f64) -> Result<Tensor<4>> {
        run(&self.unet, x, timestep, self.label)
    }

    /// Applies `f` to at most `chunk` images at a time.
    fn by_chunks(&self, x: &Batch, channels: usize, f: impl FnMut(&Batch) -> Result<Tensor<4>>) -> Result<Batch> {
        by_chunks(x, channels, self.chunk, f)
    }

    fn to_tensor(&self, x: &Batch, tracked: bool) -> Tensor<4> {
        to_tensor(x, self.unet.device(), tracked)
    }

    /// The channels that predict.
    fn mean_channels(&self, output: Tensor<4>) -> Tensor<4> {
        output.narrow(1, 0, self.unet.config().in_channels)
    }

    fn graph(&self, x: &Batch, level: Level) -> Result<Graph> {
        let input = self.to_tensor(x, true);
        let output = self.mean_channels(self.run(input.clone(), self.timestep(level.t))?);
        Ok(Graph { input, output })
    }

    /// `(df/dx)^T v`; it uses the graph up.
    fn pull_back(&self, graph: Graph, v: &Batch) -> Tensor<4> {
        let product = (graph.output * self.to_tensor(v, false)).sum();
        let gradients = in_pool(|| product.backward());
        graph.input.grad(&gradients).unwrap_or_else(|| graph.input.inner().zeros_like())
    }

    fn conversion(&self, level: Level) -> unnoise_core::Result<Conversion> {
        Conversion::new(self.prediction, Prediction::X0, level, &*self.schedule)
    }

    fn check(&self, x: &Batch, at: &'static str) -> unnoise_core::Result<Shape> {
        let [_, h, w] = element_shape(x);
        let shape = [self.unet.config().in_channels, h, w];
        check_shape(x, shape, "x", at)?;
        Ok(shape)
    }
}

impl Unet {
    /// The network's raw output on a batch, all channels, at most [`DEFAULT_CHUNK`] images at once.
    ///
    /// # Shapes
    /// `x` is `[n, in_channels, h, w]`, the result `[n, out_channels, h, w]`.
    ///
    /// # Errors
    /// As [`Unet::forward`].
    pub fn predict(&self, x: &Batch, timestep: f64, label: Option<usize>) -> Result<Batch> {
        by_chunks(x, self.config().out_channels, DEFAULT_CHUNK, |part| {
            run(self, to_tensor(part, self.device(), false), timestep, label)
        })
    }
}

fn run(unet: &Unet, x: Tensor<4>, timestep: f64, label: Option<usize>) -> Result<Tensor<4>> {
    let n = x.dims()[0];
    in_pool(|| unet.forward(x, &vec![timestep; n], label.map(|label| vec![label; n]).as_deref()))
}

/// Applies `f` to at most `chunk` images at a time.
fn by_chunks(x: &Batch, channels: usize, chunk: usize, mut f: impl FnMut(&Batch) -> Result<Tensor<4>>) -> Result<Batch> {
    let (n, _, h, w) = x.dim();
    let mut result = Batch::zeros((n, channels, h, w));
    for start in (0..n).step_by(chunk) {
        let rows = Slice::from(start..n.min(start + chunk));
        let part = f(&x.slice_axis(Axis(0), rows).to_owned())?;
        let values: Vec<f32> = part.into_data().try_into_vec().expect("the network computes in f32");
        result.slice_axis_mut(Axis(0), rows).iter_mut().zip(values).for_each(|(to, from)| *to = f64::from(from));
    }
    Ok(result)
}

fn to_tensor(x: &Batch, device: &Device, tracked: bool) -> Tensor<4> {
    let (n, c, h, w) = x.dim();
    let data = TensorData::new(x.iter().map(|v| *v as f32).collect::<Vec<f32>>(), [n, c, h, w]);
    if tracked { Tensor::from_data(data, &device.clone().autodiff()).require_grad() } else { Tensor::from_data(data, device) }
}

/// `a x + b y`, where a factor of zero means that the other is not needed.
fn combine(conversion: Conversion, x: &Batch, y: Batch) -> Batch {
    match conversion {
        Conversion { x_t: 0.0, value } => y * value,
        Conversion { x_t, value: 0.0 } => x * x_t,
        Conversion { x_t, value } => y * value + x * x_t,
    }
}

fn outside(error: Error) -> unnoise_core::Error {
    match error {
        Error::Core(error) => error,
        other => unnoise_core::Error::Denoiser(Box::new(other)),
    }
}

impl Denoiser for UnetDenoiser {
    fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> unnoise_core::Result<Batch> {
        Ok(self.estimate(x, level)?.x0_hat)
    }

    fn estimate(&self, x: &Batch, level: Level) -> unnoise_core::Result<Estimate> {
        let [channels, ..] = self.check(x, "UnetDenoiser::x0_hat")?;
        let conversion = self.conversion(level)?;
        let timestep = self.timestep(level.t);
        let forward = |part: &Batch| self.run(self.to_tensor(part, false), timestep);
        let output = self.by_chunks(x, self.unet.config().out_channels, forward).map_err(outside)?;
        let (predicted, learned) = output.view().split_at(Axis(1), channels);
        let variance_share = (learned.dim().1 > 0).then(|| learned.mapv(|v| 0.5 * (v + 1.0)));
        let predicted = if variance_share.is_some() { predicted.to_owned() } else { output };
        Ok(Estimate { x0_hat: combine(conversion, x, predicted), variance_share })
    }

    /// The graph of the first forward pass is kept for the first product if the batch is one chunk; every other product runs the
    /// network again, since a graph serves only once and the graphs of many chunks would fill the memory.
    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> unnoise_core::Result<Linearized<'a>> {
        let [channels, ..] = self.check(x, "UnetDenoiser::linearize")?;
        let conversion = self.conversion(level)?;
        let mut kept = None;
        let x0_hat = if x.dim().0 <= self.chunk {
            let forward = |part: &Batch| {
                let graph = self.graph(part, level)?;
                Ok(kept.insert(graph).output.clone().inner())
            };
            combine(conversion, x, self.by_chunks(x, channels, forward).map_err(outside)?)
        } else {
            self.x0_hat(x, level)?
        };
        let x = x.clone();
        let vjp = move |v: &Batch| {
            if v.dim() != x.dim() {
                let (expected, got) = (x.shape().to_vec(), v.shape().to_vec());
                return Err(unnoise_core::Error::Shape { what: "v", expected, got, at: "UnetDenoiser's vjp" });
            }
            let mut start = 0;
            let back = |v: &Batch| {
                let rows = Slice::from(start..start + v.dim().0);
                start += v.dim().0;
                let graph = match kept.take() {
                    Some(graph) => graph,
                    None => self.graph(&x.slice_axis(Axis(0), rows).to_owned(), level)?,
                };
                Ok(self.pull_back(graph, v))
            };
            Ok(combine(conversion, v, self.by_chunks(v, channels, back).map_err(outside)?))
        };
        Ok(Linearized { x0_hat, vjp: Box::new(vjp) })
    }
}

#[cfg(test)]
mod tests;
