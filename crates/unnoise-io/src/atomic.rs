//! Files that are there as a whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Whether an existing result may be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// An existing file is an error.
    #[default]
    Never,
    /// An existing file is replaced, at the end and as a whole.
    Force,
}

impl Overwrite {
    /// What a `--force` flag says.
    pub fn from_flag(force: bool) -> Self {
        if force { Self::Force } else { Self::Never }
    }
}

/// Writes a file beside its place and renames it into place when it is complete.
///
/// Whatever happens, `path` holds its old content or the whole new one. A path that exists and is no regular file (`/dev/null`, a
/// pipe) cannot be replaced by renaming and is written directly.
///
/// # Errors
/// [`Error::Exists`] if there is a file and `overwrite` is [`Overwrite::Never`]; [`Error::Io`] for a full disk, a missing directory
/// or missing rights; and whatever `write` returns.
pub fn write_atomic(path: &Path, overwrite: Overwrite, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {
            return Err(Error::Io { action: "write", path: path.into(), reason: ErrorKind::IsADirectory.into() });
        }
        Ok(there) if !there.is_file() => return write_directly(path, write),
        Ok(_) if overwrite == Overwrite::Never => return Err(exists(path)),
        _ => (),
    }
    let directory = directory_of(path);
    if !directory.is_dir() {
        return Err(no_directory(path, &directory));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unnoise-").suffix(".partial");
    // A temporary file is private by default; this one becomes an ordinary file, under the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(&directory).map_err(|reason| unnamed("write", path, &reason))?;
    // The file itself, since what wraps it adds the temporary name to every error.
    let mut buffered = BufWriter::with_capacity(1 << 16, file.as_file_mut());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(Error::io("write", path))?;
    drop(buffered);
    file.as_file().sync_all().map_err(Error::io("write", path))?;
    match overwrite {
        Overwrite::Force => file.persist(path),
        Overwrite::Never => file.persist_noclobber(path),
    }
    .map_err(|e| match e.error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => Error::Io { action: "write", path: path.into(), reason: e.error },
    })?;
    sync_directory(directory);
    Ok(())
}

fn exists(path: &Path) -> Error {
    Error::Exists { path: path.into(), note: String::new() }
}

fn write_directly(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut file = BufWriter::new(fs::OpenOptions::new().write(true).open(path).map_err(Error::io("write", path))?);
    write(&mut file).and_then(|()| file.flush()).map_err(Error::io("write", path))
}

/// An error about a temporary file, as one about the file that it would have become.
pub(crate) fn unnamed(action: &'static str, path: &Path, reason: &std::io::Error) -> Error {
    // The temporary file's name is the end of the reason's text, and its kind all else that can be had of it.
    let text = reason.to_string();
    let reason = std::io::Error::new(reason.kind(), text.split(" at path ").next().unwrap_or_default().to_owned());
    Error::Io { action, path: path.into(), reason }
}

fn no_directory(path: &Path, directory: &Path) -> Error {
    let reason = std::io::Error::new(ErrorKind::NotFound, format!("there is no directory {}", directory.display()));
    Error::Io { action: "write", path: path.into(), reason }
}

/// The directory that holds `path`, `.` for a bare name.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

/// Makes a rename survive a power failure where the system can; where it cannot, the rename itself is still atomic.
pub(crate) fn sync_directory(directory: PathBuf) {
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let full_disk = |w: &mut dyn Write| {
            w.write_all(&[1; 100_000])?;
            Err(std::io::Error::from(ErrorKind::StorageFull))
        };
        let error = write_atomic(&path, Overwrite::Never, full_disk).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}: no storage space", path.display()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        write_atomic(&path, Overwrite::Never, |w| w.write_all(b"old")).unwrap();
        write_atomic(&path, Overwrite::Force, full_disk).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn overwrites_only_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, Overwrite::Never, |w| w.write_all(b"one")).unwrap();
        let error = write_atomic(&path, Overwrite::Never, |w| w.write_all(b"two")).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_atomic(&path, Overwrite::Force, |w| w.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_not_replaced() {
        write_atomic(Path::new("/dev/null"), Overwrite::Never, |w| w.write_all(b"gone")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let error = write_atomic(Path::new("/dev/full"), Overwrite::Never, |w| w.write_all(&[0; 99_999])).unwrap_err();
        assert!(error.to_string().starts_with("cannot write /dev/full: No space left"), "{error}");
    }

    #[test]
    fn impossible_places_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("missing/a.npy")] {
            let error = write_atomic(&path, Overwrite::Force, |w| w.write_all(b"x")).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
