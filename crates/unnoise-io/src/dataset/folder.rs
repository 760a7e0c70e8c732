//! A folder of pictures.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Collector, DatasetConfig, Images};
use crate::image::read_picture;
use crate::{Error, Limits, Result};

/// Deeper folders than this are a loop of links.
const MAX_DEPTH: usize = 32;

pub(super) fn read(path: &Path, config: DatasetConfig) -> Result<Images> {
    let mut files = Vec::new();
    list(path, 0, &mut files)?;
    if files.is_empty() {
        return Err(Error::content(path, "the folder", "PNG or JPEG files, or MNIST's", "none"));
    }
    let mut collector = Collector::new(files.len(), true, config);
    for file in &files {
        collector.push(read_picture(file, Limits::default())?, file)?;
    }
    collector.finish(path)
}

/// All pictures under `folder`, by path: the names of a folder sorted, its files and subfolders alike.
fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::limit(folder, "the nesting of folders", "more".into(), format!("{MAX_DEPTH} levels")));
    }
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>());
    let mut entries = entries.map_err(Error::io("read", folder))?;
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        let ending = entry.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if entry.is_dir() {
            list(&entry, depth + 1, files)?;
        } else if matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg")) {
            files.push(entry);
        }
    }
    Ok(())
}
