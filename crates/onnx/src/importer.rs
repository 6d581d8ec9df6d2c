//! The import itself: nodes of the file, in order, become nodes of the graph.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use syncbn_ir::{DType, Graph, GraphError, Op, TensorType, Value, Warning};

use crate::attributes::{OnnxNode, describe};
use crate::binding::{Binding, Slot};
use crate::error::{ImportError, ImportErrors};
use crate::initializers::{Initializer, Initializers};
use crate::names::Names;
use crate::options::ImportOptions;
use crate::proto::{ModelProto, NodeProto};
use crate::tensors::Element;
use crate::{Imported, functions, load, ops};

/// Most elements of a value of one sample.
const MAX_ELEMENTS: usize = 1 << 40;

/// State of an import.
pub(crate) struct Importer<'a> {
    /// What has been imported.
    pub graph: Graph,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Element type of the file.
    pub file_dtype: DType,
    /// Element type that all floating-point values convert to, if it differs from the file's.
    pub convert: Option<DType>,
    /// The batch of the file, when it is fixed.
    pub fixed_batch: Option<usize>,
    /// Folder of the file.
    pub folder: Option<&'a Path>,
    /// Definitions and uses of names.
    pub names: &'a Names<'a>,
    /// What names stand for.
    pub bindings: HashMap<String, Binding>,
    /// Floating-point initializers.
    pub initializers: Vec<Initializer<'a>>,
    /// Names of parameters and statistics.
    pub tensor_names: HashSet<String>,
    /// Statistics that start with a constant, by name and slot.
    pub statistics: HashMap<(String, &'static str), Value>,
    /// Remarks.
    pub notes: Vec<String>,
    /// Warnings.
    pub warnings: Vec<Warning>,
    /// Errors.
    pub errors: Vec<ImportError>,
    /// Outputs whose Softmax was left out.
    pub softmax_outputs: Vec<String>,
}

