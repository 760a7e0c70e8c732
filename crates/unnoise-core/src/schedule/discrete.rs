//! DDPM's schedules: a table of betas, continued between its steps.

use super::cosine::OFFSET;
use super::{Derivatives, Scales, Schedule, check};
use crate::{Error, Result};

/// A schedule of `T` training steps, exact at each of them.
///
/// ```text
/// alpha_bar_k = prod_{i <= k} (1 - beta_i)      alpha = sqrt(alpha_bar_k), sigma = sqrt(1 - alpha_bar_k) at t = (k + 1) / T
/// t = 0: alpha = 1, sigma = 0
/// between steps:        log(sigma / alpha) linear in t
/// in the first segment: sigma / alpha linear in t (its logarithm is -inf at t = 0)
/// in the last one, if beta_{T-1} = 1 (zero terminal SNR): alpha / sigma linear in t (it ends at 0)
/// ```
///
/// Derivatives are those of the segment to the right of a knot, to the left at `t = 1`. On a zero-SNR schedule the SDE's rates
/// are infinite at `t = 1`.
///
/// # Reference
/// Ho, Jain, Abbeel 2020, arXiv 2006.11239, eq. 4, whose steps 1..T are our 0..T-1. The continuation between steps is ours: DPM-Solver's
/// code, for one, interpolates `log(alpha)` instead, which no zero-SNR end allows.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteSchedule {
    betas: Vec<f64>,
    /// At each step.
    scales: Vec<Scales>,
    /// `log(sigma / alpha)` at each step; `+inf` at a zero-SNR end.
    log_sigma_edm: Vec<f64>,
}

impl DiscreteSchedule {
    /// The schedule of the given variances.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer than two betas, for one outside `(0, 1)` (the last may be 1, which is a zero-SNR end), and
    /// for a signal that underflows.
    pub fn from_betas(betas: Vec<f64>) -> Result<Self> {
        let at = "DiscreteSchedule::from_betas";
        check(betas.len() >= 2, "the number of betas", "at least 2", betas.len(), at)?;
        let last = betas.len() - 1;
        let valid = |(k, &beta): (usize, &f64)| beta > 0.0 && (beta < 1.0 || (k == last && beta == 1.0));
        if let Some(k) = betas.iter().enumerate().position(|pair| !valid(pair)) {
            return Err(Error::Argument { what: "betas", expected: "in (0, 1)".into(), got: format!("{} at {k}", betas[k]), at });
        }
        let mut log_alpha_bar = 0.0;
        let cumulative = |beta: &f64| {
            log_alpha_bar += (-beta).ln_1p();
            log_alpha_bar
        };
        let logs: Vec<f64> = betas.iter().map(cumulative).collect();
        check(logs[last - 1] > -1400.0, "the signal at the last step but one", "above 1e-304", logs[last - 1].exp().sqrt(), at)?;
        check(
            logs[last] > -1400.0 || betas[last] == 1.0,
            "the signal at the last step",
            "above 1e-304, or 0 by a beta of 1",
            0.0,
            at,
        )?;
        let scales = logs.iter().map(|log| Scales { alpha: (0.5 * log).exp(), sigma: (-log.exp_m1()).sqrt() }).collect();
        let log_sigma_edm = logs.iter().map(|log| 0.5 * ((-log.exp_m1()).ln() - log)).collect();
        Ok(Self { betas, scales, log_sigma_edm })
    }

    /// DDPM's variances, linear from `beta_start` to `beta_end` in `steps` steps; the paper's are `1e-4` to `0.02` in 1000.
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    pub fn linear(steps: usize, beta_start: f64, beta_end: f64) -> Result<Self> {
        Self::from_betas(linspace(beta_start, beta_end, steps))
    }

    /// Variances whose square roots are linear, as latent diffusion's: `0.00085` to `0.012` in 1000 steps.
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    ///
    /// # Reference
    /// Rombach et al. 2022, arXiv 2112.10752 (in its code; the name is diffusers').
    pub fn scaled_linear(steps: usize, beta_start: f64, beta_end: f64) -> Result<Self> {
        let valid = beta_start > 0.0 && beta_end > 0.0;
        check(valid, "beta_start, beta_end", "positive", (beta_start, beta_end), "DiscreteSchedule::scaled_linear")?;
        Self::from_betas(linspace(beta_start.sqrt(), beta_end.sqrt(), steps).into_iter().map(|root| root * root).collect())
    }

