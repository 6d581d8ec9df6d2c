//! Errors of an import.

use std::fmt;

/// Whose matter an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file or an option is wrong.
    User,
    /// The file is legal and this compiler cannot handle it.
    Unsupported,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}{message}", .node.as_ref().map(|n| format!("{n}: ")).unwrap_or_default())]
pub struct ImportError {
    /// Whose matter it is.
    pub kind: ErrorKind,
    /// The node, as `node "bn1" (BatchNormalization)`.
    pub node: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub note: Option<String>,
}

impl ImportError {
    /// An error of the file or an option.
    pub(crate) fn user(message: impl Into<String>) -> ImportError {
        ImportError {
            kind: ErrorKind::User,
            node: None,
            message: message.into(),
            note: None,
        }
    }

    /// A legal file that cannot be handled.
    pub(crate) fn unsupported(message: impl Into<String>) -> ImportError {
        ImportError {
            kind: ErrorKind::Unsupported,
            ..ImportError::user(message)
        }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> ImportError {
        self.note = Some(note.into());
        self
    }

    /// Names the node, unless one is named already.
    pub(crate) fn at(mut self, node: &str) -> ImportError {
        self.node.get_or_insert_with(|| node.to_string());
        self
    }
}

/// All errors of an import: at least one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct ImportErrors(pub Vec<ImportError>);

impl ImportErrors {
    /// Errors in order; those of several nodes with one message become one that counts the nodes.
    pub(crate) fn collect(errors: Vec<ImportError>) -> ImportErrors {
        let mut list: Vec<(ImportError, usize)> = Vec::new();
        for error in errors {
            let same = |(known, _): &&mut (ImportError, usize)| {
                known.node.is_some()
                    && error.node.is_some()
                    && (known.kind, &known.message) == (error.kind, &error.message)
            };
            match list.iter_mut().find(same) {
                Some((_, more)) => *more += 1,
                None => list.push((error, 0)),
            }
        }
        let counted = list.into_iter().map(|(mut error, more)| {
            match more {
                0 => {}
                1 => error.message += " (and 1 other node)",
                _ => error.message += &format!(" (and {more} other nodes)"),
            }
            error
        });
        ImportErrors(counted.collect())
    }

    /// User if any error is the user's.
    pub fn kind(&self) -> ErrorKind {
        if self.0.iter().any(|e| e.kind == ErrorKind::User) {
            ErrorKind::User
        } else {
            ErrorKind::Unsupported
        }
    }
}

impl From<ImportError> for ImportErrors {
    fn from(error: ImportError) -> ImportErrors {
        ImportErrors(vec![error])
    }
}

impl fmt::Display for ImportErrors {
    /// One error a paragraph: `error: ...`, then its note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let kind = match error.kind {
                ErrorKind::User => "error",
                ErrorKind::Unsupported => "unsupported",
            };
            write!(f, "{kind}: {error}")?;
            if let Some(note) = &error.note {
                write!(f, "\n  note: {note}")?;
            }
        }
        Ok(())
    }
}
