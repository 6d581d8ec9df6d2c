//! What is lowered, for every target: graphs with planned memory, and how they are computed.

use syncbn_ir::{DType, Graph, NodeId};

use crate::emit::COPY_BYTES;

/// A graph with planned memory, and its schedule.
#[derive(Clone, Copy)]
pub struct Part<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// Nodes that run once, before the first step; in inference only.
    pub prepare: &'g [NodeId],
    /// Nodes of a step, in order.
    pub step: &'g [NodeId],
    /// Size of the step arena.
    pub step_bytes: u64,
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

/// How matrices are multiplied, in convolutions and linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Products {
    /// In f32, without tensor cores.
    #[default]
    Exact,
    /// On tensor cores, with operands rounded to tf32 and sums in f32.
    Tf32,
    /// On tensor cores, with each operand as the sum of two tf32 numbers: three products, close to f32.
    ThreeTf32,
    /// On tensor cores in bf16, with sums in f32.
    Bf16,
}

impl Products {
    /// Element type of the operands.
    pub fn operand(self) -> DType {
        match self {
            Products::Bf16 => DType::BF16,
            Products::Exact | Products::Tf32 | Products::ThreeTf32 => DType::F32,
        }
    }

    /// Elements of the operands in one copy to shared memory.
    pub(crate) fn copied(self) -> i64 {
        COPY_BYTES / self.operand().bytes() as i64
    }

    /// The precision that a description of the program states.
    pub fn name(self) -> &'static str {
        match self {
            Products::Tf32 => "tf32",
            Products::Bf16 => "bf16",
            Products::Exact | Products::ThreeTf32 => "f32",
        }
    }

    /// What channels must be a multiple of to be multiplied so.
    pub fn channels_at_once(self) -> usize {
        match self {
            Products::Exact => 1,
            // Copies take neighbouring channels.
            Products::Tf32 | Products::ThreeTf32 | Products::Bf16 => self.copied() as usize,
        }
    }
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
