//! Networks as priors: the U-Net, its parameters and files, and its place behind [`unnoise_core::Denoiser`].
//!
//! Parameters are our own ([`Params`], numbers by name in PyTorch's layouts, as diffusers names them); [`burn`] gives tensors and
//! automatic differentiation.
#![forbid(unsafe_code)]

mod bridge;
mod denoiser;
mod device;
mod error;
mod files;
mod model;
pub mod ops;
mod params;
mod profile;
mod train;
mod unet;

pub use bridge::force_exact_convolutions;
pub use denoiser::*;
pub use device::*;
pub use error::*;
pub use model::*;
pub use params::*;
pub use profile::{OperationProfile, profile};
pub use train::*;
pub use unet::*;
pub use unnoise_kernels::{ArenaAllocator, measured_peak_gflops};
