//! Which parameters are trained: those that reach a weight, bias, scale or shift slot.

use std::collections::BTreeSet;
use std::sync::Arc;

use syncbn_ir::ops::{BinaryFunction, Constant, Parameter, ParameterData};
use syncbn_ir::{Graph, NodeId, Op, Value, Warning};

use crate::error::ImportError;
use crate::importer::Importer;
use crate::options::{Globs, ImportOptions};
use crate::{ImportedTensor, TensorClass};

/// Settles `trained` of every parameter and lists all parameters and statistics in order of first use.
/// Untrained scalars become constants.
pub(crate) fn classify(
    importer: &mut Importer,
    options: &ImportOptions,
) -> Result<Vec<ImportedTensor>, ImportError> {
    let mut freeze = Globs::new("--freeze", &options.freeze)?;
    let mut train = Globs::new("--train", &options.train)?;
    let graph = &mut importer.graph;
    let data = graph
        .depends_on_data()
        .map_err(|e| ImportError::user(e.to_string()))?;
    let mut tensors = Vec::new();
    for id in graph.nodes().collect::<Vec<NodeId>>() {
        let (name, trained) = match graph.op(id) {
            Op::Parameter(p) => (p.name.clone(), Some(reaches_trainable_slot(graph, id, &data))),
            Op::Statistic(s) => (s.name.clone(), None),
            _ => continue,
        };
        let frozen = trained.is_some() && freeze.matches(&name);
        let forced = trained.is_some() && train.matches(&name);
        let trained = trained.map(|t| (t && !frozen) || forced);
        let class = match trained {
            None => TensorClass::Statistic,
            Some(true) => TensorClass::Trained,
            Some(false) => TensorClass::Constant,
        };
        if let Op::Parameter(parameter) = &mut graph.node_mut(id).op {
            parameter.trained = trained == Some(true);
            if let Some(constant) = as_scalar_constant(parameter) {
                graph.node_mut(id).op = constant.into();
                continue;
            }
        }
        let shape = graph.ty(Value::from(id)).shape.sizes(0);
        tensors.push(ImportedTensor { name, shape, class });
    }
    for pattern in freeze.unmatched().into_iter().chain(train.unmatched()) {
        let warning = Warning::new("matches no parameter").at(pattern.to_string());
        importer
            .warnings
            .push(warning.help("--emit graph lists the parameters"));
    }
    Ok(tensors)
}

/// An untrained parameter of one element, as a constant that passes can fold.
fn as_scalar_constant(parameter: &Parameter) -> Option<Constant> {
    match &parameter.data {
        ParameterData::Values(value) if !parameter.trained && value.len() == 1 => Some(Constant {
            value: Arc::clone(value),
        }),
        _ => None,
    }
}

/// Whether PyTorch's exporter made up the name: `val_N` is a folded constant, no tensor of the network's state.
pub(crate) fn is_generated(name: &str) -> bool {
    let number = name.strip_prefix("val_").filter(|n| !n.is_empty());
    number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a parameter reaches a trainable slot, directly or through values that depend on no data.
fn reaches_trainable_slot(graph: &Graph, parameter: NodeId, data: &BTreeSet<NodeId>) -> bool {
    let shape = &graph.ty(parameter.into()).shape;
    let generated = matches!(graph.op(parameter), Op::Parameter(p) if is_generated(&p.name));
    if shape.rank() == 0 || (generated && shape.elements_per_sample() == Some(1)) {
        return false;
    }
    let mut seen = BTreeSet::new();
    let mut stack = vec![parameter];
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        let slots = 0..graph.node(id).outputs.len();
        for (user, slot) in slots.flat_map(|slot| graph.users(Value { node: id, slot })) {
            if is_trainable_slot(graph, user, slot, data.contains(&user)) {
                return true;
            }
            if !data.contains(&user) {
                stack.push(user);
            }
        }
    }
    false
}

fn is_trainable_slot(graph: &Graph, user: NodeId, slot: usize, on_data: bool) -> bool {
    match graph.op(user) {
        Op::Conv(_) => slot > 0,
        Op::MatMul(_) => on_data,
        Op::BatchNorm(_) => slot == 1 || slot == 2,
        Op::Binary(b) => on_data && matches!(b.function, BinaryFunction::Add | BinaryFunction::Mul),
        _ => false,
    }
}
