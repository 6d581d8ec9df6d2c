//! What goes wrong, sorted by whose move it is; the sort decides the exit code.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

/// Whose move it is after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A defect of this program.
    Internal,
    /// The command line or a file must change.
    User,
    /// Asked for something that does not exist.
    Unsupported,
    /// The machine lacks something.
    Environment,
    /// A rank ended without finishing.
    RankDied,
    /// A signal asked for the end.
    Interrupted,
}

impl Kind {
    /// The exit code of the process.
    pub fn exit_code(self) -> i32 {
        match self {
            Kind::Internal => 1,
            Kind::User => 2,
            Kind::Unsupported => 3,
            Kind::Environment => 4,
            Kind::RankDied => 5,
            Kind::Interrupted => 130,
        }
    }
}

/// An error with what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
pub struct Error {
    /// Whose move it is.
    pub kind: Kind,
    /// One sentence without a full stop, naming the flag, tensor or file.
    pub message: String,
    /// Lines such as `help: …` and `note: …`.
    pub notes: Vec<String>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            notes: Vec::new(),
        }
    }

    /// An error in the command line or a file.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message)
    }

    /// A request for what does not exist.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A lack of the machine.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Kind::Environment, message)
    }

    /// A defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A failed operation on a file: `cannot read "x.npz": …`.
    pub fn file(verb: &str, path: &Path, cause: impl fmt::Display) -> Self {
        Self::user(format!("cannot {verb} \"{}\": {cause}", path.display()))
    }

    /// Adds a line that says what to do.
    pub fn help(mut self, text: impl fmt::Display) -> Self {
        self.notes.push(format!("help: {text}"));
        self
    }

    /// Adds a line that explains.
    pub fn note(mut self, text: impl fmt::Display) -> Self {
        self.notes.push(format!("note: {text}"));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.kind == Kind::Internal {
            "internal error"
        } else {
            "error"
        };
        write!(f, "{label}: {}", self.message)?;
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}
