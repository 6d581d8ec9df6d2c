//! The driver: a network becomes an executable. [`compile`] takes a graph from the ONNX importer or from the
//! Rust builder through the passes, the lowering and the linker.
//!
//! ```no_run
//! use syncbn_compile::{Options, compile};
//! # fn network() -> Result<syncbn_ir::Graph, syncbn_ir::GraphError> { unimplemented!() }
//! let graph = network()?;
//! compile(&graph, &Options::default())?.write_executable("model.bin".as_ref())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
mod compile;
mod data;
mod error;
mod link;
mod model;
mod options;
mod output;
mod runtime;
mod worker;

pub use compile::{Compiled, Graphs, compile, lower, optimize};
pub use error::{Error, Kind};
pub use options::{Mode, Options};
pub use syncbn_codegen::CpuFlag;
pub use syncbn_ir as ir;
pub use syncbn_onnx as onnx;
pub use syncbn_passes as passes;
