//! MLIR to LLVM to object files. The only crate that names inkwell.

mod cpu;
mod device;
mod effort;
mod emulated;
mod gpu;
mod objects;

use std::sync::Once;

use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::{AsContextRef, Context};
use inkwell::module::{Linkage, Module};
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};
use syncbn_mlir::{KernelSource, Program};
use syncbn_mlir::{LowerError, Stage, with_module};

use effort::Effort;

pub use cpu::{Cpu, CpuFlag};
pub use gpu::{GpuCode, GpuTargets, emit_gpu, generate_gpu, lower_gpu};
pub use objects::generate_objects;

/// Makes LLVM's code generators known, once in a process: threads that generate code read what this writes.
fn initialize_targets() {
    static KNOWN: Once = Once::new();
    KNOWN.call_once(|| {
        Target::initialize_x86(&InitializationConfig::default());
        Target::initialize_nvptx(&InitializationConfig::default());
    });
}

/// What host code is for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Stack of a thread that generates code: LLVM walks through large functions recursively.
pub const STACK_BYTES: usize = 64 << 20;

/// Why code generation failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodegenError {
    /// Lowering failed.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// MLIR could not translate its LLVM dialect.
    #[error("MLIR could not be translated to LLVM IR")]
    Translate,
    /// LLVM refused.
    #[error("LLVM: {0}")]
    Llvm(String),
}

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Text of the MLIR as lowered.
    Mlir,
    /// Text of the MLIR in its LLVM dialect.
    MlirLlvm,
    /// Text of the LLVM IR, optimised.
    Llvm,
    /// Assembly text.
    Asm,
    /// An object file.
    Object,
}

/// Generates code for a program and returns it: text as UTF-8, or an object file's bytes.
///
/// `note` receives the kernels before LLVM does: it ends the process on what it cannot select, and names the
/// function only.
pub fn generate(
    program: &Program,
    cpu: &Cpu,
    emit: Emit,
    note: &mut dyn FnMut(&[KernelSource]),
) -> Result<Vec<u8>, CodegenError> {
    let stage = if emit == Emit::Mlir {
        Stage::Mlir
    } else {
        Stage::MlirLlvm
    };
    with_module(program, stage, |lowered| match emit {
        Emit::Mlir | Emit::MlirLlvm => Ok(lowered.text().into_bytes()),
        Emit::Llvm | Emit::Asm | Emit::Object => {
            note(lowered.kernels());
            let context = Context::create();
            let module = translate(lowered, &context)?;
            from_llvm(&module, cpu, effort::CPU, emit)
        }
    })?
}

fn translate<'c>(lowered: &syncbn_mlir::Lowered, context: &'c Context) -> Result<Module<'c>, CodegenError> {
    // SAFETY: MLIR and inkwell are linked with one LLVM library; the module is wrapped at once and borrows the
    // context, so that it is dropped first.
    unsafe {
        let raw = lowered
            .translate(context.as_ctx_ref().cast())
            .ok_or(CodegenError::Translate)?;
        Ok(Module::new(raw.as_ptr().cast()))
    }
}

/// LLVM's code generator for a processor.
fn machine(cpu: &Cpu, effort: Effort) -> Result<TargetMachine, CodegenError> {
    initialize_targets();
    let triple = TargetTriple::create(TRIPLE);
    Target::from_triple(&triple)
        .map_err(|e| CodegenError::Llvm(e.to_string()))?
        .create_target_machine(
            &triple,
            &cpu.name,
            &cpu.feature_string(),
            effort.level,
            RelocMode::PIC,
            CodeModel::Default,
        )
        .ok_or_else(|| CodegenError::Llvm(format!("no code generator for processor {}", cpu.name)))
}

fn from_llvm(module: &Module, cpu: &Cpu, effort: Effort, emit: Emit) -> Result<Vec<u8>, CodegenError> {
    let failed = |e: inkwell::support::LLVMString| CodegenError::Llvm(e.to_string());
    let machine = machine(cpu, effort)?;
    module.set_triple(&TargetTriple::create(TRIPLE));
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    for function in module.get_functions() {
        // LLVM prefers 256-bit vectors on many processors and would split the 512-bit ones that kernels use.
        let width = (cpu.vector_bytes() * 8).to_string();
        for (name, value) in [
            ("target-cpu", cpu.name.as_str()),
            ("target-features", &cpu.feature_string()),
            ("prefer-vector-width", &width),
        ] {
            let context = module.get_context();
            let attribute = context.create_string_attribute(name, value);
            function.add_attribute(AttributeLoc::Function, attribute);
        }
    }
    // Kernels stay functions of their own: their names are what LLVM's errors and profiles say.
    let kind = Attribute::get_named_enum_kind_id("noinline");
    let noinline = module.get_context().create_enum_attribute(kind, 0);
    let kernels = module
        .get_functions()
        .filter(|f| f.get_linkage() == Linkage::Internal);
    kernels.for_each(|function| function.add_attribute(AttributeLoc::Function, noinline));
    module.verify().map_err(failed)?;
    let options = PassBuilderOptions::create();
    module
        .run_passes(effort.passes, &machine, options)
        .map_err(failed)?;
    let buffer = |file_type| machine.write_to_memory_buffer(module, file_type).map_err(failed);
    match emit {
        Emit::Asm => Ok(text_of(buffer(FileType::Assembly)?.as_slice())),
        Emit::Object => Ok(buffer(FileType::Object)?.as_slice().to_vec()),
        Emit::Mlir | Emit::MlirLlvm | Emit::Llvm => Ok(module.print_to_string().to_bytes().to_vec()),
    }
}

/// LLVM ends text buffers with a zero byte.
fn text_of(bytes: &[u8]) -> Vec<u8> {
    bytes.strip_suffix(&[0]).unwrap_or(bytes).to_vec()
}

/// The version of the LLVM library in use.
pub fn llvm_version() -> (u32, u32, u32) {
    inkwell::support::get_llvm_version()
}
