//! MNIST's own file format.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use ndarray::ArrayD;

use super::{DatasetConfig, Images, from_array};
use crate::{Array, Error, Result};

/// Whether the name is that of an images file.
pub(super) fn is_images(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.ends_with("images-idx3-ubyte") || name.ends_with("images.idx3-ubyte")
}

/// The images file of a folder, if it has one; that of the training set if it has several.
pub(super) fn find_images(folder: &Path) -> Result<Option<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>());
    let mut found = entries.map_err(Error::io("read", folder))?;
    found.retain(|path| is_images(path));
    found.sort();
    let training = found.iter().position(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("train")));
    Ok(if found.is_empty() { None } else { Some(found.swap_remove(training.unwrap_or(0))) })
}

/// The images at `path`, and the labels in the file beside it whose name says `labels-idx1` instead of `images-idx3`.
pub(super) fn read(path: &Path, config: DatasetConfig) -> Result<Images> {
    let images = read_array(path, 3, config.max_bytes)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace("images", "labels").replace("idx3", "idx1");
    let beside = path.with_file_name(name);
    let labels = if beside.is_file() { Some(read_array(&beside, 1, config.max_bytes)?) } else { None };
    from_array(images, labels, path, config)
}

/// An array of bytes with `rank` dimensions.
///
/// # Reference
/// LeCun, Cortes, Burges, "The MNIST database", file formats: two zero bytes, the element type (8: unsigned byte), the number of
/// dimensions, each size as a big-endian 32-bit number, and the data.
fn read_array(path: &Path, rank: u8, max_bytes: u64) -> Result<Array> {
    let failed = |e| Error::reading(path, "the array", e);
    let mut reader = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
    let zipped = std::io::BufRead::fill_buf(&mut reader).map_err(failed)?.starts_with(&[0x1F, 0x8B]);
    let mut reader: Box<dyn Read> = if zipped { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) };
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(failed)?;
    if magic != [0, 0, 8, rank] {
        return Err(Error::content(path, "the magic number", format!("{:?}", [0, 0, 8, rank]), format!("{magic:?}")));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let mut size = [0; 4];
        reader.read_exact(&mut size).map_err(failed)?;
        shape.push(u32::from_be_bytes(size) as usize);
    }
    let count = shape.iter().fold(1_u64, |product, n| product.saturating_mul(*n as u64));
    if count > max_bytes {
        return Err(Error::limit(path, "the array", format!("{shape:?}"), format!("{max_bytes} bytes")));
    }
    // Grows as it is read: what is reserved is bounded by what the file really holds.
    let mut bytes = Vec::new();
    reader.take(count).read_to_end(&mut bytes).map_err(failed)?;
    let got = format!("{} bytes (truncated?)", bytes.len());
    ArrayD::from_shape_vec(shape.clone(), bytes)
        .map(Array::U8)
        .map_err(|_| Error::content(path, "the array", format!("{shape:?}"), got))
}
