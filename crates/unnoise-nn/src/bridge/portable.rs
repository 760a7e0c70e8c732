//! The same operations out of burn's own, for every backend and precision without a kernel.

mod attention;

use burn::backend::ops::ConvOptions;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice, TensorData};

use super::Convolution;
pub(super) use attention::{attention, attention_backward};

fn options(conv: &Convolution) -> ConvOptions<2> {
    let mut options = ConvOptions::new([conv.stride; 2], [0, 0], [1, 1], 1);
    options.padding = conv.padding;
    options
}

/// The weight in the precision of `like`: the tensor, or the frozen one.
fn weight_of<B: Backend>(weight: FloatTensor<B>, conv: &Convolution, like: &FloatTensor<B>) -> FloatTensor<B> {
    let Some(frozen) = &conv.frozen else { return weight };
    let data = TensorData::new(frozen.prepared.raw().to_vec(), frozen.shape);
    B::float_cast(B::float_from_data(data, &like.device()), like.dtype().into())
}

pub(super) fn conv2d<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    conv: Convolution,
) -> FloatTensor<B> {
    let weight = weight_of::<B>(weight, &conv, &x);
    B::conv2d(x, weight, Some(bias), options(&conv))
}

pub(super) fn conv2d_plus<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    addend: FloatTensor<B>,
    conv: Convolution,
) -> FloatTensor<B> {
    let addend = match addend.shape().num_dims() {
        2 => {
            let [n, channels] = addend.shape().dims();
            B::float_reshape(addend, Shape::new([n, channels, 1, 1]))
        }
        _ => addend,
    };
    B::float_add(conv2d::<B>(x, weight, bias, conv), addend)
}

/// burn asks for the tensors themselves but takes their shapes only.
fn of_shape<B: Backend>(shape: [usize; 4], like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(Shape::new(shape), &like.device(), like.dtype().into())
}

pub(super) fn conv2d_input_gradient<B: Backend>(
    x: [usize; 4],
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    conv: Convolution,
) -> FloatTensor<B> {
    let (x, weight) = (of_shape::<B>(x, &dy), weight_of::<B>(weight, &conv, &dy));
    B::conv2d_x_backward(x, weight, dy, options(&conv))
}

pub(super) fn conv2d_weight_gradient<B: Backend>(
    x: FloatTensor<B>,
    weight: [usize; 4],
    dy: FloatTensor<B>,
    conv: Convolution,
) -> FloatTensor<B> {
    let weight = of_shape::<B>(weight, &dy);
    B::conv2d_weight_backward(x, weight, dy, options(&conv))
}

/// The sum of `[n, c, h, w]` over all but the channels.
pub(super) fn sum_by_channel<B: Backend>(t: FloatTensor<B>) -> FloatTensor<B> {
    let channels = t.shape()[1];
    let sum = [3, 2, 0].into_iter().fold(t, B::float_sum_dim);
    B::float_reshape(sum, Shape::new([channels]))
}

/// The sum of `[n, c, h, w]` over the pixels.
pub(super) fn sum_by_image<B: Backend>(t: FloatTensor<B>) -> FloatTensor<B> {
    let [n, channels, ..]: [usize; 4] = t.shape().dims();
    let sum = [3, 2].into_iter().fold(t, B::float_sum_dim);
    B::float_reshape(sum, Shape::new([n, channels]))
}

pub(super) fn concat<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cat(vec![a, b], 1)
}

pub(super) fn split<B: Backend>(t: FloatTensor<B>, channels: usize) -> (FloatTensor<B>, FloatTensor<B>) {
    let [n, c, h, w] = t.shape().dims();
    let part = |t, from: usize, to: usize| {
        let ranges = [0..n, from..to, 0..h, 0..w].map(Slice::from);
        B::float_slice(t, &ranges)
    };
    (part(t.clone(), 0, channels), part(t, channels, c))
}

/// `factor` times every pixel at all four of twice the sides.
pub(super) fn spread2<B: Backend>(x: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
    let [n, c, h, w] = x.shape().dims();
    let x = B::float_reshape(B::float_mul_scalar(x, factor.into()), Shape::new([n * c, h, 1, w, 1]));
    let x = B::float_expand(x, Shape::new([n * c, h, 2, w, 2]));
    B::float_reshape(x, Shape::new([n, c, 2 * h, 2 * w]))
}

