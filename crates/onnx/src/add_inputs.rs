//! Graph inputs enter the graph: data as inputs, weights (with `--init`) as initializers.

use std::collections::HashSet;

use syncbn_ir::ops::{Input, Role};
use syncbn_ir::{DType, TensorType, Warning};

use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::{Initializers, Origin};
use crate::inputs::{DataInput, Declared, data_input, declared};
use crate::names::Names;
use crate::options::ImportOptions;
use crate::proto::{GraphProto, ValueInfoProto};
use crate::tensors::Element;
use crate::weight_inputs::{WeightInput, data_names, trainable_slot};

impl<'a> Importer<'a> {
    /// Adds inputs and initializers, and settles element type and batch. Returns the data inputs.
    pub(crate) fn add_inputs(
        &mut self,
        file: &'a GraphProto,
        mut table: Initializers<'a>,
        options: &ImportOptions,
    ) -> Vec<(String, Vec<usize>)> {
        self.errors.append(&mut table.errors);
        let data_names = data_names(file, self.names);
        let mut data = Vec::new();
        let mut missing = Vec::new();
        for info in &file.input {
            if table.bindings.contains_key(info.name()) {
                continue;
            }
            match weight_input(info, self.names, &data_names) {
                Some(weight) if options.init => table.add_input(weight),
                Some(weight) => {
                    missing.push(format!("\"{}\"", weight.name));
                    self.bindings.insert(weight.name, Binding::Failed);
                }
                None => data.push(info),
            }
        }
        if !missing.is_empty() {
            self.errors.push(
                ImportError::user(format!(
                    "weights are graph inputs without an initializer: {}",
                    missing.join(", ")
                ))
                .note("export with export_params=True, or give --init to start from random weights"),
            );
        }
        let list = &table.list;
        let sizes_of = |name: &str| list.iter().find(|i| i.name == name).map(|i| i.dims.clone());
        let mut inputs = Vec::new();
        for info in data {
            if !self.names.is_used(info.name()) {
                let warning = Warning::new("no node uses it: it becomes no input of the executable");
                self.warnings
                    .push(warning.at(format!("input \"{}\"", info.name())));
                continue;
            }
            match data_input(info, self.names, &sizes_of, options) {
                Ok(input) => inputs.push(input),
                Err(error) => {
                    self.errors.push(error);
                    self.bindings.insert(info.name().to_string(), Binding::Failed);
                }
            }
        }
        self.settle_dtype(&inputs, &table, options);
        self.settle_batch(&inputs);
        self.check_input_shapes(file, options);
        self.initializers = table.list;
        self.bindings.extend(table.bindings);
        inputs
            .into_iter()
            .map(|input| self.add_data_input(input))
            .collect()
    }

    fn add_data_input(&mut self, input: DataInput) -> (String, Vec<usize>) {
        let name = input.name.clone();
        let op = Input {
            name: name.clone(),
            role: Role::Data,
            ty: TensorType::batched(self.float_dtype(input.dtype), &input.sizes),
        };
        match self.graph_value(op, &name, &[]) {
            Ok(value) => self.bindings.insert(name.clone(), Binding::Value(value)),
            Err(mut error) => {
                error.message = format!("input \"{name}\": {}", error.message);
                self.errors.push(error);
                self.bindings.insert(name.clone(), Binding::Failed)
            }
        };
        (name, input.sizes)
    }

    fn settle_dtype(&mut self, inputs: &[DataInput], table: &Initializers, options: &ImportOptions) {
        let of_weights = table.list.iter().find_map(|i| match &i.origin {
            Origin::File(_, header) => match header.element {
                Element::Float(dtype) => Some(dtype),
                _ => None,
            },
            Origin::Init(input) => Some(input.dtype),
        });
        let of_inputs = inputs.iter().map(|i| i.dtype).find(|d| d.is_float());
        self.file_dtype = of_inputs.or(of_weights).unwrap_or(DType::F32);
        self.convert = options.dtype.filter(|&d| d != self.file_dtype);
        if let Some(dtype) = self.convert {
            self.notes.push(format!(
                "the file's {} values convert to {dtype}",
                self.file_dtype
            ));
        }
        if self.convert.is_some_and(|d| !d.is_float()) {
            self.errors
                .push(ImportError::user("the precision must be f32 or f64"));
        }
    }

    fn settle_batch(&mut self, inputs: &[DataInput]) {
        let batches: HashSet<Option<usize>> = inputs.iter().map(|i| i.batch).collect();
        self.fixed_batch = inputs.iter().find_map(|i| i.batch);
        if batches.len() > 1 {
            let list = inputs.iter().map(|i| match i.batch {
                Some(n) => format!("\"{}\" {n}", i.name),
                None => format!("\"{}\" a symbol", i.name),
            });
            self.errors.push(ImportError::unsupported(format!(
                "the first dimensions of the inputs differ ({}); all must be the batch",
                list.collect::<Vec<_>>().join(", ")
            )));
        }
    }

    fn check_input_shapes(&mut self, file: &GraphProto, options: &ImportOptions) {
        for (name, _) in &options.input_shapes {
            if !file.input.iter().any(|i| i.name() == name) {
                let inputs: Vec<&str> = file.input.iter().map(|i| i.name()).take(8).collect();
                self.errors.push(ImportError::user(format!(
                    "--input-shape {name}: the graph has no such input; it has {}",
                    inputs.join(", ")
                )));
            }
        }
    }
}

/// A graph input that is a weight: of known shape and in a trainable slot.
fn weight_input(info: &ValueInfoProto, names: &Names, data: &HashSet<&str>) -> Option<WeightInput> {
    if data.contains(info.name()) {
        return None;
    }
    let (number, dims) = declared(info).ok()??;
    let Ok(Element::Float(dtype)) = Element::new(number) else {
        return None;
    };
    let dims: Vec<usize> = dims?
        .into_iter()
        .map(|d| match d {
            Declared::Size(n) => Some(n),
            Declared::Symbol(_) => None,
        })
        .collect::<Option<_>>()?;
    let rule = trainable_slot(info.name(), names, data, &dims)?;
    Some(WeightInput {
        name: info.name().to_string(),
        dims,
        dtype,
        rule,
    })
}