/// Imports a decoded model.
pub(crate) fn run(
    mut model: ModelProto,
    folder: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported, ImportErrors> {
    let mut graph = model
        .graph
        .take()
        .ok_or_else(|| ImportError::user("the file has no graph"))?;
    let opset = load::opset(&model)?;
    functions::inline(&mut graph, &model.functions, opset)?;
    if graph.output.is_empty() {
        return Err(ImportError::user("the graph has no outputs").into());
    }
    let names = Names::new(&graph).map_err(ImportErrors)?;
    let table = Initializers::read(&graph, folder);
    let mut importer = Importer {
        graph: Graph::new(graph.name()),
        opset,
        file_dtype: DType::F32,
        convert: None,
        fixed_batch: None,
        folder,
        names: &names,
        bindings: HashMap::new(),
        initializers: Vec::new(),
        tensor_names: HashSet::new(),
        statistics: HashMap::new(),
        notes: Vec::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
        softmax_outputs: Vec::new(),
    };
    for (message, note) in load::oddities(&model) {
        importer.warnings.push(Warning {
            help: note,
            ..Warning::new(message)
        });
    }
    let inputs = importer.add_inputs(&graph, table, options);
    for (node, _) in graph.node.iter().zip(&names.live).filter(|(_, live)| **live) {
        importer.add_node(node);
    }
    importer.add_outputs(&graph);
    importer.finish(&graph, inputs, options)
}

impl<'a> Importer<'a> {
    /// The graph's element type for a floating-point type of the file.
    pub(crate) fn float_dtype(&self, dtype: DType) -> DType {
        self.convert.filter(|_| dtype.is_float()).unwrap_or(dtype)
    }

    /// The graph's element type for floating-point elements of the file.
    pub(crate) fn graph_dtype(&self, element: Element) -> Result<DType, ImportError> {
        match element {
            Element::Float(dtype) => Ok(self.float_dtype(dtype)),
            _ => Err(ImportError::user(
                "an integer tensor stands where a floating-point one must",
            )),
        }
    }

    fn add_node(&mut self, node: &NodeProto) {
        let results = self.import_node(node).unwrap_or_else(|error| {
            self.errors.extend(error.map(|e| e.at(&describe(node))));
            Vec::new()
        });
        let failed = results.is_empty();
        for (i, name) in node
            .output
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
        {
            let binding = results.get(i).cloned().unwrap_or(Binding::Failed);
            if i >= results.len() && !failed && self.names.is_used(name) {
                let text = format!("its output {i}, \"{name}\", is used and not supported");
                self.errors
                    .push(ImportError::unsupported(text).at(&describe(node)));
            }
            self.bindings.insert(name.clone(), binding);
        }
    }

    /// Results of a node; the error is None when an operand has failed before.
    fn import_node(&mut self, node: &NodeProto) -> Result<Vec<Binding>, Option<ImportError>> {
        let handler = ops::find(node, self.opset)?;
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            match self.bindings.get(name) {
                None => {
                    let error = self.names.undefined(name);
                    return Err(Some(error));
                }
                Some(Binding::Failed) => return Err(None),
                Some(_) => {}
            }
        }
        handler(self, &OnnxNode::new(node, self.opset)).map_err(Some)
    }

    /// What input `i` stands for; an error if it is not given.
    pub(crate) fn binding(&self, node: &OnnxNode, i: usize) -> Result<Binding, ImportError> {
        let name = node
            .input(i)
            .ok_or_else(|| ImportError::user(format!("input {i} is missing")))?;
        let binding = self.bindings.get(name).cloned();
        binding.ok_or_else(|| self.names.undefined(name))
    }

    /// The graph's value of input `i`.
    pub(crate) fn value(&mut self, node: &OnnxNode, i: usize) -> Result<Value, ImportError> {
        let binding = self.binding(node, i)?;
        self.value_of(&binding, node, i)
    }

    /// The graph's value of input `i`, if the input is given.
    pub(crate) fn optional_value(&mut self, node: &OnnxNode, i: usize) -> Result<Option<Value>, ImportError> {
        node.input(i).map(|_| self.value(node, i)).transpose()
    }

    fn value_of(&mut self, binding: &Binding, node: &OnnxNode, i: usize) -> Result<Value, ImportError> {
        match binding {
            Binding::Value(value) => Ok(*value),
            Binding::Weight(weight) => self.weight(weight, Slot::Data, &node.name),
            Binding::Integers(_) => Err(ImportError::unsupported(format!(
                "input \"{}\" is an integer tensor; only shape arithmetic on integers is supported",
                node.input(i).unwrap_or_default()
            ))),
            Binding::Sequence(_) => Err(ImportError::unsupported(format!(
                "input \"{}\" is a sequence",
                node.input(i).unwrap_or_default()
            ))),
            Binding::Failed => Err(ImportError::user(format!("input {i} is missing"))),
        }
    }

    /// Type of a value of the graph.
    pub(crate) fn ty(&self, value: Value) -> TensorType {
        self.graph.ty(value).clone()
    }

    /// Adds a node that has the name of the file's node.
    pub(crate) fn add(
        &mut self,
        node: &OnnxNode,
        op: impl Into<Op>,
        operands: &[Value],
    ) -> Result<Value, ImportError> {
        self.graph_value(op, &node.name, operands)
    }

    /// Adds a node and checks that its results can be stored.
    pub(crate) fn graph_value(
        &mut self,
        op: impl Into<Op>,
        name: &str,
        operands: &[Value],
    ) -> Result<Value, ImportError> {
        let op = op.into();
        // `elements_per_sample` of an operand is bounded, and so are sums of sizes.
        let batched = self.fixed_batch.is_some()
            && operands
                .iter()
                .any(|v| self.graph.try_type(*v).is_some_and(|t| t.shape.has_batch()));
        let id = self.graph.add(op, name, operands).map_err(|error| match error {
            GraphError::Type { message, .. } if batched && message.contains("batch") => {
                ImportError::unsupported(message).note(
                    "the file has a fixed batch that cannot be generalised: export it with a dynamic one",
                )
            }
            GraphError::Type { message, .. } => ImportError::user(message),
            other => ImportError::user(other.to_string()),
        })?;
        for output in &self.graph.node(id).outputs {
            let elements = output.ty.shape.elements_per_sample();
            if elements.is_none_or(|n| n > MAX_ELEMENTS) {
                return Err(ImportError::user(format!(
                    "its result of type {} is too large",
                    output.ty
                )));
            }
        }
        Ok(id.into())
    }
}
