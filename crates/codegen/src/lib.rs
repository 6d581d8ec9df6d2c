//! MLIR to LLVM to object files.
