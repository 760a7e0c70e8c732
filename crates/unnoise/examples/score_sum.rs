//! What the chapter announces: the prior's score plus the likelihood's, inside a posterior sampler with a trained prior.
//!
//! `cargo run --release -p unnoise --example score_sum`
//!
//! Annealed Langevin dynamics on the built-in digit of which a box is missing. At every noise level `s` of `u = x / alpha`, from large
//! to small, a few steps of
//!
//! ```text
//! u <- u + h (prior score + likelihood score) + sqrt(2 h) z
//! prior score      = (x0_hat(u) - u) / s^2                    Tweedie
//! likelihood score = A^T (y - A u) / (sigma_y^2 + s^2)        u is the image with noise of variance s^2 on it, and A A^T = I for a mask
//! h = 0.2 / curvature,   curvature = 1 / s^2 + 1 / (sigma_y^2 + s^2)
//! ```
//!
//! A fixed step of 0.2, as in the chapter's single one, times a curvature of 11 is above 2, and diverges when it is iterated. Here the step
//! follows the curvature, which grows as the noise falls. This is the textbook's sampler; the library's methods do better.
//!
//! # Reference
//! Song and Ermon 2019, arXiv 1907.05600, algorithm 1 (annealed Langevin dynamics), with the likelihood's score added.

use unnoise::core::{Denoiser, Level, Noise, Purpose, Streams, chi_square, psnr};
use unnoise::nn::open_device;
use unnoise::{MeasuredImage, Prior, Result, to_unit};

const SAMPLES: usize = 8;
const LEVELS: usize = 40;
const STEPS: usize = 3;

pub(crate) fn main() -> Result<()> {
    let prior = Prior::digits(&open_device("cpu")?)?;
    let measured = MeasuredImage::built_in()?;
    let measurement = measured.measurement()?;
    let schedule = prior.schedule();
    let mut noise = Streams::new(0, 0..SAMPLES as u32);
    let mut u = noise.normal(0, Purpose::Start, SAMPLES, prior.shape()) * 40.0;
    for level in 0..LEVELS {
        let s = 40.0 * (0.02_f64 / 40.0).powf(level as f64 / (LEVELS - 1) as f64);
        let at = Level::at(schedule, schedule.t_from_sigma_edm(s));
        let variance = measurement.sigma_y * measurement.sigma_y + s * s;
        let step = 0.2 / (1.0 / (s * s) + 1.0 / variance);
        for inner in 0..STEPS {
            let prior_score = (prior.x0_hat(&(&u * at.alpha), at)? - &u) / (s * s);
            let likelihood_score = measurement.op.adjoint(&(&measurement.y - &measurement.op.forward(&u))) / variance;
            let z = noise.normal(level * STEPS + inner, Purpose::Step, SAMPLES, prior.shape());
            u = u + step * (prior_score + likelihood_score) + (2.0 * step).sqrt() * z;
        }
    }
    let chi_squares = chi_square(&measurement, &u)?;
    println!("chi-square of each sample (1 +- {:.2} for the posterior's):", (2.0 / measurement.op.measured() as f64).sqrt());
    println!("{chi_squares:.2?}");
    let mean = to_unit(&u).mean_axis(ndarray::Axis(0)).expect("samples").insert_axis(ndarray::Axis(0));
    if let Some(truth) = measured.truth() {
        println!("PSNR of their mean: {:.1} dB", psnr(&mean.mapv(|v| v.clamp(0.0, 1.0)), truth, 1.0)?[0]);
    }
    assert!(chi_squares.iter().all(|c| (0.5..2.0).contains(c)), "the samples explain the measurement");
    Ok(())
}
