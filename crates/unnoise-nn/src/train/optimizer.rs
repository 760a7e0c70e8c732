//! AdamW, global-norm clipping and an exponential moving average, in one pass over flat weights.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 15;

/// The constants of AdamW; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

/// One parameter and everything that is remembered about it; slices of one length.
pub struct Slot<'a> {
    /// The raw weights `w`.
    pub weights: &'a mut [f32],
    /// Their moving average.
    pub ema: &'a mut [f32],
    /// The first moment `m`.
    pub first: &'a mut [f32],
    /// The second moment `v`.
    pub second: &'a mut [f32],
    /// The gradient `g`, not yet clipped.
    pub gradient: &'a [f32],
}

/// The scalars of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Which update this is, from 1.
    pub step: u64,
    /// The learning rate.
    pub lr: f64,
    /// Multiplies the gradient, see [`clip_factor`].
    pub gradient_scale: f64,
    /// The moving average's decay, see [`ema_decay`].
    pub ema_decay: f64,
}

impl AdamW {
    /// Updates one parameter in place.
    ///
    /// ```text
    /// g <- gradient_scale g
    /// m <- beta1 m + (1 - beta1) g            v <- beta2 v + (1 - beta2) g^2
    /// w <- w - lr weight_decay w              w <- w - lr m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps)
    /// ema <- ema + (1 - ema_decay) (w - ema)
    /// ```
    ///
    /// # Reference
    /// Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, in PyTorch's form: the decay is applied before the step and
    /// scaled by the learning rate. Scalars are computed in f64 and rounded once.
    pub fn update(&self, update: &Update, slot: Slot<'_>) {
        let k = update.step as f64;
        let (correction1, correction2) = (1.0 - self.beta1.powf(k), 1.0 - self.beta2.powf(k));
        let keep = (1.0 - update.lr * self.weight_decay) as f32;
        let rate = (update.lr / correction1) as f32;
        let root = (1.0 / correction2.sqrt()) as f32;
        let (pull1, beta2, pull2) = ((1.0 - self.beta1) as f32, self.beta2 as f32, (1.0 - self.beta2) as f32);
        let (eps, scale, blend) = (self.eps as f32, update.gradient_scale as f32, (1.0 - update.ema_decay) as f32);
        let averaged = slot.weights.par_chunks_mut(CHUNK).zip(slot.ema.par_chunks_mut(CHUNK));
        let moments = slot.first.par_chunks_mut(CHUNK).zip(slot.second.par_chunks_mut(CHUNK));
        averaged.zip(moments).zip(slot.gradient.par_chunks(CHUNK)).for_each(|(((weights, ema), (first, second)), gradient)| {
            let moments = first.iter_mut().zip(second);
            for (((w, ema), (m, v)), g) in weights.iter_mut().zip(ema).zip(moments).zip(gradient) {
                let g = scale * g;
                *m += pull1 * (g - *m);
                *v = beta2 * *v + pull2 * g * g;
                *w = keep * *w - rate * *m / (v.sqrt() * root + eps);
                *ema += blend * (*w - *ema);
            }
        });
    }
}

/// The norm of all gradients together, summed in f64, in an order that the lengths alone decide.
pub fn global_norm<'a>(gradients: impl Iterator<Item = &'a [f32]>) -> f64 {
    gradients.map(sum_of_squares).sum::<f64>().sqrt()
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let chunk = |values: &[f32]| {
        // Independent sums: one chain of additions would wait for each of them.
        let (eights, rest) = values.as_chunks::<8>();
        let mut sums = [0.0; 8];
        for eight in eights {
            sums.iter_mut().zip(eight).for_each(|(sum, v)| *sum += f64::from(*v) * f64::from(*v));
        }
        rest.iter().fold(sums.iter().sum::<f64>(), |sum, v| sum + f64::from(*v) * f64::from(*v))
    };
    values.par_chunks(CHUNK).map(chunk).collect::<Vec<f64>>().iter().sum()
}

/// The factor that brings a gradient of this norm to at most `limit`: `min(1, limit / (norm + 1e-6))`, PyTorch's rule.
pub fn clip_factor(norm: f64, limit: Option<f64>) -> f64 {
    limit.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0))
}

