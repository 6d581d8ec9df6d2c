//! Weights in blocks of a vector of output channels, for the schedules that read them so.
//!
//! A value is stored as [`Layout::Filter`] where all that read it are weight slots of such convolutions, or elementwise
//! nodes, as `fold-batch-norm` makes them, whose results are. Where a schedule reads transformed weights, a copy of such a
//! value holds them. A parameter that another graph of the network already has a
//! layout for keeps that. A convolution that would read its weights in another layout reads a copy; the gradient of
//! weights is computed in blocks, and copied where its parameter is plain. So the lowering may rely on it: weights and
//! gradients of a convolution whose schedule reads blocks are blocks of its `lanes`.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::{Graph, Layout, NodeId, Op, OutputKind, Value};

use super::{copy, redirect};
use crate::error::PassError;
use crate::pass::Changes;
use crate::plan_memory;

/// Gives weights and their gradients their layouts.
pub fn assign(graph: &mut Graph, fixed: Option<&plan_memory::Layout>) -> Result<Changes, PassError> {
    let mut changes = weights(graph, fixed)?;
    changes += copy_weights(graph)?;
    changes += transform_weights(graph)?;
    changes += Gradients::default().assign(graph)?;
    Ok(changes)
}

/// The slot in which a convolution reads weights in blocks, and the size of these. What is transformed already is not.
fn block_of(graph: &Graph, id: NodeId) -> Option<(usize, usize)> {
    let schedule = graph.schedule(id).filter(|schedule| schedule.blocks_filters())?;
    match graph.op(id) {
        Op::Conv(_) if graph.ty(graph.operands(id)[1]).layout.is_transformed() => None,
        Op::Conv(_) | Op::ConvBackwardData(_) => Some((1, schedule.lanes()?)),
        _ => None,
    }
}

fn set(graph: &mut Graph, v: Value, layout: Layout) -> Changes {
    let own = &mut graph.node_mut(v.node).outputs[v.slot].ty.layout;
    let changed = *own != layout;
    *own = layout;
    usize::from(changed)
}

fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Identity(_))
}

/// Stores values in blocks that are read as such only. Readers come first.
fn weights(graph: &mut Graph, fixed: Option<&plan_memory::Layout>) -> Result<Changes, PassError> {
    let mut changes = 0;
    let mut blocks: BTreeMap<Value, usize> = BTreeMap::new();
    for id in graph.topological()?.into_iter().rev() {
        let v = Value::from(id);
        let decided = match graph.op(id) {
            Op::Parameter(p) => fixed.and_then(|layout| layout.parameter(&p.name)),
            op if is_elementwise(op) => None,
            _ => continue,
        };
        if let Some(tensor) = decided {
            changes += set(graph, v, tensor.ty.layout);
            continue;
        }
        let wanted = |&(user, slot): &(NodeId, usize)| match block_of(graph, user) {
            Some((weight, block)) => (slot == weight).then_some(block),
            None => {
                let of_result = blocks.get(&Value::from(user)).copied();
                of_result.filter(|_| graph.ty(user.into()).shape == graph.ty(v).shape)
            }
        };
        let users = graph.users(v);
        let Some(block) = users.first().and_then(wanted) else {
            continue;
        };
        if users.iter().all(|user| wanted(user) == Some(block)) {
            blocks.insert(v, block);
            changes += set(graph, v, Layout::Filter(block));
        }
    }
    Ok(changes)
}

/// Lets convolutions read copies of weights that have another layout than they read.
fn copy_weights(graph: &mut Graph) -> Result<Changes, PassError> {
    let mut copies: BTreeMap<(Value, usize), Value> = BTreeMap::new();
    for id in graph.topological()? {
        let Some((slot, block)) = block_of(graph, id) else {
            continue;
        };
        let value = graph.operands(id)[slot];
        if graph.ty(value).layout == Layout::Filter(block) {
            continue;
        }
        let copied = match copies.get(&(value, block)) {
            Some(&copied) => copied,
            None => copy(graph, value, id, Layout::Filter(block))?,
        };
        copies.insert((value, block), copied);
        redirect(graph, (id, slot), copied)?;
    }
    Ok(copies.len())
}

/// Lets convolutions read copies of weights that are transformed as their schedules read them. The copies that they are
/// made of are in blocks.
fn transform_weights(graph: &mut Graph) -> Result<Changes, PassError> {
    let mut copies: BTreeMap<(Value, Layout), Value> = BTreeMap::new();
    for id in graph.topological()? {
        let transformed = graph.schedule(id).and_then(|s| s.transformed_filter());
        let (Some(layout), Some((slot, _))) = (transformed, block_of(graph, id)) else {
            continue;
        };
        let value = graph.operands(id)[slot];
        let copied = match copies.get(&(value, layout)) {
            Some(&copied) => copied,
            None => copy(graph, value, id, layout)?,
        };
        copies.insert((value, layout), copied);
        redirect(graph, (id, slot), copied)?;
    }
    Ok(copies.len())
}

/// Layouts of gradients in the making.
#[derive(Default)]
struct Gradients {
    /// Values whose layout is decided.
    decided: BTreeSet<Value>,
    changes: Changes,
}

impl Gradients {
    fn assign(mut self, graph: &mut Graph) -> Result<Changes, PassError> {
        for id in graph.topological()? {
            if let (Op::ConvBackwardWeight(_), Some(schedule)) = (graph.op(id), graph.schedule(id))
                && let (true, Some(block)) = (schedule.blocks_filters(), schedule.lanes())
            {
                self.changes += set(graph, id.into(), Layout::Filter(block));
                self.decided.insert(id.into());
            }
        }
        let parameters = graph.nodes().filter_map(|id| match graph.op(id) {
            Op::Parameter(p) => Some((p.name.clone(), graph.ty(id.into()).layout)),
            _ => None,
        });
        let parameters: BTreeMap<String, Layout> = parameters.collect();
        for i in 0..graph.outputs.len() {
            let output = graph.outputs[i].clone();
            let layout = parameters.get(&output.name).copied();
            if let (OutputKind::Gradient, Some(layout)) = (output.kind, layout) {
                let value = self.want(graph, output.value, output.value.node, layout)?;
                graph.outputs[i].value = value;
            }
        }
        Ok(self.changes)
    }

    /// The value in a layout: itself if it can have it, or a copy.
    fn want(
        &mut self,
        graph: &mut Graph,
        v: Value,
        label: NodeId,
        layout: Layout,
    ) -> Result<Value, PassError> {
        let is_source = plan_memory::is_source(graph.op(v.node));
        let is_decided = is_source || self.decided.contains(&v);
        if is_decided && graph.ty(v).layout != layout {
            self.changes += 1;
            let copied = copy(graph, v, label, layout)?;
            self.decided.insert(copied);
            return Ok(copied);
        }
        if is_decided || !self.decided.insert(v) {
            return Ok(v);
        }
        self.changes += set(graph, v, layout);
        // An all-reduce works in place.
        if matches!(graph.op(v.node), Op::AllReduce(_)) {
            let operand = graph.operands(v.node)[v.slot];
            let summed = self.want(graph, operand, v.node, layout)?;
            if summed != operand {
                redirect(graph, (v.node, v.slot), summed)?;
            }
        }
        Ok(v)
    }
}
