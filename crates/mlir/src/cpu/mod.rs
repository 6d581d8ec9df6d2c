//! The CPU target: one function per distinct kernel, and step functions that call them in graph order.
//!
//! Level: `llvm.func`, `scf`, `arith`, `math` and `vector` on plain pointers.

mod collective;
pub(crate) mod conv;
pub(crate) mod matmul;
mod step;

pub use step::{INFER_CONSTANTS, TRAIN_CONSTANTS};

use std::collections::BTreeMap;

use melior::Context;
use melior::ir::Module;
use syncbn_ir::ops::Op;
use syncbn_ir::{DType, Graph, Layout, NodeId, TensorType};

use crate::LowerError;
use crate::emit::{Elem, Emitter};
use crate::gpu::Products;
use crate::host::{Functions, Parameter, check};
use crate::ops;
use crate::ops::kernel::{Kernel, Tensor, elem};

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

/// Builds the module.
pub struct Lowering<'c> {
    functions: Functions<'c>,
    vector_bytes: usize,
    dtype: DType,
    kernels: BTreeMap<String, KernelSource>,
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

impl<'c> Lowering<'c> {
    /// Lowers everything into `module`, which must be empty, and returns its kernels.
    pub fn run(
        context: &'c Context,
        module: &'c Module<'c>,
        program: &Program,
    ) -> Result<Vec<KernelSource>, LowerError> {
        use Parameter::{Shared, Size};
        check(
            program,
            &[Layout::Plain, Layout::Nhwc],
            &[DType::F32, DType::F64, DType::I64, DType::U8],
        )?;
        let mut lowering = Lowering {
            functions: Functions::new(context, module),
            vector_bytes: program.vector_bytes,
            dtype: program.dtype,
            kernels: BTreeMap::new(),
        };
        let (all_reduce, trace) = (syncbn_abi::symbols::ALL_REDUCE, syncbn_abi::symbols::TRACE);
        let functions = &lowering.functions;
        functions.declare(all_reduce, &[Shared, Size, Shared, Size], Some(Elem::I32));
        functions.declare(trace, &[Shared, Size, Size, Shared, Size], None);
        program.train.map_or(Ok(()), |part| lowering.training(part))?;
        program.infer.map_or(Ok(()), |part| lowering.inference(part))?;
        Ok(lowering.kernels.into_values().collect())
    }

    /// The name of the kernel for an operator on these types; made on first use. `overlaps[i]` says whether
    /// tensor `i` (operands, then results) may overlap another tensor of the call.
    fn kernel(
        &mut self,
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
        overlaps: &[bool],
        label: &str,
    ) -> Result<String, LowerError> {
        let key = format!("{op:?} {operands:?} {results:?} {overlaps:?}");
        if let Some(source) = self.kernels.get_mut(&key) {
            if !source.nodes.iter().any(|node| node == label) {
                source.nodes.push(label.to_string());
            }
            return Ok(source.kernel.clone());
        }
        let name = format!("{}_{}", op.name(), self.kernels.len());
        let mut parameters: Vec<Parameter> = overlaps
            .iter()
            .map(|&shared| {
                if shared {
                    Parameter::Shared
                } else {
                    Parameter::Exclusive
                }
            })
            .collect();
        parameters.extend([Parameter::Size, Parameter::Size]);
        let location = self.functions.location(label);
        let (region, block, arguments) = self.functions.body(&parameters, location);
        let tensor = |ty: &&TensorType, i: usize| Tensor {
            ty: (*ty).clone(),
            pointer: arguments[i],
        };
        let kernel = Kernel {
            operands: operands.iter().enumerate().map(|(i, t)| tensor(t, i)).collect(),
            results: results
                .iter()
                .enumerate()
                .map(|(i, t)| tensor(t, operands.len() + i))
                .collect(),
            n: arguments[arguments.len() - 2],
            total: arguments[arguments.len() - 1],
            vector_bytes: self.vector_bytes,
            products: Products::Exact,
        };
        let e = Emitter::new(self.functions.context, location, block);
        ops::lower(op, &kernel, &e)?;
        e.op("llvm.return", &[], &[], &[]);
        self.functions
            .define(&name, &parameters, None, false, region, location);
        let source = KernelSource {
            kernel: name.clone(),
            op: op.name().to_string(),
            nodes: vec![label.to_string()],
        };
        self.kernels.insert(key, source);
        Ok(name)
    }
}

/// Bytes per lane group of parameters.
fn update_width(vector_bytes: usize, dtype: DType) -> usize {
    (vector_bytes as i64 / elem(dtype).bytes()).max(1) as usize
}
