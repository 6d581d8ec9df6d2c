//! What a convolution does to its result before it is written: adds a residual, applies a function.

use syncbn_ir::ops::{Binary, BinaryFunction, Conv};
use syncbn_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;
use crate::pass::PassContext;
use crate::rewrite::{Patch, PatchValue};

/// The convolution whose epilogue has room: nothing else reads its result, and it has no activation yet.
fn open_epilogue(graph: &Graph, y: Value) -> Option<&Conv> {
    match graph.op(y.node) {
        Op::Conv(conv) if conv.activation.is_none() && !conv.moments && graph.use_count(y) == 1 => Some(conv),
        _ => None,
    }
}

/// `conv + residual`
pub fn residual(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (
        Op::Binary(Binary {
            function: BinaryFunction::Add,
        }),
        &[a, b],
    ) = (graph.op(id), graph.operands(id).as_slice())
    else {
        return Ok(None);
    };
    for (y, r) in [(a, b), (b, a)] {
        let mut operands = graph.operands(y.node);
        let (Some(conv), 3) = (open_epilogue(graph, y), operands.len()) else {
            continue;
        };
        if graph.ty(y) == graph.ty(r) {
            operands.push(r);
            let operands: Vec<PatchValue> = operands.into_iter().map(PatchValue::Old).collect();
            let mut patch = Patch::default();
            let new = patch.add(graph, conv.clone(), &graph.node(y.node).name, &operands)?;
            patch.replace(id.into(), new);
            return Ok(Some(patch));
        }
    }
    Ok(None)
}

/// `activation(conv)`
pub fn activation(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::Unary(op), Some(y)) = (graph.op(id), graph.operand(id, 0)) else {
        return Ok(None);
    };
    let Some(conv) = open_epilogue(graph, y) else {
        return Ok(None);
    };
    let conv = Conv {
        activation: Some(op.function),
        ..conv.clone()
    };
    let mut patch = Patch::default();
    let operands: Vec<PatchValue> = graph.operands(y.node).into_iter().map(PatchValue::Old).collect();
    let new = patch.add(graph, conv, &graph.node(y.node).name, &operands)?;
    patch.replace(id.into(), new);
    Ok(Some(patch))
}
