use burn::tensor::module;
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{DType, Device, Distribution, activation};

use super::*;

/// `max |a - b| / max |b|`.
fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f64 {
    let [a, b] = [a, b].map(|t| t.cast(DType::F64));
    let scale: f64 = b.clone().abs().max().into_scalar();
    let error: f64 = (a - b).abs().max().into_scalar();
    error / scale
}

fn random<const D: usize>(shape: [usize; D], device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype))
}

/// `f` and `g` on the same random tensors of these shapes: their values, and their gradients by every one, must agree.
#[track_caller]
fn agree<const A: usize, const B: usize, const C: usize>(
    what: &str,
    shapes: ([usize; A], [usize; B], [usize; C]),
    dtype: DType,
    f: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<A>,
    g: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<A>,
) {
    // f32: the rounding of sums of up to a few hundred terms, and that of Winograd's transforms.
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-12 };
    let device = Device::flex().autodiff();
    let plain = (random(shapes.0, &device, dtype), random(shapes.1, &device, dtype), random(shapes.2, &device, dtype));
    for tracked in 0..8u32 {
        let on = |bit: u32| tracked >> bit & 1 == 1;
        let fresh = || {
            let (a, b, c) = plain.clone();
            let a = if on(0) { a.require_grad() } else { a };
            let b = if on(1) { b.require_grad() } else { b };
            let c = if on(2) { c.require_grad() } else { c };
            (a, b, c)
        };
        let ((a, b, c), (p, q, r)) = (fresh(), fresh());
        let (y, z) = (f(a.clone(), b.clone(), c.clone()), g(p.clone(), q.clone(), r.clone()));
        let error = difference(y.clone(), z.clone());
        assert!(error < tolerance, "{what}: value off by {error:.1e}");
        if tracked == 0 {
            continue;
        }
        // A gradient that is neither constant nor contiguous.
        let weight = random(y.dims(), &device, dtype);
        let (dy, dz) = ((y * weight.clone()).sum().backward(), (z * weight).sum().backward());
        let errors = [
            a.grad(&dy).zip(p.grad(&dz)).map(|(a, b)| difference(a, b)),
            b.grad(&dy).zip(q.grad(&dz)).map(|(a, b)| difference(a, b)),
            c.grad(&dy).zip(r.grad(&dz)).map(|(a, b)| difference(a, b)),
        ];
        for (i, error) in errors.into_iter().enumerate() {
            assert_eq!(error.is_some(), on(i as u32), "{what}: a gradient exactly where it is asked for");
            assert!(error.unwrap_or(0.0) < tolerance, "{what}: gradient {i} of {tracked:03b} off by {error:.1?}");
        }
    }
}

#[test]
fn conv2d_is_that_of_the_engine() {
    let cases = [
        ([3, 9, 12, 12], [10, 9, 3, 3], 1, [(1, 1); 2]),
        ([2, 16, 8, 8], [16, 16, 3, 3], 1, [(1, 1); 2]),
        ([2, 1, 11, 9], [5, 1, 3, 3], 1, [(1, 1); 2]),
        ([2, 6, 8, 8], [7, 6, 3, 3], 2, [(1, 1); 2]),
        ([2, 6, 7, 7], [7, 6, 1, 1], 1, [(0, 0); 2]),
        ([1, 3, 9, 8], [4, 3, 1, 3], 1, [(0, 0); 2]),
    ];
    for (x, weight, stride, padding) in cases {
        let reference = |x, w, b| {
            let mut options = ConvOptions::new([stride; 2], [0, 0], [1, 1], 1);
            options.padding = padding;
            module::conv2d(x, w, Some(b), options)
        };
        for dtype in [DType::F32, DType::F64] {
            let ours = |x, w, b| conv2d(x, w, b, Convolution { stride, padding, frozen: None });
            agree(&format!("{x:?} by {weight:?}, {dtype:?}"), (x, weight, [weight[0]]), dtype, ours, reference);
        }
    }
}

#[test]
fn group_norm_and_silu_are_those_of_the_engine() {
    for dtype in [DType::F32, DType::F64] {
        for with_silu in [false, true] {
            let reference = |x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>| {
                let [n, c, h, w] = x.dims();
                let x = x.reshape([n, 4, c / 4 * h * w]);
                let x = x.clone() - x.mean_dim(2);
                let x = x.clone() / x.square().mean_dim(2).add_scalar(1e-5).sqrt();
                let y = x.reshape([n, c, h, w]) * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1]);
                if with_silu { activation::silu(y) } else { y }
            };
            let ours = |x, gamma, beta| group_norm(x, gamma, beta, 4, 1e-5, with_silu);
            agree(&format!("group norm, silu {with_silu}, {dtype:?}"), ([3, 12, 5, 7], [12], [12]), dtype, ours, reference);
        }
        let around = |f: fn(Tensor<3>) -> Tensor<3>| move |x: Tensor<3>, a: Tensor<3>, b: Tensor<3>| f(x * a) + b;
        agree("silu", ([3, 5, 7], [3, 5, 7], [1, 1, 7]), dtype, around(silu), around(activation::silu));
    }
}

#[test]
fn resampling_is_that_of_the_engine() {
    for dtype in [DType::F32, DType::F64] {
        // Up and down again, so that the result has the shape of the first.
        let ours = |x: Tensor<4>, a: Tensor<4>, b: Tensor<4>| gather2(spread2(x, 1.0) * a, 0.25) + b;
        let reference = |x: Tensor<4>, a: Tensor<4>, b: Tensor<4>| {
            let up = InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]);
            let down = AvgPoolOptions::new([2, 2]).with_stride([2, 2]);
            module::avg_pool2d(module::interpolate(x, up) * a, down) + b
        };
        agree(&format!("{dtype:?}"), ([2, 3, 5, 9], [2, 3, 10, 18], [1, 3, 5, 9]), dtype, ours, reference);
    }
}

