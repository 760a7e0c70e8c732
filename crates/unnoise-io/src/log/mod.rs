//! What a training run says about itself.

mod csv;
mod events;

pub use csv::*;
pub use events::*;
