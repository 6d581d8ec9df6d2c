//! Orders and dependences.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use petgraph::Direction;
use petgraph::visit::EdgeRef;

use super::{Edge, Graph, GraphError, NodeId, Output, Value};
use crate::ops::Op;

impl Graph {
    /// All nodes, operands before users; among nodes that are ready the lowest id comes first, so that the
    /// order depends on nothing but the graph.
    pub fn topological(&self) -> Result<Vec<NodeId>, GraphError> {
        let mut missing: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut ready = BinaryHeap::new();
        for id in self.nodes() {
            let n = self.graph.edges_directed(id.index(), Direction::Incoming).count();
            missing.insert(id, n);
            if n == 0 {
                ready.push(Reverse(id));
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            missing.remove(&id);
            for e in self.graph.edges_directed(id.index(), Direction::Outgoing) {
                let target = NodeId(e.target().index() as u32);
                if let Some(n) = missing.get_mut(&target) {
                    *n -= 1;
                    if *n == 0 {
                        ready.push(Reverse(target));
                    }
                }
            }
        }
        match missing.keys().next() {
            Some(&id) => Err(GraphError::Cycle(self.node(id).name.clone())),
            None => Ok(order),
        }
    }

    /// Numbers the nodes anew, so that [`Graph::topological`] is exactly `order`, which must name every node
    /// once, operands before users. All ids change: those of `order` are 0, 1, ... now.
    pub fn reorder(&mut self, order: &[NodeId]) -> Result<(), GraphError> {
        let mut next = Graph::new(&self.name);
        let mut ids: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        let find = |ids: &BTreeMap<NodeId, NodeId>, v: Value| match ids.get(&v.node) {
            Some(&node) => Ok(Value { node, ..v }),
            None => Err(GraphError::Node(v.node.number())),
        };
        for &id in order {
            if !self.contains(id) || ids.contains_key(&id) {
                return Err(GraphError::Node(id.number()));
            }
            let node = next.graph.add_node(self.node(id).clone());
            for (to, operand) in self.operands(id).into_iter().enumerate() {
                let from = find(&ids, operand)?;
                let edge = Edge { from: from.slot, to };
                next.graph.add_edge(from.node.index(), node, edge);
            }
            ids.insert(id, NodeId(node.index() as u32));
        }
        if let Some(left) = self.nodes().find(|id| !ids.contains_key(id)) {
            return Err(GraphError::Node(left.number()));
        }
        for output in &self.outputs {
            let value = find(&ids, output.value)?;
            next.outputs.push(Output {
                value,
                ..output.clone()
            });
        }
        *self = next;
        Ok(())
    }

    /// Which nodes depend on a data input (directly or through others).
    pub fn depends_on_data(&self) -> Result<BTreeSet<NodeId>, GraphError> {
        let mut set = BTreeSet::new();
        for id in self.topological()? {
            let source = matches!(self.op(id), Op::Input(_));
            if source || self.operands(id).iter().any(|v| set.contains(&v.node)) {
                set.insert(id);
            }
        }
        Ok(set)
    }
}
