//! What the compiler says to the user: one shape for errors, warnings and notes, as text or as JSON.

use std::fmt;
use std::io::Write;

use serde::Serialize;
use syncbn_ir::Warning;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum MessageFormat {
    /// Text, with colours on a terminal.
    #[default]
    Human,
    /// One JSON object a line: `severity`, `message`, and where they are known `place` and `help`.
    Json,
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A fault of the compiler.
    InternalError,
    /// What stops the compilation.
    Error,
    /// Legal, but not supported; stops the compilation.
    Unsupported,
    /// Compiles, and is likely not what is wanted.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    fn head(self) -> &'static str {
        match self {
            Severity::InternalError => "internal error",
            Severity::Error => "error",
            Severity::Unsupported => "unsupported",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }

    /// The ANSI colour of the head.
    fn colour(self) -> &'static str {
        match self {
            Severity::InternalError | Severity::Error | Severity::Unsupported => "\x1b[1;31m",
            Severity::Warning => "\x1b[1;33m",
            Severity::Note => "\x1b[1;36m",
        }
    }
}

/// One message: what is the matter, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The node, tensor, flag or file, such as `node "bn1" (BatchNormalization)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What is the matter, and why.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A message without a place.
    pub fn new(severity: Severity, message: impl fmt::Display, help: Option<&str>) -> Diagnostic {
        let message = message.to_string();
        Diagnostic {
            severity,
            place: None,
            message,
            help: help.map(str::to_string),
        }
    }

    fn human(&self, colours: bool) -> String {
        let (start, end) = if colours {
            (self.severity.colour(), "\x1b[0m")
        } else {
            ("", "")
        };
        let place = self.place.iter().map(|p| format!("{p}: ")).collect::<String>();
        let help = self
            .help
            .iter()
            .map(|h| format!("\n  note: {h}"))
            .collect::<String>();
        format!(
            "{start}{}:{end} {place}{}{help}",
            self.severity.head(),
            self.message
        )
    }
}

impl From<&Warning> for Diagnostic {
    fn from(warning: &Warning) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            place: warning.place.clone(),
            message: warning.message.clone(),
            help: warning.help.clone(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.human(false))
    }
}

/// Writes messages to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Reporter {
    /// Text or JSON.
    pub format: MessageFormat,
    /// Whether text is coloured.
    pub colours: bool,
}

impl Reporter {
    /// Writes one message. Nothing can be done where standard error is closed.
    pub fn report(&self, diagnostic: &Diagnostic) {
        let line = match self.format {
            MessageFormat::Human => diagnostic.human(self.colours),
            MessageFormat::Json => {
                serde_json::to_string(diagnostic).unwrap_or_else(|_| diagnostic.to_string())
            }
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Writes a line that is no diagnostic: timings and graphs that were asked for.
    pub fn text(&self, text: &str) {
        match self.format {
            MessageFormat::Human => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            MessageFormat::Json => self.report(&Diagnostic::new(Severity::Note, text, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shape_in_both_formats() {
        let d = Diagnostic {
            severity: Severity::Error,
            place: Some("node \"bn1\" (BatchNormalization)".to_string()),
            message: "expected 5 inputs, found 4".to_string(),
            help: Some("export again".to_string()),
        };
        assert_eq!(
            d.to_string(),
            "error: node \"bn1\" (BatchNormalization): expected 5 inputs, found 4\n  note: export again"
        );
        assert_eq!(
            serde_json::to_string(&d).unwrap(),
            r#"{"severity":"error","place":"node \"bn1\" (BatchNormalization)","message":"expected 5 inputs, found 4","help":"export again"}"#
        );
        assert!(d.human(true).starts_with("\x1b[1;31merror:\x1b[0m node"));
        let bare = serde_json::to_string(&Diagnostic::new(Severity::InternalError, "x", None)).unwrap();
        assert_eq!(bare, r#"{"severity":"internal-error","message":"x"}"#);
    }
}