#[test]
fn strided_views_are_read_right() {
    let device = Device::flex();
    let x = random([2, 8, 6, 10], &device, DType::F32).swap_dims(2, 3);
    let copy = Tensor::<4>::from_data(x.clone().to_data(), &device);
    assert_eq!(difference(silu(x.clone()), silu(copy.clone())), 0.0);
    let (gamma, beta) = (random([8], &device, DType::F32), random([8], &device, DType::F32));
    let norm = |x| group_norm(x, gamma.clone(), beta.clone(), 2, 1e-5, true);
    assert_eq!(difference(norm(x), norm(copy)), 0.0);
}

fn engine_conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    module::conv2d(x, weight, Some(bias), ConvOptions::new([1; 2], [1; 2], [1, 1], 1))
}

fn same() -> Convolution {
    Convolution { stride: 1, padding: [(1, 1); 2], frozen: None }
}

#[test]
fn addends_are_added() {
    for dtype in [DType::F32, DType::F64] {
        let weight = random([6, 5, 3, 3], &Device::flex(), dtype);
        let shapes = ([2, 5, 9, 7], [6], [2, 6, 9, 7]);
        let cut = |y: Tensor<4>| y.narrow(1, 0, 5);
        let w = weight.clone();
        let ours = move |x, bias, r: Tensor<4>| cut(conv2d_plus(x, w.clone(), bias, r, same()));
        let w = weight.clone();
        let reference = move |x, bias, r: Tensor<4>| cut(engine_conv2d(x, w.clone(), bias) + r);
        agree(&format!("an image, {dtype:?}"), shapes, dtype, ours, reference);

        let shapes = ([2, 5, 9, 7], [6], [2, 6]);
        let w = weight.clone();
        let ours = move |x, bias, e: Tensor<2>| cut(conv2d_plus(x, w.clone(), bias, e, same()));
        let w = weight.clone();
        let reference = move |x, bias, e: Tensor<2>| cut(engine_conv2d(x, w.clone(), bias) + e.unsqueeze_dims(&[2, 3]));
        agree(&format!("a number a channel, {dtype:?}"), shapes, dtype, ours, reference);
    }
}

#[test]
fn frozen_weights_are_the_same_weights() {
    for dtype in [DType::F32, DType::F64] {
        for (side, weight) in [(9, [5, 5, 3, 3]), (4, [5, 5, 3, 3]), (6, [5, 5, 1, 1])] {
            let values = random(weight, &Device::flex(), DType::F32);
            let padding = [(weight[2] / 2, weight[2] / 2); 2];
            let numbers: Vec<f32> = values.to_data().try_to_vec().unwrap();
            let plain = Convolution { stride: 1, padding, frozen: None };
            let frozen = plain.clone().freeze(numbers, weight);
            assert!(frozen.frozen.is_some());
            let ours = move |x, bias: Tensor<1>, r: Tensor<4>| {
                conv2d_plus(x, Tensor::zeros([1; 4], &Device::flex()), bias, r, frozen.clone())
            };
            let reference = move |x, bias: Tensor<1>, r: Tensor<4>| conv2d(x, values.clone().cast(dtype), bias, plain.clone()) + r;
            let shape = [2, 5, side, side];
            agree(&format!("{weight:?} at {side}, {dtype:?}"), (shape, [5], shape), dtype, ours, reference);
        }
    }
}

#[test]
fn attention_is_that_of_the_engine() {
    for dtype in [DType::F32, DType::F64] {
        for (shape, heads) in [([2, 12, 25], 3), ([1, 8, 2], 1), ([3, 4, 17], 2)] {
            let reference = |q: Tensor<3>, k: Tensor<3>, v: Tensor<3>| {
                let [n, c, pixels] = q.dims();
                let split = |x: Tensor<3>| x.reshape([n, heads, c / heads, pixels]);
                let scale = 1.0 / ((c / heads) as f64).sqrt();
                let scores = split(q).swap_dims(2, 3).matmul(split(k)).mul_scalar(scale);
                split(v).matmul(activation::softmax(scores, 3).swap_dims(2, 3)).reshape([n, c, pixels])
            };
            agree(
                &format!("{shape:?}, {heads} heads, {dtype:?}"),
                (shape, shape, shape),
                dtype,
                |q, k, v| attention(q, k, v, heads),
                reference,
            );
        }
    }
}

#[test]
fn linear_is_that_of_the_engine() {
    for dtype in [DType::F32, DType::F64] {
        for (rows, i, o) in [(3, 7, 5), (1, 40, 16), (17, 16, 33)] {
            let reference = move |x: Tensor<2>, w: Tensor<2>, b: Tensor<1>| x.matmul(w.transpose()) + b.unsqueeze();
            agree(&format!("{rows} rows, {i} to {o}, {dtype:?}"), ([rows, i], [o, i], [o]), dtype, linear, reference);
        }
    }
}

#[test]
fn concatenation_is_that_of_the_engine() {
    for dtype in [DType::F32, DType::F64] {
        let first = |y: Tensor<4>| y.narrow(1, 1, 3);
        let ours = move |a: Tensor<4>, b: Tensor<4>, c: Tensor<4>| first(concat(a, b) * c);
        let reference = move |a: Tensor<4>, b: Tensor<4>, c: Tensor<4>| first(Tensor::cat(vec![a, b], 1) * c);
        agree(&format!("concatenation, {dtype:?}"), ([3, 2, 5, 4], [3, 4, 5, 4], [3, 6, 5, 4]), dtype, ours, reference);
    }
}
