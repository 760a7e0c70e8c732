//! The measurement file, `m.npz`.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, Ix3, Ix4, arr0};
use serde_json::Value;
use unnoise_core::Batch;

use crate::{Array, Error, Limits, Npz, Overwrite, Range, Result, write_npz};

/// What `format` holds in a measurement file.
const FORMAT: &str = "unnoise-measurement";
/// The version that is written, and the newest that is read.
const VERSION: i64 = 1;
/// What stands before the name of an operator's array.
const OPERATOR: &str = "operator.";

/// A measurement as a file holds it: an .npz that numpy reads.
///
/// | array | type | content |
/// |---|---|---|
/// | `format`, `version` | str, int | `unnoise-measurement`, 1 |
/// | `y` | float32 `[c', h', w']` | what was measured |
/// | `sigma_y` | float64 | the noise's standard deviation |
/// | `range` | str | `[0, 1]`: the range of images in whose units `y` and `sigma_y` are |
/// | `operator` | str | the forward operator, as JSON |
/// | `operator.NAME` | float64 | an array of the operator |
/// | `truth` | float32 `[c, h, w]` | the true image in `[0, 1]`, if it is known |
///
/// # Units
/// Images in `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurementFile {
    /// `[1, c', h', w']`.
    pub y: Batch,
    /// Of one measured value; finite and not negative.
    pub sigma_y: f64,
    /// The operator's description.
    pub operator: Value,
    /// The arrays that the description names.
    pub arrays: BTreeMap<String, ArrayD<f64>>,
    /// `[1, c, h, w]`.
    pub truth: Option<Batch>,
}

