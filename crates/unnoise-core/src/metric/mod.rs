//! Numbers that say how good an image, or a set of posterior samples, is.

mod crps;
mod frechet;
mod image;
mod measurement;
mod ranks;
mod sliced_wasserstein;

#[cfg(test)]
mod tests;

pub use crps::crps;
pub use frechet::frechet_distance;
pub use image::{psnr, ssim};
pub use measurement::{chi_square, least_residual};
pub use ranks::{Coverage, Ranks};
pub use sliced_wasserstein::sliced_wasserstein;
