//! The gradients, over any backend.

mod attention;
mod concat;
mod convolution;
mod linear;
mod resampling;

use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{
    base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Convolution, Kernels};

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

/// The result once more, where it was not kept. All parents are asked for: the graph counts on it.
#[derive(Debug)]
struct NormAgain<B> {
    /// `x`, `gamma` and `beta`.
    parents: [NodeId; 3],
    groups: usize,
    eps: f64,
    silu: bool,
    backend: PhantomData<B>,
}

impl<B: Kernels> RetroForward for NormAgain<B> {
    fn forward(&self, states: &mut BackwardStates, node: NodeId) {
        let [x, gamma, beta] = self.parents.map(|parent| states.get_state::<FloatTensor<B>>(&parent));
        states.save(node, B::fast_group_norm(x, gamma, beta, self.groups, self.eps, self.silu));
    }
}

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Convolution,
    ) -> FloatTensor<Self> {
        convolution::conv2d::<B, C>(x, weight, bias, conv)
    }

    fn fast_conv2d_plus(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        conv: Convolution,
    ) -> FloatTensor<Self> {
        convolution::conv2d_plus::<B, C>(x, weight, bias, addend, conv)
    }

    fn fast_concat(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        concat::concat::<B, C>(a, b)
    }

    fn fast_spread2(x: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        resampling::spread2::<B, C>(x, factor)
    }

    fn fast_gather2(y: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        resampling::gather2::<B, C>(y, factor)
    }

    fn fast_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        attention::attention::<B, C>(q, k, v, heads)
    }

    fn fast_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::linear::<B, C>(x, weight, bias)
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
        let nodes = [x.node(), gamma.node(), beta.node()];
        let parents = nodes.each_ref().map(|node| node.id());
        let parts = [&gamma, &beta].map(|t| t.clone().into_primitive());
        let state = NormState::<B> { x: parents[0], gamma: parts[0].clone(), beta: parts[1].clone(), groups, eps, silu };
        let again = NormAgain::<B> { parents, groups, eps, silu, backend: PhantomData };
        let prep = GroupNorm.prepare::<C>(nodes).memory_bound().retro_forward(again).parents([&x, &gamma, &beta]).stateful();
        let [gamma, beta] = parts;
        match prep {
            OpsKind::Tracked(mut prep) => {
                prep.checkpoint(&x);
                prep.finish(state, B::fast_group_norm(x.into_primitive(), gamma, beta, groups, eps, silu))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::fast_group_norm(x.into_primitive(), gamma, beta, groups, eps, silu)),
        }
    }
}
