//! Attention.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::super::Kernels;

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

#[derive(Debug)]
struct Attention;

/// The inputs, the result and its sums.
#[derive(Clone, Debug)]
struct State<B: Kernels> {
    inputs: [NodeId; 3],
    out: FloatTensor<B>,
    sums: FloatTensor<B>,
    heads: usize,
}

impl<B: Kernels> Backward<B, 3> for Attention {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let State { inputs, out, sums, heads } = ops.state;
        let [q, k, v] = inputs.map(|input| checkpointer.retrieve_node_output(input));
        let (dq, dk, dv) = B::fast_attention_backward(q, k, v, out, sums, dout, heads);
        for (node, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(super) fn attention<B: Kernels, C: CheckpointStrategy>(
    q: Tracked<B, C>,
    k: Tracked<B, C>,
    v: Tracked<B, C>,
    heads: usize,
) -> Tracked<B, C> {
    match Attention.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let inputs = [&q, &k, &v].map(|input| prep.checkpoint(input));
            let (out, sums) = B::fast_attention_with_sums(q.into_primitive(), k.into_primitive(), v.into_primitive(), heads);
            prep.finish(State { inputs, out: out.clone(), sums, heads }, out)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::fast_attention(q.into_primitive(), k.into_primitive(), v.into_primitive(), heads))
        }
    }
}
