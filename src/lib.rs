//! The driver: a network becomes an executable. [`compile`] takes a graph from the ONNX importer or from the
//! Rust builder through the passes, the lowering and the linker.
//!
//! `examples/syncbn_net.rs` shows the whole way from the builder to a trained network:
//!
//! ```no_run
//! use syncbn_compile::ir::{Builder, DType};
//! use syncbn_compile::{Options, compile};
//!
//! let mut net = Builder::new("mlp", DType::F32);
//! let x = net.input("x", &[20])?;
//! let y = net.linear("fc1", x, 64).build()?;
//! let y = net.batch_norm("bn", y)?;
//! let y = net.relu(y)?;
//! let logits = net.linear("fc2", y, 10).build()?;
//! net.output("logits", logits);
//! compile(&net.finish(), &Options::default())?.write_executable("model.bin".as_ref())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
mod compile;
mod data;
mod diagnostic;
mod error;
mod executable;
mod gpu;
mod kernels;
mod link;
mod model;
mod options;
mod output;
mod ptxas;
mod runtime;
mod selection;
mod target;
mod worker;

pub use compile::{Graphs, compile, lower, optimize};
pub use diagnostic::{Diagnostic, MessageFormat, Severity};
pub use error::{Error, Kind};
pub use executable::{Compiled, CompiledPart};
pub use options::{Mode, Options, Targets};
pub use syncbn_codegen::CpuFlag;
pub use syncbn_ir as ir;
pub use syncbn_onnx as onnx;
pub use syncbn_passes as passes;
