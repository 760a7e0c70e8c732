//! The measurement file, `m.npz`.

use std::path::Path;

use ndarray::{Array2, ArrayD, Ix2, Ix3, Ix4, arr0};
use unnoise_core::{Batch, Operator, OperatorConfig, OperatorSpec, Shape, check_noise_level, check_shape};

use crate::image::{images_name, read_picture};
use crate::{Array, Channels, Error, Format, Limits, Npz, Overwrite, Range, Result, read_npy, write_npz};

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
/// | `y` | float32 `[c', h', w']` | what was measured, in the operator's output shape: `[1, 1, m]` of a mask or a matrix |
/// | `sigma_y` | float64 | the noise's standard deviation |
/// | `range` | str | `[0, 1]`: the range of images in whose units `y` and `sigma_y` are |
/// | `shape` | int `[3]` | the shape of the image that was measured, `c, h, w` |
/// | `operator` | str | the forward operator, as JSON: `{"spec": "box:12x12"}` |
/// | `operator.NAME` | float64 | an array of the operator |
/// | `truth` | float32 `[c, h, w]` | the true image in `[0, 1]`, if it is known |
///
/// # Units
/// Images in `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurementFile {
    /// `[1, c', h', w']`.
    pub y: Batch,
    /// Of one measured value; see [`check_noise_level`].
    pub sigma_y: f64,
    /// The shape of the image, `[c, h, w]`.
    pub shape: Shape,
    /// The operator's description, with the arrays that it needs.
    pub operator: OperatorConfig,
    /// `[1, c, h, w]`.
    pub truth: Option<Batch>,
}

