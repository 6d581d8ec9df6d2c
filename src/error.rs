//! Errors as the user sees them, with the exit codes of the command line.

use std::fmt;

use syncbn_codegen::CodegenError;
use syncbn_mlir::LowerError;
use syncbn_onnx::{ErrorKind, ImportErrors};
use syncbn_passes::{Fault, FaultKind, PassError};

use crate::diagnostic::{Diagnostic, Severity};

/// Whose matter an error is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A fault of the compiler: 1.
    Internal,
    /// The user's file or flags: 2.
    User,
    /// Legal, but not supported: 3.
    Unsupported,
    /// The machine lacks something: 4.
    Environment,
}

/// An error of a compilation: one diagnostic for each thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Whose matter it is.
    pub kind: Kind,
    /// What is wrong: at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl Error {
    fn of(kind: Kind, message: impl fmt::Display, help: Option<&str>) -> Error {
        let severity = match kind {
            Kind::Internal => Severity::InternalError,
            Kind::User | Kind::Environment => Severity::Error,
            Kind::Unsupported => Severity::Unsupported,
        };
        let message = message.to_string();
        // Messages of lower crates may carry their own head.
        let message = message.strip_prefix("internal error: ").unwrap_or(&message);
        Error {
            kind,
            diagnostics: vec![Diagnostic::new(severity, message, help)],
        }
    }

    /// A fault of the user's file or flags; `note` says what to do.
    pub fn user(message: impl fmt::Display, note: &str) -> Error {
        Error::of(Kind::User, message, Some(note))
    }

    /// Something the machine lacks; `note` says what to do.
    pub fn environment(message: impl fmt::Display, note: &str) -> Error {
        Error::of(Kind::Environment, message, Some(note))
    }

    /// Both errors, each message once; the kind with the lower exit code stands for both.
    fn and(mut self, other: Error) -> Error {
        if other.exit_code() < self.exit_code() {
            self.kind = other.kind;
        }
        for diagnostic in other.diagnostics {
            if !self.diagnostics.contains(&diagnostic) {
                self.diagnostics.push(diagnostic);
            }
        }
        self
    }

    /// Both values, or all errors.
    pub fn both<A, B>(a: Result<A, Error>, b: Result<B, Error>) -> Result<(A, B), Error> {
        match (a, b) {
            (Ok(a), Ok(b)) => Ok((a, b)),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
            (Err(a), Err(b)) => Err(a.and(b)),
        }
    }

    /// Fails with all of several errors, if there are any.
    pub fn check(errors: Vec<Error>) -> Result<(), Error> {
        errors.into_iter().reduce(Error::and).map_or(Ok(()), Err)
    }

    /// All values, or all errors.
    pub fn all<T>(results: impl Iterator<Item = Result<T, Error>>) -> Result<Vec<T>, Error> {
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error),
            }
        }
        Error::check(errors).map(|()| values)
    }

    /// A fault of the compiler.
    pub fn internal(message: impl fmt::Display) -> Error {
        Error::of(Kind::Internal, message, None)
    }

    /// The exit code of design section 4.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Internal => 1,
            Kind::User => 2,
            Kind::Unsupported => 3,
            Kind::Environment => 4,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.diagnostics.iter().map(Diagnostic::to_string).collect();
        f.write_str(&all.join("\n"))
    }
}

impl std::error::Error for Error {}

impl From<ImportErrors> for Error {
    fn from(errors: ImportErrors) -> Error {
        let kind = match errors.kind() {
            ErrorKind::User => Kind::User,
            ErrorKind::Unsupported => Kind::Unsupported,
        };
        let diagnostic = |e: syncbn_onnx::ImportError| Diagnostic {
            severity: match e.kind {
                ErrorKind::User => Severity::Error,
                ErrorKind::Unsupported => Severity::Unsupported,
            },
            place: e.node,
            message: e.message,
            help: e.note,
        };
        Error {
            kind,
            diagnostics: errors.0.into_iter().map(diagnostic).collect(),
        }
    }
}

impl From<PassError> for Error {
    fn from(error: PassError) -> Error {
        match error {
            PassError::Faults(faults) => faults.into(),
            PassError::Invalid(errors) => Error {
                kind: Kind::User,
                diagnostics: (errors.into_iter())
                    .map(|e| Diagnostic {
                        severity: Severity::Error,
                        place: Some(e.subject),
                        message: e.message,
                        help: Some("docs/ir.md says what each operator takes".to_string()),
                    })
                    .collect(),
            },
            internal => Error::internal(internal),
        }
    }
}

impl From<Vec<Fault>> for Error {
    /// The user's matter if any is.
    fn from(faults: Vec<Fault>) -> Error {
        let kind = match faults.iter().any(|f| f.kind == FaultKind::User) {
            true => Kind::User,
            false => Kind::Unsupported,
        };
        let diagnostic = |fault: Fault| Diagnostic {
            severity: match fault.kind {
                FaultKind::User => Severity::Error,
                FaultKind::Unsupported => Severity::Unsupported,
            },
            place: fault.place,
            message: fault.message,
            help: fault.help,
        };
        Error {
            kind,
            diagnostics: faults.into_iter().map(diagnostic).collect(),
        }
    }
}

impl From<LowerError> for Error {
    fn from(error: LowerError) -> Error {
        match error {
            LowerError::Unsupported(list) => {
                let fault = |u: syncbn_mlir::Unsupported| {
                    let fault = Fault::unsupported(u.message);
                    fault.at(format!("node \"{}\" ({})", u.node, u.op)).help(u.help)
                };
                list.into_iter().map(fault).collect::<Vec<_>>().into()
            }
            LowerError::Mlir { .. } | LowerError::Internal { .. } => Error::internal(error),
        }
    }
}

impl From<CodegenError> for Error {
    fn from(error: CodegenError) -> Error {
        match error {
            CodegenError::Lower(error) => error.into(),
            CodegenError::Translate | CodegenError::Llvm(_) => Error::internal(error),
        }
    }
}
