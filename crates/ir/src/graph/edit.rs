//! Rewiring and removing nodes.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction;
use petgraph::visit::EdgeRef;

use super::{Edge, Graph, GraphError, NodeId, Value};
use crate::ops::Op;

impl Graph {
    /// Lets every reader of `old` (graph outputs included) read `new`, which must have the same type.
    pub fn replace_uses(&mut self, old: Value, new: Value) -> Result<(), GraphError> {
        let (old_ty, new_ty) = (self.ty(old), self.ty(new));
        if old_ty != new_ty {
            return Err(GraphError::Replacement {
                old: old_ty.clone(),
                new: new_ty.clone(),
            });
        }
        for (user, slot) in self.users(old) {
            self.connect(user, slot, new);
        }
        for output in &mut self.outputs {
            if output.value == old {
                output.value = new;
            }
        }
        Ok(())
    }

    /// Changes one operand; the new one must have the type of the old one.
    pub fn set_operand(&mut self, node: NodeId, slot: usize, new: Value) -> Result<(), GraphError> {
        let old = self.operand(node, slot).ok_or(GraphError::Node(node.number()))?;
        if self.ty(old) != self.ty(new) {
            let (old, new) = (self.ty(old).clone(), self.ty(new).clone());
            return Err(GraphError::Replacement { old, new });
        }
        self.connect(node, slot, new);
        Ok(())
    }

    /// Gives a node this operator and these operands, and its results the element types that follow from them. Shapes
    /// must stay; layouts and locations do.
    pub fn retype(&mut self, node: NodeId, op: Op, operands: &[Value]) -> Result<(), GraphError> {
        let name = self.node(node).name.clone();
        let inferred = self.infer(&op, &name, operands)?;
        let outputs = self.node(node).outputs.iter();
        if let Some((old, new)) = outputs
            .zip(&inferred)
            .find(|(old, new)| old.ty.shape != new.shape)
        {
            return Err(GraphError::Replacement {
                old: old.ty.clone(),
                new: new.clone(),
            });
        }
        for (slot, &operand) in operands.iter().enumerate() {
            if self.operand(node, slot) != Some(operand) {
                self.connect(node, slot, operand);
            }
        }
        let changed = self.node_mut(node);
        changed.op = op;
        for (output, ty) in changed.outputs.iter_mut().zip(inferred) {
            output.ty.dtype = ty.dtype;
        }
        Ok(())
    }

    fn connect(&mut self, node: NodeId, slot: usize, new: Value) {
        let old = self
            .graph
            .edges_directed(node.index(), Direction::Incoming)
            .find(|e| e.weight().to == slot)
            .map(|e| e.id());
        if let Some(old) = old {
            self.graph.remove_edge(old);
        }
        self.graph.add_edge(
            new.node.index(),
            node.index(),
            Edge {
                from: new.slot,
                to: slot,
            },
        );
    }

    /// Removes a node that nothing reads.
    pub fn remove(&mut self, id: NodeId) -> Result<(), GraphError> {
        let used = self.outputs.iter().any(|o| o.value.node == id)
            || self
                .graph
                .edges_directed(id.index(), Direction::Outgoing)
                .next()
                .is_some();
        if used || self.graph.remove_node(id.index()).is_none() {
            return Err(GraphError::Node(id.number()));
        }
        Ok(())
    }

    /// Removes those of these nodes that nothing reads any more, and what only they read, inputs excepted; returns how
    /// many. Where all other nodes are live, that is [`Graph::remove_dead`] for the cost of what is removed.
    pub fn remove_unread(&mut self, candidates: &[NodeId]) -> usize {
        let mut readers: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut dead: BTreeSet<NodeId> = BTreeSet::new();
        let mut stack: Vec<NodeId> = candidates.to_vec();
        while let Some(id) = stack.pop() {
            if dead.contains(&id) || !self.contains(id) || matches!(self.op(id), Op::Input(_)) {
                continue;
            }
            let left = readers.entry(id).or_insert_with(|| self.readers(id));
            if *left > 0 {
                continue;
            }
            dead.insert(id);
            for operand in self.operands(id) {
                let node = operand.node;
                *readers.entry(node).or_insert_with(|| self.readers(node)) -= 1;
                stack.push(node);
            }
        }
        // In the order of `remove_dead`, which decides the ids of the next nodes.
        for id in &dead {
            self.graph.remove_node(id.index());
        }
        dead.len()
    }

    /// Number of reads of all results of a node, graph outputs included.
    fn readers(&self, id: NodeId) -> usize {
        let outgoing = self.graph.edges_directed(id.index(), Direction::Outgoing);
        outgoing.count() + self.outputs.iter().filter(|o| o.value.node == id).count()
    }

    /// Removes nodes that no output depends on, inputs excepted; returns how many.
    pub fn remove_dead(&mut self) -> usize {
        let mut live: BTreeSet<NodeId> = BTreeSet::new();
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|o| o.value.node).collect();
        while let Some(id) = stack.pop() {
            if live.insert(id) {
                stack.extend(self.operands(id).iter().map(|v| v.node));
            }
        }
        let dead: Vec<NodeId> = self
            .nodes()
            .filter(|id| !live.contains(id) && !matches!(self.op(*id), Op::Input(_)))
            .collect();
        for id in &dead {
            self.graph.remove_node(id.index());
        }
        dead.len()
    }
}
