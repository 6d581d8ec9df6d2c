//! `assign-layouts`: puts channels innermost in memory, for targets whose matrix units read them so.
//!
//! Before:
//! ```text
//! %w = parameter "w" trained [...] : f32[8, 4, 3, 3]
//! %y = conv(%x, %w) : f32[batch, 8, 16, 16]
//! ```
//! After:
//! ```text
//! %w = parameter "w" trained [...] : f32[8, 4, 3, 3]:nhwc
//! %y = conv(%x, %w) : f32[batch, 8, 16, 16]:nhwc
//! ```
//!
//! Only memory order changes, no operator and no shape: values of rank 4 become NHWC, and weights of convolutions
//! KRSC, which is the same rule. A parameter and its gradient follow the same rule too, since the update walks through
//! both in memory order. It leaves alone inputs and constants, whose bytes come from elsewhere, but lets convolutions
//! read a copy of an input that they could multiply ([`crate::Options::channel_multiple`]); activations that
//! `reduce` or `reshape` makes, which are small or a view of something plain; and graph outputs, of which it makes a
//! plain copy. Without [`crate::Options::channels_last`] it does nothing: the CPU's schedules want channels outside.

use syncbn_ir::ops::Identity;
use syncbn_ir::{DType, Graph, Layout, NodeId, Op, OutputKind, TensorType, Value};

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};

/// The pass.
pub struct AssignLayouts;

impl Pass for AssignLayouts {
    fn name(&self) -> &'static str {
        "assign-layouts"
    }

    fn summary(&self) -> &'static str {
        "puts channels innermost, for GPUs"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let mut changes = 0;
        if !cx.options.channels_last {
            return Ok(changes);
        }
        changes += copy_inputs(graph, cx.options.channel_multiple)?;
        for id in graph.topological()? {
            let keeps = match graph.op(id) {
                Op::Input(_) | Op::Constant(_) | Op::Statistic(_) => true,
                Op::Reduce(_) | Op::Reshape(_) => graph.ty(id.into()).shape.has_batch(),
                _ => false,
            };
            if keeps || is_plain_copy(graph, id.into()) {
                continue;
            }
            for slot in 0..graph.node(id).outputs.len() {
                let value = Value { node: id, slot };
                let ty = graph.ty(value);
                if is_image(ty) && ty.layout == Layout::Plain {
                    graph.node_mut(id).outputs[slot].ty.layout = Layout::Nhwc;
                    changes += 1;
                }
            }
        }
        for i in 0..graph.outputs.len() {
            let output = &graph.outputs[i];
            if output.kind != OutputKind::Output || graph.ty(output.value).layout == Layout::Plain {
                continue;
            }
            let (value, name) = (output.value, graph.node(output.value.node).name.clone());
            let copy = graph.add_value(Identity {}, &name, &[value])?;
            graph.node_mut(copy.node).outputs[copy.slot].ty.layout = Layout::Plain;
            graph.outputs[i].value = copy;
            changes += 1;
        }
        Ok(changes)
    }
}

/// Lets convolutions read copies of graph inputs whose channels are a multiple of `multiple` above 1: the copies get
/// channels innermost.
fn copy_inputs(graph: &mut Graph, multiple: usize) -> Result<Changes, PassError> {
    let mut changes = 0;
    for id in graph.topological()? {
        let input = Value::from(id);
        let channels = |ty: &TensorType| ty.shape.0[1].fixed();
        let fits = matches!(graph.op(id), Op::Input(_))
            && is_image(graph.ty(input))
            && channels(graph.ty(input)).is_some_and(|n| n % multiple == 0);
        if multiple <= 1 || !fits {
            continue;
        }
        let is_convolution = |&(user, slot): &(NodeId, usize)| match graph.op(user) {
            Op::Conv(op) => slot == 0 && op.groups == 1,
            Op::ConvBackwardWeight(op) => slot == 0 && op.groups == 1,
            _ => false,
        };
        let readers: Vec<_> = graph.users(input).into_iter().filter(is_convolution).collect();
        let Some(&(first, _)) = readers.first() else {
            continue;
        };
        let name = graph.node(first).name.clone();
        let copy = graph.add_value(Identity {}, &name, &[input])?;
        for (user, slot) in readers {
            graph.set_operand(user, slot, copy)?;
        }
        changes += 1;
    }
    Ok(changes)
}

fn is_image(ty: &TensorType) -> bool {
    ty.shape.rank() == 4 && matches!(ty.dtype, DType::F32 | DType::F64 | DType::BF16 | DType::U8)
}

/// Whether a value is the copy that this pass made of an output.
fn is_plain_copy(graph: &Graph, value: Value) -> bool {
    let is_output = graph
        .outputs
        .iter()
        .any(|o| o.kind == OutputKind::Output && o.value == value);
    matches!(graph.op(value.node), Op::Identity(_)) && is_output && graph.use_count(value) <= 1
}
