//! The CPU target: one function per distinct kernel, and step functions that call them in graph order.
//!
//! Level: `llvm.func`, `scf`, `arith`, `math` and `vector` on plain pointers.

mod collective;
mod conv;
mod product;
mod schedules;
mod step;
mod winograd;

pub use step::{INFER_CONSTANTS, TRAIN_CONSTANTS};

use std::collections::BTreeMap;

use melior::Context;
use melior::ir::Module;
use syncbn_ir::ops::Op;
use syncbn_ir::{DType, Layout, Schedule, TensorType};

use crate::emit::{Elem, Emitter};
use crate::host::{Functions, Parameter, check};
use crate::ops;
use crate::ops::kernel::{Kernel, Tensor, elem};
use crate::{KernelSource, LowerError, Program};
use schedules::Cpu;

/// Builds the module.
pub struct Lowering<'c> {
    functions: Functions<'c>,
    vector_bytes: usize,
    dtype: DType,
    kernels: BTreeMap<String, KernelSource>,
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
            &[
                Layout::Plain,
                Layout::Nhwc,
                Layout::Filter(update_width(program.vector_bytes, program.dtype)),
            ],
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
        (schedule, has_workspace): (Option<Schedule>, bool),
        label: &str,
    ) -> Result<String, LowerError> {
        let key = format!("{op:?} {operands:?} {results:?} {overlaps:?} {schedule:?}");
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
        parameters.extend(has_workspace.then_some(Parameter::Exclusive));
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
            schedule,
            workspace: has_workspace.then(|| arguments[overlaps.len()]),
            vector_bytes: self.vector_bytes,
        };
        let e = Emitter::new(self.functions.context, location, block);
        ops::lower(op, &Cpu, &kernel, &e)?;
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
