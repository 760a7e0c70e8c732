//! What commands leave behind: a summary, and files that are checked before the work and written after it.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use serde_json::Value;
use unnoise::core::Batch;
use unnoise::io::{Array, Format, OutDir, Overwrite, write_npy, write_npz};

use crate::message;

/// Prints text on stdout; a full disk or a closed pipe is an error like any other.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("stdout cannot be written")
}

/// Says what a command has done: one JSON object on stdout if asked for, else a line on stderr.
pub(crate) fn report(json: bool, summary: &Value, text: &str) -> Result<()> {
    if json {
        return print(&format!("{summary}\n"));
    }
    eprintln!("{text}");
    Ok(())
}

/// "1 image", "2 images".
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Mean, smallest and largest.
pub(crate) fn spread(values: &[f64]) -> [f64; 3] {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().fold([mean, f64::INFINITY, f64::NEG_INFINITY], |[mean, low, high], v| [mean, low.min(*v), high.max(*v)])
}

/// Refuses an output file that could not be written, before the work: one of a format that is not in `formats`, one that exists, or one in
/// a directory that does not.
pub(crate) fn check(path: &Path, formats: &[Format], force: bool) -> Result<Overwrite> {
    let names = formats.iter().map(|format| format!(".{}", format.name())).collect::<Vec<_>>().join(", ");
    match Format::of(path) {
        Ok(format) if formats.contains(&format) => (),
        _ => bail!("the output's name must end in one of {names}, got {}", path.display()),
    }
    if path.is_dir() {
        bail!("the output {} is a directory", path.display());
    }
    // What is neither file nor directory, a pipe or a device, is written to.
    if path.is_file() && !force {
        bail!("{} exists already; --force replaces it", path.display());
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            bail!("{} cannot be written: there is no directory {}", path.display(), parent.display())
        }
        _ => Ok(Overwrite::from_flag(force)),
    }
}

/// Writes an array of any values, `.npy` or `.npz` (where it is called `output`).
pub(crate) fn write_array(path: &Path, batch: &Batch, overwrite: Overwrite) -> Result<()> {
    let array = Array::from(batch.view().into_dyn());
    match Format::of(path)? {
        Format::Npz => write_npz(path, [("output", &array)], overwrite)?,
        _ => write_npy(path, &array, overwrite)?,
    }
    Ok(())
}

/// An error about a file of a result that is being gathered, as one about the place where it will be, which is the one that a user knows.
pub(crate) fn in_place(out: &OutDir, error: Error) -> Error {
    let [gathered, target] = [out.file(""), out.target().join("")].map(|path| path.display().to_string());
    anyhow!("{}", message::one_line(&error).replace(&gathered, &target))
}
