//! The table of initializers.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use syncbn_ir::Value;

use crate::binding::{Binding, Slot, Weight};
use crate::error::ImportError;
use crate::integers::{Integers, Size, small};
use crate::proto::{GraphProto, TensorProto};
use crate::tensors::{Element, Tensor};
use crate::weight_inputs::WeightInput;

/// Where the first values of a weight come from.
#[derive(Debug, Clone)]
pub(crate) enum Origin<'a> {
    /// The file.
    File(&'a TensorProto, Tensor),
    /// `--init`.
    Init(WeightInput),
}

/// A floating-point initializer.
#[derive(Debug, Clone)]
pub(crate) struct Initializer<'a> {
    /// Its name.
    pub name: String,
    /// Sizes.
    pub dims: Vec<usize>,
    /// Where its values come from.
    pub origin: Origin<'a>,
    /// Its nodes in the graph: by which copy, in which slot.
    pub nodes: Vec<(Option<String>, Slot, Value)>,
}

/// Initializers and what their names stand for.
#[derive(Default)]
pub(crate) struct Initializers<'a> {
    /// Floating-point ones.
    pub list: Vec<Initializer<'a>>,
    /// All names.
    pub bindings: HashMap<String, Binding>,
    /// What is wrong.
    pub errors: Vec<ImportError>,
}

impl<'a> Initializers<'a> {
    /// Checks all initializers of a graph. Values of integer ones are read, others stay in the file.
    pub(crate) fn read(graph: &'a GraphProto, folder: Option<&Path>) -> Initializers<'a> {
        let mut table = Initializers::default();
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map(|v| v.name()).unwrap_or_default();
            table.bindings.insert(name.to_string(), Binding::Failed);
            table.errors.push(
                ImportError::unsupported(format!("initializer \"{name}\" is sparse"))
                    .note("export dense initializers"),
            );
        }
        for tensor in &graph.initializer {
            let binding = table.read_one(tensor, folder).unwrap_or_else(|error| {
                table.errors.push(error);
                Binding::Failed
            });
            table.bindings.insert(tensor.name().to_string(), binding);
        }
        table
    }

    fn read_one(&mut self, tensor: &'a TensorProto, folder: Option<&Path>) -> Result<Binding, ImportError> {
        let header = Tensor::check(tensor, folder)?;
        if !matches!(header.element, Element::Float(_)) {
            return Ok(integers(tensor, &header)?.into());
        }
        Ok(self.add(tensor.name(), header.dims.clone(), Origin::File(tensor, header)))
    }

    /// Adds a floating-point one.
    fn add(&mut self, name: &str, dims: Vec<usize>, origin: Origin<'a>) -> Binding {
        self.list.push(Initializer {
            name: name.to_string(),
            dims,
            origin,
            nodes: Vec::new(),
        });
        Binding::Weight(Weight {
            index: self.list.len() - 1,
            copy: None,
        })
    }

    /// Adds an input that `--init` fills.
    pub(crate) fn add_input(&mut self, input: WeightInput) {
        let name = input.name.clone();
        let binding = self.add(&name, input.dims.clone(), Origin::Init(input));
        self.bindings.insert(name, binding);
    }
}

/// The values of an integer tensor.
pub(crate) fn integers(tensor: &TensorProto, header: &Tensor) -> Result<Integers, ImportError> {
    if small(&header.dims).is_none() {
        return Err(ImportError::unsupported(format!(
            "integer tensor \"{}\" of shape {:?} is too large to be evaluated",
            tensor.name(),
            header.dims
        )));
    }
    Ok(Integers {
        dims: header.dims.clone(),
        values: header.integers(tensor)?.into_iter().map(Size::from).collect(),
    })
}

/// The integers of a binding, if it has any.
pub(crate) fn as_integers(binding: &Binding) -> Option<Rc<Integers>> {
    match binding {
        Binding::Integers(integers) => Some(integers.clone()),
        _ => None,
    }
}
