//! What is printed: results and progress to standard output, the rest to standard error.

use std::io::{self, ErrorKind, Write};

use crate::error::{Error, Result};

/// Prints a result to standard output. A reader that closed the pipe has what it wanted.
pub fn result(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => Err(Error::environment(format!(
            "cannot write to standard output: {cause}"
        ))),
        _ => Ok(()),
    }
}

/// Prints a line of progress to standard output. Nobody needs to listen.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints a line to standard error, in one piece, as several processes may share it.
pub fn complaint(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Prints what a user may want to know.
pub fn note(text: &str) {
    complaint(&format!("note: {text}"));
}

/// Prints a warning.
pub fn warning(text: &str) {
    complaint(&format!("warning: {text}"));
}
