//! The unified predictor-corrector.

use nalgebra::{DMatrix, DVector};

use super::multistep::History;
use super::{Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Noise, Result};

pub(super) const UNIPC: SamplerInfo = SamplerInfo {
    name: "unipc",
    order: "2 (3 without lower_order_final)",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &["order", "lower_order_final"],
    source: include_str!("unipc.rs"),
    make: |options| Box::new(UniPc::new(Bh::ExpM1, options.order.unwrap_or(2)).with(options.lower_order_final.unwrap_or(true))),
};

pub(super) const UNIPC_BH1: SamplerInfo = SamplerInfo {
    name: "unipc-bh1",
    make: |options| Box::new(UniPc::new(Bh::Linear, options.order.unwrap_or(2)).with(options.lower_order_final.unwrap_or(true))),
    ..UNIPC
};

/// UniPC-p: a predictor of order `p` from the last `p` clean images, and a corrector that uses the next evaluation, made anyway, to raise the
/// step before it to order `p + 1`.
///
/// ```text
/// h = lambda' - lambda,   r_j = (lambda_j - lambda) / h,   D_j = (x0_j - x0) / r_j,   j = 1 .. p - 1 steps ago
/// phi_1(z) = e^z - 1 divided by z,   phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z,   z = -h
/// B(z) = z (bh1)  or  e^z - 1 (bh2)
/// sum_j a_j r_j^(k-1) = k! z phi_{k+1}(z) / B(z)          k = 1, 2, ...: as many equations as unknowns
///
/// predictor   x'  = (sigma' / sigma) x - alpha' ((e^z - 1) x0 + B(z) sum_{j<p} a_j D_j)
/// corrector   x'c = the same with one more term: r = 1, D = x0(x', t') - x0
/// ```
///
/// The first step is of order 1; with `lower_order_final`, the default, the last steps are of order 2 and 1, which leaves the run at order 2 with a small constant. `a` is 1/2 for the predictor of order 2 and the
/// corrector of order 1, which keeps their order. The corrected state is not evaluated again. A step from a level without signal is DDIM's.
///
/// # Reference
/// Zhao et al. 2023, arXiv 2302.04867, algorithms 5 to 8, in data prediction; the halves as in its code and in diffusers. A step to `sigma' =
/// 0` is DDIM's for both `B` (diffusers' `bh1` returns NaN there).
#[derive(Clone, Debug)]
pub struct UniPc {
    bh: Bh,
    order: usize,
    lower_order_final: bool,
    history: History,
    /// The last step's start and order, for the corrector.
    last: Option<(Batch, usize)>,
}

/// The function `B` of [`UniPc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bh {
    /// `B(z) = z`.
    Linear,
    /// `B(z) = e^z - 1`.
    ExpM1,
}

impl UniPc {
    /// UniPC-`order`, from 1 to 4.
    pub fn new(bh: Bh, order: usize) -> Self {
        Self { bh, order: order.clamp(1, 4), lower_order_final: false, history: History::default(), last: None }
    }

    /// The same, with or without lower orders at a run's end.
    pub fn with(self, lower_order_final: bool) -> Self {
        Self { lower_order_final, ..self }
    }

    /// Of the last `order` images of the history and, in the corrector, of the image at the step's end: the weights in `x'` over `-alpha'`.
    fn weights(&self, order: usize, h: f64, corrects: bool) -> Vec<f64> {
        let z = -h;
        let value = z.exp_m1();
        let b = if self.bh == Bh::Linear { z } else { value };
        let mut r: Vec<f64> = (1..order).map(|j| (self.history.lambda(j) - self.history.lambda(0)) / h).collect();
        r.extend(corrects.then_some(1.0));
        let a = match (r.len(), corrects, order) {
            (0, ..) => DVector::zeros(0),
            (1, false, _) | (1, true, 1) => DVector::from_element(1, 0.5),
            (unknowns, ..) => coefficients(&r, z, b).unwrap_or_else(|| DVector::zeros(unknowns)),
        };
        let slopes: Vec<f64> = a.iter().zip(&r).map(|(a, r)| b * a / r).collect();
        let mut weights = vec![value - slopes.iter().sum::<f64>()];
        weights.extend(slopes);
        weights
    }

    /// The state at the start of this step, corrected with the evaluation there.
    fn corrected(&self, interval: Interval, x0: &Batch) -> Option<Batch> {
        let Interval { from, to } = interval;
        let (before, order) = self.last.as_ref()?;
        let h = -interval.ratio().ln();
        let order = (*order).min(self.history.len());
        if order == 0 || h == 0.0 || !h.is_finite() || self.history.level(0) != from {
            return None;
        }
        let mut weights = self.weights(order, h, true);
        let there = weights.pop()?;
        let mut sum = self.history.combine(&weights);
        sum.scaled_add(there, x0);
        Some(combine(to.sigma / from.sigma, before, -to.alpha, &sum))
    }
}

/// The solution of the equations of [`UniPc`].
fn coefficients(r: &[f64], z: f64, b: f64) -> Option<DVector<f64>> {
    let n = r.len();
    let powers = DMatrix::from_fn(n, n, |k, j| r[j].powi(k as i32));
    let mut factorial = 1.0;
    // z phi_{k+1}(z), by its recurrence.
    let mut phi = z.exp_m1() / z - 1.0;
    let right = DVector::from_iterator(
        n,
        (1..=n).map(|k| {
            let value = factorial * phi / b;
            factorial *= k as f64 + 1.0;
            phi = phi / z - 1.0 / factorial;
            value
        }),
    );
    powers.lu().solve(&right)
}

impl Sampler for UniPc {
    fn name(&self) -> &'static str {
        if self.bh == Bh::ExpM1 { UNIPC.name } else { UNIPC_BH1.name }
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        if step.index == 0 {
            self.last = None;
        }
        let previous = step.index.checked_sub(1).map(|index| step.grid.steps[index]);
        let corrected = previous.filter(|last| last.to == from).and_then(|last| self.corrected(last, &x0));
        let x = corrected.as_ref().unwrap_or(x);

        self.history.push(step, self.order, from, &x0);
        let h = -interval.ratio().ln();
        let left = if self.lower_order_final { step.grid.steps.len() - step.index } else { usize::MAX };
        let order = if to.sigma == 0.0 { 1 } else { self.order.min(left).min(self.history.len()) };
        let next = match h != 0.0 && h.is_finite() && order > 0 {
            true => combine(to.sigma / from.sigma, x, -to.alpha, &self.history.combine(&self.weights(order, h, false))),
            false => combine(to.alpha, &x0, to.sigma, &eps_from_x0(x, &x0, from)),
        };
        self.last = Some((x.clone(), order));
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
