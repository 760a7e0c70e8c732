//! The U-Net.

mod blocks;
mod config;
mod embedding;
mod layers;

use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};

use self::blocks::{Middle, Stage, activate_embedding};
use self::embedding::{TimeEmbedding, sinusoids};
use self::layers::{Builder, Conv, Leaf, Norm, Source};
use crate::{Error, Params, Result, Shapes};

pub use self::config::*;

/// Whether gradients with respect to the parameters can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// The parameters are constants: a tracked input still has a gradient, and no work is done for the parameters'.
    Frozen,
    /// Every parameter is a leaf of the graph.
    Trained,
}

/// How class labels enter.
#[expect(clippy::large_enum_variant, reason = "there is one for each network")]
enum ClassLayer {
    None,
    Table(Tensor<2>),
    Timestep(TimeEmbedding),
    Identity,
}

/// A U-Net with its parameters on a device: diffusers' `UNet2DModel`.
///
/// # Reference
/// Ho et al. 2020, arXiv 2006.11239, appendix B; Hugging Face diffusers 0.42.1, `UNet2DModel`, whose numbers it reproduces.
pub struct Unet {
    config: UnetConfig,
    device: Device,
    time_embedding: TimeEmbedding,
    class_embedding: ClassLayer,
    conv_in: Conv,
    down: Vec<Stage>,
    middle: Option<Middle>,
    up: Vec<Stage>,
    conv_norm_out: Norm,
    conv_out: Conv,
    leaves: Vec<(String, Leaf)>,
}

impl Unet {
    /// The network with these parameters on `device`.
    ///
    /// With [`Tracking::Trained`] a device that already does autodiff is taken as it is, so that its gradient checkpointing stays.
    ///
    /// # Errors
    /// As [`UnetConfig::validate`] and [`Params::check`]; [`Error::NotSupportedYet`] for dropout in training.
    pub fn new(config: &UnetConfig, params: &Params, device: &Device, tracking: Tracking) -> Result<Self> {
        Self::check_params(config, params, tracking)?;
        Self::from_source(config, Source::loader(params, device, tracking == Tracking::Trained), device)
    }

    /// The network with [`Tracking::Frozen`], which takes over the numbers of `params` where [`new`](Self::new) copies them.
    ///
    /// # Errors
    /// As `new`.
    pub fn frozen(config: &UnetConfig, mut params: Params, device: &Device) -> Result<Self> {
        Self::check_params(config, &params, Tracking::Frozen)?;
        Self::from_source(config, Source::taker(&mut params, device, false), device)
    }

    /// The network to be trained, on the CPU with the numbers of `params` themselves: until [`give_back`](Self::give_back), `params` has none.
    ///
    /// # Errors
    /// As [`new`](Self::new); nothing is taken then.
    pub(crate) fn borrowing(config: &UnetConfig, params: &mut Params, device: &Device) -> Result<Self> {
        Self::check_params(config, params, Tracking::Trained)?;
        let source = match device.clone().without_autodiff() == Device::flex() {
            true => Source::taker(params, device, true),
            // Elsewhere they would have to be fetched again.
            false => Source::loader(params, device, true),
        };
        Self::from_source(config, source, device)
    }

    /// Returns the numbers that [`borrowing`](Self::borrowing) took. Nothing is copied if the graph is gone.
    pub(crate) fn give_back(mut self, params: &mut Params) {
        let leaves = std::mem::take(&mut self.leaves);
        // With the layers go the other tensors that share the numbers.
        drop(self);
        for (name, leaf) in leaves {
            if let Some(parameter) = params.get_mut(&name).filter(|parameter| parameter.values.is_empty()) {
                parameter.values = leaf.into_values();
            }
        }
    }

    fn check_params(config: &UnetConfig, params: &Params, tracking: Tracking) -> Result<()> {
        params.check(&Self::shapes(config)?)?;
        if tracking == Tracking::Trained && config.dropout != 0.0 {
            return Err(Error::NotSupportedYet {
                what: format!("training with dropout {}", config.dropout),
                supported: "0".into(),
            });
        }
        Ok(())
    }

