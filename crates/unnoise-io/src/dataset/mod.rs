//! Training data: a folder of images, an array, or MNIST's own files.

mod folder;
mod idx;
#[cfg(test)]
mod tests;

use std::path::Path;

use ndarray::{Array3, Array4, Axis};
use unnoise_core::Shape;

use crate::image::{four_dimensional, to_byte};
use crate::{Array, Channels, Error, Fit, Limits, Npz, Range, Result, read_npy};

/// Images in memory, in their own number format.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// `[n, c, h, w]`, 0 to 255.
    U8(Array4<u8>),
    /// `[n, c, h, w]` in `[0, 1]`.
    F32(Array4<f32>),
}

/// A data set: images of one shape, with a class for each if the file has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// The images.
    pub pixels: Pixels,
    /// The class of each image.
    pub labels: Option<Vec<usize>>,
}

/// How a data set is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetConfig {
    /// What to do about images of another size.
    pub fit: Fit,
    /// Colour conversion.
    pub channels: Channels,
    /// The range in which floating-point arrays are stored.
    pub stored: Range,
    /// The most bytes that the images may take in memory.
    pub max_bytes: u64,
}

impl Default for DatasetConfig {
    /// As stored, at most 4 GiB.
    fn default() -> Self {
        Self { fit: Fit::Exact, channels: Channels::AsStored, stored: Range::Unit, max_bytes: 4 << 30 }
    }
}

impl Images {
    /// The number of images.
    pub fn len(&self) -> usize {
        match &self.pixels {
            Pixels::U8(a) => a.dim().0,
            Pixels::F32(a) => a.dim().0,
        }
    }

    /// Whether there is none; never so for what [`read_dataset`] returns.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of one image, `[c, h, w]`.
    pub fn shape(&self) -> Shape {
        let (_, c, h, w) = match &self.pixels {
            Pixels::U8(a) => a.dim(),
            Pixels::F32(a) => a.dim(),
        };
        [c, h, w]
    }

    /// One image in `[0, 1]`.
    ///
    /// # Panics
    /// If there is no image of this index.
    pub fn image(&self, index: usize) -> Array3<f64> {
        match &self.pixels {
            Pixels::U8(a) => a.index_axis(Axis(0), index).mapv(|v| f64::from(v) / 255.0),
            Pixels::F32(a) => a.index_axis(Axis(0), index).mapv(f64::from),
        }
    }

    /// The first `count` images (all, if there are fewer), and the rest.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        fn halves<T: Clone>(all: Array4<T>, at: usize) -> (Array4<T>, Array4<T>) {
            let (first, rest) = all.view().split_at(Axis(0), at);
            (first.to_owned(), rest.to_owned())
        }
        let at = count.min(self.len());
        let (first, rest) = match self.pixels {
            Pixels::U8(a) => {
                let (first, rest) = halves(a, at);
                (Pixels::U8(first), Pixels::U8(rest))
            }
            Pixels::F32(a) => {
                let (first, rest) = halves(a, at);
                (Pixels::F32(first), Pixels::F32(rest))
            }
        };
        let labels = self.labels.map(|mut labels| {
            let rest = labels.split_off(at);
            (labels, rest)
        });
        let (first_labels, rest_labels) = labels.unzip();
        (Self { pixels: first, labels: first_labels }, Self { pixels: rest, labels: rest_labels })
    }
}

