//! The pinned numbers.

use serde::Deserialize;
use serde_json::Value;
use unnoise_core::Batch;

use crate::SIDES;

/// The numbers that diffusers' tests pin: `tools/fixtures/diffusers_conformance.py` wrote the file.
#[derive(Deserialize)]
pub struct Pins {
    /// Full loops of a scheduler.
    pub cases: Vec<Pin>,
    /// Variances and grids.
    pub values: Vec<PinnedValues>,
    /// Outputs of the U-Net's blocks.
    pub slices: Vec<PinnedSlice>,
    /// Outputs of whole pipelines.
    pub pipelines: Vec<PinnedPipeline>,
    /// Outputs of the time embedding.
    pub embeddings: Vec<PinnedEmbedding>,
}

/// The result of a loop that a test of diffusers pins.
#[derive(Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Pin {
    pub scheduler: String,
    pub config: Value,
    pub num_inference_steps: Option<usize>,
    /// Which of the loops in `loops.rs`.
    #[serde(rename = "loop")]
    pub kind: String,
    pub loop_params: LoopParams,
    pub expected_sum: Option<f64>,
    pub expected_mean: Option<f64>,
    pub tolerance: Tolerance,
    /// What diffusers computes in single precision.
    pub recomputed_sum: Option<f64>,
    pub recomputed_mean: Option<f64>,
    /// An image of zeros would pass upstream's tolerance.
    pub weak_pin: bool,
    pub test: String,
}

/// What a loop depends on beside its scheduler.
#[derive(Default, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LoopParams {
    pub t_start: Option<usize>,
    pub skip: Option<usize>,
    pub shape: Option<Vec<usize>>,
}

/// Upstream's tolerances: absolute numbers, null where nothing is pinned, or the text `rtol 1e-5`.
#[derive(Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tolerance {
    pub sum: Value,
    pub mean: Value,
}

/// Numbers of a scheduler that are not a loop's.
#[derive(Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PinnedValues {
    pub scheduler: String,
    pub config: Value,
    pub quantity: String,
    pub expected: Value,
}

/// The last channel's last nine numbers of a block's output.
#[derive(Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PinnedSlice {
    pub module: String,
    pub expected: [f32; 9],
    pub tolerance: f32,
}

/// The last channel's last nine numbers of a pipeline's image.
#[derive(Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PinnedPipeline {
    pub pipeline: String,
    pub expected: [f64; 9],
    pub tolerance: f64,
}

/// Nine numbers of a time embedding.
#[derive(Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PinnedEmbedding {
    pub flip_sin_to_cos: bool,
    pub downscale_freq_shift: f64,
    pub scale: f64,
    pub expected: [f64; 9],
}

/// The relative tolerance of a weak pin's recomputed numbers.
const WEAK: f64 = 1e-4;

impl Pins {
    /// Reads the file's content.
    ///
    /// # Panics
    /// If it is not such a file.
    pub fn read(json: &str) -> Self {
        serde_json::from_str(json).expect("the fixture is read as it was written")
    }
}

impl LoopParams {
    /// The sides of the batch; one without a height has none that matters.
    pub fn sides(&self) -> [usize; 4] {
        match self.shape.as_deref() {
            Some(&[n, c, h, w]) => [n, c, h, w],
            Some(&[n, c, h]) => [n, c, h, 1],
            _ => SIDES,
        }
    }
}

impl Pin {
    /// The largest of the deviations of `sum |x|` and `mean |x|`, in units of their tolerances: 1 passes.
    ///
    /// # Panics
    /// If nothing is pinned.
    pub fn deviation(&self, x: &Batch) -> f64 {
        let sum: f64 = x.iter().map(|v| v.abs()).sum();
        let mean = sum / x.len() as f64;
        let pinned = if self.weak_pin {
            let recomputed = |value: Option<f64>| value.map(|value| (value, WEAK * value));
            [(sum, recomputed(self.recomputed_sum)), (mean, recomputed(self.recomputed_mean))]
        } else {
            let upstream = |expected: Option<f64>, tolerance: &Value| {
                let relative = || tolerance.as_str().map(|_| 1e-5 * expected.unwrap_or(0.0));
                expected.zip(tolerance.as_f64().or_else(relative))
            };
            [(sum, upstream(self.expected_sum, &self.tolerance.sum)), (mean, upstream(self.expected_mean, &self.tolerance.mean))]
        };
        let deviations = pinned.iter().filter_map(|(got, pin)| pin.map(|(expected, tolerance)| (got - expected).abs() / tolerance));
        deviations.reduce(f64::max).expect("a pin has a number")
    }
}
