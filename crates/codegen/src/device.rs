//! PTX: LLVM's part of it, on several threads.

use std::collections::BTreeSet;
use std::thread;

use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::support::LLVMString;
use inkwell::targets::{CodeModel, FileType, RelocMode, Target, TargetMachine, TargetTriple};
use inkwell::values::BasicValue;

use crate::{CodegenError, STACK_BYTES, effort, initialize_targets, text_of};

/// The lowest GPU that device code is for, and PTX's version: CUDA 12.0, and every later driver.
const CHIP: &str = "sm_80";
const FEATURES: &str = "+ptx80";
/// Pieces that kernels are divided into. A fixed number, so that the text does not depend on the machine.
const PIECES: usize = 4;
/// What the text of a kernel begins with.
const KERNEL: &str = "\t// .globl";
/// What a declaration begins with.
const DECLARATION: &str = ".extern";

fn failed(error: LLVMString) -> CodegenError {
    CodegenError::Llvm(error.to_string())
}

/// Kernels as PTX.
pub fn device_code(kernels: &Module) -> Result<String, CodegenError> {
    let names: Vec<String> = kernels
        .get_functions()
        .filter(|function| function.count_basic_blocks() > 0)
        .map(|function| function.get_name().to_string_lossy().into_owned())
        .collect();
    let bitcode = kernels.write_bitcode_to_memory();
    let bitcode = bitcode.as_slice();
    let pieces: Vec<Result<String, CodegenError>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..PIECES.min(names.len()).max(1))
            .map(|piece| {
                // Neighbours are alike, so that every piece gets its share of the large ones.
                let own: BTreeSet<&str> = names
                    .iter()
                    .skip(piece)
                    .step_by(PIECES)
                    .map(String::as_str)
                    .collect();
                thread::Builder::new()
                    .stack_size(STACK_BYTES)
                    .spawn_scoped(scope, move || assembly(bitcode, &own))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| {
            let thread = thread.map_err(|error| CodegenError::Llvm(format!("no thread for PTX: {error}")))?;
            let crashed = |_| {
                Err(CodegenError::Llvm(
                    "a thread that generated PTX panicked".to_string(),
                ))
            };
            thread.join().unwrap_or_else(crashed)
        });
        ended.collect()
    });
    Ok(joined(&pieces.into_iter().collect::<Result<Vec<_>, _>>()?))
}

/// PTX of the kernels in `own`.
fn assembly(bitcode: &[u8], own: &BTreeSet<&str>) -> Result<String, CodegenError> {
    let context = Context::create();
    let buffer = MemoryBuffer::create_from_memory_range_copy(bitcode, "kernels");
    let module = Module::parse_bitcode_from_buffer(&buffer, &context).map_err(failed)?;
    for function in module.get_functions().collect::<Vec<_>>() {
        let name = function.get_name().to_string_lossy().into_owned();
        if function.count_basic_blocks() > 0 && !own.contains(name.as_str()) {
            if function
                .as_global_value()
                .as_pointer_value()
                .get_first_use()
                .is_some()
            {
                return Err(CodegenError::Llvm(format!(
                    "{name} is a kernel, and another function refers to it"
                )));
            }
            // SAFETY: nothing refers to the function, as was just seen.
            unsafe { function.delete() };
        }
    }
    let machine = optimize(&module)?;
    let buffer = machine
        .write_to_memory_buffer(&module, FileType::Assembly)
        .map_err(failed)?;
    String::from_utf8(text_of(buffer.as_slice())).map_err(|e| CodegenError::Llvm(e.to_string()))
}

/// One text of several: the head of the first, and what each declares once.
fn joined(pieces: &[String]) -> String {
    let mut text = String::new();
    let mut declared = BTreeSet::new();
    for (i, piece) in pieces.iter().enumerate() {
        let (head, body) = piece.split_at(piece.find(KERNEL).unwrap_or(piece.len()));
        if i == 0 {
            text.push_str(head);
        }
        for line in body.lines() {
            if !line.starts_with(DECLARATION) || declared.insert(line) {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Runs LLVM's passes for the device.
pub fn optimize(kernels: &Module) -> Result<TargetMachine, CodegenError> {
    initialize_targets();
    let triple = TargetTriple::create("nvptx64-nvidia-cuda");
    let machine = Target::from_triple(&triple)
        .map_err(failed)?
        .create_target_machine(
            &triple,
            CHIP,
            FEATURES,
            effort::DEVICE.level,
            RelocMode::Default,
            CodeModel::Default,
        )
        .ok_or_else(|| CodegenError::Llvm(format!("no code generator for {CHIP}")))?;
    kernels.set_triple(&triple);
    kernels.set_data_layout(&machine.get_target_data().get_data_layout());
    kernels.verify().map_err(failed)?;
    kernels
        .run_passes(effort::DEVICE.passes, &machine, PassBuilderOptions::create())
        .map_err(failed)?;
    Ok(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_pieces_declare_stands_once() {
        let head = "//\n// Generated\n//\n\n.version 8.0\n.target sm_80\n.address_size 64\n\n";
        let kernel = |name: &str| format!("{KERNEL}\t{name}\n.visible .entry {name}()\n{{\n}}\n");
        let shared = ".extern .shared .align 16 .b8 shared[];\n";
        let pieces = [
            format!("{head}{}", kernel("a")),
            format!(
                "{head}{}{}",
                kernel("b").replacen('\n', &format!("\n{shared}"), 1),
                kernel("c")
            ),
            format!("{head}{}", kernel("d").replacen('\n', &format!("\n{shared}"), 1)),
        ];
        let text = joined(&pieces);
        for once in [".version", ".target", ".address_size", ".extern .shared"] {
            assert_eq!(text.matches(once).count(), 1, "{text}");
        }
        assert_eq!(text.matches(".entry").count(), 4, "{text}");
        assert!(text.find(shared) < text.find(".entry b"), "{text}");
    }
}
