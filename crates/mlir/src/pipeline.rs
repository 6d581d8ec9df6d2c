//! Runs the lowering and MLIR's own passes, with MLIR's messages attached.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::rc::Rc;

use melior::Context;
use melior::dialect::DialectRegistry;
use melior::ir::operation::OperationLike;
use melior::ir::{Location, Module};
use melior::pass::PassManager;
use melior::utility::{
    parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes,
};

use crate::LowerError;
use crate::cpu::{KernelSource, Lowering, Program};

/// MLIR passes from the lowering's output to the LLVM dialect, for the CPU. Can be pasted into
/// `mlir-opt-22 --pass-pipeline=...`.
pub const CPU_PIPELINE: &str = "builtin.module(convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,\
                                convert-arith-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)";

/// How far to take a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As lowered: scf, arith, math, vector, llvm.
    Mlir,
    /// In the LLVM dialect only.
    MlirLlvm,
}

/// Lowers a program and hands the module to `use_module`: its text on request, and the operation for the
/// translation to LLVM IR. Messages of MLIR during all of it become the error's text.
pub fn with_module<R>(
    program: &Program,
    stage: Stage,
    use_module: impl FnOnce(&Lowered) -> R,
) -> Result<R, LowerError> {
    let registry = DialectRegistry::new();
    register_all_dialects(&registry);
    let context = Context::new();
    context.append_dialect_registry(&registry);
    context.load_all_available_dialects();
    register_all_llvm_translations(&context);
    let messages = Rc::new(RefCell::new(Vec::<String>::new()));
    let sink = Rc::clone(&messages);
    context.attach_diagnostic_handler(move |diagnostic| {
        sink.borrow_mut()
            .push(format!("{}: {diagnostic}", diagnostic.location()));
        true
    });
    let failed = || LowerError::Mlir {
        message: messages.borrow().join("\n"),
    };
    let mut module = Module::new(Location::unknown(&context));
    let kernels = lower(&context, &module, program)?;
    if !module.as_operation().verify() {
        return Err(failed());
    }
    if stage == Stage::MlirLlvm {
        register_all_passes();
        let manager = PassManager::new(&context);
        parse_pass_pipeline(manager.as_operation_pass_manager(), CPU_PIPELINE).map_err(|_| failed())?;
        manager.run(&mut module).map_err(|_| failed())?;
    }
    Ok(use_module(&Lowered {
        module: &module,
        kernels: &kernels,
    }))
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
        unsafe { crate::handle::translate(self.module, context) }
    }
}

fn lower(context: &Context, module: &Module, program: &Program) -> Result<Vec<KernelSource>, LowerError> {
    crate::handle::build(context, module, |context, module| {
        Lowering::run(context, module, program)
    })
}
