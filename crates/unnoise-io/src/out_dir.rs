//! A directory of results that appears as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::atomic::{directory_of, sync_directory, unnamed};
use crate::{Error, Overwrite, Result};

/// No description of a result is larger.
const MARKER_BYTES_LIMIT: u64 = 256 << 20;

/// What a result of one kind consists of, so that it can be told from somebody's own files.
#[derive(Clone, Copy, Debug)]
pub struct ResultKind {
    /// The file that describes a result, a JSON object, such as `report.json`.
    pub marker: &'static str,
    /// Keys that this object has.
    pub keys: &'static [&'static str],
    /// Whether a file of this name is a part of a result.
    pub owns: fn(&str) -> bool,
}

/// An output directory that is filled beside its place and renamed into it by [`finish`](Self::finish).
///
/// Dropped without that, it leaves nothing behind.
#[derive(Debug)]
pub struct OutDir {
    partial: TempDir,
    target: PathBuf,
    kind: ResultKind,
    overwrite: Overwrite,
}

impl OutDir {
    /// Starts an output directory that will be `target`, or what the link `target` points to.
    ///
    /// With [`Overwrite::Force`] an earlier result of this `kind` is replaced, and nothing else: a directory that holds any other file, or
    /// whose marker is not one, is refused, so that neither a mistyped path nor notes beside a result cost somebody's data.
    ///
    /// # Errors
    /// [`Error::Exists`] for a directory that is not empty and may not be replaced, or for a file; [`Error::Argument`] for a path without
    /// a name of its own (`.`, `..`, `/`); [`Error::Io`].
    pub fn create(target: &Path, kind: ResultKind, overwrite: Overwrite) -> Result<Self> {
        let target = if target.is_symlink() { &fs::canonicalize(target).map_err(Error::io("create", target))? } else { target };
        let Some(name) = target.file_name() else {
            let (expected, got) = ("a path that ends in a name".into(), target.display().to_string());
            return Err(Error::Argument { what: "the output directory", expected, got, at: "OutDir::create" });
        };
        check_free(target, kind, overwrite)?;
        let parent = directory_of(target);
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}-", name.to_string_lossy());
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let partial = builder.tempdir_in(&parent).map_err(|reason| unnamed("create", target, &reason))?;
        Ok(Self { partial, target: target.into(), kind, overwrite })
    }

    /// Where to write the file `name` of the result meanwhile.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.partial.path().join(name)
    }

    /// Where the result will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the directory in its place and returns it. An earlier result that may be replaced is moved away first and removed last, file by
    /// file.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the directory is a result of its kind; [`Error::Exists`] if something else has appeared in its place
    /// meanwhile; [`Error::Io`].
    pub fn finish(self) -> Result<PathBuf> {
        if let Some(got) = flaw(self.partial.path(), self.kind)? {
            let expected = format!("complete, with {}", self.kind.marker);
            return Err(Error::Argument { what: "the result", expected, got, at: "OutDir::finish" });
        }
        check_free(&self.target, self.kind, self.overwrite)?;
        let parent = directory_of(&self.target);
        let renamed = |from: &Path, to: &Path| fs::rename(from, to).map_err(Error::io("create", &self.target));
        let earlier = if self.target.exists() {
            let aside = tempfile::Builder::new().prefix(".replaced-").tempdir_in(&parent).map_err(Error::io("write", &parent))?;
            renamed(&self.target, &aside.path().join("earlier"))?;
            // Removed by name below, never as whatever it holds.
            Some(aside.keep())
        } else {
            None
        };
        let partial = self.partial.keep();
        if let Err(error) = renamed(&partial, &self.target) {
            if let Some(aside) = &earlier {
                let _ = fs::rename(aside.join("earlier"), &self.target).and_then(|()| fs::remove_dir(aside));
            }
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
        if let Some(aside) = earlier {
            remove(&aside.join("earlier"), self.kind).and_then(|()| fs::remove_dir(&aside).map_err(Error::io("remove", &aside)))?;
        }
        sync_directory(parent);
        Ok(self.target)
    }
}

/// Whether the place is free, or may be made so.
fn check_free(target: &Path, kind: ResultKind, overwrite: Overwrite) -> Result<()> {
    let exists = |note: String| Err(Error::Exists { path: target.into(), note });
    match fs::read_dir(target).map(Iterator::count) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotADirectory => exists("; it is a file, not a directory".into()),
        Err(reason) => Err(Error::Io { action: "read", path: target.into(), reason }),
        Ok(0) => Ok(()),
        Ok(_) => match (flaw(target, kind)?, overwrite) {
            (Some(flaw), _) => exists(format!("; it is {flaw}, so it may not be replaced")),
            (None, Overwrite::Never) => exists(String::new()),
            (None, Overwrite::Force) => Ok(()),
        },
    }
}

