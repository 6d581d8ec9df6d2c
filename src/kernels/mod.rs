//! The report of what a step launches on a GPU, made from what the lowering recorded.

mod machine;
mod roofline;
mod rows;
mod table;

use std::collections::BTreeMap;

use syncbn_codegen::{Cpu, lower_gpu};
use syncbn_ir::Warning;

use crate::compile::{Graphs, program};
use crate::ptxas::{Assembled, Ptxas};
use crate::{Error, Options, worker};

pub use machine::Gpu;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What the steps of a program launch on `gpu`, and what is odd about it.
pub fn report(
    graphs: &Graphs,
    options: &Options,
    gpu: Gpu,
    form: Form,
) -> Result<(String, Option<Warning>), Error> {
    let program = program(graphs, &Cpu::new(options.cpu), options)?;
    let machine = gpu.machine();
    let ptxas = Ptxas::find()?;
    let (kernels, ptx) = lower_gpu(&program, ptxas.is_some(), &mut worker::note_kernels)?;
    let (registers, warning) = match (ptxas, ptx) {
        (Some(ptxas), Some(ptx)) => {
            let result = ptxas.assemble(&ptx, machine.capability, &kernels.sources);
            match ptxas.or_warning(result, "the registers of the kernels are unknown")? {
                Ok(assembled) => (Some(registers(assembled)), None),
                Err(warning) => (None, Some(warning)),
            }
        }
        _ => (None, None),
    };
    let report = rows::Report::new(&kernels, &machine, options, registers.as_ref());
    let text = match form {
        Form::Table => table::text(&report),
        Form::Json => serde_json::to_string_pretty(&report).map_err(Error::internal)? + "\n",
    };
    Ok((text, warning))
}

/// Registers of a thread of each kernel.
fn registers(assembled: Assembled) -> BTreeMap<String, u64> {
    let kernels = assembled.kernels.into_iter();
    kernels.map(|usage| (usage.kernel, usage.registers)).collect()
}
