//! The end of an import: outputs, the classes of tensors, and warnings.

use std::collections::HashSet;

use syncbn_ir::{Output, OutputKind};

use crate::binding::Binding;
use crate::error::{ImportError, ImportErrors};
use crate::importer::Importer;
use crate::options::ImportOptions;
use crate::proto::GraphProto;
use crate::{Imported, checks, classify, primitive_batch_norm};

impl Importer<'_> {
    /// Gives the graph the file's outputs, each with the batch in front.
    pub(crate) fn add_outputs(&mut self, graph: &GraphProto) {
        let mut seen = HashSet::new();
        for info in &graph.output {
            let name = info.name();
            if !seen.insert(name) {
                self.errors
                    .push(ImportError::user(format!("output \"{name}\" is declared twice")));
                continue;
            }
            match self.bindings.get(name) {
                Some(Binding::Failed) => {}
                Some(Binding::Value(value)) if self.graph.ty(*value).shape.has_batch() => {
                    let (kind, name, value) = (OutputKind::Output, name.to_string(), *value);
                    self.graph.outputs.push(Output { kind, name, value });
                }
                Some(_) => self.errors.push(ImportError::unsupported(format!(
                    "output \"{name}\" does not have the batch as its first dimension"
                ))),
                None => self.errors.push(ImportError::user(format!(
                    "output \"{name}\" is missing: no node computes it"
                ))),
            }
        }
    }

    /// The finished import, or all that is wrong with the file.
    pub(crate) fn finish(
        mut self,
        file: &GraphProto,
        inputs: Vec<(String, Vec<usize>)>,
        options: &ImportOptions,
    ) -> Result<Imported, ImportErrors> {
        if inputs.is_empty() && self.errors.is_empty() {
            self.errors.push(ImportError::user("the graph has no data input"));
        }
        if !self.errors.is_empty() {
            return Err(ImportErrors::collect(self.errors));
        }
        self.graph.remove_dead();
        primitive_batch_norm::recognize(&mut self)?;
        let tensors = classify::classify(&mut self, options)?;
        checks::check(&mut self, file, options)?;
        Ok(Imported {
            batch_norms: checks::batch_norms(&self.graph).len(),
            graph: self.graph,
            warnings: self.warnings,
            notes: self.notes,
            dtype: self.convert.unwrap_or(self.file_dtype),
            file_dtype: self.file_dtype,
            opset: self.opset,
            fixed_batch: self.fixed_batch,
            inputs,
            tensors,
            softmax_outputs: self.softmax_outputs,
        })
    }
}
