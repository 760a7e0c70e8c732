//! The CPU kernels as operations of the tensor engine, with their gradients.
//!
//! burn cannot have its own operations replaced from outside, so these stand beside them: [`Kernels`] is a backend extension whose
//! default bodies are burn's operations (every GPU takes those), whose `Flex` bodies are `unnoise-kernels` on the tensor's own memory,
//! and whose autodiff bodies are written by hand. Other precisions than `f32` take burn's operations on the CPU too. A product that
//! only a parent without a gradient needs is not computed, so frozen weights cost a tracked input nothing.

mod autodiff;
mod flex;
mod portable;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Device, Tensor};
use unnoise_kernels::PreparedWeight;

use crate::ops::Padding;

static EXACT: AtomicBool = AtomicBool::new(false);

/// Makes every later convolution on the CPU in this process be summed as it is defined, without Winograd's algorithm: to compare with.
pub fn force_exact_convolutions(yes: bool) {
    EXACT.store(yes, Ordering::Relaxed);
}

/// A convolution's weight that does not change any more, `[o, c, k, k]`, on the CPU: its transforms are made once.
#[derive(Debug)]
pub(crate) struct FrozenWeight {
    shape: [usize; 4],
    prepared: PreparedWeight,
}

/// How a convolution is done. With a frozen weight, the weight's tensor is only there to be ignored.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
    pub(crate) frozen: Option<Arc<FrozenWeight>>,
}

impl Convolution {
    /// Whether a weight of this shape can be prepared: square kernels on the CPU can.
    pub(crate) fn can_freeze([_, _, kernel, kernel_w]: [usize; 4], device: &Device) -> bool {
        *device == Device::flex() && kernel == kernel_w
    }

    /// The same convolution with this weight, which must be one that can be prepared.
    pub(crate) fn freeze(self, values: Vec<f32>, shape: [usize; 4]) -> Self {
        let [_, c_in, kernel, _] = shape;
        let conv = kernels_shape([1, c_in, kernel, kernel], shape, &self).expect("a square kernel");
        let prepared = PreparedWeight::new(&conv, values).expect("shapes are checked before a layer is built");
        Self { frozen: Some(Arc::new(FrozenWeight { shape, prepared })), ..self }
    }

    fn weight_shape(&self, weight: &impl TensorMetadata) -> [usize; 4] {
        self.frozen.as_ref().map_or_else(|| weight.shape().dims(), |frozen| frozen.shape)
    }
}

/// The kernels' shape, where they have one: square kernels only.
fn kernels_shape(x: [usize; 4], weight: [usize; 4], conv: &Convolution) -> Option<unnoise_kernels::Conv2d> {
    let ([n, c_in, h, w], [c_out, _, kernel, kernel_w]) = (x, weight);
    let Convolution { stride, padding, .. } = *conv;
    let exact = EXACT.load(Ordering::Relaxed);
    (kernel == kernel_w).then_some(unnoise_kernels::Conv2d { n, c_in, c_out, h, w, kernel, stride, padding, exact })
}

/// Runs `f` on a thread of the pool that the kernels use: each of its hundreds of kernels then finds the other threads still awake, where one that
/// is called from outside wakes all and waits to be woken itself.
pub(crate) fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Correlation of `x [n, c, h, w]` with `weight [o, c, k, k]`, plus `bias [o]`; other kernels than square ones take burn's.
pub(crate) fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, conv: Convolution) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fast_conv2d(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), conv))
}

/// [`conv2d`] plus an addend: `[n, o]`, the same for all pixels, or of the result's shape.
pub(crate) fn conv2d_plus<const D: usize>(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    addend: Tensor<D>,
    conv: Convolution,
) -> Tensor<4> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fast_conv2d_plus(x, weight, bias.into_dispatch(), addend.into_dispatch(), conv))
}

/// `[n, ca, h, w]` and `[n, cb, h, w]` side by side, `[n, ca + cb, h, w]`.
pub(crate) fn concat(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fast_concat(a.into_dispatch(), b.into_dispatch()))
}

