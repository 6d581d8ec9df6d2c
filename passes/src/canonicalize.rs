//! `canonicalize`: drops what computes nothing.
//!
//! Before:
//! ```text
//! %1 = identity(%0)
//! %2 = reshape(%1) {shape = [batch, 4, 1]}
//! %3 = reshape(%2) {shape = [batch, 4]}
//! %4 = binary(%3, %zero) {function = add}
//! ```
//! After: every reader of `%4` reads `%0`.
//!
//! It drops `identity`, `dropout` (with a warning that names it), casts to the same type, `expand`, `reshape`
//! and `transpose` that change nothing, the first of two reshapes, adding zero and multiplying by one,
//! slices of everything, a `concat` of one operand, and a convolution's bias that is a constant zero; and all
//! nodes that no output depends on. It leaves alone an addition of zero or a product with one that also
//! broadcasts, because the result has another shape; zero parameters, because training changes them; and what lies in
//! another order in memory than its operand, which is a copy that somebody wants.

use syncbn_ir::ops::{BinaryFunction, Reshape};
use syncbn_ir::{Graph, NodeId, Op, Value, Warning};

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, Rule, rewrite};

/// The pass.
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }

    fn summary(&self) -> &'static str {
        "drops what computes nothing: identities, dropout, empty reshapes, adding zero, dead nodes"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        rewrite(graph, RULES, cx)
    }
}

const RULES: &[Rule] = &[
    Rule {
        name: "drop-copy",
        matcher: drop_copy,
    },
    Rule {
        name: "reshape-of-reshape",
        matcher: reshape_of_reshape,
    },
    Rule {
        name: "drop-neutral-operand",
        matcher: drop_neutral_operand,
    },
    Rule {
        name: "drop-zero-bias",
        matcher: drop_zero_bias,
    },
];

/// Operators whose result is their first operand, in the same order in memory.
fn drop_copy(graph: &Graph, id: NodeId, cx: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let Some(x) = graph.operand(id, 0) else {
        return Ok(None);
    };
    if graph.try_type(x) != graph.try_type(id.into()) {
        return Ok(None);
    }
    let copy = match graph.op(id) {
        Op::Identity(_) | Op::Cast(_) | Op::Expand(_) | Op::Reshape(_) | Op::Slice(_) => true,
        Op::Dropout(op) => {
            if op.ratio > 0.0 {
                let name = &graph.node(id).name;
                let text = format!(
                    "ratio {} is left out: random dropout is not supported, so training keeps every element",
                    op.ratio
                );
                cx.warn(
                    Warning::new(text)
                        .at(format!("node \"{name}\" (dropout)"))
                        .help("export the network without the layer, or with ratio 0, if that is meant"),
                );
            }
            true
        }
        Op::Transpose(op) => op.permutation.iter().enumerate().all(|(i, &p)| i == p),
        Op::Concat(_) => graph.operands(id).len() == 1,
        _ => false,
    };
    Ok(copy.then(|| Patch::forward(id.into(), x)))
}

fn reshape_of_reshape(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let Op::Reshape(Reshape { shape }) = graph.op(id) else {
        return Ok(None);
    };
    let Some(inner) = graph
        .operand(id, 0)
        .filter(|v| matches!(graph.op(v.node), Op::Reshape(_)))
    else {
        return Ok(None);
    };
    let reshape = Reshape { shape: shape.clone() };
    let x = graph.operands(inner.node);
    Patch::replace_with(graph, id.into(), reshape, &x).map(Some)
}

/// The value that all elements of a constant share.
pub(crate) fn splat(graph: &Graph, v: Value) -> Option<f64> {
    match graph.op(v.node) {
        Op::Constant(c) => c.value.splat(),
        Op::Expand(_) | Op::Reshape(_) => splat(graph, graph.operand(v.node, 0)?),
        _ => None,
    }
}

fn drop_neutral_operand(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::Binary(op), &[a, b]) = (graph.op(id), graph.operands(id).as_slice()) else {
        return Ok(None);
    };
    let is = |v: Value, neutral: f64| splat(graph, v) == Some(neutral);
    let kept = match op.function {
        BinaryFunction::Add if is(b, 0.0) => a,
        BinaryFunction::Add if is(a, 0.0) => b,
        BinaryFunction::Sub if is(b, 0.0) => a,
        BinaryFunction::Mul if is(b, 1.0) => a,
        BinaryFunction::Mul if is(a, 1.0) => b,
        BinaryFunction::Div if is(b, 1.0) => a,
        _ => return Ok(None),
    };
    let same = graph.ty(kept) == graph.ty(id.into());
    Ok(same.then(|| Patch::forward(id.into(), kept)))
}

fn drop_zero_bias(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::Conv(conv), &[x, w, bias]) = (graph.op(id), graph.operands(id).as_slice()) else {
        return Ok(None);
    };
    if conv.moments || splat(graph, bias) != Some(0.0) {
        return Ok(None);
    }
    Patch::replace_with(graph, id.into(), conv.clone(), &[x, w]).map(Some)
}
