//! The CPU target: one function per distinct kernel, and step functions that call them in graph order.
//!
//! Level: `llvm.func`, `scf`, `arith`, `math` and `vector` on plain pointers.

mod batch_norm;
mod batch_norm_backward;
mod channels;
mod check;
mod collective;
mod conv;
mod elementwise;
mod frame;
mod function;
mod kernel;
mod loss;
mod matmul;
mod moments;
mod pool;
mod reduce;
mod resize;
mod step;
mod update;

pub use step::{INFER_CONSTANTS, TRAIN_CONSTANTS};

use std::collections::BTreeMap;

use function::Parameter;
use melior::Context;
use melior::ir::Module;
use syncbn_ir::ops::Op;
use syncbn_ir::{DType, Graph, NodeId, TensorType};

use crate::LowerError;
use crate::emit::Emitter;
use kernel::{Kernel, Tensor, elem};

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
}

/// Builds the module.
pub struct Lowering<'c> {
    context: &'c Context,
    module: &'c Module<'c>,
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
        check::check(program)?;
        let mut lowering = Lowering {
            context,
            module,
            vector_bytes: program.vector_bytes,
            dtype: program.dtype,
            kernels: BTreeMap::new(),
        };
        lowering.declare_runtime();
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
        let location = self.location(label);
        let (region, block, arguments) = self.body(&parameters, location);
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
        };
        let mut e = Emitter::new(self.context, location, block);
        lower(op, &kernel, &mut e)?;
        e.op("llvm.return", &[], &[], &[]);
        self.function(&name, &parameters, None, false, region, location);
        let source = KernelSource {
            kernel: name.clone(),
            op: op.name().to_string(),
            nodes: vec![label.to_string()],
        };
        self.kernels.insert(key, source);
        Ok(name)
    }
}

/// Builds the body of one kernel. Sources and collectives have none: a step reads the former in place and
/// calls the runtime for the latter.
fn lower<'c>(op: &Op, k: &Kernel<'c>, e: &mut Emitter<'c>) -> Result<(), LowerError> {
    let bug = |message: String| LowerError::Internal { message };
    match op {
        Op::Conv(c) => {
            conv::forward(c, k, e).map_err(bug)?;
            if c.moments {
                moments::moments(k, &k.results[0], &k.results[1], e);
            }
        }
        Op::ConvBackwardData(c) => conv::backward_data(c, k, e).map_err(bug)?,
        Op::ConvBackwardWeight(c) => conv::backward_weight(c, k, e).map_err(bug)?,
        Op::MatMul(m) => matmul::lower(m, k, e),
        Op::BatchNorm(b) if !b.training => batch_norm::inference(b, k, e),
        Op::BatchNorm(_) | Op::BatchNormBackward(_) => {
            return Err(bug(format!("{} passed the checks", op.name())));
        }
        Op::Moments(_) => moments::moments(k, &k.operands[0], &k.results[0], e),
        Op::BatchNormFinalize(b) => moments::finalize(b, k, e),
        Op::Normalize(b) => batch_norm::normalize(b, k, e),
        Op::BatchNormBackwardReduce(b) => batch_norm_backward::reduce(b, k, e),
        Op::BatchNormBackwardData(b) => batch_norm_backward::data(b, k, e),
        Op::Unary(u) => elementwise::unary(u, k, e),
        Op::UnaryBackward(u) => elementwise::unary_backward(u, k, e),
        Op::Binary(b) => elementwise::binary(b, k, e),
        Op::Reduce(r) => reduce::lower(r, k, e),
        Op::Expand(_) | Op::Cast(_) => elementwise::copy(k, e),
        Op::Reshape(_) | Op::Identity(_) | Op::Dropout(_) => elementwise::reshape(k, e),
        Op::Transpose(t) => elementwise::transpose(t, k, e),
        Op::Concat(c) => elementwise::concat(c, k, e),
        Op::Slice(s) => elementwise::slice(s, k, e),
        Op::Pad(p) => elementwise::pad(p, k, e),
        Op::MaxPool(p) => pool::max_forward(p, k, e),
        Op::MaxPoolBackward(p) => pool::max_backward(p, k, e),
        Op::AveragePool(p) => pool::average_forward(p, k, e),
        Op::AveragePoolBackward(p) => pool::average_backward(p, k, e),
        Op::Resize(r) => resize::forward(r, k, e),
        Op::ResizeBackward(r) => resize::backward(r, k, e),
        Op::SoftmaxCrossEntropy(_) => loss::cross_entropy(k, e),
        Op::SoftmaxCrossEntropyBackward(_) => loss::cross_entropy_backward(k, e),
        Op::MeanSquaredError(_) => loss::squared_error(k, e),
        Op::MeanSquaredErrorBackward(_) => loss::squared_error_backward(k, e),
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) | Op::AllReduce(_) => {
            return Err(bug(format!("{} has no kernel", op.name())));
        }
    }
    Ok(())
}

/// Bytes per lane group of parameters.
fn update_width(vector_bytes: usize, dtype: DType) -> usize {
    (vector_bytes as i64 / elem(dtype).bytes()).max(1) as usize
}
