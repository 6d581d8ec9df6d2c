//! List scheduling: nodes become ready as their operands are there; of those the best comes next.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::{Graph, NodeId, Op, OutputKind, Value};

use crate::analysis::is_awaited;

/// A schedule in the making.
pub struct Work<'g> {
    graph: &'g Graph,
    /// Position of every node before; decides between equals.
    positions: BTreeMap<NodeId, usize>,
    /// Operands that are still missing, of nodes that are not in the order.
    missing: BTreeMap<NodeId, usize>,
    ready: BTreeSet<NodeId>,
    /// Readers of each value that are still to come.
    readers: BTreeMap<Value, usize>,
    /// Bytes that a value takes in the step arena.
    bytes: BTreeMap<Value, i64>,
    /// The order so far.
    pub order: Vec<NodeId>,
}

impl<'g> Work<'g> {
    /// Nothing is in order yet; `nodes` are all nodes.
    pub fn new(graph: &'g Graph, nodes: &[NodeId], batch_bound: usize) -> Work<'g> {
        let mut work = Work {
            graph,
            positions: nodes.iter().enumerate().map(|(i, &id)| (id, i)).collect(),
            missing: BTreeMap::new(),
            ready: BTreeSet::new(),
            readers: BTreeMap::new(),
            bytes: BTreeMap::new(),
            order: Vec::with_capacity(nodes.len()),
        };
        for &id in nodes {
            let operands = graph.operands(id).len();
            work.missing.insert(id, operands);
            if operands == 0 {
                work.ready.insert(id);
            }
            for (slot, info) in graph.node(id).outputs.iter().enumerate() {
                let v = Value { node: id, slot };
                let bytes = if in_step_arena(graph, v) {
                    info.ty.bytes(batch_bound)
                } else {
                    None
                };
                work.bytes
                    .insert(v, bytes.map_or(0, |b| b.min(i64::MAX as u64) as i64));
                work.readers.insert(v, graph.users(v).len());
            }
        }
        work
    }

    /// Puts a ready node next.
    pub fn emit(&mut self, id: NodeId) {
        if !self.ready.remove(&id) {
            return;
        }
        self.missing.remove(&id);
        self.order.push(id);
        for v in self.graph.operands(id) {
            if let Some(readers) = self.readers.get_mut(&v) {
                *readers -= 1;
            }
        }
        for slot in 0..self.graph.node(id).outputs.len() {
            for (user, _) in self.graph.users(Value { node: id, slot }) {
                if let Some(missing) = self.missing.get_mut(&user) {
                    *missing -= 1;
                    if *missing == 0 {
                        self.ready.insert(user);
                    }
                }
            }
        }
    }

    /// Puts nodes of a set next, as long as some are ready; `apart` has direct readers that wait.
    pub fn emit_all(&mut self, set: &BTreeSet<NodeId>, apart: Option<NodeId>) {
        loop {
            let waits = |id: NodeId| {
                let operands = self.graph.operands(id);
                operands.iter().any(|v| Some(v.node) == apart)
            };
            let ready = self.ready.iter().copied().filter(|id| set.contains(id));
            let next = ready.filter(|&id| !waits(id)).min_by_key(|&id| self.cost(id));
            match next {
                Some(id) => self.emit(id),
                None => return,
            }
        }
    }

    /// Collectives first, then what lets the arena grow least, then what came first before.
    fn cost(&self, id: NodeId) -> (bool, i64, usize) {
        let takes = |slot| self.bytes.get(&Value { node: id, slot });
        let mut growth: i64 = (0..self.graph.node(id).outputs.len())
            .filter_map(takes)
            .fold(0, |sum: i64, &b| sum.saturating_add(b));
        let mut operands = self.graph.operands(id);
        operands.sort_unstable();
        for same in operands.chunk_by(|a, b| a == b) {
            if self.readers.get(&same[0]) == Some(&same.len()) {
                growth = growth.saturating_sub(self.bytes.get(&same[0]).copied().unwrap_or(0));
            }
        }
        let collective = matches!(self.graph.op(id), Op::AllReduce(_));
        (!collective, growth, self.positions.get(&id).copied().unwrap_or(0))
    }
}

/// Whether a value takes room that becomes free again: not sources, outputs and gradients.
fn in_step_arena(graph: &Graph, v: Value) -> bool {
    let placed = |v: Value| {
        let kinds = graph.outputs.iter().filter(|o| o.value == v).map(|o| o.kind);
        kinds.into_iter().any(|k| k != OutputKind::Loss)
    };
    let users = graph.users(v);
    // Such an all-reduce works in place, and its results are gradients.
    let to_gradients =
        |&(user, _): &(NodeId, usize)| matches!(graph.op(user), Op::AllReduce(_)) && !is_awaited(graph, user);
    !crate::plan_memory::is_source(graph.op(v.node))
        && !placed(v)
        && (users.is_empty() || !users.iter().all(to_gradients))
}
