//! Runs the lowering and MLIR's own passes, with MLIR's messages attached.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use melior::Context;
use melior::dialect::DialectRegistry;
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationLike;
use melior::ir::{Location, Module};
use melior::pass::PassManager;
use melior::utility::{
    parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes,
};

use crate::cpu::Lowering;
use crate::error::LowerError;
use crate::gpu::{self, Kernels, nccl};
use crate::program::{KernelSource, Program};

/// MLIR passes from the lowering's output to the LLVM dialect, for the CPU. Can be pasted into
/// `mlir-opt-22 --pass-pipeline=...`.
pub const CPU_PIPELINE: &str = "builtin.module(convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,\
                                convert-arith-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)";

/// MLIR passes from a GPU kernel to the LLVM dialect. Can be pasted into `mlir-opt-22 --pass-pipeline=...`.
pub const KERNEL_PIPELINE: &str = "builtin.module(gpu.module(convert-scf-to-cf,convert-vector-to-llvm,\
                                   convert-math-to-llvm,convert-arith-to-llvm),convert-cf-to-llvm,\
                                   gpu.module(reconcile-unrealized-casts))";

/// How far to take a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As lowered: scf, arith, math, vector, llvm.
    Mlir,
    /// In the LLVM dialect only.
    MlirLlvm,
}

/// A context with all dialects, and what MLIR says in it.
struct Session {
    context: Context,
    messages: Rc<RefCell<Vec<String>>>,
}

/// Held while a session starts: what it registers is the process's.
static REGISTRATION: Mutex<()> = Mutex::new(());

impl Session {
    fn new() -> Session {
        let _alone = REGISTRATION.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = DialectRegistry::new();
        register_all_dialects(&registry);
        let context = Context::new();
        // The targets have a context and a thread each, and passes see one module: locks would only cost time.
        context.enable_multi_threading(false);
        context.append_dialect_registry(&registry);
        context.load_all_available_dialects();
        register_all_llvm_translations(&context);
        register_all_passes();
        let messages = Rc::new(RefCell::new(Vec::<String>::new()));
        let sink = Rc::clone(&messages);
        context.attach_diagnostic_handler(move |diagnostic| {
            sink.borrow_mut()
                .push(format!("{}: {diagnostic}", diagnostic.location()));
            true
        });
        Session { context, messages }
    }

    fn failed(&self) -> LowerError {
        LowerError::Mlir {
            message: self.messages.borrow().join("\n"),
        }
    }

    fn verify(&self, module: &Module) -> Result<(), LowerError> {
        match module.as_operation().verify() {
            true => Ok(()),
            false => Err(self.failed()),
        }
    }

    fn run(&self, module: &mut Module, pipeline: &str) -> Result<(), LowerError> {
        let manager = PassManager::new(&self.context);
        // What goes in is verified, and LLVM verifies what comes out.
        manager.enable_verifier(false);
        parse_pass_pipeline(manager.as_operation_pass_manager(), pipeline).map_err(|error| {
            LowerError::Mlir {
                message: format!("{pipeline}: {error}"),
            }
        })?;
        manager.run(module).map_err(|_| self.failed())
    }
}

/// Lowers a program and hands the module to `use_module`: its text on request, and the operation for the
/// translation to LLVM IR. Messages of MLIR during all of it become the error's text.
pub fn with_module<R>(
    program: &Program,
    stage: Stage,
    use_module: impl FnOnce(&Lowered) -> R,
) -> Result<R, LowerError> {
    let session = Session::new();
    let mut module = Module::new(Location::unknown(&session.context));
    let kernels = crate::handle::build(&session.context, &module, |context, module| {
        Lowering::run(context, module, program)
    })?;
    session.verify(&module)?;
    if stage == Stage::MlirLlvm {
        session.run(&mut module, CPU_PIPELINE)?;
    }
    Ok(use_module(&Lowered {
        module: &module,
        kernels: &kernels,
    }))
}

/// Lowers a program for GPUs and hands the module to `use_module`.
pub fn with_gpu_module<R>(
    program: &Program,
    use_module: impl FnOnce(&mut GpuModule) -> R,
) -> Result<R, LowerError> {
    let session = Session::new();
    nccl::register(&session.context)?;
    let module = Module::new(Location::unknown(&session.context));
    let kernels = crate::handle::build(&session.context, &module, |context, module| {
        gpu::Lowering::run(context, module, program)
    })?;
    session.verify(&module)?;
    Ok(use_module(&mut GpuModule {
        session: &session,
        module,
        kernels,
    }))
}

/// The module of a GPU program. Kernels are lowered and translated first; lowering the host code removes them.
pub struct GpuModule<'s> {
    session: &'s Session,
    module: Module<'s>,
    kernels: Kernels,
}

impl GpuModule<'_> {
    /// What was lowered.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The module's text.
    pub fn text(&self) -> String {
        self.module.as_operation().to_string()
    }

    /// Takes the kernels to the LLVM dialect.
    pub fn lower_kernels(&mut self) -> Result<(), LowerError> {
        self.session.run(&mut self.module, KERNEL_PIPELINE)
    }

    /// Rewrites the host code to calls of the runtime and takes it to the LLVM dialect, without the kernels.
    pub fn lower_host(&mut self) -> Result<(), LowerError> {
        gpu::host::rewrite(&self.session.context, &self.module)?;
        self.session.verify(&self.module)?;
        self.session.run(&mut self.module, CPU_PIPELINE)
    }

    /// Translates the lowered kernels.
    ///
    /// # Safety
    ///
    /// As [`Lowered::translate`].
    pub unsafe fn translate_kernels(&self, context: *mut c_void) -> Option<NonNull<c_void>> {
        let mut next = self.module.body().first_operation();
        while let Some(operation) = next {
            if operation.name().as_string_ref().as_str() == Ok("gpu.module") {
                // SAFETY: the operation is live, and the caller vouches for the context.
                return unsafe { crate::handle::translate(operation, context) };
            }
            next = operation.next_in_block();
        }
        None
    }

    /// Translates the lowered host code.
    ///
    /// # Safety
    ///
    /// As [`Lowered::translate`].
    pub unsafe fn translate_host(&self, context: *mut c_void) -> Option<NonNull<c_void>> {
        // SAFETY: the operation is live, and the caller vouches for the context.
        unsafe { crate::handle::translate(self.module.as_operation(), context) }
    }
}

/// A module, lowered as far as was asked for.
pub struct Lowered<'m, 'c> {
    module: &'m Module<'c>,
    kernels: &'m [KernelSource],
}

impl Lowered<'_, '_> {
    /// Its kernels.
    pub fn kernels(&self) -> &[KernelSource] {
        self.kernels
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.module.as_operation().to_string()
    }

    /// Translates a module of [`Stage::MlirLlvm`] to an `LLVMModuleRef` in the given `LLVMContextRef`; None when
    /// MLIR refuses.
    ///
    /// # Safety
    ///
    /// `context` is a live LLVM context of the same LLVM library; the caller owns the result and drops it before
    /// the context.
    pub unsafe fn translate(&self, context: *mut c_void) -> Option<NonNull<c_void>> {
        // SAFETY: the operation is a live module, and the caller vouches for the context.
        unsafe { crate::handle::translate(self.module.as_operation(), context) }
    }
}
