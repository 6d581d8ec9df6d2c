//! Orders and dependences.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use petgraph::Direction;
use petgraph::visit::EdgeRef;

use super::{Graph, GraphError, NodeId};
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
