//! Progress bars on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps, named; hidden where stderr is not a terminal.
pub(crate) fn bar(name: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {wide_bar} {pos}/{len}  {msg}  {eta} left")
        .expect("the template is a constant")
        .progress_chars("=> ");
    let bar = ProgressBar::new(length).with_style(style).with_prefix(name);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Says how far a run is in a line of its own where there is no bar, as in a log.
pub(crate) fn log(bar: &ProgressBar, text: impl FnOnce() -> String) {
    if bar.is_hidden() {
        eprintln!("{}", text());
    }
}
