//! What a reconstruction says about itself.

use serde::Serialize;
use serde_json::Value;
use unnoise_core::{Diagnostics, OperatorCalls};

/// A count of network evaluations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Forward evaluations.
    pub forward: u64,
    /// Vector-Jacobian products.
    pub adjoint: u64,
}

/// Everything that is needed to judge a reconstruction and to make it again.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this crate.
    pub unnoise: &'static str,
    /// The posterior method's name.
    pub method: String,
    /// What its samples are, and in which limit.
    pub target: String,
    /// Its settings.
    pub settings: Value,
    /// The prior's name.
    pub prior: String,
    /// The SHA-256 of the prior's weights.
    pub weights_sha256: String,
    /// The operator's specification.
    pub operator: String,
    /// The noise level, in `[0, 1]` pixels.
    pub sigma_y: f64,
    /// The range of `sigma_y` and of all arrays that are written: always `[0,1]`.
    pub range: &'static str,
    /// The seed.
    pub seed: u64,
    /// The samples that were asked for.
    pub samples_requested: usize,
    /// The samples that were drawn; fewer if the run was stopped.
    pub samples: usize,
    /// The steps of each sample.
    pub steps: usize,
    /// Where the steps are placed, in the words of `GridKind`.
    pub grid: String,
    /// The samples that were drawn at a time; on a GPU the last bits may depend on it.
    pub batch: usize,
    /// Network evaluations of all samples: posterior means, vector-Jacobian products.
    pub evaluations: Pair,
    /// Operator calls of all samples, image by image.
    pub operator_calls: OperatorCalls,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// `|y - A x|^2 / (m sigma_y^2)` of each sample; absent for `sigma_y = 0`.
    pub chi_square: Option<Vec<f64>>,
    /// The root mean square of `y - A x` of each sample, in `[0, 1]` pixels; the noise's own is `sigma_y`.
    pub residual_rms: Vec<f64>,
    /// What a true posterior sample's chi-square shows: 1 give or take `sqrt(2 / m)`.
    pub chi_square_deviation: f64,
    /// The number of measured values, `m`.
    pub measured: usize,
    /// The mean over pixels of the posterior's standard deviation.
    pub mean_deviation: f64,
    /// PSNR of the clipped mean, in dB, where the truth is known.
    pub psnr: Option<f64>,
    /// SSIM of the clipped mean (11x11 Gaussian window of 1.5 pixels, data range 1), where the truth is known.
    pub ssim: Option<f64>,
    /// What the method tells about its run, over all samples: solver residuals, effective sample sizes.
    pub diagnostics: Diagnostics,
}
