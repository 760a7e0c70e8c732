//! Layers that own their tensors, and the one walk that names, checks and loads them.

use std::fmt::Display;

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::bridge::{self, Convolution};
use crate::{Params, Shapes, ops};

/// A tensor whose gradient can be asked for.
pub(super) enum Leaf {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
    Kernel(Tensor<4>),
}

impl Leaf {
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(t) => t.dims().to_vec(),
            Self::Matrix(t) => t.dims().to_vec(),
            Self::Kernel(t) => t.dims().to_vec(),
        }
    }

    /// The numbers, row-major; without a copy if no other tensor shares them.
    pub(super) fn into_values(self) -> Vec<f32> {
        let data = match self {
            Self::Vector(t) => t.inner().into_data(),
            Self::Matrix(t) => t.inner().into_data(),
            Self::Kernel(t) => t.inner().into_data(),
        };
        data.try_into_vec().expect("the network computes in f32")
    }

    /// The gradient as a row-major vector; nothing if the tensor did not take part.
    pub(super) fn gradient(&self, gradients: &Gradients) -> Option<Vec<f32>> {
        let data = match self {
            Self::Vector(t) => t.grad(gradients)?.into_data(),
            Self::Matrix(t) => t.grad(gradients)?.into_data(),
            Self::Kernel(t) => t.grad(gradients)?.into_data(),
        };
        Some(data.try_into_vec().expect("the network computes in f32"))
    }
}

impl From<Tensor<1>> for Leaf {
    fn from(t: Tensor<1>) -> Self {
        Self::Vector(t)
    }
}

impl From<Tensor<2>> for Leaf {
    fn from(t: Tensor<2>) -> Self {
        Self::Matrix(t)
    }
}

impl From<Tensor<4>> for Leaf {
    fn from(t: Tensor<4>) -> Self {
        Self::Kernel(t)
    }
}

/// Where the numbers of tensors come from.
enum Numbers<'a> {
    /// Nowhere: tensors are placeholders, and the walk only records names and shapes.
    None,
    Copied(&'a Params),
    /// Taken out.
    Taken(&'a mut Params),
}

impl Numbers<'_> {
    fn take(&mut self, name: &str) -> Option<Vec<f32>> {
        const CHECKED: &str = "checked against the recorded shapes";
        match self {
            Self::None => None,
            Self::Copied(params) => Some(params.get(name).expect(CHECKED).values.clone()),
            Self::Taken(params) => Some(std::mem::take(&mut params.get_mut(name).expect(CHECKED).values)),
        }
    }
}

/// Where tensors come from while a network is built.
pub(super) struct Source<'a> {
    numbers: Numbers<'a>,
    device: Device,
    trained: bool,
    pub(super) shapes: Shapes,
    pub(super) leaves: Vec<(String, Leaf)>,
}

impl<'a> Source<'a> {
    /// Records names and shapes.
    pub(super) fn recorder() -> Self {
        Self::new(Numbers::None, &Device::flex(), false)
    }

    /// Loads parameters that were checked against a recording.
    pub(super) fn loader(params: &'a Params, device: &Device, trained: bool) -> Self {
        Self::new(Numbers::Copied(params), device, trained)
    }

    /// Takes the numbers of parameters that were checked against a recording.
    pub(super) fn taker(params: &'a mut Params, device: &Device, trained: bool) -> Self {
        Self::new(Numbers::Taken(params), device, trained)
    }

    fn new(numbers: Numbers<'a>, device: &Device, trained: bool) -> Self {
        let device = if trained { device.clone().autodiff() } else { device.clone().without_autodiff() };
        Self { numbers, device, trained, shapes: Shapes::new(), leaves: Vec::new() }
    }

    pub(super) fn root(&mut self) -> Builder<'_, 'a> {
        Builder { source: self, prefix: String::new() }
    }
}

/// Names the tensors below one point of the tree.
pub(super) struct Builder<'s, 'a> {
    source: &'s mut Source<'a>,
    prefix: String,
}

impl<'a> Builder<'_, 'a> {
    /// The builder of a child: `at("a").at(1)` names `a.1.`.
    pub(super) fn at(&mut self, name: impl Display) -> Builder<'_, 'a> {
        Builder { prefix: format!("{}{name}.", self.prefix), source: self.source }
    }

    /// The tensor of this name and shape.
    pub(super) fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D>
    where
        Leaf: From<Tensor<D>>,
    {
        let name = format!("{}{name}", self.prefix);
        let Some(values) = self.source.numbers.take(&name) else {
            self.source.shapes.insert(name, shape.to_vec());
            return Tensor::zeros([1; D], &self.source.device);
        };
        let tensor = Tensor::from_data(TensorData::new(values, shape), &self.source.device);
        if !self.source.trained {
            return tensor;
        }
        let tensor = tensor.require_grad();
        self.source.leaves.push((name, tensor.clone().into()));
        tensor
    }

    /// The weight of a convolution: the tensor that `make` asks for, or a placeholder where `conv` can keep a weight that is frozen.
    fn weight(
        &mut self,
        conv: Convolution,
        shape: [usize; 4],
        make: impl FnOnce(&mut Self) -> Tensor<4>,
    ) -> (Tensor<4>, Convolution) {
        let Source { numbers, device, trained, .. } = &mut *self.source;
        if !*trained
            && Convolution::can_freeze(shape, device)
            && let Some(values) = numbers.take(&format!("{}weight", self.prefix))
        {
            return (Tensor::zeros([1; 4], &*device), conv.freeze(values, shape));
        }
        (make(self), conv)
    }
}