impl MeasurementFile {
    /// Writes the file, atomically.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `y` and `truth` are single and finite, the truth in `[0, 1]`, and `sigma_y` is finite and not negative; as
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
        if let Err(unnoise_core::Error::Argument { expected, got, .. }) = check_noise_level(self.sigma_y, "") {
            return bad("sigma_y", &expected, got);
        }
        if self.y.iter().chain(self.truth.iter().flatten()).any(|v| !(*v as f32).is_finite()) {
            return bad("y and truth", "within the range of float32", "larger numbers".into());
        }
        if let Some(truth) = self.truth.as_ref().filter(|truth| truth.shape()[1..] != self.shape) {
            return bad("truth", &format!("of shape {:?}", self.shape), format!("{:?}", &truth.shape()[1..]));
        }
        if let Some(got) = self.truth.as_ref().and_then(outside_unit) {
            return bad("truth", "in [0, 1]", got);
        }
        let operator = serde_json::to_string(&self.operator).expect("a specification is text");
        let shape = ArrayD::from_shape_fn(vec![3], |i| self.shape[i[0]] as i64);
        let single = |batch: &Batch| Array::from(batch.index_axis(ndarray::Axis(0), 0).into_dyn());
        let mut arrays = vec![
            ("format".to_owned(), Array::Text(FORMAT.into())),
            ("version".into(), Array::I64(arr0(VERSION).into_dyn())),
            ("y".into(), single(&self.y)),
            ("sigma_y".into(), Array::F64(arr0(self.sigma_y).into_dyn())),
            ("range".into(), Array::Text(Range::Unit.to_string())),
            ("shape".into(), Array::I64(shape)),
            ("operator".into(), Array::Text(operator)),
        ];
        arrays.extend(self.operator.arrays.iter().map(|(name, array)| (format!("{OPERATOR}{name}"), Array::F64(array.clone()))));
        arrays.extend(self.truth.as_ref().map(|truth| ("truth".into(), single(truth))));
        write_npz(path, arrays.iter().map(|(name, array)| (name.as_str(), array)), overwrite)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Content`] for what is damaged, missing, not finite or of the wrong shape, and for a truth outside `[0, 1]`; [`Error::Unsupported`] for a newer version or another
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

    /// The operator on images of this file's shape; `path` names the file in messages.
    ///
    /// # Errors
    /// [`Error::Core`] for an operator that does not exist on this shape, or whose measurements have not the shape of `y`.
    pub fn build(&self, path: &Path) -> Result<Box<dyn Operator>> {
        let built = self.operator.build(self.shape).and_then(|op| {
            check_shape(&self.y, op.output_shape(), "y", "MeasurementFile::build")?;
            Ok(op)
        });
        built.map_err(|reason| Error::Core { path: path.into(), reason })
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
        let sigma_y = number(&sigma_y).ok_or_else(|| content("sigma_y", "one number", sigma_y.describe()))?;
        check_noise_level(sigma_y, "MeasurementFile").map_err(|reason| Error::Core { path: path.into(), reason })?;
        let mut operator: OperatorConfig = match npz.require("operator")? {
            Array::Text(text) => {
                serde_json::from_str(&text).map_err(|e| content("operator", "a description in JSON", e.to_string()))?
            }
            other => return Err(content("operator", "a description in JSON", other.describe())),
        };
        let shape = shape_of(&npz.require("shape")?, npz.limits()).map_err(|got| content("shape", "three sizes c, h, w", got))?;
        for full in npz.names().to_vec() {
            if let Some(name) = full.strip_prefix(OPERATOR) {
                let array = npz.require(&full)?;
                let numbers = array.to_f64().ok_or_else(|| content(&full, "numbers", array.describe()))?;
                operator.arrays.insert(name.to_owned(), finite(numbers, path, &full)?);
            }
        }
        let y = single(npz.require("y")?, path, "y")?;
        let truth = npz.get("truth")?.map(|truth| single(truth, path, "truth")).transpose()?;
        if let Some(truth) = truth.as_ref().filter(|truth| truth.shape()[1..] != shape) {
            return Err(content("truth", &format!("the shape {shape:?}"), format!("{:?}", &truth.shape()[1..])));
        }
        if let Some(got) = truth.as_ref().and_then(outside_unit) {
            return Err(content("truth", "pixels in [0, 1]", got));
        }
        Ok(Self { y, sigma_y, shape, operator, truth })
    }
}

/// Reads the file that an operator's specification names, if it names one, so that the operator can be built.
///
/// A picture is taken as gray in `[0, 1]`; an array (.npy, or an .npz by the rules of [`read_images`](crate::read_images)) as the numbers that it holds.
///
/// # Errors
/// [`Error::Content`] unless the file holds finite numbers on two axes; as [`read_images`](crate::read_images).
pub fn read_operator(spec: OperatorSpec, limits: Limits) -> Result<OperatorConfig> {
    let read = spec.file().map(|(name, file)| read_matrix(Path::new(file), limits).map(|m| (name.to_owned(), m.into_dyn())));
    let arrays = read.transpose()?.into_iter().collect();
    Ok(OperatorConfig { spec, arrays })
}

fn read_matrix(path: &Path, limits: Limits) -> Result<Array2<f64>> {
    let array = match Format::of(path)? {
        Format::Png | Format::Jpeg => {
            let gray = Channels::Gray.convert(read_picture(path, limits)?.insert_axis(ndarray::Axis(0)));
            Array::F64(gray.index_axis_move(ndarray::Axis(0), 0).index_axis_move(ndarray::Axis(0), 0).into_dyn())
        }
        Format::Npy => read_npy(path, limits)?,
        Format::Npz => {
            let mut npz = Npz::open(path, limits)?;
            let name = images_name(&npz, path)?;
            npz.require(&name)?
        }
    };
    let matrix = array.to_f64().and_then(|a| a.into_dimensionality::<Ix2>().ok()).filter(|a| !a.is_empty());
    let matrix = matrix.ok_or_else(|| Error::content(path, "the operator's array", "numbers on two axes", array.describe()))?;
    finite(matrix.into_dyn(), path, "the operator's array").map(|a| a.into_dimensionality::<Ix2>().expect("it had two axes"))
}

/// Three positive sizes whose product is within the limits; `Err` says what is there instead.
fn shape_of(array: &Array, limits: Limits) -> std::result::Result<Shape, String> {
    let Array::I64(sizes) = array else { return Err(array.describe()) };
    let sizes: Vec<usize> = sizes.iter().filter_map(|n| usize::try_from(*n).ok().filter(|n| *n > 0)).collect();
    let values = sizes.iter().fold(1_u64, |product, n| product.saturating_mul(*n as u64));
    match sizes[..] {
        [c, h, w] if array.shape() == [3] && values <= limits.values => Ok([c, h, w]),
        _ => Err(format!("{} {sizes:?}", array.describe())),
    }
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

/// The range of an image that is not in `[0, 1]`, by more than images may miss it (see [`read_images`](crate::read_images)).
fn outside_unit(image: &Batch) -> Option<String> {
    let (low, high) = image.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    (low < -1e-3 || high > 1.0 + 1e-3).then(|| format!("{low:.4} to {high:.4}"))
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

    use ndarray::Array4;
    use proptest::prelude::*;

    use super::*;

    fn example() -> MeasurementFile {
        let spec = "blur:kernel.npy,boundary=circular".parse().unwrap();
        let kernel = Array2::from_elem((3, 3), 1.0 / 9.0).into_dyn();
        MeasurementFile {
            y: Array4::from_shape_fn((1, 1, 4, 5), |(_, _, i, j)| (i * 5 + j) as f64 / 32.0),
            sigma_y: 0.05,
            shape: [1, 4, 5],
            operator: OperatorConfig { spec, arrays: [("kernel".to_owned(), kernel)].into() },
            truth: Some(Array4::from_elem((1, 1, 4, 5), 0.25)),
        }
    }

    #[test]
    fn the_operator_is_built_for_its_image() {
        let path = Path::new("m.npz");
        assert_eq!(example().build(path).unwrap().input_shape(), [1, 4, 5]);
        let error = MeasurementFile { shape: [1, 4, 6], ..example() }.build(path).err().unwrap().to_string();
        assert_eq!(error, "m.npz: MeasurementFile::build: y must have shape [1, 4, 6], got [1, 4, 5]");
    }

    #[test]
    fn operators_take_their_arrays_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |name: &str| format!("mask:{}", dir.path().join(name).display()).parse::<OperatorSpec>().unwrap();
        let mask = Array2::from_shape_fn((4, 5), |(i, j)| f64::from(u8::from((i + j) % 2 == 0)));
        let image = mask.clone().insert_axis(ndarray::Axis(0)).insert_axis(ndarray::Axis(0));
        crate::write_images(&dir.path().join("mask.png"), &image, Range::Unit, Overwrite::Never).unwrap();
        crate::write_npy(&dir.path().join("mask.npy"), &Array::Bool(mask.mapv(|v| v > 0.5).into_dyn()), Overwrite::Never).unwrap();
        crate::write_npy(&dir.path().join("flat.npy"), &Array::F64(ArrayD::zeros(vec![4])), Overwrite::Never).unwrap();
        for name in ["mask.png", "mask.npy"] {
            let config = read_operator(spec(name), Limits::default()).unwrap();
            assert_eq!(config.arrays["mask"], mask.clone().into_dyn(), "{name}");
            assert_eq!(config.build([1, 4, 5]).unwrap().measured(), 10);
        }
        let error = read_operator(spec("flat.npy"), Limits::default()).unwrap_err().to_string();
        assert!(error.ends_with("the operator's array: expected numbers on two axes, got float64 [4]"), "{error}");
        assert!(read_operator("box:2".parse().unwrap(), Limits::default()).unwrap().arrays.is_empty());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.npz");
        let bare = OperatorConfig { spec: "box:2".parse().unwrap(), arrays: Default::default() };
        for file in [example(), MeasurementFile { truth: None, operator: bare, ..example() }] {
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
            (
                "sigma_y",
                Some(floats(&[], -1.0)),
                "MeasurementFile: sigma_y must be 0 (no noise) or from 1e-9 to 1e6, for pixels in [0, 1], got -1",
            ),
            ("sigma_y", Some(floats(&[2], 0.1)), "sigma_y: expected one number, got float64 [2]"),
            ("operator", Some(text("{\"blur\"")), "operator: expected a description in JSON, got EOF while parsing"),
            ("operator", Some(text("{\"spec\": \"blurr:2\"}")), "operator: expected a description in JSON, got "),
            ("shape", Some(Array::I64(ArrayD::from_elem(vec![3], 1 << 40))), "shape: expected three sizes c, h, w, got int64 [3]"),
            ("truth", Some(floats(&[1, 2, 2], 0.0)), "truth: expected the shape [1, 4, 5], got [1, 2, 2]"),
            ("truth", Some(floats(&[1, 4, 5], 7.0)), "truth: expected pixels in [0, 1], got 7.0000 to 7.0000"),
            ("truth", Some(floats(&[1, 4, 5], -0.25)), "truth: expected pixels in [0, 1], got -0.2500 to -0.2500"),
            ("operator", Some(floats(&[1], 1.0)), "operator: expected a description in JSON, got float64 [1]"),
            ("operator.kernel", Some(floats(&[2], f64::NAN)), "operator.kernel: expected finite numbers, got NaN or infinity at"),
            ("y", None, "the archive: expected an array 'y', got format, version, sigma_y, range"),
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
        assert!(
            nan.write(&dir.path().join("n.npz"), Overwrite::Never)
                .unwrap_err()
                .to_string()
                .contains("sigma_y must be 0 (no noise) or from")
        );
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