    /// Variances on a logistic curve from about `beta_start` to about `beta_end`.
    ///
    /// ```text
    /// beta_i = beta_start + S(x_i) (beta_end - beta_start)      S(x) = 1 / (1 + e^-x),  x_i linear from -6 to 6
    /// ```
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    ///
    /// # Reference
    /// Xu et al. 2022, arXiv 2203.02923 (GeoDiff, in its code); the name is diffusers'. The sigmoid schedule of `alpha^2` is
    /// [`SigmoidSchedule`](super::SigmoidSchedule).
    pub fn sigmoid(steps: usize, beta_start: f64, beta_end: f64) -> Result<Self> {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let beta = |x: f64| beta_start + logistic(x) * (beta_end - beta_start);
        Self::from_betas(linspace(-6.0, 6.0, steps).into_iter().map(beta).collect())
    }

    /// The table of an `alpha^2` that is known in continuous time, its variances capped at 0.999.
    ///
    /// ```text
    /// beta_i = min(1 - f((i + 1) / T) / f(i / T), 0.999)
    /// ```
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    ///
    /// # Reference
    /// Nichol, Dhariwal 2021, arXiv 2102.09672, the cap below eq. 17.
    pub fn from_alpha_bar(steps: usize, f: impl Fn(f64) -> f64) -> Result<Self> {
        let at = |step: usize| f(step as f64 / steps as f64);
        Self::from_betas((0..steps).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999)).collect())
    }

    /// The cosine schedule's variances, capped at 0.999.
    ///
    /// ```text
    /// alpha^2 = cos^2((pi / 2) (t + 0.008) / 1.008), but for a factor
    /// ```
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    ///
    /// # Reference
    /// Nichol, Dhariwal 2021, arXiv 2102.09672, eq. 17 and the cap below it; the name is diffusers'.
    pub fn squaredcos_cap_v2(steps: usize) -> Result<Self> {
        Self::from_alpha_bar(steps, |t| (std::f64::consts::FRAC_PI_2 * (t + OFFSET) / (1.0 + OFFSET)).cos().powi(2))
    }

    /// Equal variances: the table of `alpha^2 = exp(-12 t)`, diffusers' `exp` betas, [`VpSchedule`](super::VpSchedule) at the constant rate 12.
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    pub fn exponential(steps: usize) -> Result<Self> {
        Self::from_alpha_bar(steps, |t| (-12.0 * t).exp())
    }

    /// diffusers' `laplace` betas.
    ///
    /// ```text
    /// log(snr) = -1/2 sgn(1/2 - t) log(1 - |1 - 2 t| + 1e-6)      alpha^2 = sqrt(snr / (1 + snr)), but for a factor
    /// ```
    ///
    /// # Errors
    /// As [`from_betas`](Self::from_betas).
    ///
    /// # Reference
    /// Hang et al. 2024, arXiv 2407.03297, have this for `alpha`: the root is diffusers', and its models are trained with it. The paper's schedule is
    /// [`LaplaceSchedule`](super::LaplaceSchedule).
    pub fn laplace(steps: usize) -> Result<Self> {
        Self::from_alpha_bar(steps, |t| {
            let log_snr = -0.5 * 1f64.copysign(0.5 - t) * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln();
            (1.0 + (-log_snr).exp()).recip().sqrt()
        })
    }

    /// This schedule, rescaled so that its last step holds no signal.
    ///
    /// ```text
    /// alpha_k <- alpha_0 (alpha_k - alpha_{T-1}) / (alpha_0 - alpha_{T-1})
    /// ```
    ///
    /// The first step is unchanged.
    ///
    /// # Reference
    /// Lin et al. 2024, arXiv 2305.08891, algorithm 1.
    pub fn with_zero_terminal_snr(&self) -> Result<Self> {
        let (first, last) = (self.scales[0].alpha, self.scales[self.scales.len() - 1].alpha);
        let alphas: Vec<f64> = self.scales.iter().map(|s| first * (s.alpha - last) / (first - last)).collect();
        let later = alphas.windows(2).map(|pair| 1.0 - (pair[1] / pair[0]).powi(2));
        Self::from_betas(std::iter::once(self.betas[0]).chain(later).collect())
    }

    /// The variances, step by step.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// `alpha^2`, step by step: the cumulative product of `1 - beta`.
    pub fn alpha_bars(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.scales.iter().map(|s| s.alpha * s.alpha)
    }

    /// The time of a step, `(step + 1) / T`.
    pub fn time(&self, step: usize) -> f64 {
        (step as f64 + 1.0) / self.betas.len() as f64
    }

    /// The segment that holds `t`, and the position in it, in `[0, 1]`. Segment `k` ends at step `k`.
    fn locate(&self, t: f64) -> (usize, f64) {
        let count = self.betas.len();
        let position = t.clamp(0.0, 1.0) * count as f64;
        // A time computed as (k + 1) / T can come out one ulp off its knot.
        let knot = position.round();
        let position = if (position - knot).abs() <= 1e-15 * knot { knot } else { position };
        let k = (position as usize).min(count - 1);
        (k, position - k as f64)
    }

    fn segment(&self, k: usize) -> Segment {
        match k.checked_sub(1).map(|before| self.log_sigma_edm[before]) {
            None => Segment::First { end: self.log_sigma_edm[0].exp() },
            Some(start) if self.log_sigma_edm[k] == f64::INFINITY => Segment::ToZeroSnr { start: (-start).exp() },
            Some(start) => Segment::Between { start, rise: self.log_sigma_edm[k] - start },
        }
    }
}

