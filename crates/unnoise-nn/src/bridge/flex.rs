//! `Flex`, burn's CPU backend: the kernels on the tensors' own memory.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Bytes, DType, Shape};
use unnoise_kernels as kernels;

use super::{Convolution, Kernels, kernels_shape, portable};
use crate::profile::Timer;

/// An `f32` tensor whose numbers lie one behind the other.
struct Floats(FlexTensor);

impl Floats {
    /// Copies a strided view; the tensor must be of `f32`.
    fn new(t: FlexTensor) -> Self {
        Self(if t.is_contiguous() { t } else { t.to_contiguous() })
    }

    fn numbers(&self) -> &[f32] {
        self.0.as_slice().expect("a contiguous f32 tensor")
    }
}

/// A tensor from its numbers, without a copy.
fn tensor(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), DType::F32)
}

/// Whether every tensor is of the kernels' precision.
fn f32_only<const N: usize>(tensors: [&FlexTensor; N]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// Kernels check lengths; here they follow from the shapes, which the caller has checked.
const SHAPES: &str = "shapes are checked before the network runs";

impl Kernels for Flex {
    fn fast_conv2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, conv: Convolution) -> FlexTensor {
        let shape = kernels_shape(x.shape().dims(), conv.weight_shape(&weight), &conv);
        let (Some(shape), true) = (shape, f32_only([&x, &weight, &bias])) else {
            return portable::conv2d::<Self>(x, weight, bias, conv);
        };
        let bias = Floats::new(bias);
        correlate(&shape, x, weight, kernels::Epilogue { bias: Some(bias.numbers()), ..Default::default() }, &conv)
    }

    fn fast_conv2d_plus(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, addend: FlexTensor, conv: Convolution) -> FlexTensor {
        let shape = kernels_shape(x.shape().dims(), conv.weight_shape(&weight), &conv);
        let (Some(shape), true) = (shape, f32_only([&x, &weight, &bias, &addend])) else {
            return portable::conv2d_plus::<Self>(x, weight, bias, addend, conv);
        };
        let [bias, addend] = [bias, addend].map(Floats::new);
        let bias = Some(bias.numbers());
        let epilogue = match addend.0.shape().num_dims() {
            2 => kernels::Epilogue { bias, offset: Some(addend.numbers()), residual: None },
            _ => kernels::Epilogue { bias, offset: None, residual: Some(addend.numbers()) },
        };
        correlate(&shape, x, weight, epilogue, &conv)
    }

    fn fast_conv2d_input_gradient(x: [usize; 4], weight: FlexTensor, dy: FlexTensor, conv: Convolution) -> FlexTensor {
        let shape = kernels_shape(x, conv.weight_shape(&weight), &conv);
        let (Some(shape), true) = (shape, f32_only([&weight, &dy])) else {
            return portable::conv2d_input_gradient::<Self>(x, weight, dy, conv);
        };
        let _timer = Timer::start(
            name(&shape, "conv2d 3x3 input gradient", "conv2d 1x1 input gradient", "conv2d other input gradient"),
            flops(&shape),
        );
        let [weight, dy] = [weight, dy].map(Floats::new);
        tensor(shape.input_gradient(weight_of(&weight, &conv), dy.numbers()).expect(SHAPES), Shape::new(x))
    }

    fn fast_conv2d_weight_gradient(x: FlexTensor, weight: [usize; 4], dy: FlexTensor, conv: Convolution) -> FlexTensor {
        let shape = kernels_shape(x.shape().dims(), weight, &conv);
        let (Some(shape), true) = (shape, f32_only([&x, &dy])) else {
            return portable::conv2d_weight_gradient::<Self>(x, weight, dy, conv);
        };
        let _timer = Timer::start(
            name(&shape, "conv2d 3x3 weight gradient", "conv2d 1x1 weight gradient", "conv2d other weight gradient"),
            flops(&shape),
        );
        let [x, dy] = [x, dy].map(Floats::new);
        tensor(shape.weight_gradient(x.numbers(), dy.numbers()).expect(SHAPES), Shape::new(weight))
    }

    fn fast_sum_by_channel(dy: FlexTensor) -> FlexTensor {
        if !f32_only([&dy]) {
            return portable::sum_by_channel::<Self>(dy);
        }
        let _timer = Timer::start("sum by channel", 0.0);
        let dy = Floats::new(dy);
        let [n, channels, h, w] = dy.0.shape().dims();
        let mut sums = vec![0.0; channels];
        kernels::sum_by_channel(dy.numbers(), n, h * w, &mut sums).expect(SHAPES);
        tensor(sums, Shape::new([channels]))
    }

    fn fast_sum_by_image(dy: FlexTensor) -> FlexTensor {
        if !f32_only([&dy]) {
            return portable::sum_by_image::<Self>(dy);
        }
        let _timer = Timer::start("sum by image", 0.0);
        let dy = Floats::new(dy);
        let [n, channels, h, w] = dy.0.shape().dims();
        let mut sums = vec![0.0; n * channels];
        kernels::sum_by_channel(dy.numbers(), 1, h * w, &mut sums).expect(SHAPES);
        tensor(sums, Shape::new([n, channels]))
    }

    fn fast_concat(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        if !f32_only([&a, &b]) {
            return portable::concat::<Self>(a, b);
        }
        let _timer = Timer::start("concatenation", 0.0);
        let [a, b] = [a, b].map(Floats::new);
        let [n, channels, h, w] = a.0.shape().dims();
        let y = kernels::concat_channels(a.numbers(), b.numbers(), n).expect(SHAPES);
        tensor(y, Shape::new([n, channels + b.0.shape()[1], h, w]))
    }

    fn fast_split(dy: FlexTensor, channels: usize) -> (FlexTensor, FlexTensor) {
        if !f32_only([&dy]) {
            return portable::split::<Self>(dy, channels);
        }
        let _timer = Timer::start("split", 0.0);
        let dy = Floats::new(dy);
        let [n, c, h, w] = dy.0.shape().dims();
        let (a, b) = kernels::split_channels(dy.numbers(), n, c, channels).expect(SHAPES);
        (tensor(a, Shape::new([n, channels, h, w])), tensor(b, Shape::new([n, c - channels, h, w])))
    }

    fn fast_spread2(x: FlexTensor, factor: f64) -> FlexTensor {
        if !f32_only([&x]) {
            return portable::spread2::<Self>(x, factor);
        }
        let _timer = Timer::start("resampling", 0.0);
        let x = Floats::new(x);
        let [n, c, h, w] = x.0.shape().dims();
        let y = kernels::Resample2 { planes: n * c, h, w }.spread(x.numbers(), factor as f32).expect(SHAPES);
        tensor(y, Shape::new([n, c, 2 * h, 2 * w]))
    }

    fn fast_gather2(y: FlexTensor, factor: f64) -> FlexTensor {
        if !f32_only([&y]) {
            return portable::gather2::<Self>(y, factor);
        }
        let _timer = Timer::start("resampling", 0.0);
        let y = Floats::new(y);
        let [n, c, h, w] = y.0.shape().dims();
        let (h, w) = (h / 2, w / 2);
        let x = kernels::Resample2 { planes: n * c, h, w }.gather(y.numbers(), factor as f32).expect(SHAPES);
        tensor(x, Shape::new([n, c, h, w]))
    }

    fn fast_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, heads: usize) -> FlexTensor {
        if !f32_only([&q, &k, &v]) {
            return portable::attention::<Self>(q, k, v, heads).0;
        }
        attend([q, k, v], heads, None)
    }

    fn fast_attention_with_sums(q: FlexTensor, k: FlexTensor, v: FlexTensor, heads: usize) -> (FlexTensor, FlexTensor) {
        if !f32_only([&q, &k, &v]) {
            return portable::attention::<Self>(q, k, v, heads);
        }
        let [n, _, pixels] = q.shape().dims();
        let mut sums = vec![0.0; n * heads * pixels];
        let out = attend([q, k, v], heads, Some(&mut sums));
        (out, tensor(sums, Shape::new([n, heads, pixels])))
    }

    fn fast_attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        out: FlexTensor,
        sums: FlexTensor,
        dout: FlexTensor,
        heads: usize,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !f32_only([&q, &k, &v, &out, &sums, &dout]) {
            return portable::attention_backward::<Self>(q, k, v, out, sums, dout, heads);
        }
        let shape = attention_shape(&q.shape(), heads);
        let _timer = Timer::start("attention gradient", 2.5 * attention_flops(&shape));
        let [q, k, v, out, sums, dout] = [q, k, v, out, sums, dout].map(Floats::new);
        let images = [&q, &k, &v].map(Floats::numbers);
        let [dq, dk, dv] = shape.gradients(images, out.numbers(), sums.numbers(), dout.numbers()).expect(SHAPES);
        let [dq, dk, dv] = [dq, dk, dv].map(|gradient| tensor(gradient, q.0.shape()));
        (dq, dk, dv)
    }

    fn fast_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        if !f32_only([&x, &weight, &bias]) {
            return portable::linear::<Self>(x, weight, bias);
        }
        let shape = linear_shape(&x.shape(), &weight.shape());
        let _timer = Timer::start("linear", linear_flops(&shape));
        let [x, weight, bias] = [x, weight, bias].map(Floats::new);
        let mut y = vec![0.0; shape.rows * shape.c_out];
        shape.forward(x.numbers(), weight.numbers(), Some(bias.numbers()), &mut y).expect(SHAPES);
        tensor(y, Shape::new([shape.rows, shape.c_out]))
    }

    fn fast_linear_input_gradient(weight: FlexTensor, dy: FlexTensor) -> FlexTensor {
        if !f32_only([&weight, &dy]) {
            return Self::float_matmul(dy, weight);
        }
        let [rows, _] = dy.shape().dims();
        let [c_out, c_in] = weight.shape().dims();
        let shape = kernels::Linear { rows, c_in, c_out };
        let _timer = Timer::start("linear input gradient", linear_flops(&shape));
        let [weight, dy] = [weight, dy].map(Floats::new);
        let mut dx = vec![0.0; rows * c_in];
        shape.backward_input(weight.numbers(), dy.numbers(), &mut dx).expect(SHAPES);
        tensor(dx, Shape::new([rows, c_in]))
    }

    fn fast_linear_weight_gradient(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        if !f32_only([&x, &dy]) {
            return Self::float_matmul(Self::float_transpose(dy), x);
        }
        let [rows, c_in] = x.shape().dims();
        let c_out = dy.shape()[1];
        let shape = kernels::Linear { rows, c_in, c_out };
        let _timer = Timer::start("linear weight gradient", linear_flops(&shape));
        let [x, dy] = [x, dy].map(Floats::new);
        let mut dw = vec![0.0; c_out * c_in];
        shape.backward_weight(x.numbers(), dy.numbers(), &mut dw).expect(SHAPES);
        tensor(dw, Shape::new([c_out, c_in]))
    }

    fn fast_silu(x: FlexTensor) -> FlexTensor {
        if !f32_only([&x]) {
            return portable::silu::<Self>(x);
        }
        let _timer = Timer::start("silu", 0.0);
        let x = Floats::new(x);
        let mut y = vec![0.0; x.numbers().len()];
        kernels::silu(x.numbers(), &mut y).expect(SHAPES);
        tensor(y, x.0.shape())
    }

    fn fast_silu_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        if !f32_only([&x, &dy]) {
            return portable::silu_backward::<Self>(x, dy);
        }
        let _timer = Timer::start("silu gradient", 0.0);
        let [x, dy] = [x, dy].map(Floats::new);
        let mut dx = vec![0.0; x.numbers().len()];
        kernels::silu_backward(x.numbers(), dy.numbers(), &mut dx).expect(SHAPES);
        tensor(dx, x.0.shape())
    }

    fn fast_group_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, groups: usize, eps: f64, silu: bool) -> FlexTensor {
        if !f32_only([&x, &gamma, &beta]) {
            return portable::group_norm::<Self>(x, gamma, beta, groups, eps, silu);
        }
        let _timer = Timer::start("group norm", 0.0);
        let [x, gamma, beta] = [x, gamma, beta].map(Floats::new);
        let norm = group_norm(&x.0.shape(), groups, eps, silu);
        let y = norm.output(x.numbers(), gamma.numbers(), beta.numbers()).expect(SHAPES);
        tensor(y, x.0.shape())
    }

    fn fast_group_norm_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        dy: FlexTensor,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !f32_only([&x, &gamma, &beta, &dy]) {
            return portable::group_norm_backward::<Self>(x, gamma, beta, dy, groups, eps, silu);
        }
        let _timer = Timer::start("group norm gradient", 0.0);
        let [x, gamma, beta, dy] = [x, gamma, beta, dy].map(Floats::new);
        let norm = group_norm(&x.0.shape(), groups, eps, silu);
        let gradients = norm.gradients(x.numbers(), gamma.numbers(), beta.numbers(), dy.numbers());
        let (dx, dgamma, dbeta) = gradients.expect(SHAPES);
        (tensor(dx, x.0.shape()), tensor(dgamma, gamma.0.shape()), tensor(dbeta, beta.0.shape()))
    }
}

