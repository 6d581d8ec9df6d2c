//! What is printed: results to standard output, the rest to standard error. A closed pipe is no error.

use std::io::{self, Write};

/// Prints a line to standard output.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints a line to standard error.
pub fn complaint(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a warning.
pub fn warning(text: &str) {
    complaint(&format!("warning: {text}"));
}
