//! Pictures and image arrays as batches.

mod codec;
mod fit;
mod range;

pub use codec::decode_picture;
pub(crate) use codec::{Bytes, read_picture};
pub use fit::*;
pub use range::*;

use std::path::Path;

use image::ImageFormat;
use ndarray::{Array3, Array4, ArrayD, Axis, Ix2, Ix3, Ix4, Slice};
use unnoise_core::Batch;

use crate::{Array, Error, Limits, Npz, Overwrite, Result, read_npy, write_atomic, write_npy, write_npz};

/// A kind of file, by its name's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.png`
    Png,
    /// `.jpg`, `.jpeg`
    Jpeg,
    /// `.npy`
    Npy,
    /// `.npz`
    Npz,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Png, Self::Jpeg, Self::Npy, Self::Npz];

    /// The ending that files of this format usually have, without its dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Npy => "npy",
            Self::Npz => "npz",
        }
    }

    /// The format that the ending of `path` names, in any case.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for any other ending.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("png") => Ok(Self::Png),
            Some("jpg" | "jpeg") => Ok(Self::Jpeg),
            Some("npy") => Ok(Self::Npy),
            Some("npz") => Ok(Self::Npz),
            Some(other) => Err(Error::unsupported(path, format!("the file type '.{other}'"), ".png, .jpg, .jpeg, .npy and .npz")),
            None => Err(Error::unsupported(path, "a file without an ending to its name", ".png, .jpg, .jpeg, .npy and .npz")),
        }
    }
}

/// The number of colour channels that a reader converts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// Whatever the file has.
    #[default]
    AsStored,
    /// 1; colour becomes luma, `0.299 R + 0.587 G + 0.114 B` (ITU-R BT.601).
    Gray,
    /// 3; gray is repeated.
    Rgb,
}

impl Channels {
    /// The conversion for a model of `c` channels.
    pub fn of_count(c: usize) -> Self {
        match c {
            1 => Self::Gray,
            3 => Self::Rgb,
            _ => Self::AsStored,
        }
    }

    /// Converts `[n, c, h, w]`; channels that are neither 1 nor 3 stay as they are.
    pub fn convert(self, images: Batch) -> Batch {
        match (self, images.dim().1) {
            (Self::Gray, 3) => {
                let channel = |c: usize| images.slice_axis(Axis(1), Slice::from(c..c + 1));
                &channel(0) * 0.299 + &channel(1) * 0.587 + &channel(2) * 0.114
            }
            (Self::Rgb, 1) => ndarray::concatenate![Axis(1), images, images, images],
            _ => images,
        }
    }
}

/// How images are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The range of the result.
    pub range: Range,
    /// The range in which floating-point arrays are stored (.npy, .npz); pictures and integers have their own scale.
    pub stored: Range,
    /// Colour conversion.
    pub channels: Channels,
    /// What to do about another size.
    pub fit: Fit,
    /// What may be allocated.
    pub limits: Limits,
}

