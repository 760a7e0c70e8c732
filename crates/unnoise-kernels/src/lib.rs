//! CPU kernels on `f32` slices: what a diffusion U-Net spends its time in, forward and backward.
//!
//! Every function is safe, checks its slices' lengths at the door and then runs on the widest instruction set that the CPU has
//! (AVX2 with FMA, NEON, else portable code that the compiler vectorises), on rayon's current thread pool. Arrays are contiguous,
//! images are `[n, c, h, w]`.
//!
//! # Reproducibility
//! The algorithm and the order of every sum depend on channels, side and stride only, never on the batch or on the threads: the bits
//! of an image's result are the same alone and in any batch, on one thread and on many. Gradients of parameters sum over the batch in
//! an order fixed by the shape. Bits do differ between instruction sets.

mod arena;
mod attention;
mod conv;
mod error;
mod filled;
mod group_norm;
mod linear;
mod parts;
mod peak;
mod product;
mod resample;
mod scratch;
mod silu;
mod simd;

pub use arena::ArenaAllocator;
pub use attention::Attention;
pub use conv::{Conv2d, Epilogue, PreparedWeight, Weight, sum_by_channel};
pub use error::{Error, Result};
pub use filled::{concat_channels, split_channels};
pub use group_norm::GroupNorm;
pub use linear::Linear;
pub use peak::measured_peak_gflops;
pub use resample::Resample2;
pub use silu::{silu, silu_backward};
pub use simd::force_portable;

#[cfg(test)]
mod check;
#[cfg(test)]
mod speed;
