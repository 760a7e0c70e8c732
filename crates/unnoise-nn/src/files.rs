//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Reads a file that is not larger than `limit` bytes.
///
/// # Errors
/// [`Error::Io`], or [`Error::Limit`] before anything is read.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let got = fs::metadata(path).map_err(Error::io(path))?.len();
    if got > limit {
        return Err(Error::Limit { what: "the file's size in bytes", limit, got, at: path.display().to_string() });
    }
    fs::read(path).map_err(Error::io(path))
}

/// Writes a file beside its place, forces it to the disk and renames it there, so that a crash at any moment leaves either the
/// old file or the new one.
///
/// # Errors
/// [`Error::Io`]; the temporary file is then removed.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path);
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create_new(&temporary)?);
        file.write_all(bytes)?;
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::Io { path: path.into(), source }
    })
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{}.tmp", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed)))
}

/// A rename lasts only once its directory is on the disk; Windows has no handle for that and needs none.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if cfg!(unix) => File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?.sync_all(),
        _ => Ok(()),
    }
}
