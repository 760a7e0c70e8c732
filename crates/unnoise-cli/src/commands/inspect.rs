//! `unnoise inspect`: what a file or a directory is.

mod directory;
mod file;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use crate::args::Common;
use crate::output::{print, spread};

/// Say what a file or directory is: a model, a measurement, a result of reconstruct, a run of train, a picture, an array or an archive
/// of arrays.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory or file.
    path: PathBuf,

    #[command(flatten)]
    common: Common,
}

/// What is known of a thing, in the order in which it is told.
type Facts = Vec<(&'static str, Value)>;

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    args.common.open()?;
    let path = &args.path;
    ensure!(path.exists(), "cannot read {}: there is no such file or directory", path.display());
    let facts = if path.is_dir() { directory::describe(path)? } else { file::describe(path)? };
    if args.common.json {
        let object: Map<String, Value> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        return print(&format!("{}\n", Value::Object(object)));
    }
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = facts.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        // What has more to say than fits a line has lines of its own.
        let text = text(value).replace('\n', &format!("\n{:width$}  ", ""));
        format!("{name:>width$}  {text}\n")
    });
    print(&lines.collect::<String>())
}

/// A value as text: words and a few numbers beside each other, many numbers by their mean and ends, the entries of an object and the objects
/// of a list below each other.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(v) if number.is_f64() => float(v),
            _ => number.to_string(),
        },
        Value::Array(items) if items.iter().any(Value::is_object) => items.iter().map(entry).collect::<Vec<_>>().join("\n"),
        Value::Array(items) => {
            let numbers: Vec<f64> = items.iter().filter_map(Value::as_f64).collect();
            if items.len() > 8 && numbers.len() == items.len() {
                let [mean, low, high] = spread(&numbers);
                return format!("{} ({} to {}), {} values", float(mean), float(low), float(high), numbers.len());
            }
            let parts = items.iter().map(text).collect::<Vec<_>>().join(", ");
            if items.iter().all(Value::is_string) { parts } else { format!("[{parts}]") }
        }
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| format!("{name}: {}", short(value))).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

/// An object in one line.
fn entry(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
        }
        other => text(other),
    }
}

/// A value within an object: what is too long for a line is left to `--json`.
fn short(value: &Value) -> String {
    let text = if value.is_object() { value.to_string() } else { text(value) };
    if text.len() <= 90 { text } else { "... (--json tells)".into() }
}

/// Five digits.
fn float(v: f64) -> String {
    if v != 0.0 && !(1e-3..1e6).contains(&v.abs()) {
        return format!("{v:.4e}");
    }
    let decimals = if v.abs() < 10.0 { 4 } else { 2 };
    let text = format!("{v:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