/// Reads a data set, by what `path` is:
///
/// - a folder with `*-images-idx3-ubyte` in it, or such a file (also `.gz`): MNIST's format, with the labels beside it if they are there
///   (`train-` is taken where a folder has several);
/// - another folder: all its PNG and JPEG files and those of its subfolders, sorted by path, in 8 bits; hidden ones are skipped;
/// - an .npy or .npz file: images `[n, c, h, w]`, `[n, h, w]` or `[n, h, w, 3]`, `uint8` or floating point. In an .npz the images are called `images`,
///   `x`, `x_train` or `arr_0`, unless they are alone, and the labels `labels`, `y` or `y_train`.
///
/// Images are converted to `config.channels`, then brought to size as `config.fit` says; afterwards all must have one shape.
///
/// # Errors
/// [`Error::Content`] for an empty folder, mixed shapes, labels that do not belong to the images, damaged files and pixels that
/// are not finite or out of range; [`Error::Limit`] before more than `config.max_bytes` are taken; [`Error::Unsupported`], [`Error::Io`].
pub fn read_dataset(path: &Path, config: DatasetConfig) -> Result<Images> {
    if std::fs::metadata(path).map_err(Error::io("read", path))?.is_dir() {
        return match idx::find_images(path)? {
            Some(images) => idx::read(&images, config),
            None => folder::read(path, config),
        };
    }
    if idx::is_images(path) {
        return idx::read(path, config);
    }
    let limits = Limits { values: config.max_bytes, ..Limits::default() };
    let (array, labels) = match path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).as_deref() {
        Some("npy") => (read_npy(path, limits)?, None),
        Some("npz") => {
            let mut npz = Npz::open(path, limits)?;
            let pick = |names: &[&str]| names.iter().find(|n| npz.names().iter().any(|there| there == *n)).map(|n| (*n).to_owned());
            let labels = pick(&["labels", "label", "y", "y_train"]);
            let images = match npz.names() {
                [only] => only.clone(),
                _ => pick(&["images", "x", "x_train", "arr_0"]).unwrap_or_else(|| "images".into()),
            };
            let images = npz.require(&images)?;
            (images, labels.map(|name| npz.require(&name)).transpose()?)
        }
        _ => {
            let expected = "a folder, .npy, .npz or *-images-idx3-ubyte(.gz)";
            return Err(Error::unsupported(path, "a data set in this kind of file", expected));
        }
    };
    from_array(array, labels, path, config)
}

/// Images and labels from arrays.
fn from_array(array: Array, labels: Option<Array>, path: &Path, config: DatasetConfig) -> Result<Images> {
    let described = array.describe();
    let wrong =
        || Error::content(path, "the images", "uint8 or floating point [n, c, h, w], [n, h, w] or [n, h, w, 3]", described.clone());
    // One dimension says how many: [3, h, w] are three images here, and an array of two dimensions is none.
    let with_count = |shape: &[usize]| shape.len() == 3 && shape[2] > 3;
    let pixels = match array {
        Array::U8(a) if with_count(a.shape()) => Pixels::U8(four_dimensional(a.insert_axis(Axis(1))).ok_or_else(wrong)?),
        Array::F32(a) if with_count(a.shape()) => Pixels::F32(four_dimensional(a.insert_axis(Axis(1))).ok_or_else(wrong)?),
        Array::U8(a) if a.ndim() == 4 => Pixels::U8(four_dimensional(a).ok_or_else(wrong)?),
        Array::F32(a) if a.ndim() == 4 => Pixels::F32(four_dimensional(a).ok_or_else(wrong)?),
        Array::F64(a) => return from_array(Array::F32(a.mapv(|v| v as f32)), labels, path, config),
        _ => return Err(wrong()),
    };
    let pixels = match pixels {
        Pixels::F32(a) => Pixels::F32(checked_unit(a, config.stored, path)?),
        bytes => bytes,
    };
    let images = Images { pixels, labels: None };
    let labels = labels.map(|labels| labels_of(labels, images.len(), path)).transpose()?;
    convert(images, path, config).map(|images| Images { labels, ..images })
}

/// Floating-point pixels to `[0, 1]`.
fn checked_unit(pixels: Array4<f32>, stored: Range, path: &Path) -> Result<Array4<f32>> {
    let unit = pixels.mapv_into(|v| stored.to_unit(f64::from(v)) as f32);
    match unit.iter().find(|v| !(-1e-3..=1.001).contains(*v)) {
        None => Ok(unit),
        Some(v) => {
            Err(Error::content(path, "the images", format!("pixels in {stored}"), stored.from_unit(f64::from(*v)).to_string()))
        }
    }
}

