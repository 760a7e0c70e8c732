//! Guidance without a measurement: denoisers that wrap denoisers, so that every sampler and every posterior method runs with them and they
//! compose.
//!
//! The order is the order of wrapping: a threshold around guidance bounds what guidance extrapolates, guidance around two thresholds
//! extrapolates what is bounded. [`Clamped`](crate::Clamped) is the fixed threshold.

mod extrapolated;
mod thresholded;

#[cfg(test)]
mod tests;

pub use extrapolated::Extrapolated;
pub use thresholded::Thresholded;
