//! A directory of checkpoints, each of which is whole or not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// How many checkpoints are kept.
const KEPT: usize = 2;
const PREFIX: &str = "step-";
const TEMPORARY: &str = ".tmp-step-";

/// The checkpoints of a run: `step-00001200/`, ...
///
/// A checkpoint is written to a temporary sibling, forced to the disk and renamed, so that a crash at any moment leaves the
/// earlier ones untouched and at most one temporary directory, which the next save removes.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    root: PathBuf,
}

impl RunDirectory {
    /// The run that lives at `root`, which is created when the first checkpoint is written.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the run lives.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The complete checkpoints, oldest first, with their steps; empty if there is no such directory.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<(u64, PathBuf)> = self
            .entries()?
            .into_iter()
            .filter_map(|(name, path)| Some((name.strip_prefix(PREFIX)?.parse().ok()?, path)))
            .filter(|(_, path)| path.is_dir())
            .collect();
        found.sort();
        Ok(found)
    }

    /// The newest complete checkpoint.
    ///
    /// # Errors
    /// [`Error::File`] if there is none, [`Error::Io`].
    pub fn newest(&self) -> Result<PathBuf> {
        let newest = self.checkpoints()?.pop();
        newest.map(|(_, path)| path).ok_or_else(|| Error::file(&self.root, "the run directory", "a checkpoint step-*", "none"))
    }

    /// Makes the checkpoint of `step` of what `fill` puts into an empty directory. Older ones beyond the last two are removed.
    ///
    /// # Errors
    /// Those of `fill`; [`Error::Io`]; nothing half-written remains under a checkpoint's name.
    pub fn write(&self, step: u64, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let target = self.root.join(format!("{PREFIX}{step:08}"));
        if target.is_dir() {
            return Ok(target);
        }
        self.remove_temporaries()?;
        let temporary = self.root.join(format!("{TEMPORARY}{step:08}-{}", std::process::id()));
        let write = || {
            fs::create_dir_all(&temporary).map_err(Error::io(&temporary))?;
            fill(&temporary)?;
            sync(&temporary)?;
            fs::rename(&temporary, &target).map_err(Error::io(&target))?;
            sync(&self.root)
        };
        let written = write();
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&temporary);
            return Err(error.at_place(&temporary, &target));
        }
        let all = self.checkpoints()?;
        for (_, old) in all.iter().rev().skip(KEPT) {
            self.remove(old)?;
        }
        Ok(target)
    }

    /// Removes a checkpoint; it is renamed first, so that a crash half-way does not leave a mutilated one behind.
    fn remove(&self, checkpoint: &Path) -> Result<()> {
        let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
        let doomed = self.root.join(format!("{TEMPORARY}removed-{name}-{}", std::process::id()));
        fs::rename(checkpoint, &doomed).map_err(Error::io(checkpoint))?;
        fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))
    }

    fn remove_temporaries(&self) -> Result<()> {
        for (_, path) in self.entries()?.into_iter().filter(|(name, _)| name.starts_with(TEMPORARY)) {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>> {
        let listing = match fs::read_dir(&self.root) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(&self.root)(error)),
        };
        let entry = |entry: std::io::Result<fs::DirEntry>| entry.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()));
        listing.map(|e| entry(e).map_err(Error::io(&self.root))).collect()
    }
}

/// Forces a directory's entries to the disk; Windows has no handle for that and needs none.
fn sync(directory: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(directory).and_then(|d| d.sync_all()).map_err(Error::io(directory))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_two_and_clears_what_a_crash_left() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path().join("run"));
        assert!(run.checkpoints().unwrap().is_empty());
        assert!(run.newest().unwrap_err().to_string().contains("step-*"));
        fs::create_dir_all(run.root().join(".tmp-step-00000001-77/training")).unwrap();
        fs::create_dir_all(run.root().join("samples")).unwrap();
        let failed = run.write(4, |d| fs::write(d.join("no/such"), []).map_err(Error::io(d)));
        assert!(failed.is_err());
        for step in [1, 9, 10] {
            run.write(step, |d| fs::write(d.join("config.json"), [step as u8]).map_err(Error::io(d))).unwrap();
        }
        let names: Vec<String> = run.entries().unwrap().into_iter().map(|(name, _)| name).filter(|n| n != "samples").collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(run.checkpoints().unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [9, 10]);
        assert_eq!(fs::read(run.newest().unwrap().join("config.json")).unwrap(), [10]);
    }
}