fn labels_of(labels: Array, images: usize, path: &Path) -> Result<Vec<usize>> {
    let wrong = |got| Error::content(path, "the labels", format!("{images} classes, integers from 0"), got);
    if matches!(labels, Array::Bool(_) | Array::F32(_) | Array::F64(_)) || labels.shape().iter().product::<usize>() != images {
        return Err(wrong(labels.describe()));
    }
    let numbers = labels.to_f64().ok_or_else(|| wrong("a string".into()))?;
    numbers.iter().map(|v| if *v >= 0.0 { Ok(*v as usize) } else { Err(wrong(v.to_string())) }).collect()
}

/// Channels and size, where they are not right already.
fn convert(images: Images, path: &Path, config: DatasetConfig) -> Result<Images> {
    let [c, h, w] = images.shape();
    let channels_fit = matches!((config.channels, c), (Channels::AsStored, _) | (Channels::Gray, 1) | (Channels::Rgb, 3));
    let size_fits = match config.fit {
        Fit::Exact => true,
        Fit::CropResize(side) | Fit::Pad(side) => h == side && w == side,
    };
    if channels_fit && size_fits {
        return Ok(images);
    }
    let mut collector = Collector::new(images.len(), matches!(images.pixels, Pixels::U8(_)), config);
    for index in 0..images.len() {
        collector.push(images.image(index), path)?;
    }
    collector.finish(path)
}

/// Gathers images that must come out in one shape.
struct Collector {
    config: DatasetConfig,
    count: usize,
    shape: Option<Shape>,
    bytes: Option<Vec<u8>>,
    floats: Vec<f32>,
}

impl Collector {
    fn new(count: usize, eight_bits: bool, config: DatasetConfig) -> Self {
        Self { config, count, shape: None, bytes: eight_bits.then(Vec::new), floats: Vec::new() }
    }

    /// Takes one image in `[0, 1]`; `path` is where it came from.
    fn push(&mut self, image: Array3<f64>, path: &Path) -> Result<()> {
        let (before, config) = (image.dim(), self.config);
        let image = config.fit.apply(config.channels.convert(image.insert_axis(Axis(0))), 0.0);
        let image = image.map_err(|(expected, got)| Error::content(path, "the image", expected, got))?;
        let (_, c, h, w) = image.dim();
        match self.shape {
            None => {
                let size = if self.bytes.is_some() { 1 } else { 4 };
                let needed = [self.count, c, h, w, size].iter().fold(1_u64, |product, n| product.saturating_mul(*n as u64));
                if needed > config.max_bytes {
                    let got = format!("{} images of {c} x {h} x {w}, {needed} bytes", self.count);
                    return Err(Error::limit(path, "the data set", got, format!("{} bytes", config.max_bytes)));
                }
                self.shape = Some([c, h, w]);
            }
            Some(shape) if shape == [c, h, w] => (),
            Some([c, h, w]) => {
                let expected = format!("{c} channels of {h} x {w} as the images before (or a conversion to one size and colour)");
                return Err(Error::content(path, "the image", expected, format!("{} of {} x {}", before.0, before.1, before.2)));
            }
        }
        match &mut self.bytes {
            Some(bytes) => bytes.extend(image.iter().map(|u| to_byte(*u))),
            None => self.floats.extend(image.iter().map(|u| *u as f32)),
        }
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Images> {
        let [c, h, w] = self.shape.ok_or_else(|| Error::content(path, "the data set", "at least one image", "none"))?;
        let shape = (self.count, c, h, w);
        let pixels = match self.bytes {
            Some(bytes) => Array4::from_shape_vec(shape, bytes).map(Pixels::U8),
            None => Array4::from_shape_vec(shape, self.floats).map(Pixels::F32),
        };
        let pixels = pixels.map_err(|e| Error::content(path, "the data set", format!("{} images", self.count), e.to_string()))?;
        Ok(Images { pixels, labels: None })
    }
}
