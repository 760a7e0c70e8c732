//! The architecture of a U-Net, as diffusers writes it in `config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Unet;
use crate::{Error, Params, Result, Shapes};

/// The side or sides of the images that a network was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// Squares.
    Square(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl SampleSize {
    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        match self {
            Self::Square(side) => [side; 2],
            Self::Sides(sides) => sides,
        }
    }
}

/// How a time embedding enters a residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added before the second normalisation.
    #[default]
    Default,
    /// As a gain and an offset after the second normalisation.
    ScaleShift,
}

/// How an attention block changes the resolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// A convolution.
    #[default]
    Conv,
    /// A residual block.
    Resnet,
}

/// The nonlinearity of the residual blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    #[default]
    Silu,
    /// Another name of [`Silu`](Self::Silu).
    Swish,
    /// `x tanh(ln(1 + exp(x)))`.
    Mish,
    /// `x Phi(x)`.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// What a class label becomes before it is added to the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassEmbedding {
    /// What a timestep becomes: sines and cosines, then two linear layers.
    Timestep,
    /// The caller gives the embedding itself.
    Identity,
}

/// The kind of a block of the encoder or the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    Plain,
    Attention,
    Resnet,
}

/// The architecture of a U-Net: diffusers' `UNet2DModel` with its keys and defaults.
///
/// Served are the blocks `DownBlock2D`, `AttnDownBlock2D`, `ResnetDownsampleBlock2D` and their counterparts of the decoder, with
/// every option that they take.
///
/// # Reference
/// Hugging Face diffusers 0.42.1, `UNet2DModel`; Ho et al. 2020, arXiv 2006.11239, appendix B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnetConfig {
    /// The side of the images, where it is known; other sides work too.
    pub sample_size: Option<SampleSize>,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output: twice the input's for a network that learns its variance.
    pub out_channels: usize,
    /// Whether `2 x - 1` enters the network in the place of `x`.
    pub center_input_sample: bool,
    /// Always `positional`.
    pub time_embedding_type: String,
    /// Width of the time embedding; 4 times the first block's where absent.
    pub time_embedding_dim: Option<usize>,
    /// `s` in the frequencies `10000^(-i / (half - s))` of the time embedding.
    pub freq_shift: f64,
    /// Whether cosines stand before sines.
    pub flip_sin_to_cos: bool,
    /// The blocks of the encoder, from the finest.
    pub down_block_types: Vec<String>,
    /// `UNetMidBlock2D`, or nothing.
    pub mid_block_type: Option<String>,
    /// The blocks of the decoder, from the coarsest.
    pub up_block_types: Vec<String>,
    /// The width of each block, from the finest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// What the sums of the middle block are divided by.
    pub mid_block_scale_factor: f64,
    /// Padding of the downsampling convolutions: 1 on every side, or 0 for one row and column after the image.
    pub downsample_padding: usize,
    /// How an attention block of the encoder halves the resolution.
    pub downsample_type: Resampling,
    /// How an attention block of the decoder doubles the resolution.
    pub upsample_type: Resampling,
    /// Share of features dropped in training; nothing is dropped at inference.
    pub dropout: f64,
    /// The nonlinearity of the residual blocks.
    pub act_fn: Activation,
    /// Channels of an attention head; one head where null.
    pub attention_head_dim: Option<usize>,
    /// Groups of the normalisations.
    pub norm_num_groups: usize,
    /// Groups of the middle attention's normalisation; `norm_num_groups` where null, or no normalisation with scale and shift.
    pub attn_norm_num_groups: Option<usize>,
    /// `eps` of the normalisations.
    pub norm_eps: f64,
    /// How the time embedding enters.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Whether the middle block has attention.
    pub add_attention: bool,
    /// How a class label is embedded; a table where null and `num_class_embeds` is given.
    pub class_embed_type: Option<ClassEmbedding>,
    /// The number of classes of the table.
    pub num_class_embeds: Option<usize>,
    /// Not used by the blocks that are served.
    pub num_train_timesteps: Option<usize>,
}

