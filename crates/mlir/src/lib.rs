//! Graph to MLIR.