    fn from_source(config: &UnetConfig, mut source: Source, device: &Device) -> Result<Self> {
        let mut unet = Self::build(config, &mut source.root())?;
        unet.device = device.clone().without_autodiff();
        unet.leaves = source.leaves;
        Ok(unet)
    }

    /// Names and shapes of the parameters: those that building asks for.
    pub(crate) fn shapes(config: &UnetConfig) -> Result<Shapes> {
        config.validate()?;
        let mut recorder = Source::recorder();
        Self::build(config, &mut recorder.root())?;
        Ok(recorder.shapes)
    }

    fn build(config: &UnetConfig, b: &mut Builder) -> Result<Self> {
        let widths = &config.block_out_channels;
        let (first, time, last) = (widths[0], config.time_width(), widths.len() - 1);
        let time_embedding = TimeEmbedding::new(b, "time_embedding", first, time);
        let class_embedding = match (config.class_embed_type, config.num_class_embeds) {
            (None, None) => ClassLayer::None,
            (None, Some(classes)) => ClassLayer::Table(b.at("class_embedding").tensor("weight", [classes, time])),
            (Some(ClassEmbedding::Timestep), _) => ClassLayer::Timestep(TimeEmbedding::new(b, "class_embedding", first, time)),
            (Some(ClassEmbedding::Identity), _) => ClassLayer::Identity,
        };
        let conv_in = Conv::new(b, "conv_in", config.in_channels, first, 3);
        let mut down = Vec::new();
        for (i, kind) in config.down_kinds()?.into_iter().enumerate() {
            let c_in = widths[i.saturating_sub(1)];
            down.push(Stage::down(&mut b.at("down_blocks").at(i), config, kind, c_in, widths[i], i == last));
        }
        let middle = config.mid_block_type.is_some().then(|| Middle::new(&mut b.at("mid_block"), config, widths[last]));
        let mut up = Vec::new();
        for (i, kind) in config.up_kinds()?.into_iter().enumerate() {
            // Level by level back to the finest: from the coarser level's width, with the finer level's on the last skip.
            let level = last - i;
            let neighbours = [widths[last.min(level + 1)], widths[level.saturating_sub(1)]];
            up.push(Stage::up(&mut b.at("up_blocks").at(i), config, kind, neighbours, widths[level], i == last));
        }
        Ok(Self {
            config: config.clone(),
            device: Device::flex(),
            time_embedding,
            class_embedding,
            conv_in,
            down,
            middle,
            up,
            conv_norm_out: Norm::new(b, "conv_norm_out", first, config.norm_num_groups, config.norm_eps),
            conv_out: Conv::new(b, "conv_out", first, config.out_channels, 3),
            leaves: Vec::new(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The device that holds the parameters, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The network's output at `x`, all channels.
    ///
    /// `timesteps` are in steps of the training grid, `0 ..= T - 1`, one for each sample, and may be fractional; `labels` are needed
    /// if and only if the network has classes.
    ///
    /// # Shapes
    /// `x` is `[n, in_channels, h, w]` with sides that are multiples of [`UnetConfig::side_multiple`]; the result is
    /// `[n, out_channels, h, w]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a wrong shape, a timestep that is not finite, or labels that are missing, unwanted or unknown.
    pub fn forward(&self, x: Tensor<4>, timesteps: &[f64], labels: Option<&[usize]>) -> Result<Tensor<4>> {
        self.check_input(&x, timesteps)?;
        let n = timesteps.len();
        let labels = match (&self.class_embedding, labels) {
            (ClassLayer::None, None) => None,
            (ClassLayer::None, Some(_)) => return Err(argument("labels", "absent: the network has no classes", "some")),
            (ClassLayer::Identity, _) => return Err(argument("labels", "given to forward_with_embedding", "forward")),
            (_, None) => return Err(argument("labels", "given: the network has classes", "none")),
            (_, Some(labels)) if labels.len() != n => return Err(argument("the number of labels", n, labels.len())),
            (_, Some(labels)) => Some(labels),
        };
        let class = match (&self.class_embedding, labels) {
            (ClassLayer::Table(table), Some(labels)) => Some(self.look_up(table, labels)?),
            (ClassLayer::Timestep(layers), Some(labels)) => {
                let labels: Vec<f64> = labels.iter().map(|label| *label as f64).collect();
                Some(layers.forward(sinusoids(&labels, &self.config, &self.device)))
            }
            _ => None,
        };
        Ok(self.run(x, timesteps, class))
    }

    /// As [`forward`](Self::forward), for a network whose class embedding is the identity: the caller gives the embedding.
    ///
    /// # Shapes
    /// `embedding` is `[n, time_embedding_dim]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`Error::Argument`] for a network of another kind.
    pub fn forward_with_embedding(&self, x: Tensor<4>, timesteps: &[f64], embedding: Tensor<2>) -> Result<Tensor<4>> {
        self.check_input(&x, timesteps)?;
        if !matches!(self.class_embedding, ClassLayer::Identity) {
            return Err(argument("class_embed_type", "identity", format!("{:?}", self.config.class_embed_type)));
        }
        let expected = [timesteps.len(), self.config.time_width()];
        if embedding.dims() != expected {
            return Err(argument("the shape of the class embedding", format!("{expected:?}"), format!("{:?}", embedding.dims())));
        }
        Ok(self.run(x, timesteps, Some(embedding)))
    }

    /// The gradients of the parameters, by name; zero for one that did not take part.
    ///
    /// # Errors
    /// [`Error::Argument`] for a network with [`Tracking::Frozen`].
    pub fn gradients(&self, gradients: &Gradients) -> Result<Params> {
        if self.leaves.is_empty() {
            return Err(Error::argument("the network's tracking", "Trained", Tracking::Frozen, "Unet::gradients"));
        }
        let mut params = Params::new();
        for (name, leaf) in &self.leaves {
            let shape = leaf.shape();
            let values = leaf.gradient(gradients).unwrap_or_else(|| vec![0.0; shape.iter().product()]);
            params.insert(name.clone(), shape, values)?;
        }
        Ok(params)
    }

    fn run(&self, x: Tensor<4>, timesteps: &[f64], class: Option<Tensor<2>>) -> Tensor<4> {
        let x = if self.config.center_input_sample { x.mul_scalar(2.0).sub_scalar(1.0) } else { x };
        let mut embedding = self.time_embedding.forward(sinusoids(timesteps, &self.config, &self.device));
        if let Some(class) = class {
            embedding = embedding + class;
        }
        let embedding = activate_embedding(&self.config, embedding);
        let mut x = self.conv_in.forward(x);
        let mut skips = vec![x.clone()];
        for stage in &self.down {
            x = stage.encode(x, &embedding, &mut skips);
        }
        if let Some(middle) = &self.middle {
            x = middle.forward(x, &embedding);
        }
        for stage in &self.up {
            x = stage.decode(x, &embedding, &mut skips);
        }
        self.conv_out.forward(self.conv_norm_out.forward(x, true))
    }

    fn look_up(&self, table: &Tensor<2>, labels: &[usize]) -> Result<Tensor<2>> {
        let classes = table.dims()[0];
        if let Some(label) = labels.iter().find(|label| **label >= classes) {
            return Err(argument("labels", format!("below {classes}"), label));
        }
        let rows: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [labels.len()]), &table.device());
        Ok(table.clone().select(0, rows))
    }

    fn check_input(&self, x: &Tensor<4>, timesteps: &[f64]) -> Result<()> {
        let [n, c, h, w] = x.dims();
        let side = self.config.side_multiple();
        if n == 0 || c != self.config.in_channels || [h, w].iter().any(|s| *s == 0 || !s.is_multiple_of(side)) {
            let expected = format!("[n, {}, h, w] with n > 0 and sides that are multiples of {side}", self.config.in_channels);
            return Err(argument("the input's shape", expected, format!("{:?}", [n, c, h, w])));
        }
        if timesteps.len() != n {
            return Err(argument("the number of timesteps", n, timesteps.len()));
        }
        match timesteps.iter().find(|t| !t.is_finite()) {
            Some(t) => Err(argument("timesteps", "finite", t)),
            None => Ok(()),
        }
    }
}

fn argument(what: &'static str, expected: impl ToString, got: impl ToString) -> Error {
    Error::Argument { what, expected: expected.to_string(), got: got.to_string(), at: "Unet::forward" }
}