/// What keeps a directory from being a result of this kind and nothing else, in words that follow "it is".
fn flaw(directory: &Path, ResultKind { marker, keys, owns }: ResultKind) -> Result<Option<String>> {
    let path = directory.join(marker);
    let file = match fs::File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(format!("no result: it holds no {marker}"))),
        file => file.map_err(Error::io("read", &path))?,
    };
    let object: Option<BTreeMap<String, Value>> = serde_json::from_reader(BufReader::new(file.take(MARKER_BYTES_LIMIT))).ok();
    if !object.is_some_and(|object| keys.iter().all(|key| object.contains_key(*key))) {
        return Ok(Some(format!("no result: its {marker} is something else")));
    }
    let read = || Error::io("read", directory);
    for entry in fs::read_dir(directory).map_err(read())? {
        let entry = entry.map_err(read())?;
        let name = entry.file_name();
        if !entry.file_type().map_err(read())?.is_file() || !name.to_str().is_some_and(owns) {
            return Ok(Some(format!("not a result alone: it also holds {}", name.display())));
        }
    }
    Ok(None)
}

/// Removes a result, and nothing that is none.
fn remove(directory: &Path, kind: ResultKind) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        if entry.file_name().to_str().is_some_and(kind.owns) {
            fs::remove_file(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    fs::remove_dir(directory).map_err(Error::io("remove", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ResultKind =
        ResultKind { marker: "report.json", keys: &["method"], owns: |name| ["report.json", "one", "two"].contains(&name) };
    const REPORT: &str = r#"{"method": "dps"}"#;

    fn write(target: &Path, overwrite: Overwrite, name: &str) -> Result<PathBuf> {
        let out = OutDir::create(target, KIND, overwrite)?;
        fs::write(out.file("report.json"), REPORT).unwrap();
        fs::write(out.file(name), "").unwrap();
        out.finish()
    }

    #[test]
    fn appears_as_a_whole_and_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("deep/out");
        let out = OutDir::create(&target, KIND, Overwrite::Never).unwrap();
        fs::write(out.file("one"), "").unwrap();
        assert!(!target.exists());
        assert!(out.finish().unwrap_err().to_string().contains("it holds no report.json"));
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);

        assert_eq!(write(&target, Overwrite::Never, "one").unwrap(), target);
        let error = write(&target, Overwrite::Never, "two").unwrap_err().to_string();
        assert!(error.ends_with("out exists already"), "{error}");
        write(&target, Overwrite::Force, "two").unwrap();
        assert!(target.join("two").exists() && !target.join("one").exists());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    }

    /// What is replaced is a result and only that; everything else is refused, by name, and stays.
    #[test]
    fn force_spares_what_is_no_result() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        for (files, expected) in [
            (
                &[("report.json", REPORT), ("notes.txt", "")][..],
                "it is not a result alone: it also holds notes.txt, so it may not be replaced",
            ),
            (&[("report.json", REPORT), ("sub/one", "")], "it also holds sub"),
            (&[("report.json", REPORT), ("two/one", "")], "it also holds two"),
            (&[("thesis.tex", "years of work")], "it is no result: it holds no report.json"),
            (&[("one", "")], "it holds no report.json"),
            (&[("report.json", "{\"my\": 1}")], "it is no result: its report.json is something else"),
            (&[("report.json", "[\"method\"]")], "its report.json is something else"),
            (&[("report.json", "plain text")], "its report.json is something else"),
        ] {
            for (name, content) in files {
                fs::create_dir_all(target.join(name).parent().unwrap()).unwrap();
                fs::write(target.join(name), content).unwrap();
            }
            for overwrite in [Overwrite::Never, Overwrite::Force] {
                let error = write(&target, overwrite, "one").unwrap_err().to_string();
                assert!(error.contains(expected), "{error}\nshould contain: {expected}");
            }
            assert!(files.iter().all(|(name, content)| fs::read_to_string(target.join(name)).unwrap() == *content));
            fs::remove_dir_all(&target).unwrap();
        }
        fs::write(&target, "years of work").unwrap();
        let error = write(&target, Overwrite::Force, "one").unwrap_err().to_string();
        assert!(error.contains("it is a file"), "{error}");
        for path in [".", "..", "/", "a/.."] {
            let error = OutDir::create(Path::new(path), KIND, Overwrite::Force).unwrap_err();
            assert!(!matches!(error, Error::Io { .. }), "{error}");
        }
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write(&empty, Overwrite::Never, "one").unwrap();
    }

    /// A file that appears during the work is not lost at its end.
    #[test]
    fn what_appears_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = write(&dir.path().join("out"), Overwrite::Never, "one").unwrap();
        let out = OutDir::create(&target, KIND, Overwrite::Force).unwrap();
        fs::write(out.file("report.json"), REPORT).unwrap();
        fs::write(target.join("notes.txt"), "mine").unwrap();
        assert!(out.finish().unwrap_err().to_string().contains("it also holds notes.txt"));
        assert!(target.join("one").exists() && target.join("notes.txt").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (place, link) = (dir.path().join("place"), dir.path().join("link"));
        fs::create_dir(&place).unwrap();
        std::os::unix::fs::symlink("place", &link).unwrap();
        write(&link, Overwrite::Never, "one").unwrap();
        write(&link, Overwrite::Force, "two").unwrap();
        assert!(link.is_symlink() && place.join("two").exists() && !place.join("one").exists());
    }
}
