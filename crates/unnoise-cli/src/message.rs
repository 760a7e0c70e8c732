//! Errors as a user of the command line reads them.

use std::error::Error as StdError;

use unnoise::core::METHODS;

/// An error and its causes in one line, without the names of the library's functions; a cause that the message before it already tells is
/// left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(plain) {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    // Paths and names come from outside.
    line.replace(['\n', '\r'], " ")
}

fn plain(cause: &(dyn StdError + 'static)) -> String {
    let text = cause.to_string();
    let text = match place(cause) {
        // A method's name is the user's own word.
        Some(at) if !METHODS.contains(&at) => text.replacen(&format!("{at}: "), "", 1),
        _ => text,
    };
    if may_be_forced(cause) { text + "; --force replaces it" } else { text }
}

/// The function of the library that refused its argument.
fn place(cause: &(dyn StdError + 'static)) -> Option<&'static str> {
    None.or_else(|| cause.downcast_ref::<unnoise::Error>()?.at())
        .or_else(|| cause.downcast_ref::<unnoise::core::Error>()?.at())
        .or_else(|| cause.downcast_ref::<unnoise::nn::Error>()?.at())
        .or_else(|| cause.downcast_ref::<unnoise::io::Error>()?.at())
}

fn may_be_forced(cause: &(dyn StdError + 'static)) -> bool {
    let file = match cause.downcast_ref() {
        Some(unnoise::Error::File(error)) => Some(error),
        _ => cause.downcast_ref(),
    };
    matches!(file, Some(unnoise::io::Error::Exists { note, .. }) if note.is_empty())
}
