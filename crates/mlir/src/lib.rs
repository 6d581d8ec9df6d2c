//! Graph to MLIR, and MLIR down to its LLVM dialect. The only crate that names melior.

mod cpu;
mod emit;
mod error;
pub mod gpu;
mod handle;
mod host;
mod ops;
pub mod order;
mod pipeline;
mod program;

pub use error::{LowerError, Unsupported};
pub use pipeline::{CPU_PIPELINE, GpuModule, KERNEL_PIPELINE, Lowered, Stage, with_gpu_module, with_module};
pub use program::{KernelSource, Part, Products, Program};
