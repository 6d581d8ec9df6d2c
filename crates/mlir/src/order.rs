//! What lowering and the model's description must agree on: the order of nodes and collectives, and places.

use std::collections::BTreeMap;

use syncbn_ir::ops::{Op, Scope};
use syncbn_ir::{Arena, DType, Graph, Location, NodeId, OutputKind, Value};

use crate::error::LowerError;

fn order(graph: &Graph) -> Result<Vec<NodeId>, LowerError> {
    graph.topological().map_err(|e| LowerError::Internal {
        message: e.to_string(),
    })
}

/// Nodes, each with its index in the graph's own order: the index that
/// `syncbn_abi::Model::{train_nodes, infer_nodes}` are listed by.
pub fn indexed(graph: &Graph, nodes: &[NodeId]) -> Result<Vec<(usize, NodeId)>, LowerError> {
    let index: BTreeMap<NodeId, usize> = order(graph)?
        .into_iter()
        .enumerate()
        .map(|(i, id)| (id, i))
        .collect();
    nodes
        .iter()
        .map(|id| match index.get(id) {
            Some(&i) => Ok((i, *id)),
            None => Err(LowerError::Internal {
                message: format!("node {} is not in the graph", id.number()),
            }),
        })
        .collect()
}

/// The all-reduces of a graph in execution order, with their scopes.
pub fn collectives(graph: &Graph) -> Result<Vec<(NodeId, Scope)>, LowerError> {
    let all_reduce = |id| match graph.op(id) {
        Op::AllReduce(a) => Some((id, a.scope)),
        _ => None,
    };
    Ok(order(graph)?.into_iter().filter_map(all_reduce).collect())
}

/// The indices of collectives among [`collectives`].
pub struct CollectiveNumbers(BTreeMap<NodeId, usize>);

impl CollectiveNumbers {
    /// Of a graph.
    pub fn new(graph: &Graph) -> Result<CollectiveNumbers, LowerError> {
        let all = collectives(graph)?.into_iter().enumerate();
        Ok(CollectiveNumbers(all.map(|(i, (id, _))| (id, i)).collect()))
    }

    /// The index of a collective.
    pub fn of(&self, id: NodeId) -> Result<usize, LowerError> {
        self.0.get(&id).copied().ok_or_else(|| LowerError::Internal {
            message: format!("node {} is no collective of its graph", id.number()),
        })
    }
}

/// Whether a node sums gradients over the ranks.
pub fn sums_gradients(graph: &Graph, id: NodeId) -> bool {
    let in_gradients = |slot| {
        let place = place(graph, Value { node: id, slot });
        place.is_ok_and(|(location, _)| location.arena == Arena::Gradients)
    };
    let node = graph.node(id);
    matches!(node.op, Op::AllReduce(_)) && (0..node.outputs.len()).any(in_gradients)
}

/// Place and size in bytes of a value that does not depend on the batch, or of one sample.
pub fn place(graph: &Graph, value: Value) -> Result<(Location, u64), LowerError> {
    let node = graph.node(value.node);
    let missing = |what: &str| LowerError::Internal {
        message: format!(
            "result {} of node \"{}\" ({}) has no {what}",
            value.slot,
            node.name,
            node.op.name()
        ),
    };
    let info = node.outputs.get(value.slot).ok_or_else(|| missing("type"))?;
    let location = info.location.ok_or_else(|| missing("place in memory"))?;
    let bytes = info.ty.bytes(1).ok_or_else(|| missing("size"))?;
    Ok((location, bytes))
}

/// Whether two places share memory. Places that start differently never overlap for a larger batch, because
/// the plan reserves the batch bound; so comparing one sample suffices.
pub fn overlap(a: (Location, u64), b: (Location, u64)) -> bool {
    let ((a, a_bytes), (b, b_bytes)) = (a, b);
    if a.arena != b.arena {
        return false;
    }
    if matches!(a.arena, Arena::Inputs | Arena::Outputs) {
        return a.offset == b.offset;
    }
    a.offset < b.offset + b_bytes && b.offset < a.offset + a_bytes
}

/// The loss, in a graph that trains.
pub fn loss(graph: &Graph) -> Option<Value> {
    let loss = graph.outputs.iter().find(|o| o.kind == OutputKind::Loss);
    loss.map(|output| output.value)
}

/// One contiguous piece of an all-reduce.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    /// First element.
    pub location: Location,
    /// Number of elements.
    pub elements: u64,
    /// Element type.
    pub dtype: DType,
}

/// The pieces of an all-reduce, in order of operands; neighbours in memory are joined (the padding between
/// them is zero on all ranks and stays so).
pub fn segments(graph: &Graph, id: NodeId) -> Result<Vec<Piece>, LowerError> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (slot, operand) in graph.operands(id).into_iter().enumerate() {
        let (location, bytes) = place(graph, operand)?;
        let (result, _) = place(graph, Value { node: id, slot })?;
        if result != location {
            let message = format!(
                "operand {slot} of the all-reduce {} is not summed in place",
                id.number()
            );
            return Err(LowerError::Internal { message });
        }
        let dtype = graph.ty(operand).dtype;
        let elements = bytes / dtype.bytes();
        if let Some(last) = pieces.last_mut() {
            let end = last.location.offset + last.elements * dtype.bytes();
            let next = end.next_multiple_of(syncbn_abi::ALIGNMENT);
            if last.dtype == dtype && last.location.arena == location.arena && next == location.offset {
                last.elements = (location.offset - last.location.offset) / dtype.bytes() + elements;
                continue;
            }
        }
        pieces.push(Piece {
            location,
            elements,
            dtype,
        });
    }
    Ok(pieces)
}