/// Reads images: a picture (PNG, JPEG) as a batch of one, or an array (.npy, .npz).
///
/// Arrays are `[h, w]`, `[c, h, w]`, `[n, c, h, w]`, or, with channels last, `[h, w, 3]` and `[n, h, w, 3]` where this reading is the only
/// one possible. An array of three dimensions whose first is not 1 or 3 is `[n, h, w]`. `uint8` is divided by 255 and
/// `uint16` by 65535, `bool` is black and white, floating-point numbers are taken in `options.stored`. In an .npz the images are the only array,
/// or the one called `images`, `image`, `x0`, `x` or `arr_0`.
///
/// # Shapes
/// `[n, c, h, w]`.
///
/// # Units
/// `options.range`.
///
/// # Errors
/// [`Error::Content`] for damaged files, for shapes that are no images, for pixels that are not finite or outside `options.stored` (by
/// more than 0.001 of its width); [`Error::Limit`], [`Error::Unsupported`], [`Error::Io`].
pub fn read_images(path: &Path, options: ReadOptions) -> Result<Batch> {
    check_is_file(path)?;
    let (unit, what) = match Format::of(path)? {
        Format::Png | Format::Jpeg => (read_picture(path, options.limits)?.insert_axis(Axis(0)), "the image"),
        Format::Npy => (images_of_array(read_npy(path, options.limits)?, options.stored, path)?, "the array"),
        Format::Npz => {
            let mut npz = Npz::open(path, options.limits)?;
            let name = images_name(&npz, path)?;
            (images_of_array(npz.require(&name)?, options.stored, path)?, "the array")
        }
    };
    if let Some(bad) = unit.iter().position(|v| !v.is_finite()) {
        let (_, c, h, w) = unit.dim();
        let place =
            format!("a pixel that is NaN or infinite (image {}, row {}, column {})", bad / (c * h * w), bad / w % h, bad % w);
        return Err(Error::content(path, what, "finite pixels", place));
    }
    let (low, high) = unit.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    if low < -1e-3 || high > 1.0 + 1e-3 {
        let got = format!("{:.4} to {:.4}", options.stored.from_unit(low), options.stored.from_unit(high));
        return Err(Error::content(path, what, format!("pixels in {}", options.stored), got));
    }
    let fitted = options.fit.apply(options.channels.convert(unit), 0.0);
    let fitted = fitted.map_err(|(expected, got)| Error::content(path, what, expected, got))?;
    Ok(fitted.mapv_into(|u| options.range.from_unit(u)))
}

/// Reads the array `[n, c, h, w]` of an .npy file, or of an .npz as in [`read_images`], as it is: no scaling, any finite values, such as a
/// network's input.
///
/// # Errors
/// [`Error::Content`] if it is not four-dimensional, not numeric or not finite; as [`read_npy`](crate::read_npy).
pub fn read_batch(path: &Path, limits: Limits) -> Result<Batch> {
    check_is_file(path)?;
    let array = match Format::of(path) {
        Ok(Format::Npz) => {
            let mut npz = Npz::open(path, limits)?;
            let name = images_name(&npz, path)?;
            npz.require(&name)?
        }
        _ => read_npy(path, limits)?,
    };
    let described = array.describe();
    let batch = array.to_f64().and_then(|a| a.into_dimensionality::<Ix4>().ok());
    let batch = batch.ok_or_else(|| Error::content(path, "the array", "numbers [n, c, h, w]", described))?;
    match batch.indexed_iter().find(|(_, v)| !v.is_finite()) {
        Some(((n, c, h, w), v)) => Err(Error::content(path, "the array", "finite numbers", format!("{v} at [{n}, {c}, {h}, {w}]"))),
        None => Ok(batch),
    }
}

/// Refuses what is not there, and a directory, whatever its name ends in.
fn check_is_file(path: &Path) -> Result<()> {
    let there = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if there.is_dir() { Err(Error::io("read", path)(std::io::ErrorKind::IsADirectory.into())) } else { Ok(()) }
}

/// The name of the array that holds an archive's images.
pub(crate) fn images_name(npz: &Npz, path: &Path) -> Result<String> {
    const USUAL: [&str; 5] = ["images", "image", "x0", "x", "arr_0"];
    match npz.names() {
        [only] => Ok(only.clone()),
        names => USUAL.iter().find(|usual| names.iter().any(|n| n == *usual)).map(|n| (*n).to_owned()).ok_or_else(|| {
            let there = if names.is_empty() { "none".into() } else { names.join(", ") };
            Error::content(path, "the archive", format!("one array, or one called {}", USUAL.join(", ")), there)
        }),
    }
}

/// Scales an array to `[0, 1]` and gives it four dimensions.
fn images_of_array(array: Array, stored: Range, path: &Path) -> Result<Batch> {
    let described = array.describe();
    let unit = match array {
        Array::U8(a) => a.mapv(|v| f64::from(v) / 255.0),
        Array::U16(a) => a.mapv(|v| f64::from(v) / 65535.0),
        Array::Bool(a) => a.mapv(|v| f64::from(u8::from(v))),
        Array::F32(a) => a.mapv(|v| stored.to_unit(f64::from(v))),
        Array::F64(a) => a.mapv_into(|v| stored.to_unit(v)),
        _ => return Err(Error::content(path, "the array", "pixels as uint8, uint16, bool or floating point", described)),
    };
    four_dimensional(unit)
        .ok_or_else(|| Error::content(path, "the array", "images [h, w], [c, h, w] or [n, c, h, w], none of them empty", described))
}