/// `factor` times the sum of every 2x2 square.
pub(super) fn gather2<B: Backend>(y: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
    let [n, c, h, w] = y.shape().dims();
    let y = B::float_reshape(y, Shape::new([n * c, h / 2, 2, w / 2, 2]));
    let sums = B::float_reshape([4, 2].into_iter().fold(y, B::float_sum_dim), Shape::new([n, c, h / 2, w / 2]));
    B::float_mul_scalar(sums, factor.into())
}

pub(super) fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let outputs = bias.shape()[0];
    let product = B::float_matmul(x, B::float_transpose(weight));
    B::float_add(product, B::float_reshape(bias, Shape::new([1, outputs])))
}

pub(super) fn sum_rows<B: Backend>(t: FloatTensor<B>) -> FloatTensor<B> {
    let columns = t.shape()[1];
    B::float_reshape(B::float_sum_dim(t, 0), Shape::new([columns]))
}

pub(super) fn silu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(x.clone(), B::sigmoid(x))
}

/// `dy s (1 + x (1 - s))` with `s` the sigmoid of `x`.
pub(super) fn silu_backward<B: Backend>(x: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let s = B::sigmoid(x.clone());
    let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
    let slope = B::float_mul(s, B::float_add_scalar(B::float_mul(x, rest), 1.0.into()));
    B::float_mul(dy, slope)
}

/// `(x_hat, 1 / deviation)`, both `[n, groups, ..]`.
fn normalise<B: Backend>(x: FloatTensor<B>, groups: usize, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let size = shape[1..].iter().product::<usize>() / groups;
    let x = B::float_reshape(x, Shape::new([shape[0], groups, size]));
    let x = B::float_sub(x.clone(), B::float_mean_dim(x, 2));
    let variance = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 2);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, eps.into())));
    (B::float_mul(x, scale.clone()), scale)
}

/// `[channels]` or `[n, channels]` beside an image.
fn by_channel(shape: &Shape) -> Shape {
    let channels = shape[shape.num_dims() - 1];
    Shape::new([shape.iter().product::<usize>() / channels, channels, 1, 1])
}

/// `gamma x_hat + beta` in the shape of `like`.
fn affine<B: Backend>(x_hat: FloatTensor<B>, gamma: FloatTensor<B>, beta: FloatTensor<B>, like: Shape) -> FloatTensor<B> {
    let channel = by_channel(&gamma.shape());
    let x_hat = B::float_reshape(x_hat, like);
    B::float_add(B::float_mul(x_hat, B::float_reshape(gamma, channel.clone())), B::float_reshape(beta, channel))
}

pub(super) fn group_norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    groups: usize,
    eps: f64,
    with_silu: bool,
) -> FloatTensor<B> {
    let shape = x.shape();
    let y = affine::<B>(normalise::<B>(x, groups, eps).0, gamma, beta, shape);
    if with_silu { silu::<B>(y) } else { y }
}

pub(super) fn group_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    dy: FloatTensor<B>,
    groups: usize,
    eps: f64,
    with_silu: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let (x_hat, scale) = normalise::<B>(x, groups, eps);
    let g = match with_silu {
        true => silu_backward::<B>(affine::<B>(x_hat.clone(), gamma.clone(), beta, shape.clone()), dy),
        false => dy,
    };
    let sum = if gamma.shape().num_dims() == 1 { sum_by_channel::<B> } else { sum_by_image::<B> };
    let dbeta = sum(g.clone());
    let dgamma = sum(B::float_mul(g.clone(), B::float_reshape(x_hat.clone(), shape.clone())));
    let channel = by_channel(&gamma.shape());
    let g = B::float_mul(g, B::float_reshape(gamma, channel));
    let g = B::float_reshape(g, x_hat.shape());
    let tilt = B::float_mul(x_hat.clone(), B::float_mean_dim(B::float_mul(g.clone(), x_hat), 2));
    let centered = B::float_sub(g.clone(), B::float_mean_dim(g, 2));
    let dx = B::float_mul(B::float_sub(centered, tilt), scale);
    (B::float_reshape(dx, shape), dgamma, dbeta)
}
