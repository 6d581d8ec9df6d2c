//! The graph: typed multi-output nodes. petgraph is hidden behind [`NodeId`] and [`Value`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::ops::Op;
use crate::types::TensorType;

/// A node of a [`Graph`]. Ids are never used again after a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    fn index(self) -> NodeIndex<u32> {
        NodeIndex::from(self.0)
    }

    /// A number that is unique in the graph.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// One output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of the node's outputs.
    pub slot: usize,
}

impl From<NodeId> for Value {
    /// The first output.
    fn from(node: NodeId) -> Value {
        Value { node, slot: 0 }
    }
}

/// A lifetime class of memory; see `syncbn_abi` for who owns each arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arena {
    /// Parameters.
    Weights,
    /// Gradients of trained parameters.
    Gradients,
    /// Running statistics.
    Statistics,
    /// What inference derives from weights alone.
    Prepared,
    /// Values of one step.
    Step,
    /// Constants, in the executable's read-only data.
    Constants,
    /// The caller's input buffers; the offset is the input's index.
    Inputs,
    /// The caller's output buffers; the offset is the output's index.
    Outputs,
}

impl Arena {
    /// All arenas, in declaration order.
    pub const ALL: [Arena; 8] = [
        Arena::Weights,
        Arena::Gradients,
        Arena::Statistics,
        Arena::Prepared,
        Arena::Step,
        Arena::Constants,
        Arena::Inputs,
        Arena::Outputs,
    ];

    /// The text form.
    pub fn name(self) -> &'static str {
        match self {
            Arena::Weights => "weights",
            Arena::Gradients => "gradients",
            Arena::Statistics => "statistics",
            Arena::Prepared => "prepared",
            Arena::Step => "step",
            Arena::Constants => "constants",
            Arena::Inputs => "inputs",
            Arena::Outputs => "outputs",
        }
    }
}

/// Where a value lives: given by `plan-memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The arena.
    pub arena: Arena,
    /// Byte offset (an index for inputs and outputs).
    pub offset: u64,
}

/// Type and place of one output of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// Its type.
    pub ty: TensorType,
    /// Its place, once memory is planned.
    pub location: Option<Location>,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The ONNX node it comes from; a label, not a key.
    pub name: String,
    /// Its outputs.
    pub outputs: Vec<ValueInfo>,
}

/// What a graph output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputKind {
    /// An ONNX output; `name` is its name.
    Output,
    /// The scalar loss.
    Loss,
    /// The gradient of the parameter (or, for tests, input) `name`.
    Gradient,
    /// The next value of the running statistic `name`.
    Statistic,
}

impl OutputKind {
    /// The text form.
    pub fn name(self) -> &'static str {
        match self {
            OutputKind::Output => "output",
            OutputKind::Loss => "loss",
            OutputKind::Gradient => "gradient",
            OutputKind::Statistic => "statistic",
        }
    }
}

/// A graph output.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Its name: of an ONNX output, a parameter or a statistic.
    pub name: String,
    /// The value.
    pub value: Value,
}

