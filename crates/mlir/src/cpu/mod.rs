//! The CPU target: one function per distinct kernel, and step functions that call them in graph order.
//!
//! Level: `llvm.func`, `scf`, `arith`, `math` and `vector` on plain pointers.

mod collective;
mod conv;
mod product;
mod schedules;
mod step;
mod target;
mod winograd;

use std::collections::HashMap;

use melior::Context;
use melior::ir::Module;
use syncbn_ir::ops::Op;
use syncbn_ir::{DType, Layout};

use crate::emit::{Elem, Emitter, Team};
use crate::error::LowerError;
use crate::host::{Call, CallKey, Functions, Parameter, Sources, check};
use crate::ops;
use crate::ops::kernel::{Kernel, elem};
use crate::ops::target::Target;
use crate::program::{KernelSource, Program};
use schedules::Cpu;

/// Builds the module.
pub struct Lowering<'c> {
    functions: Functions<'c>,
    vector_bytes: usize,
    dtype: DType,
    /// Names of the kernels that there are.
    kernels: HashMap<CallKey, String>,
    sources: Sources,
}

impl<'c> Lowering<'c> {
    /// Lowers everything into `module`, which must be empty, and returns its kernels.
    pub fn run(
        context: &'c Context,
        module: &'c Module<'c>,
        program: &Program,
    ) -> Result<Vec<KernelSource>, LowerError> {
        use Parameter::{Shared, Size};
        let width = update_width(program.vector_bytes, program.dtype);
        check(
            program,
            &|layout| match layout {
                Layout::Plain | Layout::Nhwc => true,
                Layout::Filter(block) => block == width,
                Layout::Winograd(block) | Layout::Polyphase(block) => block.is_multiple_of(width),
            },
            &[DType::F32, DType::F64, DType::I64, DType::U8],
        )?;
        let mut lowering = Lowering {
            functions: Functions::new(context, module),
            vector_bytes: program.vector_bytes,
            dtype: program.dtype,
            kernels: HashMap::new(),
            sources: Sources::default(),
        };
        let (all_reduce, trace) = (syncbn_abi::symbols::ALL_REDUCE, syncbn_abi::symbols::TRACE);
        let functions = &lowering.functions;
        functions.declare(all_reduce, &[Shared, Size, Shared, Size], Some(Elem::I32));
        functions.declare(trace, &[Shared, Size, Size, Shared, Size], None);
        functions.declare(syncbn_abi::symbols::TEAM_BARRIER, &[Shared], Some(Elem::I32));
        program.train.map_or(Ok(()), |part| lowering.training(part))?;
        program.infer.map_or(Ok(()), |part| lowering.inference(part))?;
        Ok(lowering.sources.into_list())
    }

    /// The name of the kernel for an operator on these types; made on first use.
    fn kernel(&mut self, call: &Call) -> Result<String, LowerError> {
        let key = call.key();
        if let Some(name) = self.kernels.get(&key) {
            self.sources.note(name, call);
            return Ok(name.clone());
        }
        let name = format!("{}_{}", call.op.name(), self.kernels.len());
        let tensors = call.types.len();
        let mut parameters = call.parameters();
        let (operands, results) = call.split();
        let blocks = call
            .schedule
            .and_then(|s| s.blocks_with_moments(call.op, operands, results));
        if matches!(call.op, Op::Conv(conv) if conv.moments) && blocks.is_none() {
            // Threads take moments of what others wrote.
            parameters[call.operands] = Parameter::Shared;
        }
        if call.has_workspace {
            // The first thread's own workspace is the common one.
            parameters.extend([Parameter::Shared; 2]);
        }
        let partials = usize::from(call.has_partials());
        parameters.extend(vec![Parameter::Shared; partials]);
        parameters.push(Parameter::Shared);
        parameters.extend([Parameter::Size; 4]);
        let location = self.functions.location(call.label);
        let (region, block, arguments) = self.functions.body(&parameters, location);
        let (tensors, rest) = arguments.split_at(tensors);
        let (workspaces, rest) = rest.split_at(if call.has_workspace { 2 } else { 0 });
        let (partials, rest) = rest.split_at(partials);
        let &[context, n, total, thread, threads] = rest else {
            unreachable!("these are the last parameters");
        };
        let how = (self.vector_bytes, Cpu.manner());
        let kernel = Kernel {
            schedule: call.schedule,
            workspace: workspaces.first().copied(),
            own_workspace: workspaces.last().copied(),
            partials: partials.first().copied(),
            ..Kernel::new(call.types, call.operands, tensors, [n, total], how)
        };
        let e = Emitter::new(self.functions.context, location, block);
        e.set_team(Team {
            context,
            thread,
            threads,
        });
        for (i, stage) in ops::stages(call.op, &Cpu, &(operands, results, call.schedule).into())?
            .iter()
            .enumerate()
        {
            if i > 0 {
                e.meet();
            }
            stage.emit(&kernel, &e)?;
        }
        e.op("llvm.return", &[], &[], &[]);
        self.functions
            .define(&name, &parameters, None, false, region, location);
        self.sources.note(&name, call);
        self.kernels.insert(key, name.clone());
        Ok(name)
    }
}

/// Bytes per lane group of parameters.
fn update_width(vector_bytes: usize, dtype: DType) -> usize {
    (vector_bytes as i64 / elem(dtype).bytes()).max(1) as usize
}
