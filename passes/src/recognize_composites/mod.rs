//! `recognize-composites`: finds functions that a file spells out in primitive operators.
//!
//! Before:
//! ```text
//! %1 = unary(%0) {function = sigmoid}
//! %2 = binary(%0, %1) {function = mul}
//! ```
//! After:
//! ```text
//! %2 = unary(%0) {function = silu}
//! ```
//!
//! Likewise `hard_swish` is `x * hard_sigmoid(x)` with slope 1/6 and offset 1/2, and `x * clip(x + 3, 0, 6) / 6`
//! whatever is divided by 6.
//!
//! `gelu` is `x * 1/2 * (1 + erf(x / sqrt(2)))`, whatever is halved and whether the root divides or its inverse
//! multiplies.
//!
//! Either operand order matches. What others read too stays for them. It leaves alone a product with the gate of
//! another value (a squeeze-and-excitation block).
//!
//! A BatchNorm in primitive operators is found by the import (`crates/onnx`), before it decides which parameters are
//! trained: a running mean is otherwise a trained shift. Here it is too late, and such a graph is left alone.

mod gelu;

use syncbn_ir::ops::{BinaryFunction, Unary, UnaryFunction};
use syncbn_ir::{Graph, NodeId, Op, Value};

use crate::canonicalize::splat;
use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, Rule, rewrite};

/// The pass.
pub struct RecognizeComposites;

impl Pass for RecognizeComposites {
    fn name(&self) -> &'static str {
        "recognize-composites"
    }

    fn summary(&self) -> &'static str {
        "finds functions that a file spells out in primitive operators: silu, hard_swish, gelu"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let rules = [
            Rule {
                name: "silu",
                matcher: silu,
            },
            Rule {
                name: "hard-swish",
                matcher: hard_swish,
            },
            Rule {
                name: "gelu",
                matcher: gelu::gelu,
            },
        ];
        rewrite(graph, &rules, cx)
    }
}

/// The operands of a node in both orders, if it applies this function to two values.
fn either_order(graph: &Graph, id: NodeId, function: BinaryFunction) -> Vec<(Value, Value)> {
    match (graph.op(id), graph.operands(id).as_slice()) {
        (Op::Binary(op), &[a, b]) if op.function == function => vec![(a, b), (b, a)],
        _ => Vec::new(),
    }
}

/// The operand of a node that applies a function that `accepts`.
fn argument(graph: &Graph, v: Value, accepts: impl Fn(UnaryFunction) -> bool) -> Option<Value> {
    match graph.op(v.node) {
        Op::Unary(op) if accepts(op.function) => graph.operand(v.node, 0),
        _ => None,
    }
}

fn silu(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    for (x, gate) in either_order(graph, id, BinaryFunction::Mul) {
        if argument(graph, gate, |f| f == UnaryFunction::Sigmoid) == Some(x) {
            let function = UnaryFunction::Silu;
            return Patch::replace_with(graph, id.into(), Unary { function }, &[x]).map(Some);
        }
    }
    Ok(None)
}

fn hard_swish(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let products = either_order(graph, id, BinaryFunction::Mul).into_iter();
    // x * gate(x)
    let gated = products.clone().find(|&(x, gate)| is_gate(graph, gate, x));
    // (x * clip(x + 3, 0, 6)) / 6
    let divided = sixth(graph, id.into()).and_then(|product| {
        let mut orders = either_order(graph, product.node, BinaryFunction::Mul).into_iter();
        orders.find(|&(x, gate)| is_clip(graph, gate, x))
    });
    // (x / 6) * clip(x + 3, 0, 6)
    let scaled = products
        .filter_map(|(x, gate)| Some((sixth(graph, x)?, gate)))
        .find(|&(x, gate)| is_clip(graph, gate, x));
    match gated.or(divided).or(scaled) {
        // A constant of another shape can broadcast the product to a larger one.
        Some((x, _)) if graph.ty(x) == graph.ty(id.into()) => {
            let function = UnaryFunction::HardSwish;
            Patch::replace_with(graph, id.into(), Unary { function }, &[x]).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether `gate` is `min(max(x / 6 + 1/2, 0), 1)`, as a hard sigmoid or as `clip(x + 3, 0, 6) / 6`.
fn is_gate(graph: &Graph, gate: Value, x: Value) -> bool {
    // Exporters write 1/6 in float32.
    let slope = |alpha: f64| (alpha - 1.0 / 6.0).abs() <= 1e-8;
    let hard_sigmoid =
        |f| matches!(f, UnaryFunction::HardSigmoid { alpha, beta } if slope(alpha) && beta == 0.5);
    argument(graph, gate, hard_sigmoid) == Some(x)
        || sixth(graph, gate).is_some_and(|clip| is_clip(graph, clip, x))
}

/// Whether `clip` is `clip(x + 3, 0, 6)`.
fn is_clip(graph: &Graph, clip: Value, x: Value) -> bool {
    let relu6 = UnaryFunction::Clip { min: 0.0, max: 6.0 };
    let Some(sum) = argument(graph, clip, |f| f == relu6) else {
        return false;
    };
    let sums = either_order(graph, sum.node, BinaryFunction::Add);
    sums.into_iter()
        .any(|(a, three)| a == x && splat(graph, three) == Some(3.0))
}

/// The value that `v` is a sixth of.
fn sixth(graph: &Graph, v: Value) -> Option<Value> {
    if let Some(&(a, b)) = either_order(graph, v.node, BinaryFunction::Div).first() {
        return (splat(graph, b) == Some(6.0)).then_some(a);
    }
    let is_sixth = |value: f64| (value - 1.0 / 6.0).abs() <= 1e-8;
    let products = either_order(graph, v.node, BinaryFunction::Mul).into_iter();
    let mut whole = products.filter(|&(_, factor)| splat(graph, factor).is_some_and(is_sixth));
    whole.next().map(|(a, _)| a)
}
