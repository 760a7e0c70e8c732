//! The commands as a user or another program calls them.

mod bench;
mod errors;
mod flow_and_classes;
mod images;
mod inspect;
mod interrupt;
mod likelihood;
mod options;
mod predict;
mod reconstruct;
mod sample;
mod samplers;
mod train;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::Array4;
use serde_json::Value;
use tempfile::TempDir;
use unnoise::core::Batch;
use unnoise::io::{Array, Limits, Overwrite, read_batch, write_npy};

/// A directory in which commands are run; no name in a command line has a space.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unnoise"));
        command.args(line.split_whitespace()).current_dir(&self.0);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("the binary runs")
    }

    /// What a command that succeeds prints on stdout.
    fn succeed(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The one JSON object that a command that succeeds prints on stdout.
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.succeed(&format!("{line} --json"))).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// The message of a command that fails as it should: one clear line, and no panic.
    fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{line} succeeded");
        assert!(message.starts_with("error: ") && message.trim_end().lines().count() == 1, "{line}: {message}");
        assert!(!["panicked", "::", ".partial", ".tmp", "Error {"].iter().any(|word| message.contains(word)), "{line}: {message}");
        message
    }

    fn write(&self, name: &str, array: &Array4<f64>) {
        write_npy(&self.path(name), &Array::from(array.view().into_dyn()), Overwrite::Never).unwrap();
    }

    fn read(&self, name: &str) -> Batch {
        read_batch(&self.path(name), Limits::default()).unwrap()
    }

    /// A measurement `m.npz` of a 16x16 image with a bar, of which a box is missing.
    fn measure(&self, sigma_y: f64) {
        let bar = |(_, _, i, j)| if i > 4 && (6..9).contains(&j) { 1.0 } else { 0.0 };
        self.write("image.npy", &Array4::from_shape_fn((1, 1, 16, 16), bar));
        self.succeed(&format!("simulate --image image.npy --operator box:6 --sigma-y {sigma_y} --seed 1 --output m.npz"));
    }
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).display().to_string()
}

/// The files of a directory, hidden ones included.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn largest_difference(a: &Batch, b: &Batch) -> f64 {
    assert_eq!(a.dim(), b.dim());
    (a - b).iter().fold(0.0_f64, |largest, d| if d.is_nan() { f64::NAN } else { largest.max(d.abs()) })
}
