//! What passes need to know of values: whether they differ from rank to rank.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::ops::Scope;
use syncbn_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;

/// Nodes whose results belong to the samples at hand: they depend on a data input, or have a batch dimension.
/// All other nodes depend on parameters, statistics and constants alone.
pub fn depends_on_batch(graph: &Graph) -> Result<BTreeSet<NodeId>, PassError> {
    let mut set = BTreeSet::new();
    for id in graph.topological()? {
        let batched = graph.node(id).outputs.iter().any(|o| o.ty.shape.has_batch());
        let source = matches!(graph.op(id), Op::Input(_));
        if source || batched || graph.operands(id).iter().any(|v| set.contains(&v.node)) {
            set.insert(id);
        }
    }
    Ok(set)
}

/// Whether one of these values is in [`depends_on_batch`]. Looks no further than it must: what has a batch
/// dimension itself is known at once, and weights depend on little.
pub fn any_depends_on_batch(graph: &Graph, values: &[Value]) -> bool {
    let mut seen = BTreeSet::new();
    let mut stack: Vec<NodeId> = values.iter().map(|v| v.node).collect();
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        let mut outputs = graph.node(id).outputs.iter();
        if matches!(graph.op(id), Op::Input(_)) || outputs.any(|o| o.ty.shape.has_batch()) {
            return true;
        }
        stack.extend(graph.operands(id).iter().map(|v| v.node));
    }
    false
}

/// Nodes whose results are the same on all ranks: parameters, constants, what was summed over all ranks, and
/// whatever is computed from these alone.
///
/// Running statistics count as the same: in `local` and `group` mode they differ, but there nothing is summed
/// over all ranks before the gradients, and a gradient always depends on the loss of the rank's own samples.
pub fn replicated(graph: &Graph) -> Result<BTreeSet<NodeId>, PassError> {
    let mut set = BTreeSet::new();
    for id in graph.topological()? {
        let same = match graph.op(id) {
            Op::Input(_) => false,
            Op::AllReduce(op) if op.scope == Scope::All => true,
            _ => {
                let batched = graph.node(id).outputs.iter().any(|o| o.ty.shape.has_batch());
                !batched && graph.operands(id).iter().all(|v| set.contains(&v.node))
            }
        };
        if same {
            set.insert(id);
        }
    }
    Ok(set)
}

/// For every node the number of all-reduces on the longest chain that ends in it, itself included.
pub fn collective_levels(graph: &Graph) -> Result<BTreeMap<NodeId, usize>, PassError> {
    let mut levels: BTreeMap<NodeId, usize> = BTreeMap::new();
    for id in graph.topological()? {
        let operands = graph.operands(id);
        let before = operands.iter().filter_map(|v| levels.get(&v.node)).max();
        let own = usize::from(matches!(graph.op(id), Op::AllReduce(_)));
        levels.insert(id, before.copied().unwrap_or(0) + own);
    }
    Ok(levels)
}

/// Whether a node of the graph reads what this one computes; graph outputs do not count.
pub fn is_awaited(graph: &Graph, id: NodeId) -> bool {
    (0..graph.node(id).outputs.len()).any(|slot| !graph.users(Value { node: id, slot }).is_empty())
}
