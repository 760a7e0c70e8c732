//! Images, arrays and data sets in and out of unnoise.
//!
//! Everything that is read is checked and has a limit before it is allocated; everything that is written appears as a whole or
//! not at all. The unit of exchange is the [`Batch`](unnoise_core::Batch) of `unnoise-core`, and every function that moves pixels
//! says in which [`Range`] they are.
#![forbid(unsafe_code)]

mod atomic;
mod dataset;
mod error;
mod image;
mod limits;
mod log;
mod measurement;
mod npy;
mod out_dir;
mod picture;

pub use atomic::*;
pub use dataset::*;
pub use error::*;
pub use image::*;
pub use limits::*;
pub use log::*;
pub use measurement::*;
pub use npy::*;
pub use out_dir::*;
pub use picture::*;
