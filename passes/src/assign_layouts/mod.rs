//! `assign-layouts`: puts channels innermost in memory, and weights in blocks of a vector where a schedule reads them so.
//!
//! Before:
//! ```text
//! %w = parameter "w" trained [...] : f32[8, 4, 3, 3]
//! %y = conv(%x, %w) : f32[batch, 8, 16, 16]
//! ```
//! After, for a GPU and for a processor with vectors of 8:
//! ```text
//! %w = parameter "w" trained [...] : f32[8, 4, 3, 3]:nhwc
//! %y = conv(%x, %w) : f32[batch, 8, 16, 16]:nhwc
//!
//! %w = parameter "w" trained [...] : f32[8, 4, 3, 3]:filter8
//! %y = conv(%x, %w) {schedule = direct(lanes = 8, ...)} : f32[batch, 8, 16, 16]:nhwc
//! ```
//!
//! Only memory order changes, no operator and no shape. On GPUs values of rank 4 become NHWC, and weights of convolutions
//! KRSC, which is the same rule. On a processor ([`crate::Target::machine`]) the same holds for values with a batch, of every rank
//! that windows slide over; weights follow from the schedules that read them (see [`filters`]), and their gradients from the
//! weights, since the update walks through both in memory order.
//!
//! It leaves alone inputs and constants, whose bytes come from elsewhere, but lets a GPU's convolutions read a copy of an
//! input that they could multiply ([`crate::Target::channel_multiple`]), and a processor's where their schedule does not
//! copy it itself; activations that `reduce` or `reshape` makes, which are small or a view of something plain; and
//! graph outputs, of which it makes a plain copy. Without [`crate::Order::ChannelsLast`] it does nothing.

mod channels_last;
mod filters;

use syncbn_ir::ops::Identity;
use syncbn_ir::{Graph, Layout, NodeId, Op, OutputKind, Value};

use crate::combine_all_reduce::count;
use crate::error::PassError;
use crate::options::Order;
use crate::pass::{Changes, Pass, PassContext};
use channels_last::Images;

pub use channels_last::keeps_order;

/// The pass.
pub struct AssignLayouts;

impl Pass for AssignLayouts {
    fn name(&self) -> &'static str {
        "assign-layouts"
    }

    fn summary(&self) -> &'static str {
        "puts channels innermost, and weights in blocks of a vector"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let target = cx.options.target;
        if target.order == Order::Plain {
            return Ok(0);
        }
        let before = count(graph).bytes;
        let mut changes = 0;
        if target.machine.is_some() {
            changes += filters::assign(graph, cx.layout.as_ref())?;
            changes += channels_last::assign(graph, &Images::of_windows(graph))?;
            changes += channels_last::copy_operands(graph)?;
        } else {
            changes += channels_last::copy_inputs(graph, target.channel_multiple)?;
            changes += channels_last::assign(graph, &Images::all_of_rank_4())?;
            changes += channels_last::copy_operands(graph)?;
        }
        changes += copy_outputs(graph)?;
        // Gradients of padded filters are padded, however they are grouped.
        if let Some(uncombined) = &mut cx.uncombined {
            uncombined.bytes = (uncombined.bytes + count(graph).bytes).saturating_sub(before);
        }
        Ok(changes)
    }
}

/// Gives whoever reads the network's outputs row-major copies.
fn copy_outputs(graph: &mut Graph) -> Result<Changes, PassError> {
    let mut changes = 0;
    for i in 0..graph.outputs.len() {
        let (kind, value) = (graph.outputs[i].kind, graph.outputs[i].value);
        if kind != OutputKind::Output || graph.ty(value).layout == Layout::Plain {
            continue;
        }
        graph.outputs[i].value = copy(graph, value, value.node, Layout::Plain)?;
        changes += 1;
    }
    Ok(changes)
}

/// A copy of a value in another layout, under the label of a node.
fn copy(graph: &mut Graph, value: Value, label: NodeId, layout: Layout) -> Result<Value, PassError> {
    let name = graph.node(label).name.clone();
    let copy = graph.add_value(Identity {}, &name, &[value])?;
    graph.node_mut(copy.node).outputs[copy.slot].ty.layout = layout;
    Ok(copy)
}

/// Lets a node read another value in a slot, whose layout may differ.
fn redirect(graph: &mut Graph, (user, slot): (NodeId, usize), to: Value) -> Result<(), PassError> {
    let mut operands = graph.operands(user);
    operands[slot] = to;
    let op = graph.op(user).clone();
    Ok(graph.retype(user, op, &operands)?)
}

/// Whether a value is the copy that this pass made of an output.
fn is_plain_copy(graph: &Graph, value: Value) -> bool {
    let is_output = graph
        .outputs
        .iter()
        .any(|o| o.kind == OutputKind::Output && o.value == value);
    matches!(graph.op(value.node), Op::Identity(_)) && is_output && graph.use_count(value) <= 1
}
