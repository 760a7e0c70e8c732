//! What goes to stdout, and arrays in the format that a file's name says.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use unnoise::core::Batch;
use unnoise::io::{Array, Error, Format, Overwrite, write_npy, write_npz};

/// Prints text on stdout; a full disk or a closed pipe is an error like any other.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("stdout cannot be written")
}

/// Writes an array of any values, `.npy` or `.npz` (where it is called `output`).
pub(crate) fn write_array(path: &Path, batch: &Batch, overwrite: Overwrite) -> Result<()> {
    let array = Array::from(batch.view().into_dyn());
    match Format::of(path)? {
        Format::Npy => write_npy(path, &array, overwrite)?,
        Format::Npz => write_npz(path, [("output", &array)], overwrite)?,
        Format::Png | Format::Jpeg => {
            let what = "an array of any values as a picture".into();
            return Err(Error::Unsupported { path: path.into(), what, supported: ".npy and .npz".into() }.into());
        }
    }
    Ok(())
}