/// Why a graph operation was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Type inference refused the operands.
    #[error("node \"{name}\" ({op}): {message}")]
    Type {
        /// Name of the node.
        name: String,
        /// Operator.
        op: String,
        /// What is wrong.
        message: String,
    },
    /// A value was replaced by one of another type.
    #[error("a value of type {old} cannot be replaced by one of type {new}")]
    Replacement {
        /// Type of the replaced value.
        old: TensorType,
        /// Type of the new value.
        new: TensorType,
    },
    /// The graph is not acyclic.
    #[error("the graph has a cycle through node \"{0}\"")]
    Cycle(String),
    /// A node that is still used was removed, or an id is stale.
    #[error("node {0} is missing or still in use")]
    Node(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Edge {
    from: usize,
    to: usize,
}

/// A directed acyclic graph of operators with named outputs.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Name of the network.
    pub name: String,
    /// Outputs, in order. Values named here are in use.
    pub outputs: Vec<Output>,
    graph: StableDiGraph<Node, Edge, u32>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Graph {
        Graph {
            name: name.to_string(),
            ..Graph::default()
        }
    }

    /// Adds a node; types of its outputs are inferred from `operands`.
    pub fn add(&mut self, op: impl Into<Op>, name: &str, operands: &[Value]) -> Result<NodeId, GraphError> {
        let op = op.into();
        let types = self.infer(&op, name, operands)?;
        let outputs = types
            .into_iter()
            .map(|ty| ValueInfo { ty, location: None })
            .collect();
        let node = self.graph.add_node(Node {
            op,
            name: name.to_string(),
            outputs,
        });
        for (to, v) in operands.iter().enumerate() {
            self.graph
                .add_edge(v.node.index(), node, Edge { from: v.slot, to });
        }
        Ok(NodeId(node.index() as u32))
    }

    /// [`Graph::add`] for nodes with one output.
    pub fn add_value(
        &mut self,
        op: impl Into<Op>,
        name: &str,
        operands: &[Value],
    ) -> Result<Value, GraphError> {
        Ok(self.add(op, name, operands)?.into())
    }

    fn infer(&self, op: &Op, name: &str, operands: &[Value]) -> Result<Vec<TensorType>, GraphError> {
        let error = |message: String| GraphError::Type {
            name: name.to_string(),
            op: op.name().to_string(),
            message,
        };
        let mut types = Vec::with_capacity(operands.len());
        for &v in operands {
            types.push(
                self.try_type(v)
                    .ok_or_else(|| error(format!("operand {v:?} does not exist")))?,
            );
        }
        op.infer(&types).map_err(error)
    }

    /// Infers the output types of an existing node anew.
    pub fn infer_node(&self, id: NodeId) -> Result<Vec<TensorType>, GraphError> {
        let node = self.node(id);
        self.infer(&node.op, &node.name, &self.operands(id))
    }

    /// Whether the id names a node of this graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.graph.contains_node(id.index())
    }

    /// The node. The id must come from this graph and not have been removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[id.index()]
    }

    /// The node, to change its label, its op (which must keep the output types) or locations.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.graph[id.index()]
    }

    /// The operator of a node.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.node(id).op
    }

    /// The type of a value of this graph.
    pub fn ty(&self, v: Value) -> &TensorType {
        &self.node(v.node).outputs[v.slot].ty
    }

    /// The type of a value, if it exists.
    pub fn try_type(&self, v: Value) -> Option<&TensorType> {
        Some(&self.graph.node_weight(v.node.index())?.outputs.get(v.slot)?.ty)
    }

    /// The operands of a node in slot order.
    pub fn operands(&self, id: NodeId) -> Vec<Value> {
        let mut edges: Vec<(usize, Value)> = self
            .graph
            .edges_directed(id.index(), Direction::Incoming)
            .map(|e| {
                let node = NodeId(e.source().index() as u32);
                (
                    e.weight().to,
                    Value {
                        node,
                        slot: e.weight().from,
                    },
                )
            })
            .collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, v)| v).collect()
    }

    /// The slots of a node's operands in order: 0, 1, ... in any graph that the verifier passes.
    pub(crate) fn operand_slots(&self, id: NodeId) -> Vec<usize> {
        let edges = self.graph.edges_directed(id.index(), Direction::Incoming);
        let mut slots: Vec<usize> = edges.map(|e| e.weight().to).collect();
        slots.sort_unstable();
        slots
    }

    /// One operand.
    pub fn operand(&self, id: NodeId, slot: usize) -> Option<Value> {
        self.operands(id).get(slot).copied()
    }

    /// Who reads a value: (node, operand slot), in a fixed order. Graph outputs are not listed.
    pub fn users(&self, v: Value) -> Vec<(NodeId, usize)> {
        let mut users: Vec<(NodeId, usize)> = self
            .graph
            .edges_directed(v.node.index(), Direction::Outgoing)
            .filter(|e| e.weight().from == v.slot)
            .map(|e| (NodeId(e.target().index() as u32), e.weight().to))
            .collect();
        users.sort_unstable();
        users
    }

    /// Whether a graph output names the value.
    pub fn is_output(&self, v: Value) -> bool {
        self.outputs.iter().any(|o| o.value == v)
    }

    /// Number of reads of a value, graph outputs included.
    pub fn use_count(&self, v: Value) -> usize {
        self.users(v).len() + self.outputs.iter().filter(|o| o.value == v).count()
    }

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

    /// All nodes in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.graph.node_indices().map(|i| NodeId(i.index() as u32))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

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

    /// The first output of this kind and name.
    pub fn output(&self, kind: OutputKind, name: &str) -> Option<Value> {
        self.outputs
            .iter()
            .find(|o| o.kind == kind && o.name == name)
            .map(|o| o.value)
    }
}
