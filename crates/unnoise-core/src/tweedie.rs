//! What a score and a denoiser's Jacobian say about the clean image.

#[cfg(test)]
mod tests;

use crate::{Batch, Error, Level, Linearized, Result, dot, schedule::check_same_shape, x0_from_score};

/// Tweedie's formula: the posterior mean of the clean image from the score at `x_t`.
///
/// ```text
/// E[x0 | x_t] = (x_t + sigma^2 grad log p_t(x_t)) / alpha
/// ```
///
/// # Errors
/// [`Error::UndefinedConversion`] at `alpha = 0`; [`Error::Shape`].
///
/// # Reference
/// Efron 2011, "Tweedie's formula and selection bias", JASA 106, sec. 1 (at `alpha = 1`; it credits Robbins 1956).
pub fn posterior_mean(score: &Batch, x_t: &Batch, level: Level) -> Result<Batch> {
    x0_from_score(score, x_t, level)
}

/// The action of the posterior covariance on `v`, sample by sample.
///
/// ```text
/// Cov[x0 | x_t] v = (sigma^2 / alpha) J v,   J = d x0_hat / d x_t
/// ```
///
/// `J` is symmetric for an exact denoiser, so that `J^T v`, which is what a network's reverse pass gives, serves for `J v`. For a
/// network it is an approximation: [`asymmetry`] says how good.
///
/// # Errors
/// [`Error::Argument`] at `alpha = 0`, where the covariance is the prior's and `J` is 0; [`Error::Shape`]; those of the denoiser.
///
/// # Reference
/// The second-order Tweedie formula, e.g. Boys et al. 2023, arXiv 2310.06721; here for any `alpha`.
pub fn posterior_covariance(at: &mut Linearized<'_>, v: &Batch, level: Level) -> Result<Batch> {
    if level.alpha <= 0.0 {
        let (expected, got) = ("positive".into(), level.alpha.to_string());
        return Err(Error::Argument { what: "alpha", expected, got, at: "posterior_covariance" });
    }
    Ok((at.vjp)(v)? * (level.sigma * level.sigma / level.alpha))
}

/// How far a denoiser's Jacobian is from symmetric, from one pair of probes a sample.
///
/// ```text
/// a_i = u_i^T J_i^T v_i,  b_i = v_i^T J_i^T u_i
/// sqrt(sum_i (a_i - b_i)^2 / (1/2 sum_i (a_i^2 + b_i^2)))  ->  |J - J^T|_F / |J|_F
/// ```
///
/// The limit is that of many standard normal probes, for which `E[(u^T M v)^2] = |M|_F^2`; so linearize a batch that repeats an
/// image, or holds many. 0 means symmetric, 2 antisymmetric; normalising by the norms of `u` and `J v` instead would make any
/// high-dimensional Jacobian look symmetric.
///
/// # Errors
/// [`Error::Shape`] when `u` and `v` differ in shape; those of the denoiser.
pub fn asymmetry(at: &mut Linearized<'_>, u: &Batch, v: &Batch) -> Result<f64> {
    check_same_shape(u, v, "v", "asymmetry")?;
    let (a, b) = (dot(u, &(at.vjp)(v)?), dot(v, &(at.vjp)(u)?));
    let pairs = || a.iter().zip(&b);
    let difference: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    let size: f64 = pairs().map(|(a, b)| 0.5 * (a * a + b * b)).sum();
    Ok(if difference == 0.0 { 0.0 } else { (difference / size).sqrt() })
}
