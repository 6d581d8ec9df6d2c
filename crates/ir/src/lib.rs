//! The graph of syncbn-compile: operators, types, verifier, text form, builder and reference evaluation.
//!
//! A [`Graph`] is what every stage shares: the ONNX importer and the builder make one, passes rewrite it,
//! the lowering reads it. It knows nothing of ONNX, MLIR or LLVM.

pub mod attributes;
pub mod builder;
pub mod graph;
mod identity;
pub mod interpreter;
pub mod ops;
pub mod optimizer;
pub mod partials;
pub mod schedule;
pub mod tensor;
pub mod text;
pub mod training;
pub mod types;
pub mod verify;
pub mod warning;

pub use builder::Builder;
pub use graph::{Arena, Graph, GraphError, Location, Node, NodeId, Output, OutputKind, Value, ValueInfo};
pub use interpreter::{EvalError, Named, RankInputs, RankOutputs, State, evaluate};
pub use ops::Op;
pub use optimizer::{AdamW, Optimizer, Sgd};
pub use schedule::Schedule;
pub use tensor::{Array, Literal, Values};
pub use text::{ParseError, parse, parse_schedule, print};
pub use training::{initial_state, train_step};
pub use types::{DType, Dim, Layout, Shape, TensorType};
pub use verify::{VerifyError, verify};
pub use warning::Warning;
