//! Residual blocks, attention, and the stages that are made of them.

#[cfg(test)]
mod tests;

use burn::tensor::{Tensor, activation};

use super::config::{Activation, BlockKind, Resampling, TimeScaleShift, UnetConfig};
use super::layers::{Builder, Conv, Linear, Norm};
use crate::ops;

fn activate<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    match activation {
        Activation::Silu | Activation::Swish => ops::silu(x),
        Activation::Mish => activation::mish(x),
        // burn's own gelu has its exact derivative on the CPU alone; elsewhere a tanh approximation's, off by 9e-4.
        Activation::Gelu => x.clone() * (x * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5),
        Activation::Relu => activation::relu(x),
    }
}

/// A normalisation, `norm(silu)` with or without `silu`, and the nonlinearity: one operation where that is `silu`.
fn norm_activate(activation: Activation, norm: impl FnOnce(bool) -> Tensor<4>) -> Tensor<4> {
    match activation {
        Activation::Silu | Activation::Swish => norm(true),
        other => activate(other, norm(false)),
    }
}

/// The time embedding as every residual block sees it: after the nonlinearity.
pub(super) fn activate_embedding(config: &UnetConfig, embedding: Tensor<2>) -> Tensor<2> {
    activate(config.act_fn, embedding)
}

#[derive(Clone, Copy)]
enum Resize {
    Keep,
    Halve,
    Double,
}

impl Resize {
    fn apply(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Keep => x,
            Self::Halve => ops::avg_pool2(x),
            Self::Double => ops::upsample_nearest2(x),
        }
    }
}

/// A residual block.
///
/// ```text
/// h = conv1(resize(act(norm1(x))))
/// h = norm2(h + P e)            or   norm2(h) (1 + scale) + shift,   [scale, shift] = P e
/// y = (shortcut(resize(x)) + conv2(act(h))) / divisor
/// ```
struct Resnet {
    norm1: Norm,
    conv1: Conv,
    time_emb_proj: Linear,
    norm2: Norm,
    conv2: Conv,
    conv_shortcut: Option<Conv>,
    resize: Resize,
    time: TimeScaleShift,
    activation: Activation,
    divisor: f64,
}

impl Resnet {
    fn new(b: &mut Builder, config: &UnetConfig, c_in: usize, c_out: usize) -> Self {
        let (groups, eps, time) = (config.norm_num_groups, config.norm_eps, config.resnet_time_scale_shift);
        let projected = if time == TimeScaleShift::ScaleShift { 2 * c_out } else { c_out };
        Self {
            norm1: Norm::new(b, "norm1", c_in, groups, eps),
            conv1: Conv::new(b, "conv1", c_in, c_out, 3),
            time_emb_proj: Linear::new(b, "time_emb_proj", config.time_width(), projected),
            norm2: Norm::new(b, "norm2", c_out, groups, eps),
            conv2: Conv::new(b, "conv2", c_out, c_out, 3),
            conv_shortcut: (c_in != c_out).then(|| Conv::new(b, "conv_shortcut", c_in, c_out, 1)),
            resize: Resize::Keep,
            time,
            activation: config.act_fn,
            divisor: 1.0,
        }
    }

    fn resizing(self, resize: Resize) -> Self {
        Self { resize, ..self }
    }

    fn forward(&self, x: Tensor<4>, embedding: &Tensor<2>) -> Tensor<4> {
        let h = self.resize.apply(norm_activate(self.activation, |silu| self.norm1.forward(x.clone(), silu)));
        let e = self.time_emb_proj.forward(embedding.clone());
        let h = match self.time {
            TimeScaleShift::Default => {
                let h = self.conv1.forward_plus(h, e);
                norm_activate(self.activation, |silu| self.norm2.forward(h, silu))
            }
            TimeScaleShift::ScaleShift => {
                let [scale, shift]: [Tensor<2>; 2] = e.chunk(2, 1).try_into().expect("the projection has two halves");
                let h = self.conv1.forward(h);
                norm_activate(self.activation, |silu| self.norm2.forward_scaled(h, scale, shift, silu))
            }
        };
        let x = self.resize.apply(x);
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        divide(self.conv2.forward_plus(h, shortcut), self.divisor)
    }
}

fn divide(x: Tensor<4>, divisor: f64) -> Tensor<4> {
    if divisor == 1.0 { x } else { x.div_scalar(divisor) }
}

/// Self-attention over the pixels, added to its input.
struct Attention {
    group_norm: Option<Norm>,
    to_q: Conv,
    to_k: Conv,
    to_v: Conv,
    to_out: Conv,
    heads: usize,
    divisor: f64,
}

impl Attention {
    fn new(b: &mut Builder, config: &UnetConfig, channels: usize, groups: Option<usize>) -> Self {
        Self {
            group_norm: groups.map(|groups| Norm::new(b, "group_norm", channels, groups, config.norm_eps)),
            to_q: Conv::pointwise(b, "to_q", channels, channels),
            to_k: Conv::pointwise(b, "to_k", channels, channels),
            to_v: Conv::pointwise(b, "to_v", channels, channels),
            to_out: Conv::pointwise(b, "to_out.0", channels, channels),
            heads: channels / config.attention_head_dim.unwrap_or(channels),
            divisor: 1.0,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x.clone(), false),
            None => x.clone(),
        };
        let [q, k, v] = [&self.to_q, &self.to_k, &self.to_v].map(|map| map.forward(normed.clone()).reshape([n, c, h * w]));
        let mixed = ops::attention(q, k, v, self.heads).reshape([n, c, h, w]);
        divide(self.to_out.forward_plus(mixed, x), self.divisor)
    }
}

