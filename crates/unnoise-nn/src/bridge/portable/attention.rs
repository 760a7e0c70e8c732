//! Attention, with the whole matrix of scores in memory.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

/// `[n, c, pixels]` as `[n, heads, c / heads, pixels]`.
fn split<B: Backend>(x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let [n, channels, pixels] = x.shape().dims();
    B::float_reshape(x, Shape::new([n, heads, channels / heads, pixels]))
}

fn transpose<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x, 2, 3)
}

/// `q^T k / sqrt(width)`, `[n, heads, queries, keys]`, of split tensors.
fn scores<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>) -> FloatTensor<B> {
    let scale = 1.0 / (q.shape()[2] as f64).sqrt();
    B::float_matmul(transpose::<B>(B::float_mul_scalar(q, scale.into())), k)
}

/// The result and the logarithms of the queries' sums.
pub(in super::super) fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    heads: usize,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = q.shape();
    let [q, k, v] = [q, k, v].map(|x| split::<B>(x, heads));
    let scores = scores::<B>(q, k);
    let highest = B::float_max_dim(scores.clone(), 3);
    let weights = B::float_exp(B::float_sub(scores, highest.clone()));
    let sum = B::float_sum_dim(weights.clone(), 3);
    let out = B::float_matmul(v, transpose::<B>(B::float_div(weights, sum.clone())));
    let sums = B::float_reshape(B::float_add(highest, B::float_log(sum)), Shape::new([shape[0], heads, shape[2]]));
    (B::float_reshape(out, shape), sums)
}

/// `(dq, dk, dv)`.
pub(in super::super) fn attention_backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    out: FloatTensor<B>,
    sums: FloatTensor<B>,
    dout: FloatTensor<B>,
    heads: usize,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = q.shape();
    let [q, k, v, out, dout] = [q, k, v, out, dout].map(|x| split::<B>(x, heads));
    let column = Shape::new([shape[0], heads, shape[2], 1]);
    let weights = B::float_exp(B::float_sub(scores::<B>(q.clone(), k.clone()), B::float_reshape(sums, column.clone())));
    let dv = B::float_matmul(dout.clone(), weights.clone());
    let dweights = B::float_matmul(transpose::<B>(dout.clone()), v);
    let level = B::float_reshape(B::float_sum_dim(B::float_mul(dout, out), 2), column);
    let scale = 1.0 / (q.shape()[2] as f64).sqrt();
    let dscores = B::float_mul_scalar(B::float_mul(weights, B::float_sub(dweights, level)), scale.into());
    let dq = B::float_matmul(k, transpose::<B>(dscores.clone()));
    let dk = B::float_matmul(q, dscores);
    let [dq, dk, dv] = [dq, dk, dv].map(|x| B::float_reshape(x, shape.clone()));
    (dq, dk, dv)
}
