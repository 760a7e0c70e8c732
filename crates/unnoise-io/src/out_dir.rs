//! A directory of results that appears as a whole.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::atomic::{directory_of, sync_directory, unnamed};
use crate::{Error, Overwrite, Result};

/// An output directory that is filled beside its place and renamed into it by [`finish`](Self::finish).
///
/// Dropped without that, it leaves nothing behind.
#[derive(Debug)]
pub struct OutDir {
    partial: TempDir,
    target: PathBuf,
    marker: &'static str,
    overwrite: Overwrite,
}

impl OutDir {
    /// Starts an output directory that will be `target`.
    ///
    /// `marker` is the file by which a result of this kind is known, such as `report.json`: with [`Overwrite::Force`] only a directory that
    /// holds it is replaced, and no other, so that a mistyped path cannot cost somebody's data.
    ///
    /// # Errors
    /// [`Error::Exists`] for a directory that is not empty and may not be replaced, or for a file; [`Error::Argument`] for a path without
    /// a name of its own (`.`, `..`, `/`); [`Error::Io`].
    pub fn create(target: &Path, marker: &'static str, overwrite: Overwrite) -> Result<Self> {
        let Some(name) = target.file_name() else {
            let (expected, got) = ("a path that ends in a name".into(), target.display().to_string());
            return Err(Error::Argument { what: "the output directory", expected, got, at: "OutDir::create" });
        };
        check_free(target, marker, overwrite)?;
        let parent = directory_of(target);
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}-", name.to_string_lossy());
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let partial = builder.tempdir_in(&parent).map_err(|reason| unnamed("create", target, &reason))?;
        Ok(Self { partial, target: target.into(), marker, overwrite })
    }

    /// Where to write the file `name` of the result meanwhile.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.partial.path().join(name)
    }

    /// Where the result will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the directory in its place and returns it. An earlier result that may be replaced is moved away first and removed last.
    ///
    /// # Errors
    /// [`Error::Argument`] if the marker was not written; [`Error::Exists`] if another result has appeared meanwhile; [`Error::Io`].
    pub fn finish(self) -> Result<PathBuf> {
        if !self.file(self.marker).is_file() {
            let expected = format!("complete, with {}", self.marker);
            return Err(Error::Argument { what: "the result", expected, got: "one without it".into(), at: "OutDir::finish" });
        }
        check_free(&self.target, self.marker, self.overwrite)?;
        let parent = directory_of(&self.target);
        let renamed = |from: &Path, to: &Path| fs::rename(from, to).map_err(Error::io("create", &self.target));
        let earlier = if self.target.exists() {
            let aside = tempfile::Builder::new().prefix(".replaced-").tempdir_in(&parent).map_err(Error::io("write", &parent))?;
            renamed(&self.target, &aside.path().join("earlier"))?;
            Some(aside)
        } else {
            None
        };
        let partial = self.partial.keep();
        if let Err(error) = renamed(&partial, &self.target) {
            if let Some(aside) = &earlier {
                let _ = fs::rename(aside.path().join("earlier"), &self.target);
            }
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
        sync_directory(parent);
        Ok(self.target)
    }
}

/// Whether the place is free, or may be made so.
fn check_free(target: &Path, marker: &str, overwrite: Overwrite) -> Result<()> {
    let exists = |note: String| Err(Error::Exists { path: target.into(), note });
    match fs::read_dir(target).map(Iterator::count) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => exists("; it is a file, not a directory".into()),
        Err(reason) => Err(Error::Io { action: "read", path: target.into(), reason }),
        Ok(0) => Ok(()),
        Ok(_) if overwrite == Overwrite::Never => exists(String::new()),
        Ok(_) if target.join(marker).is_file() => Ok(()),
        Ok(_) => exists(format!("; it holds no {marker}, so it is not a result that may be replaced")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, overwrite: Overwrite, content: &str) -> Result<PathBuf> {
        let out = OutDir::create(target, "report.json", overwrite)?;
        fs::write(out.file("report.json"), content).unwrap();
        fs::write(out.file(content), "").unwrap();
        out.finish()
    }

    #[test]
    fn appears_as_a_whole_and_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("deep/out");
        let out = OutDir::create(&target, "report.json", Overwrite::Never).unwrap();
        fs::write(out.file("half"), "").unwrap();
        assert!(!target.exists());
        drop(out);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);

        assert_eq!(write(&target, Overwrite::Never, "one").unwrap(), target);
        let error = write(&target, Overwrite::Never, "two").unwrap_err().to_string();
        assert!(error.ends_with("out exists already"), "{error}");
        write(&target, Overwrite::Force, "two").unwrap();
        assert!(target.join("two").exists() && !target.join("one").exists());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn force_spares_what_is_no_result() {
        let dir = tempfile::tempdir().unwrap();
        let thesis = dir.path().join("thesis.tex");
        fs::write(&thesis, "years of work").unwrap();
        let error = write(dir.path(), Overwrite::Force, "one").unwrap_err().to_string();
        assert!(error.contains("holds no report.json"), "{error}");
        let error = write(&thesis, Overwrite::Force, "one").unwrap_err().to_string();
        assert!(error.contains("it is a file"), "{error}");
        assert!(thesis.exists());
        for path in [".", "..", "/", "a/.."] {
            let error = OutDir::create(Path::new(path), "report.json", Overwrite::Force).unwrap_err();
            assert!(!matches!(error, Error::Io { .. }), "{error}");
        }
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write(&empty, Overwrite::Never, "one").unwrap();
    }
}
