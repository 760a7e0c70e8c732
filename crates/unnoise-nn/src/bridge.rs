//! The CPU kernels as operations of the tensor engine, with their gradients.
//!
//! burn cannot have its own operations replaced from outside, so these stand beside them: [`Kernels`] is a backend extension whose
//! default bodies are burn's operations (every GPU takes those), whose `Flex` bodies are `unnoise-kernels` on the tensor's own memory,
//! and whose autodiff bodies are written by hand. Other precisions than `f32` take burn's operations on the CPU too. Nothing is computed
//! for a parent without a gradient, so frozen weights cost a tracked input nothing.

mod autodiff;
mod flex;
mod portable;
#[cfg(test)]
mod tests;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use crate::ops::Padding;

/// Correlation of `x [n, c, h, w]` with `weight [o, c, k, k]`, plus `bias [o]`; other kernels than square ones take burn's.
pub(crate) fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize, padding: Padding) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fast_conv2d(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), stride, padding))
}

/// Group normalisation over `c / groups` channels and all pixels, then a gain and an offset per channel, then SiLU if asked.
///
/// `x` is `[n, c, h, w]`, `gamma` and `beta` are `[c]`.
pub(crate) fn group_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, groups: usize, eps: f64, silu: bool) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fast_group_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        groups,
        eps,
        silu,
    ))
}

/// `x / (1 + exp(-x))`.
pub(crate) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fast_silu(x.into_dispatch()))
}

/// The operations that have a kernel, and their gradients.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Kernels: Backend {
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        padding: Padding,
    ) -> FloatTensor<Self> {
        portable::conv2d::<Self>(x, weight, bias, stride, padding)
    }

    /// The gradient by an input of shape `x`.
    fn fast_conv2d_input_gradient(
        x: [usize; 4],
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        stride: usize,
        padding: Padding,
    ) -> FloatTensor<Self> {
        portable::conv2d_input_gradient::<Self>(x, weight, dy, stride, padding)
    }

    /// The gradient by a weight of shape `weight`.
    fn fast_conv2d_weight_gradient(
        x: FloatTensor<Self>,
        weight: [usize; 4],
        dy: FloatTensor<Self>,
        stride: usize,
        padding: Padding,
    ) -> FloatTensor<Self> {
        portable::conv2d_weight_gradient::<Self>(x, weight, dy, stride, padding)
    }

    /// The sum of `dy` over images and pixels.
    fn fast_conv2d_bias_gradient(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::sum_by_channel::<Self>(dy)
    }

    fn fast_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::silu::<Self>(x)
    }

    fn fast_silu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::silu_backward::<Self>(x, dy)
    }

    fn fast_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self> {
        portable::group_norm::<Self>(x, gamma, beta, groups, eps, silu)
    }

    /// `(dx, dgamma, dbeta)`.
    fn fast_group_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::group_norm_backward::<Self>(x, gamma, beta, dy, groups, eps, silu)
    }
}
