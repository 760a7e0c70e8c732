//! What multistep samplers share: the evaluations that they remember.

use std::collections::VecDeque;

use ndarray::Zip;

use super::Step;
use crate::{Batch, Level};

/// The last evaluations of a run, newest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    kept: VecDeque<(Level, Batch)>,
}

impl History {
    /// Remembers an evaluation and forgets those before the last `order`; at a run's first step, all. A level without signal, or the level
    /// of the last evaluation once more, is no point to interpolate through, and is not remembered.
    pub(super) fn push(&mut self, step: &Step<'_>, order: usize, level: Level, value: &Batch) {
        if step.index == 0 {
            self.kept.clear();
        }
        if self.kept.front().is_some_and(|(last, _)| last.sigma_edm() == level.sigma_edm()) {
            self.kept.pop_front();
        }
        if level.alpha > 0.0 {
            self.kept.push_front((level, value.clone()));
            self.kept.truncate(order);
        }
    }

    /// How many evaluations there are.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The level of the evaluation `back` steps ago.
    pub(super) fn level(&self, back: usize) -> Level {
        self.kept[back].0
    }

    /// The evaluation `back` steps ago.
    pub(super) fn value(&self, back: usize) -> &Batch {
        &self.kept[back].1
    }

    /// `lambda = log(alpha / sigma)` of the evaluation `back` steps ago.
    pub(super) fn lambda(&self, back: usize) -> f64 {
        -self.level(back).sigma_edm().ln()
    }

    /// `sum_j weights_j value_j`, newest first.
    pub(super) fn combine(&self, weights: &[f64]) -> Batch {
        let mut sum = self.value(0) * weights[0];
        for (weight, (_, value)) in weights.iter().zip(&self.kept).skip(1) {
            Zip::from(&mut sum).and(value).for_each(|sum, value| *sum += weight * value);
        }
        sum
    }
}

/// How a multistep method keeps its order low where it has to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerOrder {
    /// A run of fewer than 15 steps ends with steps of order 2 and 1.
    pub at_the_end_of_few: bool,
    /// Every run ends with a step of order 1.
    pub at_the_end: bool,
}

impl LowerOrder {
    /// The highest order of this step.
    pub(super) fn limit(self, step: &Step<'_>, order: usize) -> usize {
        let left = step.grid.steps.len() - step.index;
        match self.at_the_end_of_few && step.grid.steps.len() < 15 {
            _ if left == 1 && self.at_the_end => 1,
            true => order.min(left),
            false => order,
        }
    }

    /// The same for what is interpolated in `lambda`: 1 in a step to `sigma = 0`, where that is infinite.
    pub(super) fn limit_in_lambda(self, step: &Step<'_>, order: usize) -> usize {
        if step.interval().to.sigma == 0.0 { 1 } else { self.limit(step, order) }
    }
}
