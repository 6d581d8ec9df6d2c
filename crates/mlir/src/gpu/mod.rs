//! The GPU target: kernels in a `gpu.module`, and host functions that launch them and call NCCL in graph order.
//!
//! Kernels are `llvm.func`s at the level of `scf`, `arith`, `math`, `llvm` and `nvvm` on pointers to global and shared
//! memory, with i32 indices. Convolutions and matrix products whose shape allows it run on tensor cores
//! ([`implicit_gemm`]), everything else in threads of their own, each with as many neighbours as one access holds. Host
//! functions keep `gpu.launch_func` and `nccl.all_reduce` until [`host`] rewrites them to calls of the runtime.

mod conv;
pub mod host;
mod implicit_gemm;
mod join_kernels;
mod kernel;
pub mod launches;
mod machine;
mod matmul;
pub mod nccl;
mod schedules;
mod step;
mod traffic;
mod update;

use std::collections::{HashMap, HashSet};

use melior::Context;
use melior::ir::Module;
use syncbn_abi::{GpuKernel, gpu_symbols};
use syncbn_ir::{DType, Layout};

use crate::error::LowerError;
use crate::host::{CallKey, Functions, Parameter, Sources, check};
use crate::program::{KernelSource, Products, Program};
use join_kernels::Definition;
use kernel::Planned;
use launches::{Enqueued, EntryPoint, Launch};

pub use crate::emit::{Cost, Direction, Share, Tiles};

/// Name of the `gpu.module`.
pub const KERNELS: &str = "kernels";

/// What host code and the model's description must know of lowered kernels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kernels {
    /// The kernels by index, once for each shape that they are launched for.
    pub kernels: Vec<GpuKernel>,
    /// The nodes behind them, for messages.
    pub sources: Vec<KernelSource>,
    /// What each entry point enqueues.
    pub entry_points: Vec<EntryPoint>,
}

/// Builds the module.
pub struct Lowering<'c> {
    functions: Functions<'c>,
    device: Functions<'c>,
    dtype: DType,
    products: Products,
    batch_bound: i64,
    trained_elements: i64,
    launches: HashMap<CallKey, Vec<Launch>>,
    /// Kernels that are not in the module yet, with the indices of their launches.
    separate: Vec<(usize, Definition<'c>)>,
    /// Names of the kernels that were planned.
    planned: HashMap<Planned, String>,
    sources: Sources,
    /// The nodes that the descriptions of kernels, by their indices, name.
    noted: HashSet<(i64, String)>,
    lowered: Kernels,
    /// What the entry point under construction enqueues.
    enqueued: Vec<Enqueued>,
}

impl<'c> Lowering<'c> {
    /// Lowers everything into `module`, which must be empty, and returns its kernels.
    pub fn run(
        context: &'c Context,
        module: &'c Module<'c>,
        program: &Program,
    ) -> Result<Kernels, LowerError> {
        use DType::{BF16, F32, F64, I64, U8};
        use Parameter::{Shared, Size};
        check(
            program,
            &|layout| matches!(layout, Layout::Plain | Layout::Nhwc),
            &[F32, F64, BF16, I64, U8],
        )?;
        let functions = Functions::new(context, module);
        functions.mark_as_container(module);
        let mut lowering = Lowering {
            functions,
            device: functions.device_module(KERNELS),
            dtype: program.dtype,
            products: program.products,
            batch_bound: program.batch_bound as i64,
            trained_elements: program.trained_elements as i64,
            launches: HashMap::new(),
            separate: Vec::new(),
            planned: HashMap::new(),
            sources: Sources::default(),
            noted: HashSet::new(),
            lowered: Kernels::default(),
            enqueued: Vec::new(),
        };
        for (name, parameters) in [
            (gpu_symbols::STREAM_WAIT, &[Shared, Shared][..]),
            (gpu_symbols::TRACE, &[Shared, Shared, Size, Size, Shared, Size]),
        ] {
            functions.declare(name, parameters, None);
        }
        if let Some(part) = program.train {
            lowering.kernels_of(part.graph, part.step)?;
        }
        if let Some(part) = program.infer {
            lowering.kernels_of(part.graph, part.prepare)?;
            lowering.kernels_of(part.graph, part.step)?;
        }
        lowering.join_kernels();
        if let Some(part) = program.train {
            lowering.step(gpu_symbols::TRAIN_STEP, part, part.step)?;
            lowering.updates();
        }
        if let Some(part) = program.infer {
            lowering.step(gpu_symbols::INFER_PREPARE, part, part.prepare)?;
            lowering.step(gpu_symbols::INFER_STEP, part, part.step)?;
        }
        if lowering.lowered.kernels.iter().any(|kernel| kernel.shared > 0) {
            lowering.device.declare_shared_memory();
        }
        lowering.lowered.sources = lowering.sources.into_list();
        Ok(lowering.lowered)
    }
}
