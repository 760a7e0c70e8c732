//! What tests need to reproduce the numbers that diffusers' own tests pin: PyTorch's generator, the dummy model and its inputs, and
//! the loops that those tests run, misuses included. Only tests depend on this crate.
#![forbid(unsafe_code)]

mod dummy;
mod loops;
mod pin;
mod torch;

pub use dummy::*;
pub use loops::*;
pub use pin::*;
pub use torch::*;
