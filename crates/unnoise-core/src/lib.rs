//! The mathematics of diffusion priors: noise schedules, predictions, samplers, forward operators and posterior methods, with
//! exact oracles to check them against. This crate never sees a network or a file.
//!
//! Everything meets at one contract, the [`Denoiser`]: given a noisy `x_t = alpha x0 + sigma eps` it returns the posterior mean
//! `x0_hat = E[x0 | x_t]`, and, when asked, the vector-Jacobian product of that mean. The U-Net of `unnoise-nn`, the exact
//! [`oracle`](Gaussian) priors and the conditioned denoisers of the posterior methods all implement it, and every sampler
//! consumes nothing else.
//!
//! Arrays are [`Batch`]es, `[n, c, h, w]` in `f64`: a sampler's own arithmetic is negligible beside a network evaluation, and
//! double precision keeps its error out of every comparison.
#![forbid(unsafe_code)]

mod baseline;
mod batch;
mod brownian;
mod denoiser;
mod dormand_prince;
mod error;
mod guidance;
mod likelihood;
mod metric;
mod noise;
mod observer;
mod operator;
mod oracle;
mod posterior;
mod prediction;
mod rng;
mod sampler;
mod schedule;
mod tweedie;

pub use baseline::*;
pub use batch::*;
pub use denoiser::*;
pub use error::*;
pub use guidance::*;
pub use likelihood::*;
pub use metric::*;
pub use noise::*;
pub use observer::*;
pub use operator::*;
pub use oracle::*;
pub use posterior::*;
pub use prediction::*;
pub use rng::*;
pub use sampler::*;
pub use schedule::*;
pub use tweedie::*;