impl MeasurementFile {
    /// Writes the file, atomically.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `y` and `truth` are single and finite and `sigma_y` is finite and not negative; as
    /// [`write_atomic`](crate::write_atomic).
    pub fn write(&self, path: &Path, overwrite: Overwrite) -> Result<()> {
        let bad = |what, expected: &str, got: String| {
            Err(Error::Argument { what, expected: expected.into(), got, at: "MeasurementFile::write" })
        };
        for (what, batch) in [("y", Some(&self.y)), ("truth", self.truth.as_ref())] {
            match batch {
                Some(batch) if batch.dim().0 != 1 => {
                    return bad(what, "a single one, [1, c, h, w]", format!("{:?}", batch.shape()));
                }
                Some(batch) if batch.iter().any(|v| !v.is_finite()) => return bad(what, "finite", "NaN or infinity".into()),
                _ => (),
            }
        }
        if !is_noise_level(self.sigma_y) {
            return bad("sigma_y", "finite and not negative", self.sigma_y.to_string());
        }
        let single = |batch: &Batch| Array::from(batch.index_axis(ndarray::Axis(0), 0).into_dyn());
        let mut arrays = vec![
            ("format".to_owned(), Array::Text(FORMAT.into())),
            ("version".into(), Array::I64(arr0(VERSION).into_dyn())),
            ("y".into(), single(&self.y)),
            ("sigma_y".into(), Array::F64(arr0(self.sigma_y).into_dyn())),
            ("range".into(), Array::Text(Range::Unit.to_string())),
            ("operator".into(), Array::Text(self.operator.to_string())),
        ];
        arrays.extend(self.arrays.iter().map(|(name, array)| (format!("{OPERATOR}{name}"), Array::F64(array.clone()))));
        arrays.extend(self.truth.as_ref().map(|truth| ("truth".into(), single(truth))));
        write_npz(path, arrays.iter().map(|(name, array)| (name.as_str(), array)), overwrite)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Content`] for what is damaged, missing, not finite or of the wrong shape; [`Error::Unsupported`] for a newer version or another
    /// range; [`Error::Limit`], [`Error::Io`].
    pub fn read(path: &Path, limits: Limits) -> Result<Self> {
        Self::of(Npz::open(path, limits)?, path)
    }

    /// Reads a file in memory, for instance an embedded one; `path` names it in messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_bytes(bytes: impl AsRef<[u8]> + 'static, path: &Path, limits: Limits) -> Result<Self> {
        Self::of(Npz::from_bytes(bytes, path, limits)?, path)
    }

    /// Whether a file says that it is a measurement; any other file, readable or not, is none.
    pub fn is_one(path: &Path) -> bool {
        let format = Npz::open(path, Limits::default()).and_then(|mut npz| npz.get("format"));
        matches!(format, Ok(Some(Array::Text(text))) if text == FORMAT)
    }

    fn of(mut npz: Npz, path: &Path) -> Result<Self> {
        let content = |what: &str, expected: &str, got: String| Error::content(path, what, expected, got);
        match npz.get("format")? {
            Some(Array::Text(text)) if text == FORMAT => (),
            Some(other) => return Err(content("format", FORMAT, text_or_type(other))),
            None => return Err(content("the archive", "a measurement, with an array 'format'", npz.names().join(", "))),
        }
        let version = number(&npz.require("version")?).ok_or_else(|| content("version", "a number", "something else".into()))?;
        if version != VERSION as f64 {
            return Err(Error::unsupported(
                path,
                format!("version {version} of the measurement format"),
                format!("version {VERSION}"),
            ));
        }
        match npz.require("range")? {
            Array::Text(text) if text.replace(' ', "") == "[0,1]" => (),
            other => return Err(Error::unsupported(path, format!("the range '{}'", text_or_type(other)), "[0, 1]")),
        }
        let sigma_y = npz.require("sigma_y")?;
        let sigma_y = number(&sigma_y).filter(|sigma| is_noise_level(*sigma)).ok_or_else(|| {
            let got = number(&sigma_y).map_or_else(|| sigma_y.describe(), |sigma| sigma.to_string());
            content("sigma_y", "one number, finite and not negative", got)
        })?;
        let operator = match npz.require("operator")? {
            Array::Text(text) => {
                serde_json::from_str(&text).map_err(|e| content("operator", "a description in JSON", e.to_string()))?
            }
            other => return Err(content("operator", "a description in JSON", other.describe())),
        };
        let mut arrays = BTreeMap::new();
        for full in npz.names().to_vec() {
            if let Some(name) = full.strip_prefix(OPERATOR) {
                let array = npz.require(&full)?;
                let numbers = array.to_f64().ok_or_else(|| content(&full, "numbers", array.describe()))?;
                arrays.insert(name.to_owned(), finite(numbers, path, &full)?);
            }
        }
        let y = single(npz.require("y")?, path, "y")?;
        let truth = npz.get("truth")?.map(|truth| single(truth, path, "truth")).transpose()?;
        Ok(Self { y, sigma_y, operator, arrays, truth })
    }
}

fn is_noise_level(sigma: f64) -> bool {
    sigma.is_finite() && sigma >= 0.0
}

fn number(array: &Array) -> Option<f64> {
    array.to_f64().filter(|a| a.len() == 1).and_then(|a| a.first().copied())
}

fn text_or_type(array: Array) -> String {
    match array {
        Array::Text(text) => text.chars().take(40).collect(),
        other => other.describe(),
    }
}

fn finite(array: ArrayD<f64>, path: &Path, what: &str) -> Result<ArrayD<f64>> {
    match array.iter().position(|v| !v.is_finite()) {
        Some(place) => Err(Error::content(path, what, "finite numbers", format!("NaN or infinity at flat index {place}"))),
        None => Ok(array),
    }
}

/// `[c, h, w]`, or `[1, c, h, w]`, as a batch of one.
fn single(array: Array, path: &Path, what: &str) -> Result<Batch> {
    let wrong = || Error::content(path, what, "numbers [c, h, w], none of them empty", array.describe());
    let numbers = finite(array.to_f64().filter(|a| !a.is_empty()).ok_or_else(wrong)?, path, what)?;
    match numbers.shape() {
        [_, _, _] => numbers.into_dimensionality::<Ix3>().map(|a| a.insert_axis(ndarray::Axis(0))).map_err(|_| wrong()),
        [1, _, _, _] => numbers.into_dimensionality::<Ix4>().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ndarray::{Array2, Array4};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn example() -> MeasurementFile {
        MeasurementFile {
            y: Array4::from_shape_fn((1, 1, 2, 5), |(_, _, i, j)| (i * 5 + j) as f64 / 8.0),
            sigma_y: 0.05,
            operator: json!({"blur": {"kernel": "kernel", "boundary": "circular"}}),
            arrays: BTreeMap::from([("kernel".into(), Array2::from_elem((3, 3), 1.0 / 9.0).into_dyn())]),
            truth: Some(Array4::from_elem((1, 1, 4, 4), 0.25)),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.npz");
        for file in [example(), MeasurementFile { truth: None, arrays: BTreeMap::new(), ..example() }] {
            file.write(&path, Overwrite::Force).unwrap();
            assert!(MeasurementFile::is_one(&path));
            assert_eq!(MeasurementFile::read(&path, Limits::default()).unwrap(), file);
        }
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/types.npz");
        assert!(!MeasurementFile::is_one(&fixture) && !MeasurementFile::is_one(dir.path()));
    }

    /// tools/fixtures/io.py wrote the same measurement with numpy alone.
    #[test]
    fn numpy_can_write_one() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/measurement.npz");
        assert_eq!(MeasurementFile::read(&fixture, Limits::default()).unwrap(), example());
    }

    #[test]
    fn refusals_are_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.npz");
        let text = |t: &str| Array::Text(t.into());
        let floats = |shape: &[usize], v: f64| Array::F64(ArrayD::from_elem(shape.to_vec(), v));
        for (name, replacement, message) in [
            ("format", None, "the archive: expected a measurement, with an array 'format', got version, y, sigma_y"),
            ("format", Some(text("tiff")), "format: expected unnoise-measurement, got tiff"),
            ("version", Some(floats(&[], 2.0)), "version 2 of the measurement format is not supported yet; supported: version 1"),
            ("range", Some(text("[-1, 1]")), "the range '[-1, 1]' is not supported yet; supported: [0, 1]"),
            ("sigma_y", Some(floats(&[], -1.0)), "sigma_y: expected one number, finite and not negative, got -1"),
            ("sigma_y", Some(floats(&[2], 0.1)), "sigma_y: expected one number, finite and not negative, got float64 [2]"),
            ("operator", Some(text("{\"blur\"")), "operator: expected a description in JSON, got EOF while parsing"),
            ("operator", Some(floats(&[1], 1.0)), "operator: expected a description in JSON, got float64 [1]"),
            ("operator.kernel", Some(floats(&[2], f64::NAN)), "operator.kernel: expected finite numbers, got NaN or infinity at"),
            ("y", None, "the archive: expected an array 'y', got format, version, sigma_y"),
            ("y", Some(floats(&[2, 3], 0.0)), "y: expected numbers [c, h, w], none of them empty, got float64 [2, 3]"),
            ("y", Some(floats(&[1, 2, 0], 0.0)), "y: expected numbers [c, h, w], none of them empty, got float64 [1, 2, 0]"),
            ("y", Some(floats(&[1, 2, 2], f64::INFINITY)), "y: expected finite numbers, got NaN or infinity at flat index 0"),
        ] {
            example().write(&path, Overwrite::Force).unwrap();
            let mut npz = Npz::open(&path, Limits::default()).unwrap();
            let names = npz.names().to_vec();
            let mut arrays: Vec<_> = names.into_iter().map(|n| (n.clone(), npz.require(&n).unwrap())).collect();
            arrays.retain(|(n, _)| n != name || replacement.is_some());
            for (n, array) in &mut arrays {
                if n == name {
                    *array = replacement.clone().unwrap();
                }
            }
            write_npz(&path, arrays.iter().map(|(n, a)| (n.as_str(), a)), Overwrite::Force).unwrap();
            let error = MeasurementFile::read(&path, Limits::default()).unwrap_err().to_string();
            assert!(
                error.starts_with(&path.display().to_string()) && error.contains(message),
                "{error}\nshould contain: {message}"
            );
        }
        let nan = MeasurementFile { sigma_y: f64::NAN, ..example() };
        assert!(nan.write(&dir.path().join("n.npz"), Overwrite::Never).unwrap_err().to_string().contains("sigma_y must be finite"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_damage_panics(cut in 0.0..2.0, damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
            let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/measurement.npz");
            let mut bytes = fs::read(&fixture).unwrap();
            for (place, value) in &damage {
                let place = usize::from(*place) % bytes.len();
                bytes[place] = *value;
            }
            bytes.truncate((bytes.len() as f64 * cut) as usize);
            if let Ok(read) = MeasurementFile::from_bytes(bytes, &fixture, Limits { values: 4096, ..Limits::default() }) {
                prop_assert!(read.y.iter().all(|v| v.is_finite()) && read.sigma_y >= 0.0);
            }
        }
    }
}
