//! A table of losses that survives a crash.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Overwrite, Result, write_atomic};

/// A CSV file whose first column is `step`, ascending; each row is on the disk when it is written.
#[derive(Debug)]
pub struct CsvLog {
    file: File,
    path: PathBuf,
    columns: usize,
}

impl CsvLog {
    /// Starts a log with these columns after `step`.
    ///
    /// # Errors
    /// [`Error::Exists`] for an existing file unless told to overwrite it; [`Error::Io`].
    pub fn create(path: &Path, columns: &[&str], overwrite: Overwrite) -> Result<Self> {
        write_atomic(path, overwrite, |w| w.write_all(header(columns).as_bytes()))?;
        Self::append(path, columns.len())
    }

    /// Goes on with the log of a run that is resumed after `step`: later rows are dropped, and so is one that a crash cut short. Starts a
    /// log if there is none.
    ///
    /// # Errors
    /// [`Error::Content`] if the file has other columns or a damaged row; [`Error::Io`].
    pub fn resume(path: &Path, columns: &[&str], step: u64) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::create(path, columns, Overwrite::Never),
            Err(e) => return Err(Error::reading(path, "the log", e)),
        };
        let head = header(columns);
        let Some(rows) = text.strip_prefix(&head) else {
            let got = text.lines().next().unwrap_or_default().chars().take(80).collect::<String>();
            return Err(Error::content(path, "the log", format!("the columns {}", head.trim_end()), got));
        };
        let mut kept = head;
        for row in rows.split_inclusive('\n').filter(|row| row.ends_with('\n')) {
            let at = row.split(',').next().unwrap_or_default();
            let at: u64 = at
                .trim_end()
                .parse()
                .map_err(|_| Error::content(path, "the log", "a step at the start of each row", row.trim_end()))?;
            if at <= step {
                kept.push_str(row);
            }
        }
        write_atomic(path, Overwrite::Force, |w| w.write_all(kept.as_bytes()))?;
        Self::append(path, columns.len())
    }

    /// The steps and values of one column of a log; none if there is no log yet. A row that a crash cut short is left out.
    ///
    /// # Errors
    /// [`Error::Content`] if the file has no such column or a row without a number there; [`Error::Io`].
    pub fn column(path: &Path, name: &str) -> Result<Vec<(u64, f64)>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::reading(path, "the log", e)),
        };
        let mut rows = text.split_inclusive('\n').filter_map(|row| row.strip_suffix('\n'));
        let head = rows.next().unwrap_or_default();
        let wrong =
            |expected: String, got: &str| Error::content(path, "the log", expected, got.chars().take(80).collect::<String>());
        let index = head.split(',').position(|column| column == name).filter(|index| *index > 0);
        let index = index.ok_or_else(|| wrong(format!("a column {name}"), head))?;
        let parse = |row: &str| {
            let mut cells = row.split(',');
            let step = cells.next()?.parse().ok()?;
            Some((step, cells.nth(index - 1)?.parse().ok()?))
        };
        rows.map(|row| parse(row).ok_or_else(|| wrong(format!("a step and a number for {name}"), row))).collect()
    }

    fn append(path: &Path, columns: usize) -> Result<Self> {
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("write", path))?;
        Ok(Self { file, path: path.into(), columns })
    }

    /// Writes one row. Numbers are written so that they are read again exactly.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one value for each column; [`Error::Io`].
    pub fn row(&mut self, step: u64, values: &[f64]) -> Result<()> {
        if values.len() != self.columns {
            let (expected, got) = (format!("{} values", self.columns), values.len().to_string());
            return Err(Error::Argument { what: "a row", expected, got, at: "CsvLog::row" });
        }
        let mut row = step.to_string();
        for value in values {
            let _ = write!(row, ",{value}");
        }
        row.push('\n');
        self.file.write_all(row.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

fn header(columns: &[&str]) -> String {
    format!("step,{}\n", columns.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_leaves_the_table_of_an_uninterrupted_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.csv");
        let columns = ["loss", "learning_rate"];
        let value = |step: u64| [1.0 / step as f64, 1e-4];
        let mut log = CsvLog::resume(&path, &columns, 0).unwrap();
        (1..=7).for_each(|step| log.row(step, &value(step)).unwrap());
        // A crash within row 8; the checkpoint is of step 5.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"8,0.12").unwrap();
        let mut log = CsvLog::resume(&path, &columns, 5).unwrap();
        (6..=9).for_each(|step| log.row(step, &value(step)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<_> = (1..=9).map(|step| format!("{step},{},0.0001\n", value(step)[0])).collect();
        assert_eq!(text, format!("step,loss,learning_rate\n{}", rows.concat()));

        let error = CsvLog::resume(&path, &["loss"], 5).unwrap_err().to_string();
        assert!(error.ends_with("expected the columns step,loss, got step,loss,learning_rate"), "{error}");
        assert!(matches!(CsvLog::create(&path, &columns, Overwrite::Never), Err(Error::Exists { .. })));
        assert!(log.row(10, &[1.0]).unwrap_err().to_string().contains("a row must be 2 values, got 1"));
        std::fs::write(&path, "step,loss\nabc,1\n").unwrap();
        assert!(CsvLog::resume(&path, &["loss"], 5).unwrap_err().to_string().contains("a step at the start of each row"));
    }
}
