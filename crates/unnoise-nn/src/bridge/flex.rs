//! `Flex`, burn's CPU backend: the kernels on the tensors' own memory.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};
use unnoise_kernels as kernels;

use super::{Kernels, portable};
use crate::ops::Padding;
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
    fn fast_conv2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, stride: usize, padding: Padding) -> FlexTensor {
        let conv = conv2d(x.shape().dims(), weight.shape().dims(), stride, padding);
        let (Some(conv), true) = (conv, f32_only([&x, &weight, &bias])) else {
            return portable::conv2d::<Self>(x, weight, bias, stride, padding);
        };
        let _timer = Timer::start("conv2d", flops(&conv));
        let [x, weight, bias] = [x, weight, bias].map(Floats::new);
        let [rows, columns] = conv.output_sides().expect(SHAPES);
        let mut y = vec![0.0; conv.n * conv.c_out * rows * columns];
        conv.forward(x.numbers(), weight.numbers(), Some(bias.numbers()), &mut y).expect(SHAPES);
        tensor(y, Shape::new([conv.n, conv.c_out, rows, columns]))
    }

    fn fast_conv2d_input_gradient(
        x: [usize; 4],
        weight: FlexTensor,
        dy: FlexTensor,
        stride: usize,
        padding: Padding,
    ) -> FlexTensor {
        let conv = conv2d(x, weight.shape().dims(), stride, padding);
        let (Some(conv), true) = (conv, f32_only([&weight, &dy])) else {
            return portable::conv2d_input_gradient::<Self>(x, weight, dy, stride, padding);
        };
        let _timer = Timer::start("conv2d input gradient", flops(&conv));
        let [weight, dy] = [weight, dy].map(Floats::new);
        let mut dx = vec![0.0; x.iter().product()];
        conv.backward_input(weight.numbers(), dy.numbers(), &mut dx).expect(SHAPES);
        tensor(dx, Shape::new(x))
    }

    fn fast_conv2d_weight_gradient(
        x: FlexTensor,
        weight: [usize; 4],
        dy: FlexTensor,
        stride: usize,
        padding: Padding,
    ) -> FlexTensor {
        let conv = conv2d(x.shape().dims(), weight, stride, padding);
        let (Some(conv), true) = (conv, f32_only([&x, &dy])) else {
            return portable::conv2d_weight_gradient::<Self>(x, weight, dy, stride, padding);
        };
        let _timer = Timer::start("conv2d weight gradient", flops(&conv));
        let [x, dy] = [x, dy].map(Floats::new);
        let mut dw = vec![0.0; weight.iter().product()];
        conv.backward_weight(x.numbers(), dy.numbers(), &mut dw).expect(SHAPES);
        tensor(dw, Shape::new(weight))
    }

    fn fast_conv2d_bias_gradient(dy: FlexTensor) -> FlexTensor {
        if !f32_only([&dy]) {
            return portable::sum_by_channel::<Self>(dy);
        }
        let _timer = Timer::start("conv2d bias gradient", 0.0);
        let dy = Floats::new(dy);
        let [n, channels, h, w] = dy.0.shape().dims();
        let mut db = vec![0.0; channels];
        kernels::sum_by_channel(dy.numbers(), n, h * w, &mut db).expect(SHAPES);
        tensor(db, Shape::new([channels]))
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
        let mut y = vec![0.0; x.numbers().len()];
        norm.forward(x.numbers(), gamma.numbers(), beta.numbers(), &mut y).expect(SHAPES);
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
        let mut dx = vec![0.0; x.numbers().len()];
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![0.0; norm.channels]);
        let result = norm.backward(x.numbers(), gamma.numbers(), beta.numbers(), dy.numbers(), &mut dx, &mut dgamma, &mut dbeta);
        result.expect(SHAPES);
        (tensor(dx, x.0.shape()), tensor(dgamma, gamma.0.shape()), tensor(dbeta, beta.0.shape()))
    }
}

fn group_norm(shape: &Shape, groups: usize, eps: f64, silu: bool) -> kernels::GroupNorm {
    let pixels = shape[2..].iter().product();
    kernels::GroupNorm { n: shape[0], channels: shape[1], pixels, groups, eps: eps as f32, silu }
}

/// The kernels' shape, where they have one: square kernels only.
fn conv2d(
    [n, c_in, h, w]: [usize; 4],
    [c_out, _, kernel, kernel_w]: [usize; 4],
    stride: usize,
    padding: Padding,
) -> Option<kernels::Conv2d> {
    (kernel == kernel_w).then_some(kernels::Conv2d { n, c_in, c_out, h, w, kernel, stride, padding, exact: false })
}

/// Floating-point operations of the plain algorithm.
fn flops(conv: &kernels::Conv2d) -> f64 {
    let [rows, columns] = conv.output_sides().expect(SHAPES);
    2.0 * (conv.n * rows * columns * conv.c_out) as f64 * (conv.c_in * conv.kernel * conv.kernel) as f64
}
