//! A program as several object files, which are generated at the same time. How functions are divided depends on the
//! program alone, so that two machines make the same bytes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use inkwell::GlobalVisibility;
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::module::{Linkage, Module};
use inkwell::passes::PassBuilderOptions;
use inkwell::values::FunctionValue;
use syncbn_abi::symbols;
use syncbn_mlir::{KernelSource, Program};
use syncbn_mlir::{Stage, with_module};

use crate::effort::{self, Effort};
use crate::{CodegenError, Cpu, Emit, STACK_BYTES, from_llvm, machine, translate};

/// Instructions that an object holds at least, if there are others: every object costs a look at the whole program.
const LEAST_INSTRUCTIONS: usize = 4000;
/// Objects of kernels, and of step functions, at most.
const MOST_OBJECTS: usize = 8;

/// Functions of one object, and how much LLVM does for them.
struct Share {
    functions: BTreeSet<String>,
    effort: Effort,
}

/// Generates object files for a program, which belong together: kernels of one are called from others.
///
/// `note` receives the kernels before LLVM does, as in [`crate::generate`].
pub fn generate_objects(
    program: &Program,
    cpu: &Cpu,
    note: &mut dyn FnMut(&[KernelSource]),
) -> Result<Vec<Vec<u8>>, CodegenError> {
    let (code, shares) = with_module(program, Stage::MlirLlvm, |lowered| {
        note(lowered.kernels());
        let context = Context::create();
        let module = translate(lowered, &context)?;
        let shares = divide(&module);
        let code = module.write_bitcode_to_memory();
        Ok::<_, CodegenError>((code.as_slice().to_vec(), shares))
    })??;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        while let Some((index, share)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            shares.get(index).map(|share| (index, share))
        } {
            made.push((index, object(&code, share, cpu)));
        }
        made
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let made = thread::scope(|scope| {
        let start = |_| {
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, work)
        };
        let threads: Vec<_> = (0..threads.min(shares.len())).map(start).collect();
        let ended = threads
            .into_iter()
            .map(|thread| match thread.map(|thread| thread.join()) {
                Ok(Ok(made)) => Ok(made),
                Ok(Err(_)) => Err(CodegenError::Llvm(
                    "a thread that generated code panicked".to_string(),
                )),
                Err(error) => Err(CodegenError::Llvm(format!(
                    "no thread to generate code on: {error}"
                ))),
            });
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    let mut made: Vec<_> = made.into_iter().flatten().collect();
    made.sort_by_key(|&(index, _)| index);
    made.into_iter().map(|(_, object)| object).collect()
}

/// Whether a function is (part of) a step: long, and of calls alone.
fn is_step(name: &str) -> bool {
    let step = name.split('.').next().unwrap_or(name);
    [symbols::TRAIN_STEP, symbols::INFER_PREPARE, symbols::INFER_STEP].contains(&step)
}

fn name_of(function: FunctionValue) -> String {
    function.get_name().to_string_lossy().into_owned()
}

/// Shares of about equal length, kernels and step functions apart.
fn divide(module: &Module) -> Vec<Share> {
    let length = |function: FunctionValue| {
        let blocks = function.get_basic_block_iter();
        blocks
            .map(|block| block.get_instructions().count())
            .sum::<usize>()
    };
    let defined = module.get_functions().filter(|f| f.count_basic_blocks() > 0);
    let lengths: Vec<(String, usize)> = defined.map(|f| (name_of(f), length(f))).collect();
    let (steps, kernels): (Vec<_>, Vec<_>) = lengths.into_iter().partition(|(name, _)| is_step(name));
    let mut shares = Vec::new();
    for (mut functions, effort) in [(kernels, effort::CPU), (steps, effort::HOST)] {
        // Longest first, each to the shortest share so far; equals in the order of their names.
        functions.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        let total: usize = functions.iter().map(|(_, length)| length).sum();
        let count = (total / LEAST_INSTRUCTIONS).clamp(1, MOST_OBJECTS);
        let mut parts = vec![(0, BTreeSet::new()); count];
        for (name, length) in functions {
            if let Some((sum, part)) = parts.iter_mut().min_by_key(|(sum, _)| *sum) {
                *sum += length;
                part.insert(name);
            }
        }
        let parts = parts.into_iter().filter(|(_, functions)| !functions.is_empty());
        shares.extend(parts.map(|(_, functions)| Share { functions, effort }));
    }
    shares
}

/// The object of one share of the program in LLVM's `code`.
fn object(code: &[u8], share: &Share, cpu: &Cpu) -> Result<Vec<u8>, CodegenError> {
    let context = Context::create();
    let code = MemoryBuffer::create_from_memory_range_copy(code, "code");
    let failed = |error: inkwell::support::LLVMString| CodegenError::Llvm(error.to_string());
    let module = Module::parse_bitcode_from_buffer(&code, &context).map_err(failed)?;
    for function in module.get_functions().filter(|f| f.count_basic_blocks() > 0) {
        if function.get_linkage() == Linkage::Internal {
            function.set_linkage(Linkage::External);
            function
                .as_global_value()
                .set_visibility(GlobalVisibility::Hidden);
        }
        if !share.functions.contains(&name_of(function)) {
            function.set_linkage(Linkage::AvailableExternally);
        }
    }
    let options = PassBuilderOptions::create();
    let machine = machine(cpu, share.effort)?;
    module
        .run_passes("elim-avail-extern", &machine, options)
        .map_err(failed)?;
    from_llvm(&module, cpu, share.effort, Emit::Object)
}
