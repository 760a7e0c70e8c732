//! Convolution.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};

use super::super::{Convolution, Kernels};

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

/// What the backward pass of a convolution needs: each tensor only if another one's gradient asks for it.
#[derive(Clone, Debug)]
struct State {
    x: Option<NodeId>,
    weight: Option<NodeId>,
    x_shape: [usize; 4],
    weight_shape: [usize; 4],
    conv: Convolution,
}

impl State {
    fn new<B: Kernels, C: CheckpointStrategy>(
        x: &Tracked<B, C>,
        weight: &Tracked<B, C>,
        conv: &Convolution,
        mut checkpoint: impl FnMut(&Tracked<B, C>) -> NodeId,
    ) -> Self {
        Self {
            x: weight.is_tracked().then(|| checkpoint(x)),
            weight: x.is_tracked().then(|| checkpoint(weight)),
            x_shape: x.shape().dims(),
            weight_shape: weight.shape().dims(),
            conv: conv.clone(),
        }
    }

    /// The gradients of the first three parents, `x`, `weight` and `bias`, registered where they are asked for.
    fn backward<B: Kernels>(
        self,
        parents: [Option<NodeId>; 3],
        dy: &FloatTensor<B>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let Self { x, weight, x_shape, weight_shape, conv } = self;
        let [x_node, weight_node, bias_node] = parents;
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let weight = checkpointer.retrieve_node_output(weight);
            grads.register::<B>(node, B::fast_conv2d_input_gradient(x_shape, weight, dy.clone(), conv.clone()));
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let x = checkpointer.retrieve_node_output(x);
            grads.register::<B>(node, B::fast_conv2d_weight_gradient(x, weight_shape, dy.clone(), conv));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node, B::fast_sum_by_channel(dy.clone()));
        }
    }
}

#[derive(Debug)]
struct Conv2d;

impl<B: Kernels> Backward<B, 3> for Conv2d {
    type State = State;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        ops.state.backward::<B>(ops.parents.map(|node| node.map(|node| node.id)), &dy, grads, checkpointer);
    }
}

/// With an addend: `[n, o]` if the flag is set, else of the result's shape.
#[derive(Debug)]
struct Conv2dPlus;

impl<B: Kernels> Backward<B, 4> for Conv2dPlus {
    type State = (State, bool);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, weight, bias, addend] = ops.parents.map(|node| node.map(|node| node.id));
        let (state, by_image) = ops.state;
        state.backward::<B>([x, weight, bias], &dy, grads, checkpointer);
        if let Some(node) = addend {
            grads.register::<B>(node, if by_image { B::fast_sum_by_image(dy) } else { dy });
        }
    }
}

pub(super) fn conv2d<B: Kernels, C: CheckpointStrategy>(
    x: Tracked<B, C>,
    weight: Tracked<B, C>,
    bias: Tracked<B, C>,
    conv: Convolution,
) -> Tracked<B, C> {
    let run = |x, weight, bias, conv| B::fast_conv2d(x, weight, bias, conv);
    match Conv2d.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = State::new::<B, C>(&x, &weight, &conv, |tensor| prep.checkpoint(tensor));
            prep.finish(state, run(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), conv))
        }
        OpsKind::UnTracked(prep) => prep.finish(run(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), conv)),
    }
}

pub(super) fn conv2d_plus<B: Kernels, C: CheckpointStrategy>(
    x: Tracked<B, C>,
    weight: Tracked<B, C>,
    bias: Tracked<B, C>,
    addend: Tracked<B, C>,
    conv: Convolution,
) -> Tracked<B, C> {
    let run = |[x, weight, bias, addend]: [Tracked<B, C>; 4], conv| {
        B::fast_conv2d_plus(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), addend.into_primitive(), conv)
    };
    let nodes = [x.node(), weight.node(), bias.node(), addend.node()];
    match Conv2dPlus.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = State::new::<B, C>(&x, &weight, &conv, |tensor| prep.checkpoint(tensor));
            let by_image = addend.shape().num_dims() == 2;
            prep.finish((state, by_image), run([x, weight, bias, addend], conv))
        }
        OpsKind::UnTracked(prep) => prep.finish(run([x, weight, bias, addend], conv)),
    }
}
