//! `combine-all-reduce`: all-reduces that do not wait for each other become one.
//!
//! Before (the shortcut and the main branch of a residual block):
//! ```text
//! %3 = all_reduce(%1#1) {scope = all}
//! %4 = all_reduce(%2#1) {scope = all}
//! %9:5 = batch_norm_finalize(%3, ...)
//! %10:5 = batch_norm_finalize(%4, ...)
//! ```
//! After:
//! ```text
//! %3:2 = all_reduce(%1#1, %2#1) {scope = all}
//! %9:5 = batch_norm_finalize(%3, ...)
//! %10:5 = batch_norm_finalize(%3#1, ...)
//! ```
//!
//! Every all-reduce has a level: the number of all-reduces on the longest chain that ends in it. Those of one
//! level and scope never depend on each other and are merged, and merging them lengthens no chain: a step ends up
//! with as many all-reduces as its longest chain has, and fewer are impossible.
//!
//! All-reduces that nothing in the graph waits for (gradients and the loss) are a class of their own, because a
//! BatchNorm would have to wait for their bytes. Of these, neighbours are merged while they hold no more bytes
//! together than a bucket of `insert-gradient-all-reduce`, with gradients in parameter order, so that they stay
//! contiguous in memory.
//!
//! It leaves alone all-reduces of which one depends on the other, however indirectly (in a dense block every layer
//! reads all layers before it, so that nothing combines; `share-moments` makes these smaller instead); those of
//! different scopes; and full buckets of gradients.

use std::collections::BTreeMap;

use syncbn_ir::ops::{AllReduce, Scope};
use syncbn_ir::{Graph, NodeId, Op, OutputKind, Value};

use crate::analysis::{collective_levels, is_awaited};
use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};

/// The collectives of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collectives {
    /// How many.
    pub collectives: u64,
    /// Bytes that every rank contributes to them in all.
    pub bytes: u64,
}

/// The pass.
pub struct CombineAllReduce;

impl Pass for CombineAllReduce {
    fn name(&self) -> &'static str {
        "combine-all-reduce"
    }

    fn summary(&self) -> &'static str {
        "all-reduces that do not wait for each other become one (--bucket-bytes)"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        cx.uncombined.get_or_insert(count(graph));
        let mut changes = 0;
        // A merged bucket is ready when the last of its gradients is: it can have new neighbours, with which it fits.
        loop {
            let groups = groups(graph, cx.options.bucket_bytes)?;
            if groups.is_empty() {
                return Ok(changes);
            }
            for group in &groups {
                merge(graph, group)?;
            }
            changes += groups.len();
        }
    }
}

/// The all-reduces that become one, two or more in each group.
fn groups(graph: &Graph, limit: u64) -> Result<Vec<Vec<NodeId>>, PassError> {
    let levels = collective_levels(graph)?;
    let mut awaited: BTreeMap<(usize, String), Vec<NodeId>> = BTreeMap::new();
    let mut last: Vec<(usize, NodeId)> = Vec::new();
    for id in graph.topological()? {
        let Op::AllReduce(op) = graph.op(id) else { continue };
        let level = levels.get(&id).copied().unwrap_or(0);
        match is_awaited(graph, id) {
            true => awaited
                .entry((level, format!("{:?}", op.scope)))
                .or_default()
                .push(id),
            false => last.push((level, id)),
        }
    }
    // The order of readiness; the sort keeps that of the graph among equals.
    last.sort_by_key(|&(level, _)| level);
    let last: Vec<NodeId> = last.into_iter().map(|(_, id)| id).collect();
    let groups = awaited.into_values().chain(buckets(graph, &last, limit));
    Ok(groups.filter(|g| g.len() > 1).collect())
}

/// The collectives of a graph.
pub(crate) fn count(graph: &Graph) -> Collectives {
    let all = graph
        .nodes()
        .filter(|&id| matches!(graph.op(id), Op::AllReduce(_)));
    all.fold(Collectives::default(), |sum, id| Collectives {
        collectives: sum.collectives + 1,
        bytes: sum.bytes + bytes(graph, id),
    })
}

/// What every rank contributes to a collective.
fn bytes(graph: &Graph, id: NodeId) -> u64 {
    let operands = graph.operands(id);
    operands.iter().filter_map(|&v| graph.ty(v).bytes(0)).sum()
}

/// Neighbours of one scope, as many as fit together.
fn buckets(graph: &Graph, last: &[NodeId], limit: u64) -> Vec<Vec<NodeId>> {
    let mut buckets: Vec<(Scope, u64, Vec<NodeId>)> = Vec::new();
    for &id in last {
        let Op::AllReduce(op) = graph.op(id) else { continue };
        let bytes = bytes(graph, id);
        match buckets.last_mut() {
            Some((scope, held, ids)) if *scope == op.scope && held.saturating_add(bytes) <= limit => {
                *held += bytes;
                ids.push(id);
            }
            _ => buckets.push((op.scope, bytes, vec![id])),
        }
    }
    buckets.into_iter().map(|(_, _, ids)| ids).collect()
}

fn merge(graph: &mut Graph, group: &[NodeId]) -> Result<(), PassError> {
    let Some(Op::AllReduce(op)) = group.first().map(|&id| graph.op(id)) else {
        return Ok(());
    };
    let scope = op.scope;
    let results = |&node: &NodeId| (0..graph.node(node).outputs.len()).map(move |slot| Value { node, slot });
    let mut old: Vec<Value> = group.iter().flat_map(results).collect();
    // Stable: what is no output stays where it is.
    old.sort_by_key(|&v| place_of(graph, v));
    let operands: Vec<Value> = old.iter().filter_map(|v| graph.operand(v.node, v.slot)).collect();
    let name = label(graph, group);
    let node = graph.add(AllReduce { scope }, &name, &operands)?;
    for (slot, &v) in old.iter().enumerate() {
        graph.replace_uses(v, Value { node, slot })?;
    }
    for &id in group {
        graph.remove(id)?;
    }
    Ok(())
}

/// Gradients by their place among the outputs, then the loss.
fn place_of(graph: &Graph, v: Value) -> (bool, usize) {
    let place = graph.outputs.iter().position(|o| o.value == v);
    let gradient = place.is_some_and(|i| graph.outputs[i].kind == OutputKind::Gradient);
    (place.is_some() && !gradient, place.unwrap_or(0))
}

/// The names of what is merged, each once.
fn label(graph: &Graph, group: &[NodeId]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for &id in group {
        let name = graph.node(id).name.as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" + ")
}