fn group_norm(shape: &Shape, groups: usize, eps: f64, silu: bool) -> kernels::GroupNorm {
    let pixels = shape[2..].iter().product();
    kernels::GroupNorm { n: shape[0], channels: shape[1], pixels, groups, eps: eps as f32, silu }
}

/// The weight's tensor, or what is kept of it.
fn weight_of<'a>(weight: &'a Floats, conv: &'a Convolution) -> kernels::Weight<'a> {
    match &conv.frozen {
        Some(frozen) => kernels::Weight::Prepared(&frozen.prepared),
        None => kernels::Weight::Raw(weight.numbers()),
    }
}

fn correlate(
    shape: &kernels::Conv2d,
    x: FlexTensor,
    weight: FlexTensor,
    epilogue: kernels::Epilogue<'_>,
    conv: &Convolution,
) -> FlexTensor {
    let _timer = Timer::start(name(shape, "conv2d 3x3", "conv2d 1x1", "conv2d other"), flops(shape));
    let [x, weight] = [x, weight].map(Floats::new);
    let [rows, columns] = shape.output_sides().expect(SHAPES);
    let y = shape.output(x.numbers(), weight_of(&weight, conv), epilogue).expect(SHAPES);
    tensor(y, Shape::new([shape.n, shape.c_out, rows, columns]))
}