/// `factor` times every pixel of `[n, c, h, w]` at all four of `[n, c, 2 h, 2 w]`.
pub(crate) fn spread2(x: Tensor<4>, factor: f64) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fast_spread2(x.into_dispatch(), factor))
}

/// `factor` times the sum of every 2x2 square of `[n, c, 2 h, 2 w]`, `[n, c, h, w]`.
pub(crate) fn gather2(y: Tensor<4>, factor: f64) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fast_gather2(y.into_dispatch(), factor))
}

/// Attention of every pixel to every pixel; `q`, `k`, `v` and the result are `[n, c, pixels]`, head `i` owns `c / heads` channels.
pub(crate) fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize) -> Tensor<3> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fast_attention(q, k, v, heads))
}

/// `x weight^T + bias` with `x [rows, i]`, `weight [o, i]`, `bias [o]`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fast_linear(x, weight, bias.into_dispatch()))
}

/// Group normalisation over `c / groups` channels and all pixels, then a gain and an offset per channel, then SiLU if asked.
///
/// `x` is `[n, c, h, w]`, `gamma` and `beta` are `[c]`, or `[n, c]` where every image has its own.
pub(crate) fn group_norm<const D: usize>(
    x: Tensor<4>,
    gamma: Tensor<D>,
    beta: Tensor<D>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
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
#[backend_extension(
    Flex,
    Cube: cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm")),
    Autodiff
)]
pub(crate) trait Kernels: Backend {
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Convolution,
    ) -> FloatTensor<Self> {
        portable::conv2d::<Self>(x, weight, bias, conv)
    }

    /// Plus an addend, `[n, o]` or of the result's shape.
    fn fast_conv2d_plus(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        conv: Convolution,
    ) -> FloatTensor<Self> {
        portable::conv2d_plus::<Self>(x, weight, bias, addend, conv)
    }

    /// The gradient by an input of shape `x`.
    fn fast_conv2d_input_gradient(
        x: [usize; 4],
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        conv: Convolution,
    ) -> FloatTensor<Self> {
        portable::conv2d_input_gradient::<Self>(x, weight, dy, conv)
    }

    /// The gradient by a weight of shape `weight`.
    fn fast_conv2d_weight_gradient(
        x: FloatTensor<Self>,
        weight: [usize; 4],
        dy: FloatTensor<Self>,
        conv: Convolution,
    ) -> FloatTensor<Self> {
        portable::conv2d_weight_gradient::<Self>(x, weight, dy, conv)
    }

    /// The sum of `[n, c, h, w]` over images and pixels, `[c]`.
    fn fast_sum_by_channel(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::sum_by_channel::<Self>(dy)
    }

    /// The sum of `[n, c, h, w]` over pixels, `[n, c]`.
    fn fast_sum_by_image(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::sum_by_image::<Self>(dy)
    }

    fn fast_concat(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::concat::<Self>(a, b)
    }

    /// The first channels and the rest.
    fn fast_split(dy: FloatTensor<Self>, channels: usize) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::split::<Self>(dy, channels)
    }

    fn fast_spread2(x: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        portable::spread2::<Self>(x, factor)
    }

    fn fast_gather2(y: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        portable::gather2::<Self>(y, factor)
    }

    fn fast_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        portable::attention::<Self>(q, k, v, heads).0
    }

    /// Attention and what its backward pass needs: the logarithm of each query's sum, `[n, heads, pixels]`.
    fn fast_attention_with_sums(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention::<Self>(q, k, v, heads)
    }

    /// `(dq, dk, dv)`.
    fn fast_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention_backward::<Self>(q, k, v, out, sums, dout, heads)
    }

    fn fast_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::linear::<Self>(x, weight, bias)
    }

    fn fast_linear_input_gradient(weight: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(dy, weight)
    }

    fn fast_linear_weight_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(Self::float_transpose(dy), x)
    }

    /// The sum of `[rows, o]` over the rows.
    fn fast_sum_rows(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::sum_rows::<Self>(dy)
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

/// Every GPU takes the operations of the engine.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm"))]
impl Kernels for burn::backend::Cube {}
