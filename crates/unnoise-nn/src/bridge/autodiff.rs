//! The gradients, over any backend.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};

use super::Kernels;
use crate::ops::Padding;

#[derive(Debug)]
struct Silu;

impl<B: Kernels> Backward<B, 1> for Silu {
    type State = NodeId;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        if let Some(node) = x_node {
            let x = checkpointer.retrieve_node_output(ops.state);
            grads.register::<B>(node.id, B::fast_silu_backward(x, dy));
        }
    }
}

#[derive(Debug)]
struct GroupNorm;

/// What the backward pass of a group normalisation needs beside its input.
#[derive(Clone, Debug)]
struct NormState<B: Kernels> {
    x: NodeId,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    groups: usize,
    eps: f64,
    silu: bool,
}

impl<B: Kernels> Backward<B, 3> for GroupNorm {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let NormState { x, gamma, beta, groups, eps, silu } = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let (dx, dgamma, dbeta) = B::fast_group_norm_backward(x, gamma, beta, dy, groups, eps, silu);
        for (node, gradient) in ops.parents.into_iter().zip([dx, dgamma, dbeta]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Conv2d;

/// What the backward pass of a convolution needs: each tensor only if another one's gradient asks for it.
#[derive(Clone, Debug)]
struct ConvState {
    x: Option<NodeId>,
    weight: Option<NodeId>,
    x_shape: [usize; 4],
    weight_shape: [usize; 4],
    stride: usize,
    padding: Padding,
}

impl<B: Kernels> Backward<B, 3> for Conv2d {
    type State = ConvState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node, weight_node, bias_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let ConvState { x, weight, x_shape, weight_shape, stride, padding } = ops.state;
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let weight = checkpointer.retrieve_node_output(weight);
            grads.register::<B>(node.id, B::fast_conv2d_input_gradient(x_shape, weight, dy.clone(), stride, padding));
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let x = checkpointer.retrieve_node_output(x);
            grads.register::<B>(node.id, B::fast_conv2d_weight_gradient(x, weight_shape, dy.clone(), stride, padding));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::fast_conv2d_bias_gradient(dy));
        }
    }
}

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        padding: Padding,
    ) -> FloatTensor<Self> {
        let run = |x, weight, bias| B::fast_conv2d(x, weight, bias, stride, padding);
        match Conv2d.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = ConvState {
                    x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                    weight: x.is_tracked().then(|| prep.checkpoint(&weight)),
                    x_shape: x.shape().dims(),
                    weight_shape: weight.shape().dims(),
                    stride,
                    padding,
                };
                prep.finish(state, run(x.into_primitive(), weight.into_primitive(), bias.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(run(x.into_primitive(), weight.into_primitive(), bias.into_primitive())),
        }
    }

    fn fast_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match Silu.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                prep.finish(state, B::fast_silu(x.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::fast_silu(x.into_primitive())),
        }
    }

    fn fast_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self> {
        let run = |x, gamma, beta| B::fast_group_norm(x, gamma, beta, groups, eps, silu);
        match GroupNorm.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let node = prep.checkpoint(&x);
                let [gamma, beta] = [gamma, beta].map(|t| t.into_primitive());
                let state = NormState { x: node, gamma: gamma.clone(), beta: beta.clone(), groups, eps, silu };
                prep.finish(state, run(x.into_primitive(), gamma, beta))
            }
            OpsKind::UnTracked(prep) => prep.finish(run(x.into_primitive(), gamma.into_primitive(), beta.into_primitive())),
        }
    }
}
