//! Times and class labels as vectors.

use burn::tensor::{Device, Tensor, TensorData};

use super::layers::{Builder, Linear};
use crate::{UnetConfig, ops};

/// Sines and cosines of `t` at geometrically spaced frequencies, one row for each time.
///
/// ```text
/// f_i = 10000^(-i / (half - s)),  i = 0 .. half        row = [sin(t f), cos(t f)]  or  [cos(t f), sin(t f)], padded to the width
/// ```
///
/// The arithmetic is in f32, as PyTorch's is: at t = 1000 its rounding is seen in the sines.
///
/// # Reference
/// Vaswani et al. 2017, arXiv 1706.03762, sec. 3.5; the shift `s` and the order are diffusers' options.
pub(super) fn sinusoids(times: &[f64], config: &UnetConfig, device: &Device) -> Tensor<2> {
    let width = config.block_out_channels[0];
    let half = width / 2;
    let divisor = (half as f64 - config.freq_shift) as f32;
    let frequency = |i: usize| (-(10_000f64.ln() as f32) * i as f32 / divisor).exp();
    let mut values = Vec::with_capacity(times.len() * width);
    for &t in times {
        let angles = (0..half).map(|i| t as f32 * frequency(i));
        let (sines, cosines) = (angles.clone().map(f32::sin), angles.map(f32::cos));
        match config.flip_sin_to_cos {
            true => values.extend(cosines.chain(sines)),
            false => values.extend(sines.chain(cosines)),
        }
        values.extend((2 * half..width).map(|_| 0.0));
    }
    Tensor::from_data(TensorData::new(values, [times.len(), width]), device)
}

/// Two linear layers with `silu` between them.
pub(super) struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimeEmbedding {
    pub(super) fn new(b: &mut Builder, name: &str, c_in: usize, c_out: usize) -> Self {
        let mut b = b.at(name);
        Self { linear_1: Linear::new(&mut b, "linear_1", c_in, c_out), linear_2: Linear::new(&mut b, "linear_2", c_out, c_out) }
    }

    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(ops::silu(self.linear_1.forward(x)))
    }
}
