//! Why lowering fails.

/// A node that a target cannot lower yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node \"{node}\" ({op}): {message}")]
pub struct Unsupported {
    /// Name of the node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// What is not supported.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// Why lowering failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// The target cannot lower these nodes: at least one.
    #[error("{}", .0.iter().map(Unsupported::to_string).collect::<Vec<_>>().join("\n"))]
    Unsupported(Vec<Unsupported>),
    /// MLIR refused what was built.
    #[error("MLIR: {message}")]
    Mlir {
        /// MLIR's own diagnostics.
        message: String,
    },
    /// The graph is not what the passes promise.
    #[error("{message}")]
    Internal {
        /// What is wrong.
        message: String,
    },
}
