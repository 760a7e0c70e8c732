//! Reconstructions without a learned prior, for the tables to compare with: one image, no uncertainty.

mod pseudo_inverse;
mod total_variation;

pub use pseudo_inverse::*;
pub use total_variation::*;
