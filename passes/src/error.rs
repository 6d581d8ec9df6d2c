//! Why a pass stopped: all that is wrong with the network or the flags, or one fault of the compiler.

use std::fmt;
use std::path::PathBuf;

use syncbn_ir::{Graph, GraphError, NodeId, VerifyError};

/// Whose matter a [`Fault`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The user's network or flags.
    User,
    /// Something that no pass can do yet.
    Unsupported,
}

/// One thing that is wrong with a network or with flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose matter it is.
    pub kind: FaultKind,
    /// The node, output or flag, such as `node "bn1" (batch_norm)`.
    pub place: Option<String>,
    /// What is wrong, and why.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Fault {
    /// A fault of the user's network or flags.
    pub fn user(message: impl Into<String>) -> Fault {
        Fault {
            kind: FaultKind::User,
            place: None,
            message: message.into(),
            help: None,
        }
    }

    /// Something that no pass can do yet.
    pub fn unsupported(message: impl Into<String>) -> Fault {
        Fault {
            kind: FaultKind::Unsupported,
            ..Fault::user(message)
        }
    }

    /// Says where: an output or a flag.
    pub fn at(self, place: impl Into<String>) -> Fault {
        Fault {
            place: Some(place.into()),
            ..self
        }
    }

    /// Says where: a node.
    pub fn at_node(self, graph: &Graph, id: NodeId) -> Fault {
        let node = graph.node(id);
        self.at(format!("node \"{}\" ({})", node.name, node.op.name()))
    }

    /// Says what to do.
    pub fn help(self, help: impl Into<String>) -> Fault {
        Fault {
            help: Some(help.into()),
            ..self
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  note: {help}"),
            None => Ok(()),
        }
    }
}

/// An error of a pass or of the pass manager.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// All that the pass found wrong with the user's network or flags, or cannot do: at least one.
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
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
    #[error("the graph is not valid: {}", lines(.0))]
    Invalid(Vec<VerifyError>),
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

fn lines<T: fmt::Display>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

fn at(dump: &Option<PathBuf>) -> String {
    match dump {
        Some(path) => format!(" (the graph is in {})", path.display()),
        None => String::new(),
    }
}

impl From<Fault> for PassError {
    fn from(fault: Fault) -> PassError {
        PassError::Faults(vec![fault])
    }
}

impl PassError {
    /// Whether the fault lies with the compiler and not with the user's network or flags.
    pub fn is_internal(&self) -> bool {
        match self {
            PassError::Faults(_) | PassError::Invalid(_) => false,
            PassError::Graph(_) | PassError::Rule { .. } | PassError::Broke { .. } => true,
        }
    }
}

/// Faults found so far, so that a pass reports all of them at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Keeps one.
    pub fn push(&mut self, fault: Fault) {
        if !self.0.contains(&fault) {
            self.0.push(fault);
        }
    }

    /// Keeps one that may follow from others, unless there are others.
    pub fn push_if_first(&mut self, fault: Fault) {
        if self.0.is_empty() {
            self.0.push(fault);
        }
    }

    /// The value, or None where faults were kept; an internal error goes through.
    pub fn keep<T>(&mut self, result: Result<T, PassError>) -> Result<Option<T>, PassError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(PassError::Faults(faults)) => {
                faults.into_iter().for_each(|fault| self.push(fault));
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Fails where any was kept.
    pub fn check(self) -> Result<(), PassError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(PassError::Faults(self.0)),
        }
    }
}
