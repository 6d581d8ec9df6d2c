//! List scheduling: nodes become ready as their operands are there; of those the best comes next.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::{Graph, NodeId, Op, OutputKind, Value};

use crate::analysis::is_awaited;

/// What decides between ready nodes; the least comes first.
type Cost = (bool, i64, usize);

/// The group of a node; see [`Work::emit_all`].
pub type Group = usize;

/// A schedule in the making.
pub struct Work<'g> {
    graph: &'g Graph,
    groups: BTreeMap<NodeId, Group>,
    /// Position of every node before; decides between equals.
    positions: BTreeMap<NodeId, usize>,
    /// Operands that are still missing, of nodes that are not in the order.
    missing: BTreeMap<NodeId, usize>,
    /// The cost of every ready node.
    costs: BTreeMap<NodeId, Cost>,
    /// Ready nodes of each group by cost.
    ready: BTreeMap<Group, BTreeSet<(Cost, NodeId)>>,
    /// Readers of each value that are still to come.
    readers: BTreeMap<Value, usize>,
    /// Bytes that a value takes in the step arena, and how often a single node reads it at most.
    sizes: BTreeMap<Value, (i64, usize)>,
    /// The order so far.
    pub order: Vec<NodeId>,
}

impl<'g> Work<'g> {
    /// Nothing is in order yet; `nodes` are all nodes, each of which has a group.
    pub fn new(
        graph: &'g Graph,
        nodes: &[NodeId],
        groups: BTreeMap<NodeId, Group>,
        batch_bound: usize,
    ) -> Work<'g> {
        let mut work = Work {
            graph,
            groups,
            positions: nodes.iter().enumerate().map(|(i, &id)| (id, i)).collect(),
            missing: BTreeMap::new(),
            costs: BTreeMap::new(),
            ready: BTreeMap::new(),
            readers: BTreeMap::new(),
            sizes: BTreeMap::new(),
            order: Vec::with_capacity(nodes.len()),
        };
        let arena = StepArena::of(graph);
        for &id in nodes {
            for (slot, info) in graph.node(id).outputs.iter().enumerate() {
                let v = Value { node: id, slot };
                let users = graph.users(v);
                let bytes = match arena.holds(v, &users) {
                    true => info.ty.bytes(batch_bound),
                    false => None,
                };
                let bytes = bytes.map_or(0, |b| b.min(i64::MAX as u64) as i64);
                let most = users.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).max();
                work.sizes.insert(v, (bytes, most.unwrap_or(0)));
                work.readers.insert(v, users.len());
            }
        }
        for &id in nodes {
            let operands = graph.operands(id).len();
            work.missing.insert(id, operands);
            if operands == 0 {
                work.make_ready(id);
            }
        }
        work
    }

    fn make_ready(&mut self, id: NodeId) {
        let cost = self.cost(id);
        let group = self.groups.get(&id).copied().unwrap_or(0);
        if let Some(old) = self.costs.insert(id, cost)
            && let Some(ready) = self.ready.get_mut(&group)
        {
            ready.remove(&(old, id));
        }
        self.ready.entry(group).or_default().insert((cost, id));
    }

    /// Puts a ready node next.
    pub fn emit(&mut self, id: NodeId) {
        let Some(cost) = self.costs.remove(&id) else {
            return;
        };
        let group = self.groups.get(&id).copied().unwrap_or(0);
        if let Some(ready) = self.ready.get_mut(&group) {
            ready.remove(&(cost, id));
        }
        self.missing.remove(&id);
        self.order.push(id);
        let mut operands = self.graph.operands(id);
        operands.sort_unstable();
        for same in operands.chunk_by(|a, b| a == b) {
            let v = same[0];
            let Some(readers) = self.readers.get_mut(&v) else {
                continue;
            };
            *readers -= same.len();
            // Only now may a ready node be the last that reads the value.
            if self
                .sizes
                .get(&v)
                .is_some_and(|&(bytes, most)| bytes > 0 && *readers <= most)
            {
                for (user, _) in self.graph.users(v) {
                    if self.costs.contains_key(&user) {
                        self.make_ready(user);
                    }
                }
            }
        }
        for slot in 0..self.graph.node(id).outputs.len() {
            for (user, _) in self.graph.users(Value { node: id, slot }) {
                if let Some(missing) = self.missing.get_mut(&user) {
                    *missing -= 1;
                    if *missing == 0 {
                        self.make_ready(user);
                    }
                }
            }
        }
    }

    /// Puts nodes of a group next, as long as some are ready; `apart` has direct readers that wait.
    pub fn emit_all(&mut self, group: Group, apart: Option<NodeId>) {
        let mut waiting = Vec::new();
        while let Some((cost, id)) = self.ready.get_mut(&group).and_then(BTreeSet::pop_first) {
            let operands = self.graph.operands(id);
            if operands.iter().any(|v| Some(v.node) == apart) {
                waiting.push(id);
            } else {
                self.ready.entry(group).or_default().insert((cost, id));
                self.emit(id);
            }
        }
        for id in waiting {
            self.make_ready(id);
        }
    }

    /// Collectives first, then what lets the arena grow least, then what came first before.
    fn cost(&self, id: NodeId) -> Cost {
        let bytes = |v: Value| self.sizes.get(&v).map_or(0, |&(bytes, _)| bytes);
        let mut growth: i64 = (0..self.graph.node(id).outputs.len())
            .map(|slot| bytes(Value { node: id, slot }))
            .fold(0, i64::saturating_add);
        let mut operands = self.graph.operands(id);
        operands.sort_unstable();
        for same in operands.chunk_by(|a, b| a == b) {
            if self.readers.get(&same[0]) == Some(&same.len()) {
                growth = growth.saturating_sub(bytes(same[0]));
            }
        }
        let collective = matches!(self.graph.op(id), Op::AllReduce(_));
        (!collective, growth, self.positions.get(&id).copied().unwrap_or(0))
    }
}

/// Which values take room that becomes free again.
struct StepArena<'g> {
    graph: &'g Graph,
    /// Graph outputs other than the loss.
    placed: BTreeSet<Value>,
    /// Collectives that no node waits for.
    last: BTreeSet<NodeId>,
}

impl StepArena<'_> {
    fn of(graph: &Graph) -> StepArena<'_> {
        let placed = graph.outputs.iter().filter(|o| o.kind != OutputKind::Loss);
        let last = |&id: &NodeId| matches!(graph.op(id), Op::AllReduce(_)) && !is_awaited(graph, id);
        StepArena {
            graph,
            placed: placed.map(|o| o.value).collect(),
            last: graph.nodes().filter(last).collect(),
        }
    }

    /// Not sources, outputs and gradients.
    fn holds(&self, v: Value, users: &[(NodeId, usize)]) -> bool {
        // Such an all-reduce works in place, and its results are gradients.
        let to_gradients = |(user, _): &(NodeId, usize)| self.last.contains(user);
        !crate::plan_memory::is_source(self.graph.op(v.node))
            && !self.placed.contains(&v)
            && (users.is_empty() || !users.iter().all(to_gradients))
    }
}
