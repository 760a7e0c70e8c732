//! numpy's array files.

mod header;
mod npz;

pub use npz::*;

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder};

use crate::{Error, Limits, Overwrite, Result, write_atomic};
use header::Header;

/// An array as a file holds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// `bool`.
    Bool(ArrayD<bool>),
    /// `uint8`.
    U8(ArrayD<u8>),
    /// `uint16`.
    U16(ArrayD<u16>),
    /// Any other integer type.
    I64(ArrayD<i64>),
    /// `float32`, and `float16` without loss.
    F32(ArrayD<f32>),
    /// `float64`.
    F64(ArrayD<f64>),
    /// A single string, of `str` (`<U`) or `bytes` (`|S`) type.
    Text(String),
}

impl Array {
    /// The array's shape; a string has none.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Bool(a) => a.shape(),
            Self::U8(a) => a.shape(),
            Self::U16(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::F32(a) => a.shape(),
            Self::F64(a) => a.shape(),
            Self::Text(_) => &[],
        }
    }

    /// numpy's name of the element type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::U8(_) => "uint8",
            Self::U16(_) => "uint16",
            Self::I64(_) => "int64",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
            Self::Text(_) => "str",
        }
    }

    /// The numbers as they are, without any scaling (`true` is 1); `None` for a string.
    pub fn to_f64(&self) -> Option<ArrayD<f64>> {
        Some(match self {
            Self::Bool(a) => a.mapv(|v| f64::from(u8::from(v))),
            Self::U8(a) => a.mapv(f64::from),
            Self::U16(a) => a.mapv(f64::from),
            Self::I64(a) => a.mapv(|v| v as f64),
            Self::F32(a) => a.mapv(f64::from),
            Self::F64(a) => a.clone(),
            Self::Text(_) => return None,
        })
    }

    /// Type and shape in words, such as `float32 [8, 1, 32, 32]`.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.type_name(), self.shape())
    }
}

impl From<ArrayViewD<'_, f64>> for Array {
    /// Rounds to `f32`, the type of the arrays that this crate writes.
    fn from(values: ArrayViewD<'_, f64>) -> Self {
        Self::F32(values.mapv(|v| v as f32))
    }
}

/// Reads an .npy file.
///
/// # Errors
/// [`Error::Content`] for a file that is no array or is cut off, [`Error::Limit`] before anything above `limits` is allocated,
/// [`Error::Unsupported`] for complex, structured and object arrays, [`Error::Io`].
pub fn read_npy(path: &Path, limits: Limits) -> Result<Array> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?;
    // A pipe has no length; its array then grows as it is read.
    let available = if length.is_file() { length.len() } else { 0 };
    decode(&mut BufReader::new(file), available, limits, path, "the array")
}

/// Writes an .npy file, atomically.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_npy(path: &Path, array: &Array, overwrite: Overwrite) -> Result<()> {
    write_atomic(path, overwrite, |w| encode(w, array))
}

/// Decodes one array from `reader`. `available` is an upper bound of the bytes that can come: what may be reserved at once.
pub(crate) fn decode(reader: &mut dyn Read, available: u64, limits: Limits, path: &Path, what: &str) -> Result<Array> {
    let failed = |reason| Error::reading(path, what, reason);
    let mut preamble = [0; 8];
    reader.read_exact(&mut preamble).map_err(failed)?;
    if preamble[..6] != *b"\x93NUMPY" {
        return Err(Error::content(path, what, "an .npy array", "something else"));
    }
    let header_length = match preamble[6] {
        1 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length).map_err(failed)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            reader.read_exact(&mut length).map_err(failed)?;
            u32::from_le_bytes(length) as usize
        }
        major => return Err(Error::unsupported(path, format!("{what} in .npy format {major}"), "formats 1 to 3")),
    };
    if header_length > 1 << 16 {
        return Err(Error::limit(path, format!("{what}'s header"), format!("{header_length} bytes"), "65536 bytes".into()));
    }
    let mut text = vec![0; header_length];
    reader.read_exact(&mut text).map_err(failed)?;
    let header = std::str::from_utf8(&text).map_err(|_| "bytes that are no text".to_owned()).and_then(Header::parse);
    let header = header.map_err(|got| Error::content(path, format!("{what}'s header"), "descr, fortran_order and shape", got))?;
    Elements { header: &header, available, limits, path, what }.read(reader)
}

/// The data after a header.
struct Elements<'a> {
    header: &'a Header,
    available: u64,
    limits: Limits,
    path: &'a Path,
    what: &'a str,
}

