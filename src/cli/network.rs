//! The network that the command line names: an ONNX file or a graph in text form.

use std::path::Path;

use syncbn_ir::{Graph, Warning};
use syncbn_onnx::ImportOptions;
use syncbn_passes::Fault;

use super::arguments::Arguments;
use crate::Error;
use crate::diagnostic::{Diagnostic, Reporter, Severity};

/// A network as read.
pub struct Network {
    /// The graph.
    pub graph: Graph,
    /// The batch that the file was exported with, when it was fixed.
    pub fixed_batch: Option<usize>,
    /// Warnings of the import.
    pub warnings: Vec<Warning>,
}

/// Reads the network and reports what the import has to say of it.
pub fn import(arguments: &Arguments, model: &Path, reporter: Reporter) -> Result<Network, Error> {
    if model.extension().is_some_and(|e| e == "ir") {
        check_text_flags(arguments)?;
        return read_text(model);
    }
    let imported = syncbn_onnx::import(
        model,
        &ImportOptions {
            dtype: arguments.precision.and_then(|precision| precision.dtype),
            input_shapes: arguments.input_shape.clone(),
            init: arguments.init.is_some(),
            freeze: arguments.freeze.clone(),
            train: arguments.train.clone(),
        },
    )?;
    super::warn(reporter, &imported.warnings);
    for note in &imported.notes {
        reporter.report(&Diagnostic::new(Severity::Note, note, None));
    }
    Ok(Network {
        graph: imported.graph,
        fixed_batch: imported.fixed_batch,
        warnings: imported.warnings,
    })
}

/// Refuses flags that only the import of ONNX files looks at.
fn check_text_flags(arguments: &Arguments) -> Result<(), Error> {
    let given = [
        (
            "--precision",
            arguments
                .precision
                .is_some_and(|precision| precision.dtype.is_some()),
        ),
        ("--input-shape", !arguments.input_shape.is_empty()),
        ("--freeze", !arguments.freeze.is_empty()),
        ("--train", !arguments.train.is_empty()),
    ];
    let errors = given.iter().filter(|(_, given)| *given).map(|(flag, _)| {
        Error::user(
            format!("{flag} applies to ONNX files only"),
            "write it into the text: types, shapes and `trained` stand there",
        )
    });
    Error::check(errors.collect())
}

/// Reads a graph in text form: what `--emit graph` writes, or one written by hand.
fn read_text(path: &Path) -> Result<Network, Error> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::user(format!("cannot read {shown}: {e}"), "check the path"))?;
    let graph = syncbn_ir::parse(&text).map_err(|e| {
        let place = format!("{shown}, line {}, column {}", e.line, e.column);
        vec![
            Fault::user(e.message)
                .at(place)
                .help("docs/ir.md has the grammar"),
        ]
    })?;
    Ok(Network {
        graph,
        fixed_batch: None,
        warnings: Vec::new(),
    })
}
