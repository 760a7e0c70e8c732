//! Tweedie's formula: a score is a denoiser. For a standard normal prior the posterior mean is x / (1 + sigma^2).
//!
//! `cargo run --release -p unnoise-core --example tweedie`

use ndarray::Array;
use unnoise_core::{ExactPrior, Gaussian, Level, Result, Scales, posterior_mean};

/// Tweedie's formula against the closed form at `alpha = 1`, computed as a network would.
fn difference_in_single_precision(x_t: f32, sigma: f32) -> f32 {
    let score = -x_t / (1.0 + sigma * sigma);
    let x0_hat = x_t + sigma * sigma * score;
    (x0_hat - x_t / (1.0 + sigma * sigma)).abs()
}

pub(crate) fn main() -> Result<()> {
    let level = Level { t: 0.5, alpha: 1.0, sigma: 0.7 };
    let x_t = Array::linspace(-3.0, 3.0, 7).into_shape_with_order((7, 1, 1, 1)).expect("seven numbers");
    let score = Gaussian::standard([1, 1, 1]).score(&x_t, Scales { alpha: level.alpha, sigma: level.sigma })?;
    let x0_hat = posterior_mean(&score, &x_t, level)?;
    let closed_form = &x_t / (1.0 + level.sigma * level.sigma);
    let difference = (&x0_hat - &closed_form).iter().fold(0.0, |worst: f64, d| worst.max(d.abs()));
    println!("x_t                       {:7.4}", x_t.flatten());
    println!("posterior mean (Tweedie)  {:7.4}", x0_hat.flatten());
    println!("x_t / (1 + sigma^2)       {:7.4}", closed_form.flatten());
    let single = x_t.iter().map(|x| difference_in_single_precision(*x as f32, 0.7)).fold(0.0, f32::max);
    println!("largest difference        {difference:.1e}   ({single:.1e} in single precision)");
    assert!(difference < 1e-15);
    assert!(single <= 2.4e-7, "the spacing of the single-precision numbers from 2 to 4");
    Ok(())
}