fn attention_shape(q: &Shape, heads: usize) -> kernels::Attention {
    let [n, channels, pixels] = q.dims();
    let width = channels / heads;
    kernels::Attention { n, heads, width, pixels, scale: (1.0 / (width as f64).sqrt()) as f32 }
}

fn attend([q, k, v]: [FlexTensor; 3], heads: usize, sums: Option<&mut [f32]>) -> FlexTensor {
    let shape = attention_shape(&q.shape(), heads);
    let _timer = Timer::start("attention", attention_flops(&shape));
    let [q, k, v] = [q, k, v].map(Floats::new);
    let out = shape.output(q.numbers(), k.numbers(), v.numbers(), sums).expect(SHAPES);
    tensor(out, q.0.shape())
}

fn linear_shape(x: &Shape, weight: &Shape) -> kernels::Linear {
    kernels::Linear { rows: x[0], c_in: x[1], c_out: weight[0] }
}

fn linear_flops(shape: &kernels::Linear) -> f64 {
    2.0 * (shape.rows * shape.c_in * shape.c_out) as f64
}

/// Two products of matrices.
fn attention_flops(shape: &kernels::Attention) -> f64 {
    4.0 * (shape.n * shape.heads * shape.width) as f64 * (shape.pixels * shape.pixels) as f64
}

/// The name that a convolution is counted by: that of 3x3 kernels with stride 1, of 1x1 kernels, or of the rest.
fn name(conv: &kernels::Conv2d, winograd: &'static str, pointwise: &'static str, other: &'static str) -> &'static str {
    match (conv.kernel, conv.stride) {
        (3, 1) => winograd,
        (1, 1) => pointwise,
        _ => other,
    }
}

/// Floating-point operations of the plain algorithm.
fn flops(conv: &kernels::Conv2d) -> f64 {
    let [rows, columns] = conv.output_sides().expect(SHAPES);
    2.0 * (conv.n * rows * columns * conv.c_out) as f64 * (conv.c_in * conv.kernel * conv.kernel) as f64
}
