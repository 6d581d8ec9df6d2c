//! GPU programs: PTX for NVIDIA GPUs, objects for the emulator, and the host code that serves both.

use inkwell::context::{AsContextRef, Context};
use inkwell::module::Module;
use syncbn_abi::gpu_symbols;
use syncbn_mlir::gpu::Kernels;
use syncbn_mlir::{GpuModule, with_gpu_module};
use syncbn_mlir::{KernelSource, Program};

use crate::device::{device_code, optimize};
use crate::{CodegenError, Cpu, Emit, effort, emulated, from_llvm};

/// What a GPU program is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuTargets {
    /// NVIDIA GPUs.
    pub cuda: bool,
    /// The emulator.
    pub emulated: bool,
}

/// The generated code of a GPU program.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuCode {
    /// Object of the host functions.
    pub host: Vec<u8>,
    /// What was lowered.
    pub kernels: Kernels,
    /// PTX, if wanted.
    pub ptx: Option<String>,
    /// Object of the emulated kernels, if wanted.
    pub emulated: Option<Vec<u8>>,
}

/// Generates the code of a GPU program: emulated kernels for `cpu`, host code for [`Cpu::host`]. `note` is as for
/// [`crate::generate`].
pub fn generate_gpu(
    program: &Program,
    cpu: &Cpu,
    targets: GpuTargets,
    note: &mut dyn FnMut(&[KernelSource]),
) -> Result<GpuCode, CodegenError> {
    with_gpu_module(program, |module| {
        note(&module.kernels().sources);
        module.lower_kernels()?;
        let mut code = GpuCode {
            kernels: module.kernels().clone(),
            ..GpuCode::default()
        };
        if targets.cuda {
            let context = Context::create();
            code.ptx = Some(device_code(&translate_kernels(module, &context)?)?);
        }
        if targets.emulated {
            let context = Context::create();
            let kernels = translate_kernels(module, &context)?;
            let names: Vec<&str> = code.kernels.kernels.iter().map(|k| k.name.as_str()).collect();
            emulated::retarget(&context, &kernels, &names)?;
            code.emulated = Some(from_llvm(&kernels, cpu, effort::EMULATED, Emit::Object)?);
        }
        let context = Context::create();
        let host = translate_host(module, &context)?;
        emulated::refer_to(&context, &host, gpu_symbols::CUDA, gpu_symbols::RUNTIME_CUDA);
        code.host = from_llvm(&host, &cpu.host(), effort::HOST, Emit::Object)?;
        Ok(code)
    })?
}

/// What a program launches on a GPU, and the PTX of its kernels where it is wanted. `note` is as for
/// [`crate::generate`].
pub fn lower_gpu(
    program: &Program,
    with_ptx: bool,
    note: &mut dyn FnMut(&[KernelSource]),
) -> Result<(Kernels, Option<String>), CodegenError> {
    with_gpu_module(program, |module| {
        let kernels = module.kernels().clone();
        note(&kernels.sources);
        if !with_ptx {
            return Ok((kernels, None));
        }
        module.lower_kernels()?;
        let context = Context::create();
        let ptx = device_code(&translate_kernels(module, &context)?)?;
        Ok((kernels, Some(ptx)))
    })?
}

/// A text form of a GPU program: its MLIR, or (as `llvm` and `asm`) the LLVM IR and PTX of its kernels. The LLVM IR
/// is that of the emulated kernels where only they are wanted.
pub fn emit_gpu(
    program: &Program,
    cpu: &Cpu,
    targets: GpuTargets,
    emit: Emit,
) -> Result<Vec<u8>, CodegenError> {
    with_gpu_module(program, |module| match emit {
        Emit::Mlir => Ok(module.text().into_bytes()),
        Emit::MlirLlvm => {
            module.lower_kernels()?;
            let kernels = module.text();
            module.lower_host()?;
            Ok(format!("// kernels\n{kernels}\n// host\n{}", module.text()).into_bytes())
        }
        Emit::Llvm => {
            module.lower_kernels()?;
            let context = Context::create();
            let kernels = translate_kernels(module, &context)?;
            if !targets.cuda {
                let all = &module.kernels().kernels;
                let names: Vec<&str> = all.iter().map(|k| k.name.as_str()).collect();
                emulated::retarget(&context, &kernels, &names)?;
                return from_llvm(&kernels, cpu, effort::EMULATED, emit);
            }
            optimize(&kernels)?;
            Ok(kernels.print_to_string().to_bytes().to_vec())
        }
        Emit::Asm | Emit::Object => {
            module.lower_kernels()?;
            let context = Context::create();
            device_code(&translate_kernels(module, &context)?).map(String::into_bytes)
        }
    })?
}

fn translate_kernels<'c>(module: &GpuModule, context: &'c Context) -> Result<Module<'c>, CodegenError> {
    // SAFETY: as in `translate` of the CPU: one LLVM library, and the module is wrapped at once and borrows the
    // context.
    unsafe {
        let raw = module.translate_kernels(context.as_ctx_ref().cast());
        Ok(Module::new(raw.ok_or(CodegenError::Translate)?.as_ptr().cast()))
    }
}

fn translate_host<'c>(module: &mut GpuModule, context: &'c Context) -> Result<Module<'c>, CodegenError> {
    module.lower_host()?;
    // SAFETY: as above.
    unsafe {
        let raw = module.translate_host(context.as_ctx_ref().cast());
        Ok(Module::new(raw.ok_or(CodegenError::Translate)?.as_ptr().cast()))
    }
}
