//! Graph to MLIR, and MLIR down to its LLVM dialect. The only crate that names melior.

pub mod cpu;
mod emit;
mod handle;
mod ops;
mod pipeline;
pub mod schedule;

pub use pipeline::{CPU_PIPELINE, Lowered, Stage, with_module};

/// Why lowering failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// The target cannot do this yet.
    #[error("operator {op} {message}")]
    Unsupported {
        /// Operator.
        op: String,
        /// What is not supported.
        message: String,
    },
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
