//! Channels side by side.

use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{
    base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};

use super::super::Kernels;

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

#[derive(Debug)]
struct Concat;

impl<B: Kernels> Backward<B, 2> for Concat {
    /// The channels of the first.
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (da, db) = B::fast_split(grads.consume::<B>(&ops.node), ops.state);
        for (node, gradient) in ops.parents.into_iter().zip([da, db]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// The result once more, where it was not kept.
#[derive(Debug)]
struct Again<B> {
    parts: [NodeId; 2],
    backend: PhantomData<B>,
}

impl<B: Kernels> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, node: NodeId) {
        let [a, b] = self.parts.map(|part| states.get_state::<FloatTensor<B>>(&part));
        states.save(node, B::fast_concat(a, b));
    }
}

pub(super) fn concat<B: Kernels, C: CheckpointStrategy>(a: Tracked<B, C>, b: Tracked<B, C>) -> Tracked<B, C> {
    let channels = a.shape()[1];
    let again = Again::<B> { parts: [a.node().id(), b.node().id()], backend: PhantomData };
    match Concat.prepare::<C>([a.node(), b.node()]).memory_bound().retro_forward(again).parents([&a, &b]).stateful() {
        OpsKind::Tracked(prep) => prep.finish(channels, B::fast_concat(a.into_primitive(), b.into_primitive())),
        OpsKind::UnTracked(prep) => prep.finish(B::fast_concat(a.into_primitive(), b.into_primitive())),
    }
}
