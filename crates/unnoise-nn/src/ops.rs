//! The operations of the network on burn's tensors: the one place where they are chosen, our own kernels or burn's operations.
//!
//! Layouts are PyTorch's: images `[n, c, h, w]`, convolution weights `[out, in, kh, kw]`, linear weights `[out, in]`. Shapes are
//! checked before the network runs; a mismatch here panics inside burn.

use burn::tensor::Tensor;

use crate::bridge;

/// Zeros added before and after the rows and the columns of an image: `[(top, bottom), (left, right)]`.
pub type Padding = [(usize, usize); 2];

/// Correlation with `weight`, plus `bias`.
///
/// # Shapes
/// `x [n, c, h, w]`, `weight [o, c, kh, kw]`, `bias [o]`; the result is `[n, o, (h + pads - kh) / stride + 1, ...]`.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize, padding: Padding) -> Tensor<4> {
    bridge::conv2d(x, weight, bias, bridge::Convolution { stride, padding, frozen: None })
}

/// Group normalisation over `c / groups` channels and all pixels, then a gain and an offset per channel.
///
/// ```text
/// y = (x - mean) / sqrt(var + eps) * weight + bias        var with divisor N
/// ```
///
/// # Shapes
/// `x [n, c, h, w]`; `weight` and `bias` `[c]`, or `[n, c]` where every image has its own.
///
/// # Reference
/// Wu and He 2018, arXiv 1803.08494, eq. 1 with the sets of eq. 7.
pub fn group_norm<const D: usize>(x: Tensor<4>, weight: Tensor<D>, bias: Tensor<D>, groups: usize, eps: f64) -> Tensor<4> {
    bridge::group_norm(x, weight, bias, groups, eps, false)
}

/// [`group_norm`], then [`silu`].
pub fn group_norm_silu<const D: usize>(x: Tensor<4>, weight: Tensor<D>, bias: Tensor<D>, groups: usize, eps: f64) -> Tensor<4> {
    bridge::group_norm(x, weight, bias, groups, eps, true)
}

/// `x / (1 + exp(-x))`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    bridge::silu(x)
}

/// `x weight^T + bias`.
///
/// # Shapes
/// `x [rows, i]`, `weight [o, i]`, `bias [o]`; the result is `[rows, o]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    bridge::linear(x, weight, bias)
}

/// Scaled dot-product attention of every pixel to every pixel, head by head.
///
/// ```text
/// out[:, i] = sum over j of softmax(q^T k / sqrt(d))[i, j] v[:, j]        d = c / heads
/// ```
///
/// # Shapes
/// `q`, `k`, `v` and the result are `[n, c, pixels]`; head `i` owns the channels `i d .. (i + 1) d`.
///
/// # Reference
/// Vaswani et al. 2017, arXiv 1706.03762, eq. 1, with the pixels last.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize) -> Tensor<3> {
    bridge::attention(q, k, v, heads)
}

/// The channels of `a`, then those of `b`.
///
/// # Shapes
/// `a [n, ca, h, w]`, `b [n, cb, h, w]`; the result is `[n, ca + cb, h, w]`.
pub fn concat_channels(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    bridge::concat(a, b)
}

/// Every pixel becomes a 2x2 square of itself.
pub fn upsample_nearest2(x: Tensor<4>) -> Tensor<4> {
    bridge::spread2(x, 1.0)
}

/// The mean of every 2x2 square.
pub fn avg_pool2(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    debug_assert!(n * c > 0 && h % 2 == 0 && w % 2 == 0, "even sides are checked at the door");
    bridge::gather2(x, 0.25)
}
