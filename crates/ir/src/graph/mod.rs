//! The graph: typed multi-output nodes. petgraph is hidden behind [`NodeId`] and [`Value`].

mod convert;
mod edit;
mod order;
mod output;
mod place;
mod schedule;

pub use output::{Output, OutputKind};
pub use place::{Arena, Location};

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::ops::Op;
use crate::schedule::Schedule;
use crate::types::TensorType;

/// A node of a [`Graph`]. The id of a removed node may name another one later.
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
    /// How it is computed, once schedules are chosen; None stands for the general form.
    pub schedule: Option<Schedule>,
    /// The place of what its schedule needs while it is computed, once memory is planned.
    pub workspace: Option<Location>,
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
            schedule: None,
            workspace: None,
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

    /// The first output of this kind and name.
    pub fn output(&self, kind: OutputKind, name: &str) -> Option<Value> {
        self.outputs
            .iter()
            .find(|o| o.kind == kind && o.name == name)
            .map(|o| o.value)
    }
}
