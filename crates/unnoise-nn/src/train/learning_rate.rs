//! The learning rate over a run.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then a constant rate or a half cosine down to zero.
///
/// ```text
/// lr(k) = peak k / warmup                                           k <= warmup
/// lr(k) = peak (1 + cos(pi (k - 1 - warmup) / (steps - warmup))) / 2    after it, with cosine decay
/// ```
///
/// `k` counts updates from 1, so that no update has a rate of zero.
///
/// # Reference
/// Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without restarts and with a minimum of zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearningRate {
    /// The largest rate.
    pub peak: f64,
    /// Updates until it is reached.
    pub warmup: u64,
    /// Whether it decays along a half cosine to the end of the run.
    pub cosine_decay: bool,
}

impl Default for LearningRate {
    fn default() -> Self {
        Self { peak: 1e-3, warmup: 200, cosine_decay: true }
    }
}

impl LearningRate {
    /// The rate of update `k` (from 1) of a run of `steps`.
    pub fn at(&self, k: u64, steps: u64) -> f64 {
        if k <= self.warmup {
            return self.peak * k as f64 / self.warmup as f64;
        }
        if !self.cosine_decay {
            return self.peak;
        }
        let done = (k - 1 - self.warmup) as f64 / steps.saturating_sub(self.warmup).max(1) as f64;
        0.5 * self.peak * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_peak_half_and_end() {
        let rate = LearningRate { peak: 2.0, warmup: 10, cosine_decay: true };
        let steps = 110;
        for (k, expected) in [(1, 0.2), (5, 1.0), (10, 2.0), (11, 2.0), (61, 1.0), (111, 0.0), (500, 0.0)] {
            assert!((rate.at(k, steps) - expected).abs() < 1e-12, "{k}: {}", rate.at(k, steps));
        }
        assert!(rate.at(steps, steps) > 0.0);
        assert_eq!(LearningRate { cosine_decay: false, ..rate }.at(110, steps), 2.0);
        assert_eq!(LearningRate { warmup: 0, ..rate }.at(1, steps), 2.0);
    }
}
