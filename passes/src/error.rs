//! Why a pass stopped.

use std::path::PathBuf;

use syncbn_ir::GraphError;

/// An error of a pass or of the pass manager.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The user's network or flags; the text says what to do.
    #[error("{0}")]
    User(String),
    /// Something that no pass can do yet; the text names node and operator.
    #[error("{0}")]
    Unsupported(String),
    /// Names in `--passes`, `--skip`, `--stop-after` or `--print-ir-after`.
    #[error("there is no pass \"{name}\"; passes and pipelines are: {known}")]
    UnknownPass {
        /// The name given.
        name: String,
        /// All names, comma-separated.
        known: String,
    },
    /// A graph operation that a pass asked for was refused.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A rewrite rule made a patch that does not fit, or did not come to an end.
    #[error("rule {rule}: {message}")]
    Rule {
        /// Name of the rule.
        rule: &'static str,
        /// What is wrong with its patch.
        message: String,
    },
    /// The graph was wrong before the first pass.
    #[error("the graph is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// A pass left a graph that the verifier refuses, or failed in a way that the user cannot cause.
    #[error("internal error: pass {pass} broke the graph: {}{}", .errors.join("; "), at(.dump))]
    Broke {
        /// Name of the pass.
        pass: &'static str,
        /// What the verifier, or the pass, said.
        errors: Vec<String>,
        /// The graph as the pass left it, in text form.
        dump: Option<PathBuf>,
    },
}

fn at(dump: &Option<PathBuf>) -> String {
    match dump {
        Some(path) => format!(" (the graph is in {})", path.display()),
        None => String::new(),
    }
}

impl PassError {
    /// Whether the fault lies with the compiler and not with the user's network or flags.
    pub fn is_internal(&self) -> bool {
        match self {
            PassError::User(_)
            | PassError::Unsupported(_)
            | PassError::UnknownPass { .. }
            | PassError::Invalid(_) => false,
            PassError::Graph(_) | PassError::Rule { .. } | PassError::Broke { .. } => true,
        }
    }
}
