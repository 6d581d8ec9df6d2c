//! What is lowered, for every target: graphs with planned memory, and how they are computed.

use syncbn_ir::{DType, Graph, NodeId};

pub use syncbn_ir::schedule::Products;

/// A graph with planned memory, and its schedule.
#[derive(Clone, Copy)]
pub struct Part<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// Nodes that run once, before the first step; in inference only.
    pub prepare: &'g [NodeId],
    /// Nodes of a step, in order.
    pub step: &'g [NodeId],
}

/// What to lower.
pub struct Program<'g> {
    /// The training graph.
    pub train: Option<Part<'g>>,
    /// The inference graph.
    pub infer: Option<Part<'g>>,
    /// Element type of parameters.
    pub dtype: DType,
    /// Bytes of a vector register: 16, 32 or 64.
    pub vector_bytes: usize,
    /// How GPUs multiply matrices.
    pub products: Products,
    /// Largest batch of one rank.
    pub batch_bound: usize,
    /// Number of elements of trained parameters, padding between them included.
    pub trained_elements: u64,
}

/// A kernel, and the nodes that call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSource {
    /// Name of the function.
    pub kernel: String,
    /// Operator of the nodes.
    pub op: String,
    /// Names of the nodes, in the order of their first calls.
    pub nodes: Vec<String>,
}
