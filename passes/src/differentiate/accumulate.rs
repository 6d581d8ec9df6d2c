//! The state of a reverse-mode walk, and the steps that the rules of all operators share.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::ops::{Binary, BinaryFunction, Expand, Reduce, ReduceFunction, Reshape};
use syncbn_ir::{Dim, Graph, NodeId, Op, Shape, TensorType, Value};

use crate::error::PassError;

/// Gradients so far, while the nodes are walked users before operands.
pub struct Backward<'g> {
    /// The graph, to which the backward nodes are added.
    pub graph: &'g mut Graph,
    needed: BTreeSet<NodeId>,
    loss: Value,
    parts: BTreeMap<Value, Vec<Value>>,
}

impl<'g> Backward<'g> {
    /// `needed` are the nodes that gradients flow through.
    pub fn new(graph: &'g mut Graph, needed: BTreeSet<NodeId>, loss: Value) -> Backward<'g> {
        Backward {
            graph,
            needed,
            loss,
            parts: BTreeMap::new(),
        }
    }

    /// Whether a gradient of this value is needed.
    pub fn needs(&self, v: Value) -> bool {
        self.needed.contains(&v.node)
    }

    /// Whether the value is the loss, whose gradient is 1.
    pub fn is_loss(&self, v: Value) -> bool {
        self.loss == v
    }

    /// Whether any gradient arrived at an output of the node.
    pub fn reaches(&self, id: NodeId) -> bool {
        let outputs = 0..self.graph.node(id).outputs.len();
        outputs
            .into_iter()
            .any(|slot| self.parts.contains_key(&Value { node: id, slot }))
    }

    /// The gradient of a value: the sum of what its readers contributed, in a fixed order.
    pub fn gradient(&mut self, v: Value) -> Result<Option<Value>, PassError> {
        let parts = self.parts.remove(&v).unwrap_or_default();
        let mut parts = parts.into_iter();
        let Some(mut sum) = parts.next() else {
            return Ok(None);
        };
        let name = self.graph.node(v.node).name.clone();
        for part in parts {
            sum = self.binary(BinaryFunction::Add, &name, sum, part)?;
        }
        // Asking twice gives the same value.
        self.parts.insert(v, vec![sum]);
        Ok(Some(sum))
    }

    /// Adds `gradient` to that of `v`. The rule that calls this has checked [`Backward::needs`].
    pub fn contribute(&mut self, v: Value, gradient: Value) {
        self.parts.entry(v).or_default().push(gradient);
    }

    /// Adds a node with one result.
    pub fn add(&mut self, op: impl Into<Op>, name: &str, operands: &[Value]) -> Result<Value, PassError> {
        Ok(self.graph.add_value(op, name, operands)?)
    }

    /// Adds an elementwise function of two values.
    pub fn binary(
        &mut self,
        function: BinaryFunction,
        name: &str,
        a: Value,
        b: Value,
    ) -> Result<Value, PassError> {
        self.add(Binary { function }, name, &[a, b])
    }

    /// The reverse of broadcasting `ty` to the shape of `gradient`: sums over the axes that were repeated.
    pub fn sum_to(&mut self, name: &str, gradient: Value, ty: &TensorType) -> Result<Value, PassError> {
        let from = self.graph.ty(gradient).shape.clone();
        if from == ty.shape {
            return Ok(gradient);
        }
        let extra = from.rank() - ty.shape.rank();
        let repeated = |i: &usize| {
            let before = i.checked_sub(extra).map(|j| ty.shape.0[j]);
            before.is_none_or(|d| d == Dim::Fixed(1) && from.0[*i] != Dim::Fixed(1))
        };
        let axes: Vec<usize> = (0..from.rank()).filter(repeated).collect();
        let mut result = gradient;
        if !axes.is_empty() {
            let reduce = Reduce {
                function: ReduceFunction::Sum,
                axes,
                keep_dims: true,
            };
            result = self.add(reduce, name, &[result])?;
        }
        self.reshape(name, result, &ty.shape)
    }

    /// A value in another shape; itself if it has this shape.
    pub fn reshape(&mut self, name: &str, v: Value, shape: &Shape) -> Result<Value, PassError> {
        if self.graph.ty(v).shape == *shape {
            return Ok(v);
        }
        self.add(Reshape { shape: shape.clone() }, name, &[v])
    }

    /// A value broadcast to a shape; itself if it has this shape.
    pub fn expand(&mut self, name: &str, v: Value, shape: &Shape) -> Result<Value, PassError> {
        if self.graph.ty(v).shape == *shape {
            return Ok(v);
        }
        self.add(Expand { shape: shape.clone() }, name, &[v])
    }

    /// A vector `[c]` in the shape `[1, c, 1, ...]` that broadcasts along axis 1 of `like`.
    pub fn along_channels(&mut self, name: &str, v: Value, like: &TensorType) -> Result<Value, PassError> {
        let mut dims = vec![Dim::Fixed(1); like.shape.rank()];
        if let (Some(slot), Some(&c)) = (dims.get_mut(1), self.graph.ty(v).shape.0.first()) {
            *slot = c;
        }
        // A fixed first dimension of 1 broadcasts against the batch.
        self.reshape(name, v, &Shape(dims))
    }
}
