//! Measured images: a measurement with its operator.

use std::path::Path;

use unnoise_core::{Batch, Measurement, Operator, OperatorConfig, OperatorSpec, Streams, element_shape, least_residual, simulate};
use unnoise_io::{Limits, MeasurementFile, Overwrite};

use crate::Result;

/// A measured image: what was measured, through which operator and with which noise.
///
/// # Units
/// Images in `[0, 1]`; [`measurement`](Self::measurement) changes to the model's.
pub struct MeasuredImage {
    file: MeasurementFile,
    op: Box<dyn Operator>,
}

impl MeasuredImage {
    /// Measures `image`, `[1, c, h, w]` in `[0, 1]`, through `config` with noise of the standard deviation `sigma_y`, and keeps it as
    /// the truth if asked.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) for an operator that does not exist on this shape, or a negative noise level.
    pub fn simulate(image: &Batch, config: OperatorConfig, sigma_y: f64, seed: u64, keep_truth: bool) -> Result<Self> {
        let shape = element_shape(image);
        let op = config.build(shape)?;
        let y = simulate(&*op, image, sigma_y, &Streams::new(seed, 0..1))?;
        Ok(Self { file: MeasurementFile { y, sigma_y, shape, operator: config, truth: keep_truth.then(|| image.clone()) }, op })
    }

    /// The held-out digit of the built-in demonstration: a 12x12 box is missing, `sigma_y` is .05.
    ///
    /// # Errors
    /// None in a binary that passed its tests.
    pub fn built_in() -> Result<Self> {
        const BYTES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/digits/measurement.npz"));
        let path = Path::new("built-in measurement");
        Self::of(MeasurementFile::from_bytes(BYTES, path, Limits::default())?, path)
    }

    /// Reads a measurement file.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) for a file that is none or is damaged, or whose operator cannot be built.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(MeasurementFile::read(path, Limits::default())?, path)
    }

    /// Writes the measurement file.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File).
    pub fn write(&self, path: &Path, overwrite: Overwrite) -> Result<()> {
        Ok(self.file.write(path, overwrite)?)
    }

    /// The measurement in the model's units.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) for a `y` that is not finite.
    pub fn measurement(&self) -> Result<Measurement<'_>> {
        Ok(Measurement::from_unit_range(&*self.op, &self.file.y, self.file.sigma_y)?)
    }

    /// What every image in `[0, 1]` leaves of `y` unexplained, root mean square, if that is more than noise of `sigma_y` is: then `y` is in
    /// other units, or was measured otherwise than the file says.
    ///
    /// More is `sigma_y (1 + 5 / sqrt(m))`, which the noise exceeds once in 270,000 measurements at most, and a thousandth of `y`'s scale, by which
    /// images may miss their range.
    ///
    /// # Errors
    /// As [`measurement`](Self::measurement).
    ///
    /// # Reference
    /// [`least_residual`] for the bound; `P(|noise| > sigma (sqrt(m) + t)) <= exp(-t^2 / 2)` is Gaussian concentration.
    pub fn unexplained(&self) -> Result<Option<f64>> {
        let MeasurementFile { y, sigma_y, .. } = &self.file;
        let least = 0.5 * least_residual(&self.measurement()?);
        let m = self.op.measured() as f64;
        let scale = ((y * y).sum() / m).sqrt().max(1.0);
        Ok(Some(least).filter(|least| *least > sigma_y * (1.0 + 5.0 / m.sqrt()) + 1e-3 * scale))
    }

    /// The operator.
    pub fn operator(&self) -> &dyn Operator {
        &*self.op
    }

    /// The operator's specification.
    pub fn spec(&self) -> &OperatorSpec {
        &self.file.operator.spec
    }

    /// What was measured, `[1, c', h', w']`.
    pub fn y(&self) -> &Batch {
        &self.file.y
    }

    /// The noise's standard deviation.
    pub fn sigma_y(&self) -> f64 {
        self.file.sigma_y
    }

    /// The true image, if it is known.
    pub fn truth(&self) -> Option<&Batch> {
        self.file.truth.as_ref()
    }

    /// What was measured, as an image: `y` itself where it is one, and where it is a list `A^T y`, with NaN for pixels that `A` does
    /// not see.
    pub fn picture(&self) -> Batch {
        let [_, h, _] = self.op.output_shape();
        if h > 1 {
            return self.file.y.clone();
        }
        let seen = self.op.adjoint(&Batch::ones(self.file.y.raw_dim()));
        let mut picture = self.op.adjoint(&self.file.y);
        picture.zip_mut_with(&seen, |v, seen| *v = if *seen == 0.0 { f64::NAN } else { *v });
        picture
    }

    fn of(file: MeasurementFile, path: &Path) -> Result<Self> {
        let op = file.build(path)?;
        Ok(Self { file, op })
    }
}
