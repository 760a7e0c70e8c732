//! Between two resolutions: each way is the gradient of the other.

use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{
    base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::super::Kernels;

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

/// To the finer side, or to the coarser.
#[derive(Clone, Copy, Debug)]
enum Resampling {
    Spread,
    Gather,
}

impl Resampling {
    fn run<B: Kernels>(self, t: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
        match self {
            Self::Spread => B::fast_spread2(t, factor),
            Self::Gather => B::fast_gather2(t, factor),
        }
    }

    fn transposed(self) -> Self {
        match self {
            Self::Spread => Self::Gather,
            Self::Gather => Self::Spread,
        }
    }

    fn tracked<B: Kernels, C: CheckpointStrategy>(self, t: Tracked<B, C>, factor: f64) -> Tracked<B, C> {
        let again = Again::<B> { resampling: self, of: t.node().id(), factor, backend: PhantomData };
        match self.prepare::<C>([t.node()]).memory_bound().retro_forward(again).parents([&t]).stateful() {
            OpsKind::Tracked(prep) => prep.finish(factor, self.run::<B>(t.into_primitive(), factor)),
            OpsKind::UnTracked(prep) => prep.finish(self.run::<B>(t.into_primitive(), factor)),
        }
    }
}

impl<B: Kernels> Backward<B, 1> for Resampling {
    /// The factor.
    type State = f64;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, self.transposed().run::<B>(gradient, ops.state));
        }
    }
}

/// The result once more, where it was not kept.
#[derive(Debug)]
struct Again<B> {
    resampling: Resampling,
    of: NodeId,
    factor: f64,
    backend: PhantomData<B>,
}

impl<B: Kernels> RetroForward for Again<B> {
    fn forward(&self, states: &mut BackwardStates, node: NodeId) {
        let t = states.get_state::<FloatTensor<B>>(&self.of);
        states.save(node, self.resampling.run::<B>(t, self.factor));
    }
}

pub(super) fn spread2<B: Kernels, C: CheckpointStrategy>(x: Tracked<B, C>, factor: f64) -> Tracked<B, C> {
    Resampling::Spread.tracked::<B, C>(x, factor)
}

pub(super) fn gather2<B: Kernels, C: CheckpointStrategy>(y: Tracked<B, C>, factor: f64) -> Tracked<B, C> {
    Resampling::Gather.tracked::<B, C>(y, factor)
}
