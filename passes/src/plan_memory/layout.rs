//! Offsets of parameters and running statistics: the part of the plan that training and inference share.

use std::collections::BTreeMap;

use syncbn_ir::ops::{Parameter, ParameterData, Statistic};
use syncbn_ir::{Graph, NodeId, Op, OutputKind, TensorType};

use super::align;
use crate::error::PassError;

/// A parameter or running statistic and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// ONNX initializer name.
    pub name: String,
    /// Type.
    pub ty: TensorType,
    /// Whether it is trained; false for statistics.
    pub trained: bool,
    /// First value.
    pub data: ParameterData,
    /// Byte offset in its arena.
    pub offset: u64,
}

/// Offsets in the weights and statistics arenas.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// Tensors of the weights arena by offset: trained ones first.
    pub parameters: Vec<Tensor>,
    /// Tensors of the statistics arena by offset.
    pub statistics: Vec<Tensor>,
    /// Bytes at the front of the weights arena whose gradients go through the gradient all-reduce.
    pub reduced_bytes: u64,
    /// Bytes at the front of the weights arena that are trained.
    pub trained_bytes: u64,
    /// Bytes of the weights arena.
    pub weight_bytes: u64,
    /// Bytes of the statistics arena.
    pub statistic_bytes: u64,
    /// Indices in `parameters` and in `statistics`.
    by_name: [BTreeMap<String, usize>; 2],
}

impl Layout {
    /// The layout of a graph: parameters whose gradient is all-reduced, bucket by bucket, other trained ones, the
    /// rest, each in the order of the graph.
    pub fn of(graph: &Graph) -> Result<Layout, PassError> {
        let gradients = graph.outputs.iter().filter(|o| o.kind == OutputKind::Gradient);
        let order = graph.topological()?;
        // The bucket of a parameter by its place in the schedule.
        let positions: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let bucket = |id: NodeId| positions.get(&id).copied().unwrap_or(0);
        let reduced: BTreeMap<&str, usize> = gradients
            .filter(|o| matches!(graph.op(o.value.node), Op::AllReduce(_)))
            .map(|o| (o.name.as_str(), bucket(o.value.node)))
            .collect();
        let mut layout = Layout::default();
        for id in graph.nodes() {
            let ty = || graph.ty(id.into()).clone();
            match graph.op(id) {
                Op::Parameter(p) => layout.parameters.push(Tensor {
                    name: p.name.clone(),
                    ty: ty(),
                    trained: p.trained,
                    data: p.data.clone(),
                    offset: 0,
                }),
                Op::Statistic(s) => layout.statistics.push(Tensor {
                    name: s.name.clone(),
                    ty: ty(),
                    trained: false,
                    data: s.data.clone(),
                    offset: 0,
                }),
                _ => {}
            }
        }
        let rank = |t: &Tensor| match (t.trained, reduced.get(t.name.as_str())) {
            (true, Some(&bucket)) => (0, bucket),
            (true, None) => (1, 0),
            (false, _) => (2, 0),
        };
        layout.parameters.sort_by_key(rank);
        let ranks: Vec<i32> = layout.parameters.iter().map(|t| rank(t).0).collect();
        layout.place(|i| ranks[i])?;
        layout.by_name = [&layout.parameters, &layout.statistics].map(|tensors| index(tensors));
        Ok(layout)
    }

    /// The same tensors with the types, and so the sizes, that a graph of the network has for them. For layouts without
    /// reduced gradients.
    pub fn with_types_of(&self, graph: &Graph) -> Result<Layout, PassError> {
        let mut types: BTreeMap<&str, &TensorType> = BTreeMap::new();
        for id in graph.nodes() {
            if let Op::Parameter(Parameter { name, .. }) | Op::Statistic(Statistic { name, .. }) =
                graph.op(id)
            {
                types.insert(name, graph.ty(id.into()));
            }
        }
        let mut layout = self.clone();
        for tensor in layout.parameters.iter_mut().chain(&mut layout.statistics) {
            if let Some(&ty) = types.get(tensor.name.as_str()) {
                tensor.ty = ty.clone();
            }
        }
        let trained: Vec<bool> = layout.parameters.iter().map(|t| t.trained).collect();
        layout.place(|i| if trained[i] { 1 } else { 2 })?;
        Ok(layout)
    }

    /// Gives all tensors their offsets. `rank` says of parameter `i` whether its gradient is reduced (0), it is trained
    /// otherwise (1) or not trained (2); they stand in this order.
    fn place(&mut self, rank: impl Fn(usize) -> i32) -> Result<(), PassError> {
        self.weight_bytes = place(&mut self.parameters)?;
        let first = |least: i32| {
            let i = (0..self.parameters.len()).find(|&i| rank(i) >= least);
            i.map_or(self.weight_bytes, |i| self.parameters[i].offset)
        };
        (self.reduced_bytes, self.trained_bytes) = (first(1), first(2));
        self.statistic_bytes = place(&mut self.statistics)?;
        Ok(())
    }

    /// Offset of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.by_name[0].get(name).and_then(|&i| self.parameters.get(i))
    }

    /// Offset of a running statistic.
    pub fn statistic(&self, name: &str) -> Option<&Tensor> {
        self.by_name[1].get(name).and_then(|&i| self.statistics.get(i))
    }

    /// Checks that the graph has no tensor that the layout lacks, or has with another type.
    pub fn check(&self, graph: &Graph) -> Result<(), PassError> {
        for id in graph.nodes() {
            let (name, found) = match graph.op(id) {
                Op::Parameter(p) => (&p.name, self.parameter(&p.name)),
                Op::Statistic(s) => (&s.name, self.statistic(&s.name)),
                _ => continue,
            };
            let ty = graph.ty(id.into());
            if found.is_none_or(|t| t.ty != *ty) {
                return Err(PassError::Rule {
                    rule: "layout",
                    message: format!(
                        "tensor \"{name}\" of type {ty} has no place in the layout of the other graph"
                    ),
                });
            }
        }
        Ok(())
    }
}

/// Tensors by name; of equal names the first.
fn index(tensors: &[Tensor]) -> BTreeMap<String, usize> {
    let named = tensors.iter().enumerate().rev();
    named.map(|(i, tensor)| (tensor.name.clone(), i)).collect()
}

fn place(tensors: &mut [Tensor]) -> Result<u64, PassError> {
    let mut end = 0u64;
    for tensor in tensors {
        tensor.offset = end;
        let bytes = tensor.ty.bytes(0).and_then(|b| end.checked_add(b));
        end = align(bytes.ok_or_else(super::too_large)?)?;
    }
    Ok(end)
}
