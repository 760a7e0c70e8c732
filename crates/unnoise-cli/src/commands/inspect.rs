//! `unnoise inspect`: what a file or a directory is.

mod directory;
mod file;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use crate::args::Common;
use crate::output::print;

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

/// A value as text: the words of a list beside each other, the entries of an object, and the objects of a list, below each other.
fn text(value: &Value) -> String {
    let join = |parts: Vec<String>, between: &str| parts.join(between);
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let line = |item: &Value| match item {
                Value::Object(entries) => {
                    join(entries.iter().map(|(name, value)| format!("{name} {}", text(value))).collect(), ", ")
                }
                other => text(other),
            };
            join(items.iter().map(line).collect(), "\n")
        }
        Value::Array(items) if items.iter().all(Value::is_string) => join(items.iter().map(text).collect(), ", "),
        Value::Object(entries) => join(entries.iter().map(|(name, value)| format!("{name}: {value}")).collect(), "\n"),
        other => other.to_string(),
    }
}
