//! `schedule`: one total order of all nodes, and so of all collectives, for every rank.
//!
//! Before (the order of making):
//! ```text
//! %12 = all_reduce(%11) {scope = all}
//! %13 = batch_norm_backward_data(%2, %dy, ..., %12, %5)
//! %14 = conv_backward_weight(%x, %dc)
//! ```
//! After:
//! ```text
//! %12 = all_reduce(%11) {scope = all}
//! %13 = conv_backward_weight(%x, %dc)
//! %14 = batch_norm_backward_data(%2, %dy, ..., %12, %5)
//! ```
//!
//! The order is that of the graph itself: nodes are numbered anew, so that the text form, `plan-memory`, lowering
//! and the model's description all see it. It is a function of the graph alone, so all ranks have the same.
//!
//! - Sources come first, as they were.
//! - Collectives that others wait for come in order of their level (see `combine-all-reduce`), each as early as
//!   possible: only what it depends on comes before it.
//! - Behind a collective, and before anyone reads its result, stands work that no later collective of this kind
//!   needs and that is ready: weight gradients and their buckets. A target that can, overlaps the two.
//! - Among nodes that are ready, the one that lets the step arena grow least comes first, then the earlier made.
//!
//! It leaves alone a graph that is in this order.

mod work;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use syncbn_ir::{Graph, NodeId, Op};

use crate::analysis::{collective_levels, is_awaited};
use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::plan_memory::is_source;
use work::{Group, Work};

/// The pass.
pub struct Schedule;

impl Pass for Schedule {
    fn name(&self) -> &'static str {
        "schedule"
    }

    fn summary(&self) -> &'static str {
        "one order of nodes and collectives for all ranks: collectives early, independent work behind them"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let before = graph.topological()?;
        let after = order(graph, &before, cx.batch_bound())?;
        if before == after {
            return Ok(0);
        }
        graph.reorder(&after)?;
        Ok(1)
    }
}

/// The schedule of a graph whose nodes stand in the order `before`.
fn order(graph: &Graph, before: &[NodeId], batch_bound: usize) -> Result<Vec<NodeId>, PassError> {
    let levels = collective_levels(graph)?;
    let mut collectives: Vec<NodeId> = before
        .iter()
        .copied()
        .filter(|&id| matches!(graph.op(id), Op::AllReduce(_)) && is_awaited(graph, id))
        .collect();
    collectives.sort_by_key(|id| levels.get(id).copied());
    let mut work = Work::new(graph, before, groups(graph, &collectives), batch_bound);
    for &id in before.iter().filter(|&&id| is_source(graph.op(id))) {
        work.emit(id);
    }
    let free = collectives.len();
    for (group, &collective) in collectives.iter().enumerate() {
        work.emit_all(group, None);
        // Whatever reads the sums waits; the rest of the free work need not.
        work.emit_all(free, Some(collective));
    }
    work.emit_all(free, None);
    Ok(work.order)
}

/// The index of the first of these collectives that needs a node; their number where none does.
fn groups(graph: &Graph, collectives: &[NodeId]) -> BTreeMap<NodeId, Group> {
    let mut groups = BTreeMap::new();
    for (group, &collective) in collectives.iter().enumerate() {
        let mut stack = vec![collective];
        while let Some(id) = stack.pop() {
            if let Entry::Vacant(entry) = groups.entry(id) {
                entry.insert(group);
                stack.extend(graph.operands(id).iter().map(|v| v.node));
            }
        }
    }
    for id in graph.nodes() {
        groups.entry(id).or_insert(collectives.len());
    }
    groups
}