impl Elements<'_> {
    fn read(&self, reader: &mut dyn Read) -> Result<Array> {
        let Header { descr, .. } = self.header;
        let (big, code) = match descr.split_at_checked(1) {
            Some(("<" | "|" | "=", code)) => (false, code),
            Some((">", code)) => (true, code),
            _ => return Err(self.unsupported()),
        };
        // Each arm decodes little-endian bytes; those of a big-endian file are reversed first.
        Ok(match code {
            "b1" => Array::Bool(self.values(reader, big, |[v]: [u8; 1]| v != 0)?),
            "u1" => Array::U8(self.values(reader, big, |[v]: [u8; 1]| v)?),
            "u2" => Array::U16(self.values(reader, big, u16::from_le_bytes)?),
            "i1" => Array::I64(self.values(reader, big, |v| i8::from_le_bytes(v).into())?),
            "i2" => Array::I64(self.values(reader, big, |v| i16::from_le_bytes(v).into())?),
            "i4" => Array::I64(self.values(reader, big, |v| i32::from_le_bytes(v).into())?),
            "u4" => Array::I64(self.values(reader, big, |v| u32::from_le_bytes(v).into())?),
            "i8" => Array::I64(self.values(reader, big, i64::from_le_bytes)?),
            "u8" => Array::I64(self.values(reader, big, |v| i64::try_from(u64::from_le_bytes(v)).unwrap_or(i64::MAX))?),
            "f2" => Array::F32(self.values(reader, big, |v| half::f16::from_le_bytes(v).to_f32())?),
            "f4" => Array::F32(self.values(reader, big, f32::from_le_bytes)?),
            "f8" => Array::F64(self.values(reader, big, f64::from_le_bytes)?),
            _ => Array::Text(self.text(reader, big, code)?),
        })
    }

    fn values<T, const N: usize>(&self, reader: &mut dyn Read, big: bool, decode: impl Fn([u8; N]) -> T) -> Result<ArrayD<T>>
    where
        T: Clone,
    {
        let Header { shape, fortran_order, .. } = self.header;
        let count = shape.iter().try_fold(1_usize, |product, n| product.checked_mul(*n));
        let count = count
            .filter(|n| *n as u64 <= self.limits.values)
            .ok_or_else(|| Error::limit(self.path, self.what, format!("{shape:?}"), format!("{} values", self.limits.values)))?;
        let bytes = count as u64 * N as u64;
        if self.available > 0 && bytes > self.available {
            return Err(self.truncated(format!("at most {} bytes of {bytes}", self.available)));
        }
        let mut values = Vec::with_capacity(if self.available > 0 { count } else { 0 });
        let mut chunk = vec![0; N * 8192.min(count)];
        while values.len() < count {
            let part = &mut chunk[..N * 8192.min(count - values.len())];
            reader.read_exact(part).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => self.truncated("the file's end (truncated?)".into()),
                _ => Error::reading(self.path, self.what, e),
            })?;
            values.extend(part.as_chunks::<N>().0.iter().map(|bytes| {
                let mut bytes = *bytes;
                if big {
                    bytes.reverse();
                }
                decode(bytes)
            }));
        }
        let array = ArrayD::from_shape_vec(IxDyn(shape).set_f(*fortran_order), values)
            .map_err(|e| Error::content(self.path, self.what, "a possible shape", format!("{shape:?} ({e})")))?;
        Ok(if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() })
    }

    /// One string: `U` is UTF-32, `S` bytes; both are padded with zeros.
    fn text(&self, reader: &mut dyn Read, big: bool, code: &str) -> Result<String> {
        let (kind, length) =
            code.split_at_checked(1).filter(|(kind, _)| matches!(*kind, "U" | "S")).ok_or_else(|| self.unsupported())?;
        let length = length.parse().map_err(|_| self.unsupported())?;
        if !self.header.shape.iter().all(|n| *n == 1) {
            return Err(Error::unsupported(self.path, format!("{}: an array of strings", self.what), "a single string"));
        }
        let of_text = |header: &Header| Header { shape: vec![length], fortran_order: false, ..header.clone() };
        let elements = Elements { header: &of_text(self.header), ..*self };
        let points = match kind {
            "U" => elements.values(reader, big, u32::from_le_bytes)?,
            _ => elements.values(reader, big, |[v]: [u8; 1]| u32::from(v))?,
        };
        let text: Option<String> = points.iter().map(|point| char::from_u32(*point)).collect();
        let text = text.ok_or_else(|| Error::content(self.path, self.what, "a string", "code points that do not exist"))?;
        Ok(text.trim_end_matches('\0').to_owned())
    }

    fn truncated(&self, got: String) -> Error {
        Error::content(self.path, self.what, format!("the data of {} {:?}", self.header.descr, self.header.shape), got)
    }

    fn unsupported(&self) -> Error {
        Error::unsupported(
            self.path,
            format!("{} of type '{}'", self.what, self.header.descr),
            "bool, integers, float16, float32, float64 and single strings",
        )
    }
}

/// Encodes one array, little-endian and row-major.
pub(crate) fn encode(writer: &mut dyn Write, array: &Array) -> std::io::Result<()> {
    let shape = array.shape().to_vec();
    let mut start = |descr: &str| {
        let header = Header { descr: descr.into(), fortran_order: false, shape: shape.clone() };
        writer.write_all(&header.encode())
    };
    match array {
        Array::Bool(a) => start("|b1").and_then(|()| put(writer, a, |v| [u8::from(v)])),
        Array::U8(a) => start("|u1").and_then(|()| put(writer, a, |v| [v])),
        Array::U16(a) => start("<u2").and_then(|()| put(writer, a, u16::to_le_bytes)),
        Array::I64(a) => start("<i8").and_then(|()| put(writer, a, i64::to_le_bytes)),
        Array::F32(a) => start("<f4").and_then(|()| put(writer, a, f32::to_le_bytes)),
        Array::F64(a) => start("<f8").and_then(|()| put(writer, a, f64::to_le_bytes)),
        Array::Text(text) => {
            let points: Vec<u32> = text.chars().map(u32::from).collect();
            // numpy has no strings of length 0.
            start(&format!("<U{}", points.len().max(1)))?;
            let points = if points.is_empty() { vec![0] } else { points };
            writer.write_all(&points.iter().flat_map(|point| point.to_le_bytes()).collect::<Vec<_>>())
        }
    }
}

fn put<T: Copy, const N: usize>(writer: &mut dyn Write, array: &ArrayD<T>, encode: impl Fn(T) -> [u8; N]) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(N * 8192);
    for (i, value) in array.iter().enumerate() {
        if i % 8192 == 0 {
            writer.write_all(&buffer)?;
            buffer.clear();
        }
        buffer.extend(encode(*value));
    }
    writer.write_all(&buffer)
}

#[cfg(test)]
mod tests;
