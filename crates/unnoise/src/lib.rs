//! Diffusion priors for imaging: train a prior on your images, sample from it, and reconstruct an image from an incomplete, blurred
//! or noisy measurement as samples of the posterior.
//!
//! [`Prior`] is a trained network with its schedule; [`reconstruct`] draws posterior samples for a measurement and says whether
//! they explain it; [`draw`] samples from the prior alone. The parts they are made of are here too: [`core`] is the mathematics,
//! [`nn`] the networks, [`io`] the files.
#![forbid(unsafe_code)]

mod bench;
mod compare;
mod error;
mod measured;
mod prior;
mod reconstruct;
mod report;
mod sampling;
mod training;
mod watch;

pub use bench::*;
pub use compare::*;
pub use error::*;
pub use measured::*;
pub use prior::*;
pub use reconstruct::*;
pub use report::*;
pub use sampling::*;
pub use training::*;
pub use watch::*;

pub use unnoise_core as core;
pub use unnoise_core::GridKind;
pub use unnoise_io as io;
pub use unnoise_nn as nn;

/// The README's Rust, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