/// A convolution.
pub(super) struct Conv {
    weight: Tensor<4>,
    bias: Tensor<1>,
    conv: Convolution,
}

impl Conv {
    /// Of stride 1, its output as large as its input.
    pub(super) fn new(b: &mut Builder, name: &str, c_in: usize, c_out: usize, side: usize) -> Self {
        Self::strided(b, name, [c_out, c_in, side, side], 1, [(side / 2, side / 2); 2])
    }

    /// With a kernel of this shape, `[c_out, c_in, side, side]`.
    pub(super) fn strided(b: &mut Builder, name: &str, shape: [usize; 4], stride: usize, padding: ops::Padding) -> Self {
        let mut b = b.at(name);
        let conv = Convolution { stride, padding, frozen: None };
        let (weight, conv) = b.weight(conv, shape, |b| b.tensor("weight", shape));
        Self { weight, bias: b.tensor("bias", [shape[0]]), conv }
    }

    /// A linear map of the channels, whose weight is stored as a matrix.
    pub(super) fn pointwise(b: &mut Builder, name: &str, c_in: usize, c_out: usize) -> Self {
        let mut b = b.at(name);
        let conv = Convolution { stride: 1, padding: [(0, 0); 2], frozen: None };
        let shape = [c_out, c_in, 1, 1];
        let (weight, conv) = b.weight(conv, shape, |b| b.tensor("weight", [c_out, c_in]).unsqueeze_dims(&[2, 3]));
        Self { weight, bias: b.tensor("bias", [c_out]), conv }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        bridge::conv2d(x, self.weight.clone(), self.bias.clone(), self.conv.clone())
    }

    /// The convolution plus `[n, c_out]`, or plus an image of the result's shape.
    pub(super) fn forward_plus<const D: usize>(&self, x: Tensor<4>, addend: Tensor<D>) -> Tensor<4> {
        bridge::conv2d_plus(x, self.weight.clone(), self.bias.clone(), addend, self.conv.clone())
    }
}

/// A linear map with an offset.
pub(super) struct Linear {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Linear {
    pub(super) fn new(b: &mut Builder, name: &str, c_in: usize, c_out: usize) -> Self {
        let mut b = b.at(name);
        Self { weight: b.tensor("weight", [c_out, c_in]), bias: b.tensor("bias", [c_out]) }
    }

    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear(x, self.weight.clone(), self.bias.clone())
    }
}

/// A group normalisation.
pub(super) struct Norm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
}

impl Norm {
    pub(super) fn new(b: &mut Builder, name: &str, channels: usize, groups: usize, eps: f64) -> Self {
        let mut b = b.at(name);
        Self { weight: b.tensor("weight", [channels]), bias: b.tensor("bias", [channels]), groups, eps }
    }

    /// The normalisation, followed by `silu` if asked.
    pub(super) fn forward(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        self.apply(x, self.weight.clone(), self.bias.clone(), silu)
    }

    /// The same, with `y (1 + scale) + shift` of every image and channel between the two: `[n, c]` each.
    pub(super) fn forward_scaled(&self, x: Tensor<4>, scale: Tensor<2>, shift: Tensor<2>, silu: bool) -> Tensor<4> {
        let factor = scale.add_scalar(1.0);
        let [weight, bias] = [&self.weight, &self.bias].map(|t| t.clone().unsqueeze::<2>());
        self.apply(x, weight * factor.clone(), bias * factor + shift, silu)
    }

    fn apply<const D: usize>(&self, x: Tensor<4>, weight: Tensor<D>, bias: Tensor<D>, silu: bool) -> Tensor<4> {
        match silu {
            true => ops::group_norm_silu(x, weight, bias, self.groups, self.eps),
            false => ops::group_norm(x, weight, bias, self.groups, self.eps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frozen convolution keeps its weight where the kernels prepare it, and nowhere else.
    #[test]
    fn frozen_weights_are_held_once() {
        let mut params = Params::new();
        params.insert("c.weight", vec![4, 2, 3, 3], vec![0.5; 72]).unwrap();
        params.insert("c.bias", vec![4], vec![0.0; 4]).unwrap();
        let build = |mut source: Source| Conv::new(&mut source.root(), "c", 2, 4, 3);
        for trained in [false, true] {
            let conv = build(Source::loader(&params, &Device::flex(), trained));
            assert_eq!((conv.conv.frozen.is_some(), conv.weight.dims()), (!trained, if trained { [4, 2, 3, 3] } else { [1; 4] }));
        }
        let mut taken = params.clone();
        build(Source::taker(&mut taken, &Device::flex(), false));
        assert!(taken.get("c.weight").unwrap().values.is_empty());
    }
}
