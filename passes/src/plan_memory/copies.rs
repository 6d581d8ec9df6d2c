//! Values that must lie in a certain place: outputs, gradients, running statistics, all-reduced values. Where a
//! value already has another place, a copy is inserted.

use std::collections::BTreeSet;

use syncbn_ir::ops::Identity;
use syncbn_ir::{Arena, Graph, NodeId, Op, OutputKind, Value};

use super::buffers::{Buffers, Claim, is_alias};
use super::layout::Layout;
use super::{at, is_source};
use crate::analysis::any_depends_on_batch;
use crate::error::{Fault, Faults, PassError};
use crate::options::Mode;

/// Decides all places that liveness does not decide, parameters and other sources excepted.
pub fn claim_places(graph: &mut Graph, buffers: &mut Buffers, layout: &Layout) -> Result<(), PassError> {
    all_reduces(graph, buffers)?;
    let mut index = 0;
    let mut faults = Faults::default();
    for i in 0..graph.outputs.len() {
        if graph.outputs[i].kind == OutputKind::Statistic {
            let done = statistic(graph, buffers, i);
            faults.keep(done)?;
        }
    }
    faults.check()?;
    // Gradients and the loss come before outputs: a copy of an output may run last.
    for kind in [OutputKind::Gradient, OutputKind::Loss, OutputKind::Output] {
        for i in 0..graph.outputs.len() {
            if graph.outputs[i].kind != kind {
                continue;
            }
            let claim = match kind {
                OutputKind::Output => {
                    index += 1;
                    Claim::Place(at(Arena::Outputs, index - 1))
                }
                OutputKind::Gradient => match layout.parameter(&graph.outputs[i].name) {
                    Some(tensor) => Claim::Place(at(Arena::Gradients, tensor.offset)),
                    // The gradient of a data input: valid when the step ends.
                    None => Claim::Loss,
                },
                OutputKind::Loss | OutputKind::Statistic => Claim::Loss,
            };
            output(graph, buffers, i, claim)?;
        }
    }
    Ok(())
}

/// The order of nodes: `before`, with what was inserted since right before its first reader, or last.
pub fn settle(graph: &Graph, before: &[NodeId]) -> Vec<NodeId> {
    let known: BTreeSet<NodeId> = before.iter().copied().collect();
    let inserted: Vec<NodeId> = graph.nodes().filter(|id| !known.contains(id)).collect();
    let (mut placed, mut order) = (BTreeSet::new(), Vec::with_capacity(graph.len()));
    for &id in before.iter().chain(&inserted) {
        place_next(graph, id, &known, &mut placed, &mut order);
    }
    order
}

/// Puts a node next, and before it the copies among its operands.
fn place_next(
    graph: &Graph,
    id: NodeId,
    known: &BTreeSet<NodeId>,
    placed: &mut BTreeSet<NodeId>,
    order: &mut Vec<NodeId>,
) {
    if !placed.insert(id) {
        return;
    }
    for operand in graph.operands(id) {
        if !known.contains(&operand.node) {
            place_next(graph, operand.node, known, placed, order);
        }
    }
    order.push(id);
}

/// An all-reduce works in place, so nothing else may read its operands.
fn all_reduces(graph: &mut Graph, buffers: &mut Buffers) -> Result<(), PassError> {
    for id in graph.topological()? {
        if !matches!(graph.op(id), Op::AllReduce(_)) {
            continue;
        }
        for (slot, mut operand) in graph.operands(id).into_iter().enumerate() {
            if !is_own(graph, operand) {
                let name = graph.node(operand.node).name.clone();
                operand = graph.add_value(Identity {}, &name, &[operand])?;
                graph.set_operand(id, slot, operand)?;
            }
            buffers.join(Value { node: id, slot }, operand);
        }
    }
    Ok(())
}

/// Whether a value, under all its shapes, has one reader, and is computed in the step.
fn is_own(graph: &Graph, mut v: Value) -> bool {
    loop {
        if graph.use_count(v) != 1 || is_source(graph.op(v.node)) {
            return false;
        }
        match graph.operand(v.node, 0) {
            Some(x) if is_alias(graph, v.node) => v = x,
            // An all-reduce of an all-reduced value: its operands are someone else's results.
            _ => return !matches!(graph.op(v.node), Op::AllReduce(_)),
        }
    }
}

/// Updates a running statistic in place: every `batch_norm_finalize` from the statistic to the output.
fn statistic(graph: &mut Graph, buffers: &mut Buffers, index: usize) -> Result<(), PassError> {
    let name = graph.outputs[index].name.clone();
    let mut v = graph.outputs[index].value;
    let mut chain = vec![v];
    while let (Op::BatchNormFinalize(_), 3 | 4) = (graph.op(v.node), v.slot) {
        v = graph.operands(v.node)[v.slot - 2];
        chain.push(v);
    }
    let is_statistic = |v: Value| matches!(graph.op(v.node), Op::Statistic(s) if s.name == name);
    // A statistic that other nodes read too was copied by an earlier run.
    let copied =
        matches!(graph.op(v.node), Op::Identity(_)) && graph.operand(v.node, 0).is_some_and(is_statistic);
    if copied {
        chain.pop();
        chain.extend(graph.operand(v.node, 0));
    }
    let source = chain.last().copied().unwrap_or(v);
    let simple = matches!(graph.op(source.node), Op::Statistic(s) if s.name == name);
    let between = chain.len().saturating_sub(1);
    if !simple || chain[1..between.max(1)].iter().any(|&v| graph.use_count(v) > 1) {
        let fault = Fault::unsupported(
            "is updated by other than batch_norm_finalize, so it cannot be updated in place",
        );
        let fault = fault.at(format!("running statistic \"{name}\""));
        return Err(fault
            .help("let bn-to-syncbn run on the BatchNorms: see --passes and --skip")
            .into());
    }
    if chain.len() > 1 && !copied && graph.use_count(source) > 1 {
        // Everyone reads a copy of the old value, and so nobody reads it after the update.
        let label = graph.node(source.node).name.clone();
        let copy = graph.add_value(Identity {}, &label, &[source])?;
        for (user, slot) in graph.users(source) {
            if user != copy.node {
                graph.set_operand(user, slot, copy)?;
            }
        }
        for output in &mut graph.outputs {
            if output.value == source && output.kind != OutputKind::Statistic {
                output.value = copy;
            }
        }
    }
    for &v in &chain[..between] {
        buffers.join(v, source);
    }
    Ok(())
}

/// Gives a graph output its place, or a copy of it.
fn output(graph: &mut Graph, buffers: &mut Buffers, index: usize, claim: Claim) -> Result<(), PassError> {
    let value = graph.outputs[index].value;
    let early = buffers.mode() == Mode::Infer && !any_depends_on_batch(graph, &[value]);
    let to_caller = graph.outputs[index].kind == OutputKind::Output;
    let copied = matches!(graph.op(value.node), Op::Identity(_)) && graph.use_count(value) == 1;
    if buffers.is_claimed(graph, value) || (early && to_caller && !copied) || saved(graph, value) {
        let name = graph.node(value.node).name.clone();
        let copy = graph.add_value(Identity {}, &name, &[value])?;
        graph.outputs[index].value = copy;
    }
    buffers.claim(graph.outputs[index].value, claim);
    Ok(())
}

/// What a BatchNorm keeps until the next step has its own place.
fn saved(graph: &Graph, v: Value) -> bool {
    matches!(graph.op(v.node), Op::BatchNormFinalize(_)) && v.slot < 3
}