/// The end of a stage, where the resolution changes.
enum Resampler {
    Down(Conv),
    Up(Conv),
    Resnet(Box<Resnet>),
}

impl Resampler {
    fn forward(&self, x: Tensor<4>, embedding: &Tensor<2>) -> Tensor<4> {
        match self {
            Self::Down(conv) => conv.forward(x),
            Self::Up(conv) => conv.forward(ops::upsample_nearest2(x)),
            Self::Resnet(resnet) => resnet.forward(x, embedding),
        }
    }
}

/// Residual blocks at one resolution, each followed by attention or none of them, then a change of resolution.
pub(super) struct Stage {
    resnets: Vec<Resnet>,
    attentions: Vec<Attention>,
    resampler: Option<Resampler>,
}

impl Stage {
    fn new(b: &mut Builder, config: &UnetConfig, kind: BlockKind, inputs: &[usize], width: usize) -> Self {
        let resnets = inputs.iter().enumerate();
        let resnets = resnets.map(|(i, c_in)| Resnet::new(&mut b.at("resnets").at(i), config, *c_in, width)).collect();
        let attentions = if kind == BlockKind::Attention { inputs.len() } else { 0 };
        let groups = Some(config.norm_num_groups);
        let attentions = (0..attentions).map(|i| Attention::new(&mut b.at("attentions").at(i), config, width, groups)).collect();
        Self { resnets, attentions, resampler: None }
    }

    /// A stage of the encoder.
    pub(super) fn down(b: &mut Builder, config: &UnetConfig, kind: BlockKind, c_in: usize, width: usize, last: bool) -> Self {
        let inputs: Vec<usize> = (0..config.layers_per_block).map(|i| if i == 0 { c_in } else { width }).collect();
        let mut stage = Self::new(b, config, kind, &inputs, width);
        let resnet = kind == BlockKind::Resnet || kind == BlockKind::Attention && config.downsample_type == Resampling::Resnet;
        stage.resampler = (!last).then(|| {
            let mut b = b.at("downsamplers.0");
            if resnet {
                return Resampler::Resnet(Box::new(Resnet::new(&mut b, config, width, width).resizing(Resize::Halve)));
            }
            let padding = if config.downsample_padding == 0 { [(0, 1); 2] } else { [(1, 1); 2] };
            Resampler::Down(Conv::strided(&mut b, "conv", [width, width, 3, 3], 2, padding))
        });
        stage
    }

    /// A stage of the decoder; `c_skip` is the width of its last skip connection.
    pub(super) fn up(
        b: &mut Builder,
        config: &UnetConfig,
        kind: BlockKind,
        [c_in, c_skip]: [usize; 2],
        width: usize,
        last: bool,
    ) -> Self {
        let layers = config.layers_per_block + 1;
        let input = |i| if i == 0 { c_in } else { width };
        let skip = |i| if i + 1 == layers { c_skip } else { width };
        let inputs: Vec<usize> = (0..layers).map(|i| input(i) + skip(i)).collect();
        let mut stage = Self::new(b, config, kind, &inputs, width);
        let resnet = kind == BlockKind::Resnet || kind == BlockKind::Attention && config.upsample_type == Resampling::Resnet;
        stage.resampler = (!last).then(|| {
            let mut b = b.at("upsamplers.0");
            if resnet {
                return Resampler::Resnet(Box::new(Resnet::new(&mut b, config, width, width).resizing(Resize::Double)));
            }
            Resampler::Up(Conv::new(&mut b, "conv", width, width, 3))
        });
        stage
    }

    /// The encoder's direction: every intermediate image is kept for the decoder.
    pub(super) fn encode(&self, mut x: Tensor<4>, embedding: &Tensor<2>, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = self.attend(i, resnet.forward(x, embedding));
            skips.push(x.clone());
        }
        if let Some(resampler) = &self.resampler {
            x = resampler.forward(x, embedding);
            skips.push(x.clone());
        }
        x
    }

    /// The decoder's direction: every residual block takes the latest of the kept images beside its input.
    pub(super) fn decode(&self, mut x: Tensor<4>, embedding: &Tensor<2>, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the encoder keeps one image for every residual block of the decoder");
            x = self.attend(i, resnet.forward(ops::concat_channels(x, skip), embedding));
        }
        match &self.resampler {
            Some(resampler) => resampler.forward(x, embedding),
            None => x,
        }
    }

    fn attend(&self, i: usize, x: Tensor<4>) -> Tensor<4> {
        match self.attentions.get(i) {
            Some(attention) => attention.forward(x),
            None => x,
        }
    }
}

/// The middle: residual block, attention, residual block.
pub(super) struct Middle {
    resnets: [Resnet; 2],
    attention: Option<Attention>,
}

impl Middle {
    pub(super) fn new(b: &mut Builder, config: &UnetConfig, width: usize) -> Self {
        let divisor = config.mid_block_scale_factor;
        let unscaled = config.resnet_time_scale_shift == TimeScaleShift::Default;
        let groups = config.attn_norm_num_groups.or(unscaled.then_some(config.norm_num_groups));
        let resnets = [0, 1].map(|i| Resnet { divisor, ..Resnet::new(&mut b.at("resnets").at(i), config, width, width) });
        let attention = || Attention { divisor, ..Attention::new(&mut b.at("attentions").at(0), config, width, groups) };
        Self { resnets, attention: config.add_attention.then(attention) }
    }

    pub(super) fn forward(&self, x: Tensor<4>, embedding: &Tensor<2>) -> Tensor<4> {
        let x = self.resnets[0].forward(x, embedding);
        let x = match &self.attention {
            Some(attention) => attention.forward(x),
            None => x,
        };
        self.resnets[1].forward(x, embedding)
    }
}
