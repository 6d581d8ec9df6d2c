//! The report of what a step launches on a GPU, made from what the lowering recorded.

mod machine;
mod roofline;
mod rows;
mod table;

use std::collections::BTreeMap;

use syncbn_codegen::{Cpu, lower_gpu};

use crate::compile::{Graphs, program};
use crate::ptxas::Ptxas;
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

/// What the steps of a program launch on `gpu`.
pub fn report(graphs: &Graphs, options: &Options, gpu: Gpu, form: Form) -> Result<String, Error> {
    let program = program(graphs, &Cpu::new(options.cpu), options)?;
    let machine = gpu.machine();
    let ptxas = Ptxas::find()?;
    let (kernels, ptx) = lower_gpu(&program, ptxas.is_some(), &mut worker::note_kernels)?;
    let registers: Option<BTreeMap<String, u64>> = match (ptxas, ptx) {
        (Some(ptxas), Some(ptx)) => {
            let assembled = ptxas.assemble(&ptx, machine.capability, &kernels.sources)?;
            let all = assembled.kernels.into_iter();
            Some(all.map(|usage| (usage.kernel, usage.registers)).collect())
        }
        _ => None,
    };
    let report = rows::Report::new(&kernels, &machine, options, registers.as_ref());
    match form {
        Form::Table => Ok(table::text(&report)),
        Form::Json => {
            let text = serde_json::to_string_pretty(&report).map_err(Error::internal)?;
            Ok(text + "\n")
        }
    }
}