/// The moving average's decay at update `step` (from 1): `min(decay, step / (9 + step))`.
///
/// The warm-up lets the average forget the initial weights: the first update keeps 1/10 of them, and after `k` updates about the
/// last tenth of the run counts until `decay` is reached, at `k = 9 decay / (1 - decay)` updates (9,000 for .999).
///
/// # Reference
/// The warm-up of TensorFlow's `ExponentialMovingAverage(num_updates)` and of diffusers' `EMAModel` with
/// `use_ema_warmup = False`, whose `(1 + n) / (10 + n)` counts updates from `n = 0`.
pub fn ema_decay(decay: f64, step: u64) -> f64 {
    let k = step as f64;
    decay.min(k / (9.0 + k))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three parameters of one number each, with constant gradients, for `steps` updates without clipping or decay schedule.
    fn run(adam: &AdamW, lr: f64, ema_decay: f64, start: &[f32], gradients: &[Vec<f32>]) -> (Vec<f32>, Vec<f32>) {
        let (mut w, mut ema, mut m, mut v) = (start.to_vec(), start.to_vec(), vec![0.0; start.len()], vec![0.0; start.len()]);
        for (i, g) in gradients.iter().enumerate() {
            let update = Update { step: i as u64 + 1, lr, gradient_scale: 1.0, ema_decay };
            adam.update(&update, Slot { weights: &mut w, ema: &mut ema, first: &mut m, second: &mut v, gradient: g });
        }
        (w, ema)
    }

    /// With a constant gradient both corrected moments are exact, so every step is `r = lr g / (|g| + eps)` after the decay:
    /// `w_k = (1 - lr d) w_{k-1} - r`, a geometric sum.
    #[test]
    fn constant_gradient_has_a_closed_form() {
        let (lr, start) = (1e-2, [1.0f32, -2.0, 0.5]);
        let g = vec![3.0f32, -0.25, 1e-3];
        let adam = AdamW { weight_decay: 0.1, ..AdamW::default() };
        let (w, _) = run(&adam, lr, 0.9, &start, &vec![g.clone(); 50]);
        let keep = 1.0 - lr * 0.1f64;
        for ((w, start), g) in w.iter().zip(start).zip(g) {
            let g = f64::from(g);
            let expected = keep.powi(50) * f64::from(start) - g / (g.abs() + 1e-8) * (1.0 - keep.powi(50)) / 0.1;
            assert!((f64::from(*w) - expected).abs() < 2e-6, "{w} {expected}");
        }
    }

    /// Frozen weights (`lr = 0`): the average approaches them geometrically.
    #[test]
    fn average_approaches_geometrically() {
        let adam = AdamW::default();
        let (mut w, mut ema, mut m, mut v) = ([2.0f32], [0.0f32], [0.0f32], [0.0f32]);
        for step in 1..=100 {
            let update = Update { step, lr: 0.0, gradient_scale: 1.0, ema_decay: 0.97 };
            adam.update(&update, Slot { weights: &mut w, ema: &mut ema, first: &mut m, second: &mut v, gradient: &[1.0] });
        }
        assert!((f64::from(ema[0]) - 2.0 * (1.0 - 0.97f64.powi(100))).abs() < 1e-5, "{ema:?}");
        let warm: Vec<f64> = [1, 11, 8_991, 1_000_000].into_iter().map(|k| ema_decay(0.999, k)).collect();
        assert_eq!(warm, [0.1, 0.55, 0.999, 0.999]);
    }

    #[test]
    fn clipping_is_global() {
        let (a, b) = ([3.0f32, 0.0], [4.0f32]);
        let norm = global_norm([&a[..], &b[..]].into_iter());
        assert_eq!(norm, 5.0);
        assert!((clip_factor(norm, Some(1.0)) - 0.2).abs() < 1e-7);
        assert_eq!((clip_factor(norm, Some(6.0)), clip_factor(norm, None)), (1.0, 1.0));
    }

    /// `torch.optim.AdamW([w], lr=0.02)` and `clip_grad_norm_(1.0)` of PyTorch 2.15 for seven updates with the gradients below,
    /// and the average `ema = d ema + (1 - d) w`, `d = min(.9, k / (9 + k))`.
    #[test]
    fn agrees_with_pytorch() {
        let start = [1.0f32, -0.5, 0.25, 3.0];
        let (mut w, mut ema, mut m, mut v) = (start, start, [0.0f32; 4], [0.0f32; 4]);
        for step in 1..=7u64 {
            let k = step as f32;
            let g = [0.5 * k, if step % 2 == 0 { 0.125 } else { -0.125 }, 1e-4 * (k - 3.0), 2.0 / k];
            let gradient_scale = clip_factor(global_norm([&g[..]].into_iter()), Some(1.0));
            let update = Update { step, lr: 0.02, gradient_scale, ema_decay: ema_decay(0.9, step) };
            let slot = Slot { weights: &mut w, ema: &mut ema, first: &mut m, second: &mut v, gradient: &g };
            AdamW::default().update(&update, slot);
        }
        let torch = [0.8624435067176819, -0.4781501591205597, 0.29485681653022766, 2.877821445465088];
        let torch_ema = [0.8765191435813904, -0.4788636565208435, 0.30012035369873047, 2.8878676891326904];
        for (ours, theirs) in w.iter().chain(&ema).zip(torch.iter().chain(&torch_ema)) {
            assert!((f64::from(*ours) / theirs - 1.0).abs() <= 1e-6, "{w:?} {ema:?}");
        }
    }
}
