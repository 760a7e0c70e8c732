//! Linear maps.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::super::Kernels;

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

#[derive(Debug)]
struct Linear;

/// Each tensor only if the other one's gradient asks for it.
#[derive(Clone, Debug)]
struct State {
    x: Option<NodeId>,
    weight: Option<NodeId>,
}

impl<B: Kernels> Backward<B, 3> for Linear {
    type State = State;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x_node, weight_node, bias_node] = ops.parents;
        let State { x, weight } = ops.state;
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let weight = checkpointer.retrieve_node_output(weight);
            grads.register::<B>(node.id, B::fast_linear_input_gradient(weight, dy.clone()));
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let x = checkpointer.retrieve_node_output(x);
            grads.register::<B>(node.id, B::fast_linear_weight_gradient(x, dy.clone()));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::fast_sum_rows(dy));
        }
    }
}

pub(super) fn linear<B: Kernels, C: CheckpointStrategy>(
    x: Tracked<B, C>,
    weight: Tracked<B, C>,
    bias: Tracked<B, C>,
) -> Tracked<B, C> {
    let run = |x, weight, bias| B::fast_linear(x, weight, bias);
    match Linear.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = State {
                x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                weight: x.is_tracked().then(|| prep.checkpoint(&weight)),
            };
            prep.finish(state, run(x.into_primitive(), weight.into_primitive(), bias.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(run(x.into_primitive(), weight.into_primitive(), bias.into_primitive())),
    }
}
