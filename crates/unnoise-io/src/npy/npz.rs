//! numpy's archives of named arrays.

use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Array, decode, encode};
use crate::{Error, Limits, Overwrite, Result, write_atomic};

/// No archive of arrays that this crate reads has more entries.
const MAX_ENTRIES: usize = 4096;

trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// An open .npz archive, stored or deflated; arrays are read one at a time, by name.
pub struct Npz {
    archive: ZipArchive<Box<dyn Source>>,
    names: Vec<String>,
    limits: Limits,
    path: PathBuf,
}

impl Npz {
    /// Opens an archive and reads its list of arrays.
    ///
    /// # Errors
    /// [`Error::Content`] for a file that is no archive, [`Error::Limit`] for one of too many arrays, [`Error::Io`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        Self::new(Box::new(BufReader::new(file)), path, limits)
    }

    /// Reads an archive in memory, for instance an embedded one; `path` names it in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: impl AsRef<[u8]> + 'static, path: &Path, limits: Limits) -> Result<Self> {
        Self::new(Box::new(Cursor::new(bytes)), path, limits)
    }

    fn new(source: Box<dyn Source>, path: &Path, limits: Limits) -> Result<Self> {
        let archive = ZipArchive::new(source).map_err(|e| zip_error(path, "the archive", e))?;
        if archive.len() > MAX_ENTRIES {
            return Err(Error::limit(path, "the archive", format!("{} arrays", archive.len()), format!("{MAX_ENTRIES} arrays")));
        }
        let names = archive.file_names().map(|name| name.strip_suffix(".npy").unwrap_or(name).to_owned()).collect();
        Ok(Self { archive, names, limits, path: path.into() })
    }

    /// The names of the arrays, in the file's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Reads the array `name`; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`read_npy`](crate::read_npy).
    pub fn get(&mut self, name: &str) -> Result<Option<Array>> {
        let Some(index) = self.names.iter().position(|n| n == name) else { return Ok(None) };
        let what = format!("array '{name}'");
        let entry = self.archive.by_index(index).map_err(|e| zip_error(&self.path, &what, e))?;
        // Deflate cannot expand by more than 1032, so a small file cannot make us reserve much, whatever it claims.
        let available = entry.size().min(entry.compressed_size().saturating_mul(1032)).max(1);
        let mut reader = BufReader::new(entry);
        let array = decode(&mut reader, available, self.limits, &self.path, &what)?;
        // The check sum is compared at the entry's end, which a damaged header could have us miss.
        let rest =
            std::io::copy(&mut reader.take(1 << 16), &mut std::io::sink()).map_err(|e| Error::reading(&self.path, &what, e))?;
        if rest > 0 {
            return Err(Error::content(&self.path, what, "nothing after the data", "more bytes"));
        }
        Ok(Some(array))
    }

    /// Reads the array `name`, which must be there.
    ///
    /// # Errors
    /// [`Error::Content`] that lists the arrays which are there; as [`get`](Self::get).
    pub fn require(&mut self, name: &str) -> Result<Array> {
        self.get(name)?.ok_or_else(|| {
            let there = if self.names.is_empty() { "nothing".into() } else { self.names.join(", ") };
            Error::content(&self.path, "the archive", format!("an array '{name}'"), there)
        })
    }
}

/// Writes an .npz archive (not compressed, as `numpy.savez`), atomically. The same arrays give the same bytes.
///
/// # Errors
/// [`Error::Limit`] if an array's name cannot be stored; as [`write_atomic`].
pub fn write_npz<'a>(path: &Path, arrays: impl IntoIterator<Item = (&'a str, &'a Array)>, overwrite: Overwrite) -> Result<()> {
    write_atomic(path, overwrite, |writer| {
        let mut archive = ZipWriter::new_stream(writer);
        // The default time stamp of an entry is fixed, so archives are reproducible.
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, array) in arrays {
            archive.start_file(format!("{name}.npy"), options.large_file(array.shape().iter().product::<usize>() > 1 << 28))?;
            let mut buffered = BufWriter::new(&mut archive);
            encode(&mut buffered, array)?;
            buffered.flush()?;
        }
        archive.finish()?;
        Ok(())
    })
}

fn zip_error(path: &Path, what: &str, error: ZipError) -> Error {
    match error {
        ZipError::Io(reason) => Error::reading(path, what, reason),
        ZipError::UnsupportedArchive(detail) => {
            Error::unsupported(path, format!("{what}: {detail}"), "stored and deflated entries")
        }
        _ => Error::content(path, what, "an .npz archive", "something else or a truncated one"),
    }
}