/// `[n, c, h, w]` by the rules of [`read_images`]; `None` if the shape is no image or has no pixel.
pub(crate) fn four_dimensional<T: Clone>(array: ArrayD<T>) -> Option<Array4<T>> {
    let image = |a: Array3<T>| a.insert_axis(Axis(0));
    let row_major = |a: Array4<T>| a.as_standard_layout().into_owned();
    let shape = array.shape().to_vec();
    if shape.contains(&0) {
        return None;
    }
    match shape[..] {
        [_, _] => Some(image(array.into_dimensionality::<Ix2>().ok()?.insert_axis(Axis(0)))),
        [1 | 3, _, _] => Some(image(array.into_dimensionality::<Ix3>().ok()?)),
        [_, _, 1 | 3] => Some(row_major(image(array.into_dimensionality::<Ix3>().ok()?.permuted_axes([2, 0, 1])))),
        [_, _, _] => Some(array.into_dimensionality::<Ix3>().ok()?.insert_axis(Axis(1))),
        [_, c, _, 1 | 3] if c > 4 => Some(row_major(array.into_dimensionality::<Ix4>().ok()?.permuted_axes([0, 3, 1, 2]))),
        [_, _, _, _] => array.into_dimensionality::<Ix4>().ok(),
        _ => None,
    }
}

/// Writes images in the format that `path` names, atomically.
///
/// An .npy or .npz (its array is called `images`) holds `float32` `[n, c, h, w]` in `range`, unclipped. A picture is clamped to `range` and
/// rounded to 8 bits; several images become one sheet, as nearly square as their number allows.
///
/// # Errors
/// [`Error::Argument`] for an empty batch, pixels that are not finite, or a picture of neither 1 nor 3 channels; as [`write_atomic`].
pub fn write_images(path: &Path, images: &Batch, range: Range, overwrite: Overwrite) -> Result<()> {
    const AT: &str = "write_images";
    let (n, c, ..) = images.dim();
    if images.is_empty() {
        let got = format!("shape {:?}", images.shape());
        return Err(Error::Argument { what: "images", expected: "at least one pixel".into(), got, at: AT });
    }
    if images.iter().any(|v| !v.is_finite()) {
        return Err(Error::Argument { what: "images", expected: "finite".into(), got: "NaN or infinity".into(), at: AT });
    }
    let format = match Format::of(path)? {
        Format::Npy => return write_npy(path, &Array::from(images.view().into_dyn()), overwrite),
        Format::Npz => return write_npz(path, [("images", &Array::from(images.view().into_dyn()))], overwrite),
        Format::Png => ImageFormat::Png,
        Format::Jpeg => ImageFormat::Jpeg,
    };
    if c != 1 && c != 3 {
        let expected = "1 or 3 for a picture (.npy and .npz hold any number)".into();
        return Err(Error::Argument { what: "channels", expected, got: c.to_string(), at: AT });
    }
    if n == 1 {
        let bytes = bytes_of(&images.index_axis(Axis(0), 0).to_owned(), range);
        return write_atomic(path, overwrite, |w| bytes.encode(format, w));
    }
    crate::picture::sheet_of(images, range).write(path, overwrite)
}

/// Rounds `[c, h, w]` to interleaved bytes.
pub(crate) fn bytes_of(image: &Array3<f64>, range: Range) -> Bytes {
    let (channels, height, width) = image.dim();
    let values = image.view().permuted_axes([1, 2, 0]).iter().map(|v| to_byte(range.to_unit(*v))).collect();
    Bytes { width, height, channels, values }
}

/// `[0, 1]` to 0..=255, clamped.
pub(crate) fn to_byte(u: f64) -> u8 {
    (u * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests;