impl Default for UnetConfig {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(String::from).to_vec();
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: "positional".into(),
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: names(["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]),
            mid_block_type: Some("UNetMidBlock2D".into()),
            up_block_types: names(["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]),
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: Resampling::Conv,
            upsample_type: Resampling::Conv,
            dropout: 0.0,
            act_fn: Activation::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

/// Keys of the first diffusers configs and today's.
const ALIASES: [(&str, &str); 10] = [
    ("image_size", "sample_size"),
    ("num_res_blocks", "layers_per_block"),
    ("block_channels", "block_out_channels"),
    ("down_blocks", "down_block_types"),
    ("up_blocks", "up_block_types"),
    ("downscale_freq_shift", "freq_shift"),
    ("resnet_num_groups", "norm_num_groups"),
    ("resnet_act_fn", "act_fn"),
    ("resnet_eps", "norm_eps"),
    ("num_head_channels", "attention_head_dim"),
];

impl UnetConfig {
    /// Reads the object of a `config.json`: today's keys or older ones; unknown keys are ignored, as diffusers does.
    ///
    /// # Errors
    /// [`Error::File`] for a key of the wrong type or value; [`Error::NotSupportedYet`] that names the block or option.
    pub fn from_json(json: Value, path: &Path) -> Result<Self> {
        let Value::Object(mut object) = json else {
            return Err(Error::file(path, "the content", "a JSON object", json));
        };
        modernise(&mut object).map_err(|e| e.in_file(path))?;
        let config: Self =
            serde_json::from_value(Value::Object(object)).map_err(|e| Error::file(path, "the architecture", "valid", e))?;
        config.validate().map_err(|e| e.in_file(path))?;
        Ok(config)
    }

    /// The configuration as the object of a `config.json` that diffusers reads.
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(self).expect("numbers and strings always serialise");
        json["_class_name"] = "UNet2DModel".into();
        json["_diffusers_version"] = "0.42.1".into();
        json
    }

    /// Names and shapes of all parameters, in diffusers' names and PyTorch's layouts.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn parameter_shapes(&self) -> Result<Shapes> {
        Unet::shapes(self)
    }

    /// Parameters of PyTorch's default initialisation, from a seed.
    ///
    /// # Errors
    /// As [`validate`](Self::validate) and [`Params::initialise`].
    pub fn initial_params(&self, seed: u64) -> Result<Params> {
        Params::initialise(&self.parameter_shapes()?, seed)
    }

    /// The sides of an image must be multiples of this, so that the decoder meets the encoder's sizes.
    pub fn side_multiple(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that this network can be built.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::NotSupportedYet`], naming the key.
    pub fn validate(&self) -> Result<()> {
        const AT: &str = "UnetConfig";
        let blocks = self.block_out_channels.len();
        let in_range = |what: &'static str, value: usize, low: usize, high: usize| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(Error::argument(what, format!("in {low}..={high}"), value, AT)),
        };
        in_range("the length of block_out_channels", blocks, 1, 12)?;
        for (what, kinds) in
            [("the length of down_block_types", self.down_kinds()?), ("the length of up_block_types", self.up_kinds()?)]
        {
            if kinds.len() != blocks {
                return Err(Error::argument(what, format!("that of block_out_channels, {blocks}"), kinds.len(), AT));
            }
        }
        in_range("in_channels", self.in_channels, 1, 1 << 14)?;
        in_range("out_channels", self.out_channels, 1, 1 << 14)?;
        in_range("layers_per_block", self.layers_per_block, 1, 64)?;
        in_range("norm_num_groups", self.norm_num_groups, 1, 1 << 14)?;
        in_range("downsample_padding", self.downsample_padding, 0, 1)?;
        in_range("time_embedding_dim", self.time_width(), 1, 1 << 18)?;
        for &width in &self.block_out_channels {
            in_range("block_out_channels", width, 1, 1 << 14)?;
            let head = self.attention_head_dim.unwrap_or(width);
            for (what, divisor) in [("norm_num_groups", self.norm_num_groups), ("attention_head_dim", head)] {
                if (what == "norm_num_groups" || self.attends(width)) && !width.is_multiple_of(divisor) {
                    return Err(Error::argument(what, format!("a divisor of the width {width}"), divisor, AT));
                }
            }
        }
        self.validate_decoder_groups()?;
        if let Some(groups) = self.attn_norm_num_groups {
            let width = self.block_out_channels[blocks - 1];
            if !width.is_multiple_of(groups) {
                return Err(Error::argument("attn_norm_num_groups", format!("a divisor of the width {width}"), groups, AT));
            }
        }
        if let (None, Some(classes)) = (self.class_embed_type, self.num_class_embeds) {
            in_range("num_class_embeds", classes, 1, 1 << 24)?;
        }
        let half = (self.block_out_channels[0] / 2) as f64;
        if !self.freq_shift.is_finite() || half - self.freq_shift <= 0.0 {
            return Err(Error::argument("freq_shift", format!("less than half the first width, {half}"), self.freq_shift, AT));
        }
        for (what, value) in [("norm_eps", self.norm_eps), ("mid_block_scale_factor", self.mid_block_scale_factor)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::argument(what, "positive", value, AT));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::argument("dropout", "in [0, 1)", self.dropout, AT));
        }
        if self.time_embedding_type != "positional" {
            return Err(unsupported(format!("time_embedding_type '{}'", self.time_embedding_type), "positional"));
        }
        match self.mid_block_type.as_deref() {
            None | Some("UNetMidBlock2D") => Ok(()),
            Some(other) => Err(unsupported(format!("mid_block_type '{other}'"), "UNetMidBlock2D, null")),
        }
    }

    /// The decoder normalises concatenations, whose widths are sums of neighbouring blocks'.
    fn validate_decoder_groups(&self) -> Result<()> {
        let widths = &self.block_out_channels;
        match widths.windows(2).map(|pair| pair[0] + pair[1]).find(|sum| !sum.is_multiple_of(self.norm_num_groups)) {
            Some(sum) => Err(Error::argument("norm_num_groups", format!("a divisor of {sum}"), self.norm_num_groups, "UnetConfig")),
            None => Ok(()),
        }
    }

    /// Whether some attention layer has this width.
    fn attends(&self, width: usize) -> bool {
        let attention = |kinds: Result<Vec<BlockKind>>, widths: &mut dyn Iterator<Item = &usize>| {
            kinds.unwrap_or_default().iter().zip(widths).any(|(kind, w)| *kind == BlockKind::Attention && *w == width)
        };
        let middle = self.mid_block_type.is_some() && self.add_attention && self.block_out_channels.last() == Some(&width);
        middle
            || attention(self.down_kinds(), &mut self.block_out_channels.iter())
            || attention(self.up_kinds(), &mut self.block_out_channels.iter().rev())
    }

    /// The width of the time embedding.
    pub(super) fn time_width(&self) -> usize {
        self.time_embedding_dim.filter(|width| *width > 0).unwrap_or(4 * self.block_out_channels.first().copied().unwrap_or(0))
    }

    pub(super) fn down_kinds(&self) -> Result<Vec<BlockKind>> {
        block_kinds(&self.down_block_types, ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"])
    }

    pub(super) fn up_kinds(&self) -> Result<Vec<BlockKind>> {
        block_kinds(&self.up_block_types, ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"])
    }
}

fn block_kinds(names: &[String], known: [&str; 3]) -> Result<Vec<BlockKind>> {
    let kinds = [BlockKind::Plain, BlockKind::Attention, BlockKind::Resnet];
    let kind = |name: &String| {
        let found = known.iter().zip(kinds).find(|(known, _)| **known == name.strip_prefix("UNetRes").unwrap_or(name));
        found.map(|(_, kind)| kind).ok_or_else(|| unsupported(format!("the block {name}"), &known.join(", ")))
    };
    names.iter().map(kind).collect()
}

fn unsupported(what: String, supported: &str) -> Error {
    Error::NotSupportedYet { what, supported: supported.into() }
}

/// Brings older keys and values to today's.
fn modernise(object: &mut Map<String, Value>) -> Result<()> {
    match object.get("_class_name").and_then(Value::as_str) {
        None | Some("UNet2DModel" | "UNetUnconditionalModel") => {}
        Some(other) => return Err(unsupported(format!("the class {other}"), "UNet2DModel")),
    }
    for (old, new) in ALIASES {
        if let Some(value) = object.remove(old) {
            object.entry(new).or_insert(value);
        }
    }
    let numbers = |value: &Value| value.as_array().map(|a| a.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
    if let (Some(width), Some(factors)) = (object.get("ch").and_then(Value::as_u64), object.get("ch_mult").and_then(numbers)) {
        let widths: Vec<u64> = factors.iter().map(|factor| width.saturating_mul(*factor)).collect();
        object.entry("block_out_channels").or_insert(widths.into());
    }
    for key in ["down_block_types", "up_block_types"] {
        for name in object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(stripped) = name.as_str().and_then(|n| n.strip_prefix("UNetRes")) {
                *name = stripped.into();
            }
        }
    }
    // What a null means where today's network takes it for its default.
    for key in ["downsample_type", "upsample_type", "dropout", "time_embedding_type"] {
        if object.get(key).is_some_and(Value::is_null) {
            object.remove(key);
        }
    }
    if object.get("norm_num_groups").is_some_and(Value::is_null) {
        return Err(unsupported("norm_num_groups null (as in Skip blocks)".into(), "a number of groups"));
    }
    for (key, supported) in [("resnet_time_scale_shift", "default, scale_shift"), ("act_fn", "silu, swish, mish, gelu, relu")] {
        if let Some(name) = object.get(key).and_then(Value::as_str).filter(|name| !supported.split(", ").any(|s| s == *name)) {
            return Err(unsupported(format!("{key} '{name}'"), supported));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
