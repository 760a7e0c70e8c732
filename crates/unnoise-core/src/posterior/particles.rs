//! Weighted particles: effective sample size and resampling.

/// Normalised weights from log-weights, computed without overflow.
///
/// All equal if no log-weight is finite: nothing is known then, and a caller that cares checks first.
pub fn weights_from_log(log_weights: &[f64]) -> Vec<f64> {
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return vec![1.0 / log_weights.len() as f64; log_weights.len()];
    }
    let mut weights: Vec<f64> = log_weights.iter().map(|log_weight| (log_weight - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// The effective sample size `1 / sum w^2` of normalised weights: between 1 and their number.
///
/// # Reference
/// Kong, Liu, Wong, J. Am. Stat. Assoc. 89 (1994), 278.
pub fn effective_sample_size(weights: &[f64]) -> f64 {
    1.0 / weights.iter().map(|w| w * w).sum::<f64>()
}

/// Systematic resampling: `count` ancestors, ancestor `i` on average `count w_i` times and never off that by 1 or more.
///
/// ```text
/// ancestor j is the i with  w_1 + ... + w_{i-1} < (j + u) / count <= w_1 + ... + w_i
/// ```
///
/// `u` is one uniform number in (0, 1) for all of them.
///
/// # Reference
/// Kitagawa, J. Comput. Graph. Stat. 5 (1996), 1; Douc, Cappe, Moulines 2005, arXiv cs/0507025, sec. 2.4.
pub fn systematic_resampling(weights: &[f64], count: usize, u: f64) -> Vec<usize> {
    let mut ancestor = 0;
    let mut cumulative = weights[0];
    (0..count)
        .map(|j| {
            let position = (j as f64 + u) / count as f64;
            while position > cumulative && ancestor + 1 < weights.len() {
                ancestor += 1;
                cumulative += weights[ancestor];
            }
            ancestor
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Purpose, Streams};

    #[test]
    fn log_weights_beyond_the_exponentials_range() {
        let weights = weights_from_log(&[-5000.0, -5000.0 + 3f64.ln(), f64::NEG_INFINITY]);
        for (weight, expected) in weights.iter().zip([0.25, 0.75, 0.0]) {
            assert!((weight - expected).abs() < 1e-12, "{weights:?}");
        }
        assert_eq!(weights_from_log(&[f64::NEG_INFINITY; 4]), [0.25; 4]);
    }

    #[test]
    fn effective_sizes_of_known_weights() {
        assert_eq!(effective_sample_size(&[0.25; 4]), 4.0);
        assert_eq!(effective_sample_size(&[0.0, 1.0]), 1.0);
        assert!((effective_sample_size(&[0.5, 0.25, 0.25]) - 8.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn systematic_counts_are_unbiased_and_within_one() {
        let weights = weights_from_log(&Streams::new(5, 0..1).uniform(0, Purpose::Auxiliary, 7)[0]);
        let (runs, count) = (2000, 10);
        let mut totals = [0.0; 7];
        for run in 0..runs {
            let u = Streams::new(6, 0..1).uniform(run, Purpose::Resample, 1)[0][0];
            let mut counts = [0.0; 7];
            systematic_resampling(&weights, count, u).into_iter().for_each(|i| counts[i] += 1.0);
            for i in 0..7 {
                assert!((counts[i] - count as f64 * weights[i]).abs() < 1.0);
                totals[i] += counts[i];
            }
        }
        for i in 0..7 {
            // A count is one of two neighbours, so its variance is at most 1/4; 3.9 deviations are 99.99 %.
            assert!((totals[i] / runs as f64 - count as f64 * weights[i]).abs() < 3.9 * 0.5 / (runs as f64).sqrt());
        }
    }
}