/// The rule of one segment; `u` is the position in it.
#[derive(Clone, Copy)]
enum Segment {
    /// `sigma / alpha = u end`.
    First { end: f64 },
    /// `log(sigma / alpha) = start + u rise`.
    Between { start: f64, rise: f64 },
    /// `alpha / sigma = (1 - u) start`.
    ToZeroSnr { start: f64 },
}

impl Segment {
    fn scales(self, u: f64) -> Scales {
        let from_ratio = |ratio: f64| (1.0 / 1f64.hypot(ratio), ratio / 1f64.hypot(ratio));
        let (alpha, sigma) = match self {
            Self::First { end } => from_ratio(u * end),
            Self::Between { start, rise } if start + u * rise < 0.0 => from_ratio((start + u * rise).exp()),
            Self::Between { start, rise } => swap(from_ratio((-start - u * rise).exp())),
            Self::ToZeroSnr { start } => swap(from_ratio((1.0 - u) * start)),
        };
        Scales { alpha, sigma }
    }

    /// Per unit of `u`. With `r = log(sigma / alpha)`: `alpha' = -alpha sigma^2 r'`, `sigma' = sigma alpha^2 r'`; the two ends are
    /// written so that the infinite `r'` cancels.
    fn derivatives(self, Scales { alpha, sigma }: Scales) -> Derivatives {
        match self {
            Self::First { end } => Derivatives { d_alpha: -alpha * alpha * sigma * end, d_sigma: alpha.powi(3) * end },
            Self::Between { rise, .. } => {
                Derivatives { d_alpha: -alpha * sigma * sigma * rise, d_sigma: sigma * alpha * alpha * rise }
            }
            Self::ToZeroSnr { start } => Derivatives { d_alpha: -sigma.powi(3) * start, d_sigma: sigma * sigma * alpha * start },
        }
    }
}

fn swap((a, b): (f64, f64)) -> (f64, f64) {
    (b, a)
}

impl Schedule for DiscreteSchedule {
    fn scales(&self, t: f64) -> Scales {
        match self.locate(t) {
            (0, 0.0) => Scales { alpha: 1.0, sigma: 0.0 },
            (k, 0.0) => self.scales[k - 1],
            (k, 1.0) => self.scales[k],
            (k, u) => self.segment(k).scales(u),
        }
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        let count = self.betas.len() as f64;
        let Derivatives { d_alpha, d_sigma } = self.segment(self.locate(t).0).derivatives(self.scales(t));
        Derivatives { d_alpha: count * d_alpha, d_sigma: count * d_sigma }
    }

    fn t_from_sigma_edm(&self, sigma_edm: f64) -> f64 {
        let log = sigma_edm.max(0.0).ln();
        let k = self.log_sigma_edm.partition_point(|&end| end < log);
        if k == self.betas.len() {
            return 1.0;
        }
        let u = match self.segment(k) {
            Segment::First { end } => sigma_edm.max(0.0) / end,
            Segment::Between { start, rise } => (log - start) / rise,
            Segment::ToZeroSnr { start } => 1.0 - 1.0 / (sigma_edm * start),
        };
        (k as f64 + u.clamp(0.0, 1.0)) / self.betas.len() as f64
    }

    fn steps(&self) -> Option<usize> {
        Some(self.betas.len())
    }
}

/// `count` numbers from `start` to `end`, both included.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let last = count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| start + (end - start) * (i as f64 / last)).collect()
}
